"""The sidecar: a hardware log beside each training and measuring job, and its summary.

The service form holds for these reasons (measured on Snakemake 9.27): `threads: 0`, or one core is not enough for
a job and its sidecar; no output but the service file, or the samples of a failed job are deleted; `exec`, or the
process outlives the job. The samples go to a file of their own, named in params: files named in `log:` are emptied
by a retry. The process that runs the shell is this one, and the sidecar is told which that is by a variable: a number
in params would make every call look like another workflow.
"""

os.environ.update(FF_WORKFLOW_PID=str(os.getpid()))


localrules:
    hardware_of_training,
    hardware_of_measurement,


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
        samples=layout.hardware_log(RESULTS, WILDCARDS, "{job}"),
        interval_ms=config["hw_interval_ms"],
        python=sys.executable,
    message:
        f"{RUN_MESSAGE}: {{wildcards.job}}"
    shell:
        'exec {params.python:q} -m ff.hardware.sidecar --parent "$FF_WORKFLOW_PID"'
        " --ready {output.ready:q} --log {params.samples:q} --interval-ms {params.interval_ms} 2> {log:q}"


rule hardware_of_training:
    input:
        f"{RUN}/metrics.json",
        phases=f"{RUN}/phases.csv",
    output:
        csv=f"{RUN}/hardware.csv",
        json=f"{RUN}/hardware.json",
    log:
        f"{LOGS}/hardware-summary/{NAME}/train.log",
    benchmark:
        f"{LOGS}/benchmarks/hardware/{NAME}/train.tsv"
    conda:
        "../envs/ff.yaml"
    params:
        samples=PLAN.training_samples,
        code=code("workflow/scripts/hardware.py"),
    message:
        RUN_MESSAGE
    script:
        "../workflow/scripts/hardware.py"


rule hardware_of_measurement:
    input:
        f"{RUN}/{layout.MEASURE_FOLDER}agreement.json",
        phases=f"{RUN}/{layout.MEASURE_FOLDER}phases.csv",
    output:
        csv=f"{RUN}/{layout.MEASURE_FOLDER}hardware.csv",
        json=f"{RUN}/{layout.MEASURE_FOLDER}hardware.json",
    log:
        f"{LOGS}/hardware-summary/{NAME}/measure.log",
    benchmark:
        f"{LOGS}/benchmarks/hardware/{NAME}/measure.tsv"
    conda:
        "../envs/ff.yaml"
    params:
        samples=layout.hardware_log(RESULTS, WILDCARDS, "measure"),
        code=code("workflow/scripts/hardware.py"),
    message:
        RUN_MESSAGE
    script:
        "../workflow/scripts/hardware.py"
