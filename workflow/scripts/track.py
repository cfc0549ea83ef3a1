"""Mirror finished runs to Weights & Biases and write what became of each part."""

import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from ff.files import write_json
from ff.tracking import track

with open(snakemake.log[0], "w") as log, redirect_stdout(log), redirect_stderr(log):
    params = snakemake.params
    lines = list(track(Path(snakemake.output.report).parent, params.mode, params.project, params.entity))
    for line in lines:
        print(line["state"], line["part"], line["run"], line["url"] or line["run_id"], line["warning"] or "")
for line in lines:
    if line["warning"]:
        print(f"ff: {line['warning']}", file=sys.stderr)
if any(line["state"] == "failed" for line in lines):
    # What was mirrored is noted in results/.tracked: the next call goes on from there.
    sys.exit("some parts were not mirrored; see the log")
write_json(snakemake.output.report, {"schema": 1, "parts": lines})
