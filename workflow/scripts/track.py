"""Rule track: results folder -> Weights & Biases; tracking.json says what became of each part."""

import sys
from pathlib import Path

from ff.errors import FFError
from ff.files import write_json
from ff.job_log import job
from ff.tracking import track

with job(*snakemake.log):
    params = snakemake.params
    lines = list(track(Path(snakemake.output[0]).parent, params.mode, params.project, params.entity))
    for line in lines:
        print(line["state"], line["part"], line["run"], line["url"] or line["run_id"], line["warning"] or "")
        if line["warning"]:
            print(f"ff: {line['warning']}", file=sys.__stderr__)
    if any(line["state"] == "failed" for line in lines):
        # What was mirrored is noted in the results folder's .tracked: the next call goes on from there.
        raise FFError("some parts were not mirrored; see above")
    write_json(snakemake.output[0], {"schema": 1, "parts": lines})
