"""`ff sweep --local` through the workflow itself: it gives what the grid gives, beside the grid's results."""

import json
import subprocess

import pytest
import yaml
from ff_process import ff_command

# The cell of the tiny grid, with settings that its path does not show.
SAME_CELL = {
    "method": "grid",
    "metric": {"name": "final/val_accuracy", "goal": "maximize"},
    "parameters": {
        "dataset": {"value": "DIGITS"},
        "layers": {"value": "784,20"},
        "seed": {"value": 0},
        "rep-epochs": {"value": 2},
        "softmax-epochs": {"value": 1},
        "val-size": {"value": 200},
    },
}
CELL = "DIGITS/784-20/ff/seed0"
PER_RUN = ("train", "evaluate", "early_exit", "measure", "hardware_of_training", "hardware_of_measurement")


def sweep(project, *words, ok=True):
    command = ff_command("sweep", "sweep.yaml", "--local", "--configfile", "tiny.yaml", "--cores", "2", *words)
    done = subprocess.run(command, cwd=project.folder, env=project.env, capture_output=True, text=True)
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_a_sweep_gives_what_the_grid_gives_and_leaves_the_grid_alone(finished):
    metrics = finished.folder / "results" / CELL / "metrics.json"
    before = metrics.read_bytes()
    finished.write("sweep.yaml", yaml.safe_dump(SAME_CELL))
    first, results = sweep(finished).stdout.splitlines()[0].split(", in ")
    assert first == "1 trainings"
    assert metrics.read_bytes() == before
    assert finished.plan("all") == {}
    folder = finished.folder / results
    for name in ("evaluation.json", "early_exit.json", "variance/cpu.json", "hardware.json", "variance/hardware.json"):
        assert (folder / CELL / name).is_file(), name
    found = json.loads((folder / CELL / "metrics.json").read_text())
    assert (found["config"]["rep_epochs"], found["config"]["val_size"]) == (2, 200)
    assert (folder / "summary/accuracy_summary.csv").read_text().count("DIGITS,784-20,ff,test") == 2
    assert (folder / "figures/accuracy.png").is_file()
    assert (folder / "report.html").stat().st_size
    assert {path.name for path in (finished.folder / "results/sweeps").iterdir()} == {folder.name}

    again = sweep(finished)
    assert "Nothing to be done" in again.stderr
    accuracy = found["final"]["val_accuracy"]
    assert f"{accuracy:.4f}  DIGITS/784-20/ff  1 seed\nreport: {results}/report.html" in again.stdout

    # A file by its path, as of the grid.
    target = f"{results}/{CELL}/evaluation.json"
    assert finished.plan(target, "--config", "sweep=sweep.yaml") == {}
    text = finished.snakemake(target, "-n", "--cores", "1", ok=False)
    assert f"{target} cannot be made: it is of a sweep; name its file too: --config sweep=FILE" in text


def test_a_changed_sweep_has_another_folder_and_nothing_is_ranked_in_a_dry_run(fresh):
    folders = set()
    for epochs in ([1, 2], [1, 3]):
        content = SAME_CELL | {"parameters": SAME_CELL["parameters"] | {"rep-epochs": {"values": epochs}}}
        fresh.write("sweep.yaml", yaml.safe_dump(content))
        done = sweep(fresh, "-n")
        first, *_ = done.stdout.splitlines()
        folders.add(first)
        assert "mean over seeds" not in done.stdout
        jobs = dict(line.split() for line in done.stdout.splitlines() if len(line.split()) == 2)
        assert [jobs[rule] for rule in PER_RUN] == ["2"] * len(PER_RUN)
        assert (jobs["tables"], jobs["report_page"]) == ("1", "1")
    assert len(folders) == 2
    assert not (fresh.folder / "results").exists()


@pytest.mark.parametrize(
    ("out", "sentence"), [("results", "is the results folder of the grid"), ("config", "no sweep's")]
)
def test_another_folder_is_not_taken_over(fresh, out, sentence):
    fresh.write("sweep.yaml", yaml.safe_dump(SAME_CELL))
    done = sweep(fresh, "--out", out, ok=False)
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
