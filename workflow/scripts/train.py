"""Rules train and train_group: prepared data -> model, metrics, history and phase marks of a run."""

from dataclasses import replace
from pathlib import Path

from ff.learn.recipes import run_config_of
from ff.learn.run import train
from ff.phases import process_start_s
from ff.progress import Progress
from ff.settings import ExecutionConfig
from ff.workflow.gpus import one_gpu
from ff.workflow.jobs import hardware_log, job

settings = snakemake.config
run = run_config_of(snakemake.params.run)
seeds = snakemake.params.get("seeds", [run.seed])
execution = ExecutionConfig(
    device=settings["device"],
    threads=snakemake.threads,
    data_dir="",  # Snakemake has chosen the data, and that the run is to be made, maybe again.
    prepared_dir=str(Path(snakemake.input.data).parent),
    out=settings["results"],
    verify=settings["verify"],
    download=False,
    hw_interval_ms=settings["hw_interval_ms"],
    idle_s=settings["idle_s"],
    sidecar=settings["sidecar"],
)
log = hardware_log(settings["results"], replace(run, seed=seeds[0]).name, "train")
with job(snakemake.log[0]), one_gpu(settings["device"]), Progress(run.name) as progress:
    train(
        *(run, execution, seeds),
        say=progress.say,
        on_epoch=progress.epoch,
        hardware_log=log,
        summarise=False,
        overwrite=True,
        started_s=process_start_s(),
    )
