"""Rule deployed: checkpoint, export/* -> export/deployed.json, deployed.csv: early exit in each runtime, measured."""

from pathlib import Path

from ff.data.prepared import open_prepared
from ff.job_log import job
from ff.measure.deployed import run_deployed

with job(snakemake.log[0]):
    measure = snakemake.params.measure
    run_deployed(
        Path(snakemake.input.model).parent,
        open_prepared(snakemake.input.data, snakemake.config["verify"]),
        measure["devices"],
        measure["runtimes"],
        measure["threads"],
        measure["early_exit_repeats"],
    )
