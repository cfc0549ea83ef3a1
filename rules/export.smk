"""The bundle of each run for devices without torch: ONNX graphs in float32 and int8."""

for jobs in jobs_of("export", ALL_CORES):

    rule:
        name:
            jobs.rule
        input:
            data=PLAN.prepared_set,
            model=jobs.paths(RESULTS, ["model.safetensors"]),
            early_exit=jobs.paths(RESULTS, ["early_exit.json"]),
        output:
            jobs.paths(RESULTS, layout.EXPORT_FILES),
        log:
            jobs.logs(RESULTS),
        benchmark:
            f"{LOGS}/benchmarks/export/{jobs.title}.jsonl"
        wildcard_constraints:
            **jobs.constraints,
        conda:
            "../envs/ff.yaml"
        resources:
            mem_mb=2000,
            runtime=10 * jobs.size,
        params:
            code=code_with_rule("workflow/scripts/export.py"),
        message:
            jobs.message
        script:
            "../workflow/scripts/export.py"
