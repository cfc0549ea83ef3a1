"""The bundle of each run for devices without torch: ONNX graphs in float32 and int8."""


rule export:
    input:
        data=layout.prepared_set("{dataset}"),
        model=f"{RUN}/model.safetensors",
        early_exit=f"{RUN}/early_exit.json",
    output:
        PLAN.in_run(layout.EXPORT_FILES),
    log:
        f"{LOGS}/export/{NAME}.log",
    benchmark:
        f"{LOGS}/benchmarks/export/{NAME}.jsonl"
    conda:
        "../envs/ff.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        code=code_with_rule("workflow/scripts/export.py"),
    message:
        RUN_MESSAGE
    script:
        "../workflow/scripts/export.py"
