"""Rule evaluate: checkpoint -> evaluation.json, distributions.csv."""

from pathlib import Path

import torch

from ff.config import ExecutionConfig
from ff.datasets import open_prepared
from ff.devices import choose_device
from ff.evaluation import run_evaluation
from ff.gpus import one_gpu
from ff.jobs import job

with job(snakemake.log[0]), one_gpu(snakemake.config["device"]):
    torch.set_num_threads(snakemake.threads)
    device = choose_device(ExecutionConfig(device=snakemake.config["device"]))
    prepared = open_prepared(snakemake.input.data, snakemake.config["verify"])
    run_evaluation(Path(snakemake.input.model).parent, prepared, device)
