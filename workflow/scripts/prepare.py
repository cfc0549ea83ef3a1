"""Rule prepare: raw files -> data/prepared/{dataset}.safetensors."""

from pathlib import Path

from ff.imports import heavy_imports
from ff.job_log import job

with heavy_imports():
    from ff.data.prepared import prepare

with job(*snakemake.log):
    prepare(
        snakemake.wildcards.dataset,
        snakemake.config["data_dir"],
        Path(snakemake.output[0]).parent,
        verify=snakemake.config["verify"],
    )
