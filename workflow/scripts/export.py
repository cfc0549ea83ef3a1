"""Rules export*: checkpoints, early_exit.json -> export/* of each run: ONNX graphs, bundle.json, parity.json."""

from pathlib import Path

from ff.export.packages import require
from ff.imports import heavy_imports
from ff.job_log import job

with job(*snakemake.log):
    require()
    with heavy_imports():
        import torch

        from ff.data.prepared import open_prepared
        from ff.export.bundle import export_run

    torch.set_num_threads(1)
    prepared = open_prepared(snakemake.input.data, snakemake.config["verify"])
    for model in snakemake.input.model:
        export_run(Path(model).parent, prepared)
