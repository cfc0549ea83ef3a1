"""The sidecar: a hardware log beside each training and measuring job, and its summary.

The service form holds for these reasons (measured on Snakemake 9.27): `threads: 0`, or one core is not enough for
a job and its sidecar; no output but the service file, or the samples of a failed job are deleted; `exec`, or the
process outlives the job. The samples go to a file of their own, named in params: files named in `log:` are emptied
by a retry. The process that runs the shell is this one, and the sidecar is told which that is by a variable: a number
in params would make every call look like another workflow.
"""

os.environ.update(FF_WORKFLOW_PID=str(os.getpid()))


rule sidecar:
    output:
        ready=service(f"{RUN}/.sidecar-{{job}}"),
    log:
        f"{LOGS}/sidecar/{NAME}/{{job}}.log",
    conda:
        "../envs/ff.yaml"
    threads: 0
    resources:
        mem_mb=50,
    params:
        samples=layout.hardware_log(RESULTS, layout.WILDCARDS, "{job}"),
        interval_ms=config["hw_interval_ms"],
        python=sys.executable,
    message:
        f"sidecar {NAME}: {{job}}".replace("{", "{wildcards.")
    shell:
        'exec {params.python:q} -m ff.hardware.sidecar --parent "$FF_WORKFLOW_PID"'
        " --ready {output.ready:q} --log {params.samples:q} --interval-ms {params.interval_ms} 2> {log:q}"


for jobs in jobs_of("hardware_of_training", ALL_CORES):

    rule:
        name:
            jobs.rule
        input:
            metrics=jobs.paths(RESULTS, ["metrics.json"]),
            phases=jobs.paths(RESULTS, ["phases.csv"]),
        output:
            csv=jobs.paths(RESULTS, ["hardware.csv"]),
            json=jobs.paths(RESULTS, ["hardware.json"]),
        log:
            jobs.logs(RESULTS),
        benchmark:
            f"{LOGS}/benchmarks/hardware_of_training/{jobs.title}.tsv"
        wildcard_constraints:
            cell=jobs.cell,
        localrule: True
        conda:
            "../envs/ff.yaml"
        params:
            job="train",
            code=code("workflow/scripts/hardware.py"),
        message:
            jobs.message
        script:
            "../workflow/scripts/hardware.py"


for jobs in jobs_of("hardware_of_measurement", ALL_CORES):

    rule:
        name:
            jobs.rule
        input:
            agreement=jobs.paths(RESULTS, [f"{layout.MEASURE_FOLDER}agreement.json"]),
            phases=jobs.paths(RESULTS, [f"{layout.MEASURE_FOLDER}phases.csv"]),
        output:
            csv=jobs.paths(RESULTS, [f"{layout.MEASURE_FOLDER}hardware.csv"]),
            json=jobs.paths(RESULTS, [f"{layout.MEASURE_FOLDER}hardware.json"]),
        log:
            jobs.logs(RESULTS),
        benchmark:
            f"{LOGS}/benchmarks/hardware_of_measurement/{jobs.title}.tsv"
        wildcard_constraints:
            cell=jobs.cell,
        localrule: True
        conda:
            "../envs/ff.yaml"
        params:
            job="measure",
            code=code("workflow/scripts/hardware.py"),
        message:
            jobs.message
        script:
            "../workflow/scripts/hardware.py"
