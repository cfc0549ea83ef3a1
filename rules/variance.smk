"""Latency, throughput and energy of each run on each device, and how far the devices agree."""


rule measure:
    input:
        data=layout.prepared_set("{dataset}"),
        model=f"{RUN}/model.safetensors",
        sidecar=sidecar_of("measure"),
    output:
        in_run(MEASURE_FILES),
    log:
        f"{LOGS}/measure/{NAME}.log",
    benchmark:
        f"{LOGS}/benchmarks/measure/{NAME}.jsonl"
    conda:
        "../envs/cpu.yaml"
    # It takes times: nothing else of this workflow may run beside it.
    threads: measuring_threads
    resources:
        mem_mb=2000,
        runtime=120,
        gpu=MEASURING_GPUS,
    params:
        measure=measure_settings,
        code=code_of_run("workflow/scripts/measure.py"),
    message:
        RUN_MESSAGE
    script:
        "../workflow/scripts/measure.py"
