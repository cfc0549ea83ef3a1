"""Rules evaluate*: checkpoints -> evaluation.json, distributions.csv of each run."""

from pathlib import Path

from ff.imports import heavy_imports
from ff.job_log import job
from ff.settings import ExecutionConfig
from ff.workflow.gpus import one_gpu

with heavy_imports():
    import torch

    from ff.assess.evaluation import run_evaluation
    from ff.data.prepared import open_prepared
    from ff.learn.devices import choose_device

with job(*snakemake.log), one_gpu(snakemake.config["device"]):
    torch.set_num_threads(snakemake.threads)
    device = choose_device(ExecutionConfig(device=snakemake.config["device"]))
    prepared = open_prepared(snakemake.input.data, snakemake.config["verify"])
    for model in snakemake.input.model:
        run_evaluation(Path(model).parent, prepared, device)
