"""Rules train*: prepared data -> model, metrics, history and phase marks of a run, or of each run of a group."""

from pathlib import Path

from ff.imports import heavy_imports
from ff.job_log import job
from ff.layout import RunKey, hardware_log
from ff.learn.recipes import run_config_of
from ff.phases import process_start_s
from ff.progress import Progress
from ff.settings import ExecutionConfig
from ff.workflow.gpus import one_gpu

with heavy_imports():
    from ff.learn.run import train

settings = snakemake.config
keys = [
    RunKey.parse("/".join(Path(path).parts[-5:])) for path in snakemake.output if path.endswith("/model.safetensors")
]
run = run_config_of({**snakemake.params.run, "seed": keys[0].seed})
execution = ExecutionConfig(
    threads=snakemake.threads,
    data_dir="",  # Snakemake has chosen the data, and that the run is to be made, maybe again.
    prepared_dir=str(Path(snakemake.input.data).parent),
    out=settings["results"],
    download=False,
    **{name: settings[name] for name in ("device", "verify", "hw_interval_ms", "idle_s", "sidecar")},
)
with job(*snakemake.log), one_gpu(settings["device"]), Progress(run.name) as progress:
    train(
        *(run, execution, [key.seed for key in keys]),
        say=progress.say,
        on_epoch=progress.epoch,
        hardware_log=hardware_log(settings["results"], keys[0], "train"),
        summarise=False,
        overwrite=True,
        started_s=process_start_s(),
    )
