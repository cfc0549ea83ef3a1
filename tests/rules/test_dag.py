"""What Snakemake plans and makes: targets, reruns, failures. Each test calls Snakemake on a copy of the project."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from dag_project import TINY, Project

from ff.stamps import model_of, stamp_of

FIGURES = re.compile(r"figures_\w+|page|all")


def overlay(project, name, **changes):
    merged = {**TINY, **changes}
    project.write(name, yaml.safe_dump(merged))
    return name


# -- targets ----


def test_the_target_rules_are_there(fresh):
    rules = set(fresh.snakemake("--list-target-rules").split())
    assert {"all", "demo", "train_all", "evaluate_all", "variance_all", "figures", "report"} <= rules


def test_all_plans_each_job_of_the_grid_once(fresh):
    plan = fresh.plan("all")
    per_run = ["train", "evaluate", "early_exit", "measure", "hardware_of_training", "hardware_of_measurement"]
    assert {rule: len(plan[rule]) for rule in per_run} == dict.fromkeys(per_run, 1)
    assert all(len(plan[rule]) == 1 for rule in ("prepare", "tables", "page", "all"))


@pytest.mark.parametrize(
    ("target", "rules"),
    [
        ("train_all", {"prepare", "train", "hardware_of_training"}),
        ("evaluate_all", {"prepare", "train", "evaluate", "early_exit"}),
        ("variance_all", {"prepare", "train", "measure", "hardware_of_measurement"}),
    ],
)
def test_a_target_plans_no_more_than_it_needs(fresh, target, rules):
    assert set(fresh.plan(target)) == rules | {target}


def test_a_path_outside_of_the_grid_can_be_asked_for(fresh):
    plan = fresh.plan("results/MNIST/784-300-300/ff/seed7/metrics.json", overlay=None)
    assert plan == {
        "prepare": ["dataset=MNIST"],
        "train": ["dataset=MNIST, layers=784-300-300, recipe=ff, seed=7"],
    }


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("results/SVHN/784-300/ff/seed7/metrics.json", "SVHN images have 3072 values"),
        ("results/MNIST/784-300/ff/seed7a/metrics.json", "'seed7a' must be 'seed' and a number"),
    ],
)
def test_a_path_that_cannot_exist_fails_with_one_sentence(fresh, path, sentence):
    text = fresh.snakemake(path, "-n", "--cores", "1", ok=False)
    assert f"{path} cannot be made: " in text
    assert sentence in text
    assert "Traceback" not in text
    assert "MissingInputException" not in text


def test_a_wrong_setting_fails_with_one_sentence(fresh):
    text = fresh.snakemake("all", "-n", "--cores", "1", "--config", "sidecar=sometimes", ok=False)
    assert "config: sidecar is 'sometimes'; allowed: service, inline, off" in text
    assert "Traceback" not in text


def test_words_for_yes_and_no_may_stand_on_the_command_line(fresh):
    grouped = fresh.plan("train_all", "--config", "group_seeds=true", "verify=false")
    assert "train_group" in grouped
    assert "train" not in grouped


def test_a_sweep_file_is_a_grid(fresh):
    plan = fresh.plan("train_all", "--config", "sweep=config/sweeps/width.yaml", overlay=None)
    runs = dict(re.findall(r"layers=(784-\d+-10), recipe=\w+, seed=(\d+)", "\n".join(plan["train"])))
    assert set(runs) == {f"784-{width}-10" for width in (100, 200, 400, 800, 1600, 2000)}


def test_a_group_of_seeds_is_one_job(fresh):
    name = overlay(fresh, "group.yaml", group_seeds=True, grid={**TINY["grid"], "seed": [0, 1, 2]})
    plan = fresh.plan("all", overlay=name)
    assert len(plan["train_group"]) == 1
    assert "train" not in plan
    assert len(plan["evaluate"]) == 3


# -- what is done, and again ----


def test_a_run_leaves_its_files_and_a_second_call_does_nothing(finished):
    run = finished.folder / "results/DIGITS/784-20/ff/seed0"
    assert json.loads((run / "metrics.json").read_text())["run"]["recipe"] == "ff"
    assert (run / "hardware.json").exists()
    assert not (run / ".resume.safetensors").exists()
    samples = finished.folder / "logs/hardware/DIGITS/784-20/ff/seed0/train.jsonl"
    assert '"kind":"header"' in samples.read_text()
    assert (finished.folder / "results/report.html").stat().st_size
    assert finished.plan("all") == {}


def test_a_removed_run_is_made_again(finished):
    shutil.rmtree(finished.folder / "results/DIGITS/784-20/ff")
    assert finished.plan("all")["train"] == ["dataset=DIGITS, layers=784-20, recipe=ff, seed=0"]


def test_touched_sources_rerun_nothing(finished):
    now = time.time() + 5
    for pattern in ("workflow/scripts/*", "rules/*", "ff/**/*.py", "config/*", "Snakefile", "profiles/default/*"):
        for path in finished.folder.glob(pattern):
            os.utime(path, (now, now))
    assert finished.plan("all") == {}


@pytest.mark.parametrize("mode", ["service", "off"])
def test_another_way_to_record_the_hardware_reruns_nothing(finished, mode):
    assert finished.plan("all", "--config", f"sidecar={mode}") == {}


def test_a_longer_grid_trains_only_what_is_new(finished):
    name = overlay(finished, "longer.yaml", grid={**TINY["grid"], "seed": [0, 1]})
    plan = finished.plan("all", overlay=name)
    new = {"dataset=DIGITS, layers=784-20, recipe=ff, seed=1"}
    for rule in ("train", "evaluate", "early_exit", "measure"):
        assert {job.removesuffix(", job=train") for job in plan[rule]} == new
    assert len(plan["tables"]) == 1


def test_changed_figures_retrain_nothing(finished):
    finished.append("ff/figures/accuracy.py", "\n# changed\n")
    plan = finished.plan("all")
    assert plan
    assert all(FIGURES.fullmatch(rule) for rule in plan)


def test_a_changed_engine_retrains(finished):
    finished.append("ff/trainer.py", "\n# changed\n")
    assert len(finished.plan("train_all")["train"]) == 1


def test_a_changed_setting_reruns_the_runs_that_it_affects(finished):
    other = overlay(finished, "other.yaml", train_by_recipe={"bp": {"rep_epochs": 2}})
    assert finished.plan("all", overlay=other) == {}
    own = overlay(finished, "own.yaml", train_by_recipe={"ff": {"rep_epochs": 2}})
    assert finished.plan("train_all", overlay=own)["train"] == ["dataset=DIGITS, layers=784-20, recipe=ff, seed=0"]


def test_a_changed_setting_replaces_the_run_and_everything_derived_from_it(finished):
    run = finished.folder / "results/DIGITS/784-20/ff/seed0"
    before = model_of(run)
    name = overlay(finished, "own.yaml", train_by_recipe={"ff": {"rep_epochs": 2}})
    finished.snakemake("all", "--cores", "2", overlay=name)
    files = ["metrics.json", "evaluation.json", "early_exit.json", "hardware.json"]
    files += [f"variance/{kind}.json" for kind in ("cpu", "agreement", "hardware")]
    assert {stamp_of(json.loads((run / file).read_text())) for file in files} == {model_of(run)}
    assert model_of(run) != before
    assert "stale" not in (finished.folder / "results/summary/missing.csv").read_text()
    assert finished.plan("all", overlay=name) == {}


def test_a_run_of_ff_train_is_taken_over(finished):
    settings = ["--rep-epochs", "1", "--softmax-epochs", "1", "--train-batch-size", "64", "--val-size", "287"]
    run = ["--dataset", "DIGITS", "--layers", "784,20", "--seed", "5", "--threads", "1", *settings]
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from ff.cli import main; sys.exit(main())", "train", *run],
        cwd=finished.folder,
        env={**finished.env, "WANDB_MODE": "disabled"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    folder = "results/DIGITS/784-20/ff/seed5"
    assert finished.plan(f"{folder}/model.safetensors") == {}
    assert set(finished.plan(f"{folder}/evaluation.json")) == {"evaluate"}


# -- failure ----


def test_a_run_that_diverges_takes_no_other_down_and_is_named(finished):
    wild = {"wild": {"learning_rate": 1e30}}
    name = overlay(finished, "wild.yaml", recipes=wild, grid={**TINY["grid"], "recipe": ["wild", "edgeff", "ff"]})
    text = finished.snakemake("train_all", "--cores", "2", overlay=name, ok=False)
    results = finished.folder / "results"
    assert (results / "DIGITS/784-20/edgeff/seed0/metrics.json").exists()
    assert not (results / "DIGITS/784-20/wild/seed0/metrics.json").exists()
    assert json.loads((results / "DIGITS/784-20/wild/seed0/hardware.json").read_text())["attempts"]
    rows = (results / "summary/missing.csv").read_text().splitlines()
    reasons = [row for row in rows if row.startswith("DIGITS,784-20,wild,0,metrics.json,")]
    assert len(reasons) == 1
    assert "training diverged" in reasons[0]
    assert not any("edgeff,0,metrics.json" in row for row in rows)
    assert "results/summary/missing.csv" in text
    assert "At least one job did not complete successfully" in text
    assert not (results / "demo/summary").exists()
    # The tables were not made by the workflow: it makes them again, and retrains nothing.
    plan = finished.plan("all")
    assert "tables" in plan
    assert "train" not in plan


def test_an_error_in_the_hook_does_not_hide_the_error_before(finished):
    finished.write("ff/tables.py", "raise RuntimeError('broken tables')\n")
    name = overlay(finished, "wild.yaml", recipes={"wild": {"learning_rate": 1e30}})
    target = "results/DIGITS/784-20/wild/seed0/metrics.json"
    text = finished.snakemake(target, "--cores", "1", overlay=name, ok=False)
    assert "training diverged" in text
    assert "At least one job did not complete successfully" in text
    assert "Traceback" not in text


# -- places ----


def test_results_may_lie_on_another_file_system_and_data_be_read_only(tmp_path, prepared_dir):
    project = Project.new(tmp_path / "project", prepared=prepared_dir)
    other = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    results = other / f"ff-test-{os.getpid()}" / "results"
    data = project.folder / "data"
    for path in (data / "prepared/DIGITS.safetensors", data / "prepared", data):
        path.chmod(0o444 if path.is_file() else 0o555)
    place = ["--config", f"results={results}"]
    try:
        project.snakemake("train_all", "--cores", "2", *place)
        assert (results / "DIGITS/784-20/ff/seed0/hardware.json").exists()
        assert (results / "logs/hardware/DIGITS/784-20/ff/seed0/train.jsonl").exists()
        assert not (project.folder / "results").exists()
        assert not (project.folder / "logs").exists()
        assert project.plan("train_all", *place) == {}
    finally:
        shutil.rmtree(results.parent, ignore_errors=True)
        for path in (data, data / "prepared"):
            path.chmod(0o755)


def test_a_second_call_in_the_same_directory_says_that_it_is_locked(finished):
    # What a first call holds while it runs.
    locks = finished.folder / ".snakemake/locks"
    locks.mkdir(parents=True, exist_ok=True)
    (locks / "0.output.lock").write_text("results/report.html\n")
    text = finished.snakemake("all", "--cores", "1", "--forceall", ok=False)
    assert "LockException" in text
    assert "--unlock" in text
    finished.snakemake("--unlock", "--cores", "1")
    assert finished.plan("all") == {}
