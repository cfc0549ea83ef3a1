"""The sidecar as a service of Snakemake: what it leaves, also for a failed job, and that nothing outlives a call."""

import json
import os
import signal
import time

import psutil
import pytest
from dag_project import TINY, Project

SERVICE = {"sidecar": "service", "hw_interval_ms": 100}
GRID = TINY["grid"]


def processes(project):
    """Processes that work in the project's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(project.folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found


def all_end(project, within_s=20.0):
    """Whether no process of the project is left in the end."""
    end = time.monotonic() + within_s
    while processes(project):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def wait_for(condition, within_s=60.0):
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def samples(project, recipe="ff"):
    path = project.folder / f"logs/hardware/DIGITS/784-20/{recipe}/seed0/train.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def long_run(folder):
    """A project whose training does not end by itself within the test."""
    epochs = {"rep_epochs": 100000, "softmax_epochs": 1, "train_batch_size": 64, "val_size": 287}
    return Project.new(folder, **SERVICE, grid=GRID, train_by_dataset={"DIGITS": epochs})


def test_one_core_is_enough_and_each_job_has_its_log(tmp_path, prepared_dir):
    wild = {"wild": {"learning_rate": 1e30}}
    grid = {**GRID, "recipe": ["ff", "wild"]}
    project = Project.new(tmp_path / "project", prepared_dir, **SERVICE, grid=grid, recipes=wild)
    text = project.snakemake("train_all", "--cores", "1", ok=False)
    # Snakemake calls the sidecar of a failed job a failed job too; the last line is about the cause alone.
    assert text.count("ff: failed:") == 1
    assert text.strip().splitlines()[-1].startswith("ff: failed: train DIGITS/784-20/wild/seed0: training diverged")
    for recipe in ("ff", "wild"):
        lines = samples(project, recipe)
        assert lines[0]["kind"] == "header"
        assert lines[0]["mode"] == "service"
        folder = project.folder / f"results/DIGITS/784-20/{recipe}/seed0"
        summary = json.loads((folder / "hardware.json").read_text())
        assert summary["samples"] == sum(line["kind"] == "sample" for line in lines) > 0
        assert len((folder / "hardware.csv").read_text().splitlines()) == summary["samples"] + 1
        assert not (folder / ".sidecar-train").exists()
    assert (project.folder / "results/DIGITS/784-20/ff/seed0/metrics.json").exists()
    assert not (project.folder / "results/DIGITS/784-20/wild/seed0/metrics.json").exists()
    assert all_end(project)
    assert project.plan("results/DIGITS/784-20/ff/seed0/hardware.json") == {}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_no_process_outlives_a_call_that_a_signal_ends(tmp_path, number):
    project = long_run(tmp_path / "project")
    with open(tmp_path / "log", "w") as log:
        main = project.start("train_all", "--cores", "1", stdout=log, stderr=log, start_new_session=True)
        wait_for((project.folder / "results/DIGITS/784-20/ff/seed0/.resume.safetensors").exists)
        if number == signal.SIGKILL:
            # All but the sidecar, which must notice by itself.
            for process in [psutil.Process(main.pid), *psutil.Process(main.pid).children(recursive=True)]:
                if "ff.hardware.sidecar" not in process.cmdline():
                    process.kill()
        else:
            os.killpg(main.pid, number)
        main.wait(60)
    assert all_end(project)


@pytest.mark.slow
def test_the_sidecar_ends_with_a_killed_snakemake_and_the_rerun_waits_for_its_orphan(tmp_path):
    epochs = {"rep_epochs": 500, "softmax_epochs": 1, "train_batch_size": 32, "val_size": 287}
    project = Project.new(tmp_path / "project", **SERVICE, grid=GRID, train_by_dataset={"DIGITS": epochs})
    target = "results/DIGITS/784-20/ff/seed0/model.safetensors"
    with open(tmp_path / "log", "w") as log:
        main = project.start(target, "--cores", "1", stdout=log, stderr=log, start_new_session=True)
        state = project.folder / "results/DIGITS/784-20/ff/seed0/.resume.safetensors"
        wait_for(state.exists)
        main.kill()
        main.wait()
    wait_for(lambda: not any("ff.hardware.sidecar" in line for line in processes(project)))
    assert processes(project), "the training was over before the test could look at it"
    text = project.snakemake(target, "--cores", "1", ok=False)
    assert "LockException" in text
    project.snakemake("--unlock", "--cores", "1")
    project.snakemake(target, "--cores", "1")
    assert all_end(project)
    log = (project.folder / "logs/train/DIGITS/784-20/ff/seed0.log").read_text()
    assert "another process is training" in log
    other = Project.new(tmp_path / "other", grid=GRID, train_by_dataset={"DIGITS": epochs})
    other.snakemake(target, "--cores", "1")
    assert (project.folder / target).read_bytes() == (other.folder / target).read_bytes()


@pytest.mark.slow
def test_a_killed_sidecar_costs_samples_and_no_training(tmp_path):
    epochs = {"rep_epochs": 60, "softmax_epochs": 60, "train_batch_size": 32, "val_size": 287}
    project = Project.new(tmp_path / "project", **SERVICE, grid=GRID, train_by_dataset={"DIGITS": epochs})
    with open(tmp_path / "log", "w") as log:
        main = project.start("train_all", "--cores", "1", stdout=log, stderr=log)
        wait_for(lambda: len(samples(project)) > 3)
        for process in psutil.Process(main.pid).children(recursive=True):
            if "ff.hardware.sidecar" in process.cmdline():
                process.kill()
        main.wait(120)
    folder = project.folder / "results/DIGITS/784-20/ff/seed0"
    done = (folder / "metrics.json").exists()
    if not done:
        project.snakemake("train_all", "--cores", "1")
    assert (folder / "metrics.json").exists()
    summary = json.loads((folder / "hardware.json").read_text())
    assert summary["attempts"][0]["ended"] is None
    assert all_end(project)
