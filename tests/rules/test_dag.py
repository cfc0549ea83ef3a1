"""What Snakemake plans and makes: targets, reruns, failures. Each test calls Snakemake on a copy of the project."""

import contextlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from dag_project import TINY, Project
from made_raw_data import idx, made_images, write_raw

from ff.data.prepared import prepare
from ff.files import read_about
from ff.hardware.sources import is_board
from ff.stamps import model_of, stamp_of


def overlay(project, name, **changes):
    merged = {**TINY, **changes}
    project.write(name, yaml.safe_dump(merged))
    return name


# -- targets ----


def test_the_target_rules_are_there(fresh):
    rules = set(fresh.snakemake("--list-target-rules").split())
    assert {"all", "demo", "train_all", "evaluate_all", "variance_all", "export_all", "figures", "report"} <= rules


def test_all_plans_each_job_of_the_grid_once(fresh):
    plan = fresh.plan("all")
    per_run = ["train", "evaluate", "early_exit", "measure", "hardware_of_training", "hardware_of_measurement"]
    assert {rule: len(plan[rule]) for rule in per_run} == dict.fromkeys(per_run, 1)
    assert all(len(plan[rule]) == 1 for rule in ("prepare", "tables", "report_page", "all"))


@pytest.mark.parametrize(
    ("target", "rules"),
    [
        ("train_all", {"prepare", "train", "hardware_of_training"}),
        ("evaluate_all", {"prepare", "train", "evaluate", "early_exit"}),
        ("variance_all", {"prepare", "train", "measure", "hardware_of_measurement"}),
        ("export_all", {"prepare", "train", "early_exit", "export"}),
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
    assert "config: sidecar is 'sometimes'; allowed: auto, service, inline, off" in text
    assert "Traceback" not in text


def test_words_for_yes_and_no_may_stand_on_the_command_line(fresh):
    name = overlay(fresh, "seeds.yaml", grid={**TINY["grid"], "seed": [1, 2, 3, 4]})
    runs = {
        word: fresh.plan("train_all", "--config", f"group_seeds={word}", "verify=false", overlay=name)["train"]
        for word in ("auto", "true", "false")
    }
    assert [seeds_of(jobs) for jobs in runs.values()] == [["1,2", "3,4"], ["1,2,3,4"], ["1", "2", "3", "4"]]
    text = fresh.snakemake("train_all", "-n", "--config", "group_seeds=some", overlay=name, ok=False)
    assert "config: group_seeds: 'some'" in text
    assert "all of them (true), none (false); auto" in text


def test_a_sweep_file_is_a_grid(fresh):
    plan = fresh.plan("train_all", "--config", "sweep=config/sweeps/width.yaml", "group_seeds=false", overlay=None)
    runs = dict(re.findall(r"layers=(784-\d+-10), recipe=\w+, seed=(\d+)", "\n".join(plan["train"])))
    assert set(runs) == {f"784-{width}-10" for width in (100, 200, 400, 800, 1600, 2000)}


def seeds_of(jobs):
    return sorted(job.rpartition("seed=")[2] for job in jobs)


def test_seeds_of_a_cell_share_jobs_and_each_file_stays_a_target(fresh):
    name = overlay(fresh, "seeds.yaml", grid={**TINY["grid"], "seed": [1, 2, 3, 4]})
    plan = fresh.plan("all", overlay=name)
    # One for each of two cores, but of what has all cores to itself.
    for rule in ("train", "evaluate", "hardware_of_training", "hardware_of_measurement"):
        assert seeds_of(plan[rule]) == ["1,2", "3,4"]
    for rule in ("early_exit", "measure"):
        assert seeds_of(plan[rule]) == ["1,2,3,4"]
    run = "dataset=DIGITS, layers=784-20, recipe=ff, seed=1"
    one = fresh.plan("results/DIGITS/784-20/ff/seed1/evaluation.json", overlay=name)
    assert one == {"prepare": ["dataset=DIGITS"], "train": [run], "evaluate": [run]}


def test_a_board_has_a_sidecar_beside_each_job_and_another_machine_has_none(fresh, tmp_path, monkeypatch):
    """`sidecar: auto`, the default: tegrastats on the path is what a board has."""
    if not is_board():
        assert "sidecar" not in fresh.plan("variance_all")
    program = tmp_path / "tegrastats"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setitem(fresh.env, "PATH", os.pathsep.join([str(tmp_path), fresh.env["PATH"]]))
    plan = fresh.plan("variance_all")
    assert sorted(job[-9:] for job in plan["sidecar"]) == ["b=measure", "job=train"]
    assert "sidecar" not in fresh.plan("variance_all", "--config", "sidecar=inline")


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


def test_networks_are_exported_when_asked(finished):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra edge)")
    assert set(finished.plan("export_all")) == {"export", "export_all"}
    finished.snakemake("export_all", "--cores", "2")
    export = finished.folder / "results/DIGITS/784-20/ff/seed0/export"
    bundle = json.loads((export / "bundle.json").read_text())
    assert bundle["run"]["model"] == model_of(export.parent)
    assert {"full.onnx", "full.int8.onnx", "stage1.onnx"} <= {path.name for path in export.iterdir()}
    assert finished.plan("all", "export_all") == {}
    finished.append("ff/export/run.py", "\nCHANGED = 1\n")
    assert set(finished.plan("export_all")) == {"export", "export_all"}


def test_another_runtime_exports_and_measures_and_repeats_no_early_exit(finished):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra edge)")
    name = overlay(finished, "edge.yaml", measure={**TINY["measure"], "runtimes": ["torch", "onnxruntime-int8"]})
    plan = finished.plan("all", overlay=name)
    assert {"export", "deployed", "tables", "figures_early_exit"} <= set(plan)
    assert not {"train", "evaluate", "early_exit"} & set(plan)
    finished.snakemake("all", "--cores", "2", overlay=name)
    folder = finished.folder / "results/DIGITS/784-20/ff/seed0/export"
    found = json.loads((folder / "deployed.json").read_text())
    assert [one["runtime"] for one in found["runtimes"] if one["available"]] == ["torch", "onnxruntime-int8"]
    assert "onnxruntime-int8" in (finished.folder / "results/summary/deployed.csv").read_text()
    assert finished.plan("all", overlay=name) == {}


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


