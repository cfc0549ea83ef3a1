"""Tables over all runs, figures, report. {collection} is empty for the grid and `demo/` for the demo."""


localrules:
    tables,
    report_page,


rule tables:
    input:
        lambda wildcards: PLAN.asked(PLAN.run_files, wildcards.collection),
    output:
        layout.tables(RESULTS, "{collection}"),
    log:
        f"{LOGS}/tables/{{collection}}tables.log",
    benchmark:
        f"{LOGS}/benchmarks/tables/{{collection}}tables.jsonl"
    conda:
        "../envs/ff.yaml"
    params:
        runs=PLAN.names,
        code=code_of_all_runs("workflow/scripts/tables.py"),
    message:
        "{rule} {wildcards.collection}"
    script:
        "../workflow/scripts/tables.py"


for family in FAMILIES:

    rule:
        name:
            f"figures_{family}"
        input:
            lambda wildcards, family=family: PLAN.figure_inputs(
                wildcards.collection, family
            ),
        output:
            *marked(family),
        log:
            f"{LOGS}/figures/{{collection}}{family}.log",
        benchmark:
            f"{LOGS}/benchmarks/figures/{{collection}}{family}.jsonl"
        conda:
            "../envs/ff.yaml"
        params:
            runs=PLAN.names,
            code=code_of_all_runs("workflow/scripts/figures.py", family),
        message:
            "{rule} {wildcards.collection}"
        script:
            "../workflow/scripts/figures.py"


rule report_page:
    input:
        lambda wildcards: PLAN.figures(wildcards.collection),
        layout.tables(RESULTS, "{collection}"),
    output:
        report(
            layout.report(RESULTS, "{collection}"),
            caption="../workflow/report/report.rst",
            category="Report",
        ),
    log:
        f"{LOGS}/report/{{collection}}report.log",
    benchmark:
        f"{LOGS}/benchmarks/report/{{collection}}report.jsonl"
    conda:
        "../envs/ff.yaml"
    params:
        code=code_of_all_runs("workflow/scripts/report.py"),
    message:
        "{rule} {wildcards.collection}"
    script:
        "../workflow/scripts/report.py"
