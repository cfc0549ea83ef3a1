"""Rules hardware_of_*: hardware logs and phase marks of runs' jobs -> hardware.csv, hardware.json of each."""

from ff.hardware.summary import summarise, watched_log
from ff.job_log import job

with job(*snakemake.log):
    for phases, csv, json in zip(snakemake.input.phases, snakemake.output.csv, snakemake.output.json, strict=True):
        log = watched_log(snakemake.config["results"], phases, snakemake.params.job)
        summarise(log, phases, csv, json)
