"""Training: of one run, or of several seeds of a cell as one batched problem."""

for jobs in jobs_of("train", ALL_CORES // config["threads"], TRAINING_GPUS):

    rule:
        name:
            jobs.rule
        input:
            data=PLAN.prepared_set,
            sidecar=PLAN.sidecar("train", jobs),
        output:
            jobs.paths(RESULTS, layout.TRAIN_FILES),
        log:
            jobs.logs(RESULTS),
        benchmark:
            f"{LOGS}/benchmarks/train/{jobs.title}.jsonl"
        wildcard_constraints:
            cell=jobs.cell,
        conda:
            "../envs/ff.yaml"
        threads: config["threads"]
        resources:
            mem_mb=PLAN.train_memory_mb(jobs),
            runtime=PLAN.train_minutes(jobs),
            gpu=TRAINING_GPUS,
        params:
            run=run_settings,
            code=lambda wildcards: training_code(PLAN.run(wildcards)),
        message:
            jobs.message
        script:
            "../workflow/scripts/train.py"