def with_tegrastats(project, folder):
    """The project as on a machine that has tegrastats."""
    program = folder / "bin/tegrastats"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    project.env["PATH"] = os.pathsep.join([str(program.parent), project.env["PATH"]])
    return project


def test_a_board_has_the_sidecar_beside_each_job(fresh, tmp_path):
    run = "dataset=DIGITS, layers=784-20, recipe=ff, seed=0"
    plan = with_tegrastats(Project(fresh.folder), tmp_path).plan("all")
    assert set(plan["sidecar"]) == {f"{run}, job={job}" for job in ("train", "measure")}


def test_a_board_takes_over_what_was_recorded_inline(finished, tmp_path):
    assert with_tegrastats(finished, tmp_path).plan("all") == {}


def test_a_longer_grid_trains_only_what_is_new(finished):
    name = overlay(finished, "longer.yaml", grid={**TINY["grid"], "seed": [0, 1]})
    plan = finished.plan("all", overlay=name)
    new = {"dataset=DIGITS, layers=784-20, recipe=ff, seed=1"}
    for rule in ("train", "evaluate", "early_exit", "measure"):
        assert {job.removesuffix(", job=train") for job in plan[rule]} == new
    assert len(plan["tables"]) == 1


@pytest.mark.parametrize(
    ("file", "rerun", "kept"),
    [
        ("ff/learn/checkpoint.py", "train evaluate early_exit measure tables", "prepare"),
        ("ff/assess/evaluation.py", "evaluate tables", "prepare train early_exit measure"),
        (
            "ff/statistics.py",
            "measure hardware_of_training tables figures_accuracy report_page",
            "train evaluate early_exit",
        ),
        ("ff/hardware/summary.py", "hardware_of_training tables", "train evaluate measure"),
        ("ff/summary/figures/accuracy.py", "figures_accuracy report_page", "tables figures_training"),
    ],
)
def test_changed_code_reruns_what_reaches_it_and_nothing_else(finished, file, rerun, kept):
    finished.append(file, "\nCHANGED = 1\n")
    plan = finished.plan("all")
    assert set(rerun.split()) <= set(plan)
    assert not set(kept.split()) & set(plan)


