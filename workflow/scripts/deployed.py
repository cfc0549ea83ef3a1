"""Rules deployed*: checkpoints, export/* -> export/deployed.json, deployed.csv of each run: early exit, measured."""

from pathlib import Path

from ff.imports import heavy_imports
from ff.job_log import job

with heavy_imports():
    from ff.data.prepared import open_prepared
    from ff.measure.apart import apart
    from ff.measure.deployed import run_deployed

settings = snakemake.params.measure


def measured(folder: Path) -> None:
    """Write what is measured of one run."""
    run_deployed(
        folder,
        open_prepared(snakemake.input.data, snakemake.config["verify"]),
        **{name: settings[name] for name in ("devices", "runtimes", "threads")},
        repeats=settings["early_exit_repeats"],
    )


with job(*snakemake.log):
    for model in snakemake.input.model:
        apart(measured, Path(model).parent)
