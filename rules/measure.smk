"""Latency, throughput and energy of each run on each device, and how far the devices agree."""

for jobs in jobs_of("measure"):

    rule:
        name:
            jobs.rule
        input:
            data=PLAN.prepared_set,
            model=jobs.paths(RESULTS, ["model.safetensors"]),
            sidecar=PLAN.sidecar("measure", jobs),
            # Other runtimes than torch take the exported network.
            bundle=jobs.paths(RESULTS, PLAN.bundle),
        output:
            jobs.paths(RESULTS, PLAN.stages["measure"]),
        log:
            jobs.logs(RESULTS),
        benchmark:
            f"{LOGS}/benchmarks/measure/{jobs.title}.jsonl"
        wildcard_constraints:
            **jobs.constraints,
        conda:
            "../envs/ff.yaml"
        threads: ALL_CORES
        resources:
            mem_mb=2000,
            runtime=120 * jobs.size,
            gpu=MEASURING_GPUS,
        params:
            measure=PLAN.measure_settings,
            code=code_with_rule("workflow/scripts/measure.py"),
        message:
            jobs.message
        script:
            "../workflow/scripts/measure.py"


for jobs in jobs_of("deployed"):

    rule:
        name:
            jobs.rule
        input:
            data=PLAN.prepared_set,
            model=jobs.paths(RESULTS, ["model.safetensors"]),
            bundle=jobs.paths(RESULTS, layout.EXPORT_FILES[:1]),
        output:
            jobs.paths(RESULTS, layout.DEPLOYED_FILES),
        log:
            jobs.logs(RESULTS),
        benchmark:
            f"{LOGS}/benchmarks/deployed/{jobs.title}.jsonl"
        wildcard_constraints:
            **jobs.constraints,
        conda:
            "../envs/ff.yaml"
        threads: ALL_CORES
        resources:
            mem_mb=2000,
            runtime=30 * jobs.size,
            gpu=MEASURING_GPUS,
        params:
            measure=PLAN.measured_by(
                "devices", "runtimes", "threads", "early_exit_repeats"
            ),
            code=code_with_rule("workflow/scripts/deployed.py"),
        message:
            jobs.message
        script:
            "../workflow/scripts/deployed.py"
