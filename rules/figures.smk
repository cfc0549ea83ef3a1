"""Tables over all runs, figures, report. {collection} is empty for the grid and `demo/` for the demo."""


localrules:
    tables,
    page,


rule tables:
    input:
        lambda wildcards: of_runs(
            TRAIN_FILES + HARDWARE_FILES + EVALUATE_FILES + VARIANCE_FILES,
            wildcards.collection,
        ),
    output:
        expand(
            f"{RESULTS}/{{collection}}summary/{{table}}.csv",
            table=TABLES,
            allow_missing=True,
        ),
    log:
        f"{LOGS}/tables/{{collection}}tables.log",
    benchmark:
        f"{LOGS}/benchmarks/tables/{{collection}}tables.jsonl"
    conda:
        "../envs/cpu.yaml"
    params:
        runs=run_list,
        code=code("workflow/scripts/tables.py", *RULE_MODULES),
    message:
        "{rule} {wildcards.collection}"
    script:
        "../workflow/scripts/tables.py"


for family in FAMILIES:

    rule:
        name:
            f"figures_{family}"
        input:
            lambda wildcards, family=family: figure_inputs(wildcards.collection, family),
        output:
            *figure_outputs(family),
        log:
            f"{LOGS}/figures/{{collection}}{family}.log",
        benchmark:
            f"{LOGS}/benchmarks/figures/{{collection}}{family}.jsonl"
        conda:
            "../envs/cpu.yaml"
        params:
            runs=run_list,
            code=code(
                "workflow/scripts/figures.py", *RULE_MODULES, *drawing_modules(family)
            ),
        message:
            "{rule} {wildcards.collection}"
        script:
            "../workflow/scripts/figures.py"


rule page:
    input:
        lambda wildcards: figure_files(wildcards.collection),
        expand(
            f"{RESULTS}/{{collection}}summary/{{table}}.csv",
            table=TABLES,
            allow_missing=True,
        ),
    output:
        report(
            f"{RESULTS}/{{collection}}report.html",
            caption="../workflow/report/report.rst",
            category="Report",
        ),
    log:
        f"{LOGS}/report/{{collection}}report.log",
    benchmark:
        f"{LOGS}/benchmarks/report/{{collection}}report.jsonl"
    conda:
        "../envs/cpu.yaml"
    params:
        code=code("workflow/scripts/report.py", *RULE_MODULES),
    message:
        "{rule} {wildcards.collection}"
    script:
        "../workflow/scripts/report.py"
