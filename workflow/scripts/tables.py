"""Rule tables: run folders -> {collection}summary/*.csv."""

from pathlib import Path

from ff.summary.tables import Run, write_all
from ff.workflow.jobs import job, train_log

with job(snakemake.log[0]):
    parts = [name.split("/") for name in snakemake.params.runs]
    runs = [Run(dataset, layers, recipe, int(seed[4:])) for dataset, layers, recipe, seed in parts]
    write_all(
        snakemake.config["results"],
        runs,
        Path(snakemake.output[0]).parent,
        train_log=train_log(snakemake.config["results"]),
    )
