"""What the rules use of Snakemake beyond its documented interface is there and means what it did."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import snakemake
from snakemake import cli, dag  # noqa: F401 - dag alone would be imported in a circle
from snakemake.io import IOFile
from snakemake.output_index import OutputIndex

from ff.workflow.snakemake_internals import WRITTEN_FOR, find_rules_by_suffix

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


class Rule(NamedTuple):
    name: str
    files: list

    def products(self):
        return self.files

    def __hash__(self):
        return hash(self.name)


def test_rules_are_found_by_suffix_that_snakemake_finds_by_prefix(monkeypatch):
    monkeypatch.setattr(dag, "OutputIndex", OutputIndex)
    find_rules_by_suffix()
    patterns = {
        "group": ["results/{cell}/seed0/a", "results/{cell}/seed1/a"],
        "alone": ["results/{dataset}/{layers}/seed{seed}/a"],
        "tables": ["results/{collection}summary/a.csv", "results/{collection}summary/b.csv"],
        "prepare": ["data/{dataset}.safetensors"],
        "folder": ["results/{any}"],
        "whole": ["results/tracking.json"],
    }
    rules = [Rule(name, [IOFile(file, None) for file in files]) for name, files in patterns.items()]
    files = [
        "results/D/1-2/ff/seed0/a",
        "results/D/1-2/seed10/a",
        "results/demo/summary/a.csv",
        "results/tracking.json",
    ]
    files += ["data/D.safetensors", "results/D/1-2/ff/seed1/b", "elsewhere/D/1-2/ff/seed0/a", "a", ""]
    by_prefix, by_suffix = OutputIndex(rules), dag.OutputIndex(rules)
    assert type(by_suffix) is not OutputIndex
    for file in files:
        found = {rule.name for rule in by_suffix.match(file)}
        assert found == {rule.name for rule in by_prefix.match(file)}
    assert {rule.name for rule in by_suffix.match(files[0])} == {"group", "alone", "folder"}


LOOKS = """
import json
from pathlib import Path
from snakemake.scheduling.job_scheduler import JobScheduler
from ff.workflow import snakemake_internals as internals

started = []
if internals.is_main(workflow):
    real = JobScheduler._schedule_reevalutation
    JobScheduler._schedule_reevalutation = lambda *arguments: (started.append(1), real(*arguments))
    internals.look_again_only_where_starts_wait()

rule all:
    input: expand("{i}", i=range(8))

rule one:
    output: "{i}"
    wildcard_constraints: i=r"\\d"
    shell: "touch {output}"

onsuccess:
    Path("looks.json").write_text(json.dumps(len(started)))
"""


@pytest.mark.parametrize(("limit", "waits"), [("100/1s", False), ("2/1s", True)])
def test_open_jobs_are_looked_at_again_only_where_starts_wait_for_a_limit(tmp_path, limit, waits):
    (tmp_path / "Snakefile").write_text(LOOKS)
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--max-jobs-per-timespan", limit]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.glob("[0-9]")) == list("01234567")
    assert (json.loads((tmp_path / "looks.json").read_text()) > 0) == waits
