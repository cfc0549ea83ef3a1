"""Rule export: checkpoint, early_exit.json -> export/*: ONNX graphs, bundle.json, parity.json."""

from pathlib import Path

import torch

from ff.data.prepared import open_prepared
from ff.export.packages import require
from ff.job_log import job

with job(snakemake.log[0]):
    require()
    from ff.export.bundle import export_run

    torch.set_num_threads(1)
    export_run(Path(snakemake.input.model).parent, open_prepared(snakemake.input.data, snakemake.config["verify"]))
