"""Rule tables: run folders -> {collection}summary/*.csv."""

from pathlib import Path

from ff.job_log import job
from ff.layout import RunKey, train_log
from ff.summary.tables import write_all

with job(*snakemake.log):
    write_all(
        snakemake.config["results"],
        map(RunKey.parse, snakemake.params.runs),
        Path(snakemake.output[0]).parent,
        train_log=train_log(snakemake.config["results"]),
    )
