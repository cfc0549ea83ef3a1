"""Rules evaluate*: checkpoints and what training kept -> evaluation.json, distributions.csv of each run."""

from pathlib import Path

from ff.assess.evaluation import run_evaluation
from ff.data.prepared_header import read_header
from ff.job_log import job
from ff.settings import ExecutionConfig
from ff.workflow.gpus import one_gpu


def device():
    """What a network is asked on, where what its training kept is gone; till then there is no need of torch."""
    import torch

    from ff.learn.devices import choose_device

    torch.set_num_threads(snakemake.threads)
    return choose_device(ExecutionConfig(device=snakemake.config["device"]))


with job(*snakemake.log), one_gpu(snakemake.config["device"]):
    prepared = read_header(snakemake.input.data, snakemake.config["verify"])
    for model in snakemake.input.model:
        run_evaluation(Path(model).parent, prepared, device)
