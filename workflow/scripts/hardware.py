"""Rules hardware_of_*: hardware log and phase marks of a job -> hardware.csv, hardware.json."""

from ff.hardware.summary import summarise
from ff.job_log import job

with job(snakemake.log[0]):
    summarise(snakemake.params.samples, snakemake.input.phases, snakemake.output.csv, snakemake.output.json)
