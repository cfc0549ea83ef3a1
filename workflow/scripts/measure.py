"""Rule measure: checkpoint -> variance/*: times and energy on each device, agreement of the devices."""

from pathlib import Path

import torch

from ff.datasets import open_prepared
from ff.hardware.recorder import record
from ff.jobs import hardware_log, job
from ff.timing import run_agreement, run_measurement

folder = Path(snakemake.input.model).parent
measure = snakemake.params.measure
run = "{dataset}/{layers}/{recipe}/seed{seed}".format(**dict(snakemake.wildcards.items()))
log = hardware_log(snakemake.config["results"], run, "measure")
inline = snakemake.config["sidecar"] == "inline"
with job(snakemake.log[0]), record(log, snakemake.config["hw_interval_ms"], enabled=inline):
    torch.set_num_threads(measure["threads"])
    prepared = open_prepared(snakemake.input.data, snakemake.config["verify"])
    run_measurement(
        folder,
        prepared,
        devices=measure["devices"],
        batch_sizes=measure["batch_sizes"],
        repeats=measure["repeats"],
        single_samples=measure["single_samples"],
    )
    run_agreement(folder, prepared)