def test_what_no_result_depends_on_reruns_nothing(finished):
    for file in ("cli", "doctor", "progress", "gpus", "failures", "hardware/recorder", "hardware/monitor"):
        finished.append(f"ff/{file}.py", "\nCHANGED = 1\n")
    for file in ("ff/learn/trainer.py", "ff/summary/figures/accuracy.py", "workflow/scripts/train.py"):
        finished.append(file, "\n\n# A comment.\n")
    trainer = finished.folder / "ff/learn/trainer.py"
    _, docstring, code = trainer.read_text().split('"""', 2)
    trainer.write_text(f'"""{docstring} Or so."""{code}')
    assert finished.plan("all") == {}


def test_seeds_trained_together_are_finished_and_one_that_is_added_is_made_alone(finished):
    """Files are not made again for another number of runs in a job: neither when one is added nor when one is lost."""
    name = overlay(finished, "seeds.yaml", grid={**TINY["grid"], "seed": [0, 1, 2]}, group_seeds=True)
    assert seeds_of(finished.plan("all", overlay=name)["train"]) == ["1,2"]
    finished.snakemake("all", "--cores", "1", overlay=name)
    results = finished.folder / "results/DIGITS/784-20/ff"
    metrics = [json.loads((results / f"seed{seed}/metrics.json").read_text()) for seed in (0, 1, 2)]
    assert [found["provenance"]["group_seeds"] for found in metrics] == [[0], [1, 2], [1, 2]]
    # Both have the hardware log of the job that they shared, and times and memory of their own measurement.
    hardware = [json.loads((results / f"seed{seed}/hardware.json").read_text()) for seed in (1, 2)]
    assert hardware[0]["attempts"] == hardware[1]["attempts"] != []
    measured = [json.loads((results / f"seed{seed}/variance/hardware.json").read_text()) for seed in (1, 2)]
    assert measured[0]["attempts"] != measured[1]["attempts"]
    logs = [(finished.folder / f"logs/train/DIGITS/784-20/ff/seed{seed}.log").read_text() for seed in (1, 2)]
    assert logs[0] == logs[1]
    assert finished.plan("all", overlay=name) == {}
    for setting in ("auto", "false"):
        assert finished.plan("all", "--config", f"group_seeds={setting}", overlay=name) == {}
    more = overlay(finished, "more.yaml", grid={**TINY["grid"], "seed": [0, 1, 2, 3]})
    plan = finished.plan("all", overlay=more)
    for rule in ("train", "evaluate", "early_exit", "measure", "hardware_of_training", "hardware_of_measurement"):
        assert seeds_of(plan[rule]) == ["3"]
    shutil.rmtree(results / "seed2")
    assert seeds_of(finished.plan("all", overlay=name)["measure"]) == ["2"]


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
    name = overlay(finished, "wild.yaml", recipes=wild, grid={**TINY["grid"], "recipe": ["wild", "mono", "ff"]})
    text = finished.snakemake("train_all", "--cores", "2", overlay=name, ok=False)
    results = finished.folder / "results"
    assert (results / "DIGITS/784-20/mono/seed0/metrics.json").exists()
    assert not (results / "DIGITS/784-20/wild/seed0/metrics.json").exists()
    assert json.loads((results / "DIGITS/784-20/wild/seed0/hardware.json").read_text())["attempts"]
    rows = (results / "summary/missing.csv").read_text().splitlines()
    reasons = [row for row in rows if row.startswith("DIGITS,784-20,wild,0,metrics.json,")]
    assert len(reasons) == 1
    assert "training diverged" in reasons[0]
    assert not any("mono,0,metrics.json" in row for row in rows)
    assert "results/summary/missing.csv" in text
    assert "At least one job did not complete successfully" in text
    # Snakemake says which job failed and where its log is, and shows that; the call's last line says why once more.
    log = "logs/train/DIGITS/784-20/wild/seed0.log"
    assert "Error in rule train:" in text
    assert f"Logfile {log}:" in text
    last = text.strip().splitlines()[-1]
    assert last.startswith("ff: failed: train DIGITS/784-20/wild/seed0: training diverged")
    assert last.endswith(f"({log})")
    assert not (results / "demo/summary").exists()
    # The tables were not made by the workflow: it makes them again, and retrains nothing.
    plan = finished.plan("all")
    assert "tables" in plan
    assert "train" not in plan


