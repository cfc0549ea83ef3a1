"""Rule evaluate: checkpoint -> evaluation.json, distributions.csv."""

from pathlib import Path

import torch

from ff.assess.evaluation import run_evaluation
from ff.data.prepared import open_prepared
from ff.learn.devices import choose_device
from ff.settings import ExecutionConfig
from ff.workflow.gpus import one_gpu
from ff.workflow.jobs import job

with job(snakemake.log[0]), one_gpu(snakemake.config["device"]):
    torch.set_num_threads(snakemake.threads)
    device = choose_device(ExecutionConfig(device=snakemake.config["device"]))
    prepared = open_prepared(snakemake.input.data, snakemake.config["verify"])
    run_evaluation(Path(snakemake.input.model).parent, prepared, device)
