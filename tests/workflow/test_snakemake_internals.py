"""What the rules use of Snakemake beyond its documented interface is there and means what it did."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import snakemake

from ff.workflow.snakemake_internals import WRITTEN_FOR

SNAKEFILE = """
import json
from pathlib import Path
from ff.workflow import snakemake_internals as internals

if internals.is_main(workflow):
    internals.limit(workflow, "gpu", 2)
    internals.limit(workflow, "slots", 2)
    Path("start.json").write_text(json.dumps({
        "here": internals.jobs_run_here(workflow),
        "cores": internals.all_cores(workflow),
        "said": [internals.said_on_command_line(workflow, key) for key in ("word", "other")],
        "limits": [workflow.global_resources[name].value for name in ("gpu", "slots")],
    }))

rule all:
    input: "demo/table"

rule tables:
    input: "kept"
    output: "{collection}table"
    log: "{collection}tables.log"
    message: "tables {wildcards.collection}"
    shell: "exit 1"

rule kept:
    output: "kept"
    log: "kept.log"
    shell: "touch {output}"

onerror:
    internals.forget(workflow, "kept")
    Path("end.json").write_text(json.dumps({
        "failed": internals.failed_jobs(workflow),
        "planned": sorted([job.rule, job.collection, sorted(job.outputs)] for job in internals.planned_jobs(workflow)),
    }))
"""


def test_snakemake_is_of_the_version_that_the_internals_were_written_for():
    found = snakemake.__version__
    assert found.startswith(f"{WRITTEN_FOR}."), (
        f"Snakemake {found} is installed; see whether ff/workflow/snakemake_internals.py still holds, then say so there"
    )


def test_the_internals_say_what_a_call_is_and_what_became_of_its_jobs(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--resources", "slots=9", "--config", "word=1"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}

    def call():
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True).stderr

    text = call()
    lacks = f"ff/workflow/snakemake_internals.py, written for Snakemake {WRITTEN_FOR}, does not fit: {text}"
    assert (tmp_path / "end.json").exists(), lacks
    start = json.loads((tmp_path / "start.json").read_text())
    assert start == {"here": True, "cores": 2, "said": [1, None], "limits": [2, 9]}
    end = json.loads((tmp_path / "end.json").read_text())
    assert end["failed"] == [["tables", "tables demo/", "demo/tables.log"]]
    assert end["planned"] == [["all", None, []], ["kept", None, ["kept"]], ["tables", "demo/", ["demo/table"]]]
    # Nothing is known any more of the file that was forgotten: it is named by its path in base 64.
    assert base64.b64encode(b"kept").decode() not in {path.name for path in tmp_path.rglob(".snakemake/metadata/*")}
    assert (tmp_path / "kept").exists()
