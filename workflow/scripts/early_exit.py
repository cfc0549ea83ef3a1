"""Rules early_exit*: checkpoints -> early_exit.csv, early_exit.json of each run."""

from pathlib import Path

from ff.imports import heavy_imports
from ff.job_log import job
from ff.settings import ExecutionConfig

with heavy_imports():
    import torch

    from ff.assess.early_exit import run_early_exit
    from ff.data.prepared import open_prepared
    from ff.learn.devices import choose_device
    from ff.measure.devices import thread_counts

with job(*snakemake.log):
    measure = snakemake.params.measure
    torch.set_num_threads(thread_counts(measure["threads"])[0])
    device = choose_device(ExecutionConfig(device=snakemake.config["device"]))
    prepared = open_prepared(snakemake.input.data, snakemake.config["verify"])
    for model in snakemake.input.model:
        run_early_exit(Path(model).parent, prepared, device, repeats=measure["early_exit_repeats"])
