"""Rule report_page: summary tables and figures -> {collection}report.html."""

from pathlib import Path

from ff.job_log import job
from ff.summary.report import write_report

with job(*snakemake.log):
    page = Path(snakemake.output[0])
    write_report(snakemake.config["results"], page.parent / "summary", page.parent / "figures", page)
