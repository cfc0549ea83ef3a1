"""Rule page: summary tables and figures -> {collection}report.html."""

from pathlib import Path

from ff.jobs import job
from ff.report import write_report

with job(snakemake.log[0]):
    page = Path(snakemake.output[0])
    write_report(snakemake.config["results"], page.parent / "summary", page.parent / "figures", page)
