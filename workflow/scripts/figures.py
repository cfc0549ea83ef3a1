"""Rules figures_*: summary tables and run files -> PNG and SVG of each figure of a family."""

from pathlib import Path

from ff.job_log import job
from ff.summary.figures import build, save

with job(*snakemake.log):
    for path in map(Path, snakemake.output):
        if path.suffix == ".png":
            summary = path.parent.parent / "summary"
            save(build(path.stem, summary, snakemake.config["results"]), path.with_suffix(""))
