"""The grid on a real Slurm of one node, through profiles/slurm. Skips, with the reason, where none can be had."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from dag_project import TINY, Project

SCRIPT = Path(__file__).with_name("one_node.sh")
FAST = ("--seconds-between-status-checks", "2", "--slurm-init-seconds-before-status-checks", "2")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A Slurm that runs, and is stopped after the test."""
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("snakemake-executor-plugin-slurm is not installed")
    monkeypatch.setenv("FF_SLURM_DIR", str(tmp_path / "slurm"))
    started = subprocess.run([SCRIPT, "start"], capture_output=True, text=True)
    if started.returncode == 77:
        pytest.skip(started.stdout.strip().splitlines()[-1])
    assert started.returncode == 0, started.stdout + started.stderr
    yield
    subprocess.run([SCRIPT, "stop"], check=True)


def queue(fields: str) -> list[list[str]]:
    """A row for each job that Slurm has seen."""
    text = subprocess.run(["squeue", "-h", "-t", "all", "-o", fields], capture_output=True, text=True, check=True)
    return [line.split() for line in text.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_grid_runs_on_slurm_with_hardware_logs_from_the_node(slurm, tmp_path):
    project = Project.new(tmp_path / "project", hw_interval_ms=100)
    project.write(
        "config/demo.yaml", yaml.safe_dump({"grid": {**TINY["grid"], "recipe": ["ff", "bp"], "seed": [0, 3]}})
    )
    profile = ("--profile", "profiles/slurm")
    project.snakemake("demo", *profile, *FAST, "--jobs", "4")
    assert (project.folder / "results/demo/report.html").exists()
    for recipe in ("ff", "bp"):
        # The seeds of a cell are trained by one job, whose node knows them from its command line.
        run = project.folder / f"results/DIGITS/784-20/{recipe}/seed0"
        assert json.loads((run / "metrics.json").read_text())["provenance"]["group_seeds"] == [0, 3]
        for work, summary in (("train", run / "hardware.json"), ("measure", run / "variance/hardware.json")):
            log = project.folder / f"logs/hardware/DIGITS/784-20/{recipe}/seed0/{work}.jsonl"
            assert json.loads(log.read_text().splitlines()[0])["mode"] == "service"
            assert json.loads(summary.read_text())["samples"] > 0
    states = [state for (state,) in queue("%T")]
    # For each recipe a training, an evaluation and an early exit; and for each run a measurement with its sidecar.
    assert len(states) >= 2 * 3 + 4
    assert set(states) == {"COMPLETED"}
    assert project.plan("demo") == {}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_that_needs_a_gpu_gets_it_from_slurm(slurm, tmp_path):
    # The node only counts its GPU: the training finds none, says so, and the others are not waited for.
    project = Project.new(tmp_path / "project", device="cuda")
    target = "results/DIGITS/784-20/ff/seed0/metrics.json"
    arguments = ("--profile", "profiles/slurm", *FAST, "--retries", "0")
    text = project.snakemake(target, *arguments, ok=None)
    (job,) = [number for (number,) in queue("%i")]
    asked = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout
    assert re.search(r"Tres\w*=\S*gpu[:=]1", asked), asked
    log = (project.folder / "logs/train/DIGITS/784-20/ff/seed0.log").read_text()
    assert "device 'cuda' is not there" in log or (project.folder / target).exists(), text[-2000:]