def test_a_seed_that_diverges_takes_those_of_its_job_along_once(finished):
    """A group has one training, which ends where a loss is not finite; the next call tries each seed alone."""
    name = overlay(
        finished,
        "wild.yaml",
        recipes={"wild": {"learning_rate": 1e30}},
        grid={**TINY["grid"], "recipe": ["wild"], "seed": [1, 2]},
    )
    finished.snakemake("train_all", "--cores", "1", overlay=name, ok=False)
    rows = (finished.folder / "results/summary/missing.csv").read_text().splitlines()
    reasons = [row for row in rows if row.startswith("DIGITS,784-20,wild,")]
    assert [row.split(",")[3] for row in reasons if "training diverged" in row] == ["1", "2"]
    assert seeds_of(finished.plan("train_all", overlay=name)["train"]) == ["1", "2"]


def test_an_error_in_the_hook_does_not_hide_the_error_before(finished):
    finished.write("ff/summary/tables/__init__.py", "raise RuntimeError('broken tables')\n")
    name = overlay(finished, "wild.yaml", recipes={"wild": {"learning_rate": 1e30}})
    target = "results/DIGITS/784-20/wild/seed0/metrics.json"
    text = finished.snakemake(target, "--cores", "1", overlay=name, ok=False)
    assert "training diverged" in text
    assert "At least one job did not complete successfully" in text
    assert "Traceback" not in text


def in_terminal(project, *arguments) -> tuple[int, str]:
    """Exit status and output of Snakemake that writes to a terminal."""
    master, slave = pty.openpty()
    process = project.start(*arguments, stdout=slave, stderr=slave, stdin=slave)
    os.close(slave)
    parts = []
    # Reading a terminal that nobody writes to any more is an error on Linux (EIO).
    with contextlib.suppress(OSError):
        while part := os.read(master, 65536):
            parts.append(part)
    os.close(master)
    return process.wait(), b"".join(parts).decode().replace("\r\n", "\n")


@pytest.mark.parametrize("place", ["file", "terminal"])
def test_a_killed_job_is_seen_with_its_log(finished, place):
    # As for lack of memory; the rule is the one that takes least time.
    script = finished.folder / "workflow/scripts/hardware.py"
    script.write_text(
        script.read_text().replace("summarise(log", "print('so far') or os.kill(os.getpid(), 9) or summarise(log")
    )
    script.write_text(f"import os\n{script.read_text()}")
    target = "results/DIGITS/784-20/ff/seed0/hardware.json"
    if place == "terminal":
        status, text = in_terminal(finished, target, "--cores", "1")
        text = re.sub(r"\x1b\[\d*m", "", text)
    else:
        text, status = finished.snakemake(target, "--cores", "1", ok=False), 1
    log = "logs/hardware_of_training/DIGITS/784-20/ff/seed0.log"
    assert status == 1
    assert "died with <Signals.SIGKILL: 9>" in text
    assert "Error in rule hardware_of_training:" in text
    assert f"log: {log}" in text
    # What the log holds is shown.
    assert "so far" in text
    last = text.strip().splitlines()[-1]
    assert last.startswith("ff: failed: hardware_of_training DIGITS/784-20/ff/seed0: it left no error in its log")
    assert last.endswith(f"({log})")
    [record] = sorted((finished.folder / ".snakemake/log").glob("*.log"))[-1:]
    assert "Error in rule hardware_of_training:" in record.read_text()


