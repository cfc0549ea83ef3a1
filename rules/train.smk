"""One training job a run; or, with `group_seeds`, one for all of the grid's seeds of a cell."""


rule train:
    input:
        data=layout.prepared_set("{dataset}"),
        sidecar=PLAN.sidecar("train"),
    output:
        PLAN.in_run(layout.TRAIN_FILES),
    log:
        layout.train_log(RESULTS),
    benchmark:
        f"{LOGS}/benchmarks/train/{NAME}.jsonl"
    conda:
        "../envs/ff.yaml"
    threads: config["threads"]
    resources:
        mem_mb=PLAN.train_memory_mb,
        runtime=PLAN.train_minutes,
        gpu=TRAINING_GPUS,
    params:
        run=run_settings,
        code=lambda wildcards: training_code(PLAN.run(wildcards)),
    message:
        RUN_MESSAGE
    script:
        "../workflow/scripts/train.py"


if PLAN.group_seeds:

    ruleorder: train_group > train

    use rule train as train_group with:
        output:
            PLAN.in_group(layout.TRAIN_FILES),
        log:
            layout.train_log(RESULTS, grouped=True),
        benchmark:
            f"{LOGS}/benchmarks/train/{WILDCARDS.cell}/group.jsonl"
        params:
            run=run_settings,
            seeds=PLAN.group_seeds,
            code=lambda wildcards: training_code(PLAN.run(wildcards)),
        message:
            CELL_MESSAGE
