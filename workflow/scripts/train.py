"""Rules train and train_group: prepared data -> model, metrics, history and phase marks of a run."""

from dataclasses import replace
from pathlib import Path

from ff.config import ExecutionConfig, run_config_of
from ff.jobs import hardware_log, job
from ff.phases import process_start_s
from ff.progress import Progress
from ff.run import train

settings = snakemake.config
run = run_config_of(snakemake.params.run)
seeds = snakemake.params.get("seeds", [run.seed])
execution = ExecutionConfig(
    device=settings["device"],
    threads=snakemake.threads,
    prepared_dir=str(Path(snakemake.input.data).parent),
    out=settings["results"],
    verify=settings["verify"],
    download=False,
    hw_interval_ms=settings["hw_interval_ms"],
)
first = replace(run, seed=seeds[0]).name
with job(snakemake.log[0]), Progress(run.name) as progress:
    train(
        run,
        execution,
        seeds,
        say=progress.say,
        on_epoch=progress.epoch,
        hardware_log=hardware_log(settings["results"], first, "train"),
        inline_monitor=settings["sidecar"] == "inline",
        summarise=False,
        # Snakemake has decided that the run is to be made again.
        overwrite=True,
        started_s=process_start_s(),
    )