def test_missing_data_are_the_last_line_of_the_call(fresh, tmp_path):
    project = fresh.copy(tmp_path / "project")
    # The network is out of reach.
    project.append("ff/data/download.py", "\n\ndef fetch(name, folder):\n    pass\n")
    rule = project.folder / "rules/data.smk"
    rule.write_text(rule.read_text().replace("retries: 1", "retries: 0"))
    runs = [f"results/MNIST/784-20/ff/seed{seed}/metrics.json" for seed in (0, 1)]
    text = project.snakemake(*runs, "--cores", "1", "--config", "data_dir=nowhere", ok=False)
    last = text.strip().splitlines()[-1]
    assert last.startswith("ff: failed: prepare MNIST: MNIST: MNIST/raw/train-images-idx3-ubyte")
    assert "not found in" in last
    assert "point --data-dir (FF_DATA_DIR, config data_dir)" in last
    assert text.count("ff: failed:") == 1
    assert "Traceback" not in text


def test_a_warning_comes_with_the_runs_that_it_is_about(fresh):
    text = fresh.snakemake("train_all", "-n", "--cores", "1", overlay=None)
    for dataset in ("SVHN", "CIFAR10"):
        assert text.count(f"ff: {dataset} images have 3072 values: the input size 784 of the layers became 3072") == 1
    target = "results/MNIST/784-300-300/ff/seven/metrics.json"
    assert "3072" not in fresh.snakemake(target, "-n", "--cores", "1", overlay=None, ok=False)


# -- data ----


@pytest.fixture
def raw(fresh, tmp_path):
    """A project with two folders of raw MNIST, one and other, and the prepared set that was made of one."""
    project = fresh.copy(tmp_path / "project")
    for name in ("one", "other"):
        images, *_ = write_raw(project.folder / name, "MNIST")
        images.write_bytes(idx(made_images(40, 28, 28, seed=len(name))))
    prepare("MNIST", str(project.folder / "one"), project.folder / "data/prepared", verify=False, download=False)
    return project


def test_a_set_is_prepared_again_where_its_raw_files_are_others(raw):
    target, again = "data/prepared/MNIST.safetensors", {"prepare": ["dataset=MNIST"]}

    def plan(environment="", *words):
        raw.env["FF_DATA_DIR"] = environment
        return raw.plan(target, "--config", "verify=false", *words)

    # The command line wins over the environment, and that over the configuration.
    raw.append("tiny.yaml", "data_dir: one\n")
    assert plan("other", "data_dir=one") == {}
    assert plan("other") == again
    before = read_about(raw.folder / target)
    raw.snakemake(target, "--cores", "1", "--config", "verify=false")
    after = read_about(raw.folder / target)
    assert after["content"] != before["content"]
    assert after["source_folder"] == str((raw.folder / "other").resolve())
    assert plan("other") == {}


# -- GPUs ----

TAKES_A_GPU = """
import os, time
from pathlib import Path

marks = Path("marks")
def note(text):
    with open(marks, "a") as file:
        file.write(f"{text}\\n")

note(f"begin {snakemake.resources.gpu}")
end = time.monotonic() + 30
while marks.read_text().count("begin") < GPUS and time.monotonic() < end:
    time.sleep(0.02)
time.sleep(0.2)
note("end")
for path in snakemake.output:
    Path(path).write_text("")
"""


@pytest.mark.parametrize("gpus", [1, 2])
def test_no_more_jobs_take_a_gpu_at_once_than_there_are(fresh, tmp_path, prepared_dir, gpus):
    project = fresh.copy(tmp_path / "project")
    shutil.copytree(prepared_dir, project.folder / "data/prepared")
    project.append("ff/workflow/gpus.py", f"\n\ndef usable_gpus():\n    return {['GPU-a', 'GPU-b'][:gpus]}\n")
    project.write("workflow/scripts/train.py", TAKES_A_GPU.replace("GPUS", str(gpus)))
    targets = [f"results/DIGITS/784-20/ff/seed{seed}/metrics.json" for seed in range(3)]
    project.snakemake(*targets, "--cores", "4")
    running, most = 0, 0
    for mark in (project.folder / "marks").read_text().split("\n"):
        running += {"begin 1": 1, "end": -1}.get(mark, 0)
        most = max(most, running)
    assert (running, most) == (0, gpus)


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
