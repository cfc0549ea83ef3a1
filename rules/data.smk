"""Prepare each data set once."""


localrules:
    prepare,


rule prepare:
    input:
        other_raw_data,
    output:
        layout.prepared_set("{dataset}"),
    log:
        f"{LOGS}/prepare/{{dataset}}.log",
    benchmark:
        f"{LOGS}/benchmarks/prepare/{{dataset}}.tsv"
    retries: 1
    conda:
        "../envs/cpu.yaml"
    resources:
        mem_mb=3000,
        runtime=60,
    params:
        code=code("workflow/scripts/prepare.py"),
    message:
        "{rule} {wildcards.dataset}"
    script:
        "../workflow/scripts/prepare.py"
