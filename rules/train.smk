"""One training job a run; or, with `group_seeds`, one for all of the grid's seeds of a cell."""

if GROUP_SEEDS:

    ruleorder: train_group > train

    rule train_group:
        input:
            data="data/prepared/{dataset}.safetensors",
            sidecar=sidecar_of("train"),
        output:
            expand(
                f"{CELL}/seed{{seed}}/{{file}}",
                seed=GROUP_SEEDS,
                file=TRAIN_FILES,
                allow_missing=True,
            ),
        log:
            train_log(RESULTS, grouped=True),
        benchmark:
            f"{LOGS}/benchmarks/train/{{dataset}}/{{layers}}/{{recipe}}/group.jsonl"
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
        data="data/prepared/{dataset}.safetensors",
        sidecar=sidecar_of("train"),
    output:
        expand(f"{RUN}/{{file}}", file=TRAIN_FILES, allow_missing=True),
    log:
        f"{LOGS}/train/{NAME}.log",
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
