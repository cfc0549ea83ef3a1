"""Accuracy, distributions and early exit of each run, from its checkpoint."""

for jobs in jobs_of("evaluate", ALL_CORES, TRAINING_GPUS):

    rule:
        name:
            jobs.rule
        input:
            data=PLAN.prepared_set,
            model=jobs.paths(RESULTS, ["model.safetensors"]),
        output:
            jobs.paths(RESULTS, layout.EVALUATE_FILES),
        log:
            jobs.logs(RESULTS),
        benchmark:
            f"{LOGS}/benchmarks/evaluate/{jobs.title}.jsonl"
        wildcard_constraints:
            **jobs.constraints,
        conda:
            "../envs/ff.yaml"
        resources:
            mem_mb=2000,
            runtime=10 * jobs.size,
            gpu=TRAINING_GPUS,
        params:
            code=code_with_rule("workflow/scripts/evaluate.py"),
        message:
            jobs.message
        script:
            "../workflow/scripts/evaluate.py"


for jobs in jobs_of("early_exit"):

    rule:
        name:
            jobs.rule
        input:
            data=PLAN.prepared_set,
            model=jobs.paths(RESULTS, ["model.safetensors"]),
        output:
            jobs.paths(RESULTS, layout.EARLY_EXIT_FILES),
        log:
            jobs.logs(RESULTS),
        benchmark:
            f"{LOGS}/benchmarks/early_exit/{jobs.title}.jsonl"
        wildcard_constraints:
            **jobs.constraints,
        conda:
            "../envs/ff.yaml"
        threads: ALL_CORES
        resources:
            mem_mb=2000,
            runtime=20 * jobs.size,
            gpu=TRAINING_GPUS,
        params:
            measure=PLAN.measured_by("threads", "early_exit_repeats"),
            code=code_with_rule("workflow/scripts/early_exit.py"),
        message:
            jobs.message
        script:
            "../workflow/scripts/early_exit.py"
