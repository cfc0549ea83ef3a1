"""Accuracy, distributions and early exit of each run, from its checkpoint."""


rule evaluate:
    input:
        data=layout.prepared_set("{dataset}"),
        model=f"{RUN}/model.safetensors",
    output:
        in_run(EVALUATE_FILES),
    log:
        f"{LOGS}/evaluate/{NAME}.log",
    benchmark:
        f"{LOGS}/benchmarks/evaluate/{NAME}.jsonl"
    conda:
        "../envs/cpu.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
        gpu=TRAINING_GPUS,
    params:
        code=code_of_run("workflow/scripts/evaluate.py"),
    message:
        RUN_MESSAGE
    script:
        "../workflow/scripts/evaluate.py"


rule early_exit:
    input:
        data=layout.prepared_set("{dataset}"),
        model=f"{RUN}/model.safetensors",
    output:
        in_run(EARLY_EXIT_FILES),
    log:
        f"{LOGS}/early_exit/{NAME}.log",
    benchmark:
        f"{LOGS}/benchmarks/early_exit/{NAME}.jsonl"
    conda:
        "../envs/cpu.yaml"
    # It takes times: nothing else of this workflow may run beside it.
    threads: measuring_threads
    resources:
        mem_mb=2000,
        runtime=20,
        gpu=TRAINING_GPUS,
    params:
        measure=measure_settings,
        code=code_of_run("workflow/scripts/early_exit.py"),
    message:
        RUN_MESSAGE
    script:
        "../workflow/scripts/early_exit.py"
