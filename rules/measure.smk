"""Latency, throughput and energy of each run on each device, and how far the devices agree."""


rule measure:
    input:
        data=layout.prepared_set("{dataset}"),
        model=f"{RUN}/model.safetensors",
        sidecar=PLAN.sidecar("measure"),
        # Other runtimes than torch take the exported network.
        bundle=PLAN.in_run(layout.EXPORT_FILES[:1]) if PLAN.runtimes else [],
    output:
        PLAN.in_run(layout.measure_files(PLAN.devices, PLAN.runtimes)),
    log:
        f"{LOGS}/measure/{NAME}.log",
    benchmark:
        f"{LOGS}/benchmarks/measure/{NAME}.jsonl"
    conda:
        "../envs/ff.yaml"
    threads: ALL_CORES
    resources:
        mem_mb=2000,
        runtime=120,
        gpu=MEASURING_GPUS,
    params:
        measure=PLAN.measure_settings,
        code=code_with_rule("workflow/scripts/measure.py"),
    message:
        RUN_MESSAGE
    script:
        "../workflow/scripts/measure.py"


rule deployed:
    input:
        data=layout.prepared_set("{dataset}"),
        model=f"{RUN}/model.safetensors",
        bundle=f"{RUN}/{layout.EXPORT_FILES[0]}",
    output:
        PLAN.in_run(layout.DEPLOYED_FILES),
    log:
        f"{LOGS}/deployed/{NAME}.log",
    benchmark:
        f"{LOGS}/benchmarks/deployed/{NAME}.jsonl"
    conda:
        "../envs/ff.yaml"
    threads: ALL_CORES
    resources:
        mem_mb=2000,
        runtime=30,
        gpu=MEASURING_GPUS,
    params:
        measure=PLAN.measured_by("devices", "runtimes", "threads", "early_exit_repeats"),
        code=code_with_rule("workflow/scripts/deployed.py"),
    message:
        RUN_MESSAGE
    script:
        "../workflow/scripts/deployed.py"
