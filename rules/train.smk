"""One training job a run; or, with `group_seeds`, one for all of the grid's seeds of a cell."""

if GROUP_SEEDS:

    ruleorder: train_group > train

    rule train_group:
        input:
            data=layout.prepared_set("{dataset}"),
            sidecar=sidecar_of("train"),
        output:
            [
                file
                for seed in GROUP_SEEDS
                for file in in_run(TRAIN_FILES, WILDCARDS._replace(seed=seed))
            ],
        log:
            layout.train_log(RESULTS, grouped=True),
        benchmark:
            f"{LOGS}/benchmarks/train/{WILDCARDS.cell}/group.jsonl"
        conda:
            "../envs/cpu.yaml"
        threads: config["threads"]
        resources:
            mem_mb=train_memory_mb,
            runtime=train_minutes,
            gpu=TRAINING_GPUS,
        params:
            run=run_settings,
            seeds=GROUP_SEEDS,
            code=TRAINING_CODE,
        message:
            "{rule} {wildcards.dataset}/{wildcards.layers}/{wildcards.recipe}"
        script:
            "../workflow/scripts/train.py"


rule train:
    input:
        data=layout.prepared_set("{dataset}"),
        sidecar=sidecar_of("train"),
    output:
        in_run(TRAIN_FILES),
    log:
        layout.train_log(RESULTS),
    benchmark:
        f"{LOGS}/benchmarks/train/{NAME}.jsonl"
    conda:
        "../envs/cpu.yaml"
    threads: config["threads"]
    resources:
        mem_mb=train_memory_mb,
        runtime=train_minutes,
        gpu=TRAINING_GPUS,
    params:
        run=run_settings,
        code=TRAINING_CODE,
    message:
        RUN_MESSAGE
    script:
        "../workflow/scripts/train.py"
