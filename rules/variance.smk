"""Latency, throughput and energy of each run on each device, and how far the devices agree."""


rule measure:
    input:
        data="data/prepared/{dataset}.safetensors",
        model=f"{RUN}/model.safetensors",
        sidecar=sidecar_of("measure"),
    output:
        expand(
            f"{RUN}/variance/{{device}}.{{kind}}",
            device=DEVICES,
            kind=["csv", "json"],
            allow_missing=True,
        ),
        f"{RUN}/variance/phases.csv",
        f"{RUN}/variance/agreement.json",
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
        gpu=GPUS,
    params:
        measure=measure_settings,
        code=code(
            "labels.py",
            "network.py",
            "datasets.py",
            "checkpoint.py",
            "inference.py",
            "statistics.py",
            "hardware/energy.py",
            "measure/*.py",
        ),
    script:
        "../workflow/scripts/measure.py"
