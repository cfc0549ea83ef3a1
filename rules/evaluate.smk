"""Accuracy, distributions and early exit of each run, from its checkpoint."""


rule evaluate:
    input:
        data=layout.prepared_set("{dataset}"),
        model=f"{RUN}/model.safetensors",
    output:
        PLAN.in_run(layout.EVALUATE_FILES),
    log:
        f"{LOGS}/evaluate/{NAME}.log",
    benchmark:
        f"{LOGS}/benchmarks/evaluate/{NAME}.jsonl"
    conda:
        "../envs/ff.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
        gpu=TRAINING_GPUS,
    params:
        code=code_with_rule("workflow/scripts/evaluate.py"),
    message:
        RUN_MESSAGE
    script:
        "../workflow/scripts/evaluate.py"


rule early_exit:
    input:
        data=layout.prepared_set("{dataset}"),
        model=f"{RUN}/model.safetensors",
    output:
        PLAN.in_run(layout.EARLY_EXIT_FILES),
    log:
        f"{LOGS}/early_exit/{NAME}.log",
    benchmark:
        f"{LOGS}/benchmarks/early_exit/{NAME}.jsonl"
    conda:
        "../envs/ff.yaml"
    threads: ALL_CORES
    resources:
        mem_mb=2000,
        runtime=20,
        gpu=TRAINING_GPUS,
    params:
        measure=PLAN.measured_by("threads", "early_exit_repeats"),
        code=code_with_rule("workflow/scripts/early_exit.py"),
    message:
        RUN_MESSAGE
    script:
        "../workflow/scripts/early_exit.py"
