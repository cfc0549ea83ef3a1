"""A finished result is kept, replaced only when asked and only once the new one is complete, and never mixed."""

import json
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from ff_process import ff_command, ff_environment
from made_runs import make_grid

from ff.assess.early_exit import run_early_exit
from ff.assess.evaluation import run_evaluation
from ff.files import read_csv, read_json
from ff.layout import RunKey
from ff.learn import checkpoint
from ff.learn.resume import STATE_NAME
from ff.stamps import model_of, stamp_of, stamp_of_rows
from ff.summary import tables
from ff.summary.report import write_everything
from ff.summary.tables.run_files import RunFiles, files_of

SETTINGS = ("--dataset", "DIGITS", "--layers", "784,24,16", "--val-size", 200, "--train-batch-size", 64, "--no-wandb")
OLD = (*SETTINGS, "--rep-epochs", 1, "--softmax-epochs", 1)
NEW = (*OLD, "--alpha", 4, "--overwrite", "--save-every-s", 0)
FOLDER = Path("results/DIGITS/784-24-16/ff/seed0")
RUN = RunKey("DIGITS", "784-24-16", "ff", 0)


@pytest.fixture
def train(warm, prepared_dir, tmp_path):
    """Run `ff train` in `tmp_path`."""

    def start(*arguments, **options):
        return warm(tmp_path, "train", *arguments, "--prepared-dir", prepared_dir, **options)

    return start


def result(folder: Path) -> dict[str, bytes]:
    """The visible files of a run folder: what a reader finds."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name[0] != "."}


def test_a_finished_run_of_the_same_settings_is_left_as_it_is(train, tmp_path):
    assert train(*OLD).code == 0
    before = result(tmp_path / FOLDER)
    done = train(*OLD)
    assert done.code == 0, done.stderr
    assert "the run is finished with these settings: nothing to do (--overwrite trains it again)" in done.stderr
    assert "test accuracy" in done.stdout
    assert "epoch" not in done.stderr
    assert result(tmp_path / FOLDER) == before


def test_other_settings_are_refused_in_one_sentence_that_names_them(train, tmp_path):
    assert train(*OLD).code == 0
    before = result(tmp_path / FOLDER)
    done = train(*OLD, "--alpha", 4, "--rep-epochs", 2)
    assert done.code == 1
    [sentence] = done.stderr.splitlines()
    assert "rep_epochs is 1 there, not 2" in sentence
    assert "alpha is 2.0 there, not 4.0" in sentence
    assert "softmax_epochs" not in sentence
    assert "--overwrite" in sentence
    assert result(tmp_path / FOLDER) == before


def test_other_images_are_another_result(train, tmp_path, digits, prepared_dir):
    assert train(*OLD).code == 0
    metrics = read_json(tmp_path / FOLDER / "metrics.json")
    metrics["provenance"]["data"]["content"] = "of other images"
    (tmp_path / FOLDER / "metrics.json").write_text(json.dumps(metrics))
    done = train(*OLD)
    assert done.code == 1
    assert "trained on other images" in done.stderr


def test_a_kill_at_any_moment_of_a_replacement_leaves_the_old_result_or_the_new_one(train, warm, tmp_path):
    """Before every change of a file name, one after the other: what is there is whole, and the rerun ends it."""
    assert train(*NEW).code == 0
    new = (tmp_path / FOLDER / "model.safetensors").read_bytes()
    assert train(*OLD, "--overwrite").code == 0
    old = result(tmp_path / FOLDER)
    assert old["model.safetensors"] != new
    found, step = Counter(), 0
    while True:
        step += 1
        done = train(*NEW, die_before=step)
        if done.code == 0:
            break
        assert done.code == -signal.SIGKILL
        now = result(tmp_path / FOLDER)
        if now == old:
            found["old"] += 1
        else:
            # The moves have begun: whoever reads can tell that the files are of two models, or all of the new one.
            found["new"] += 1
            assert now["model.safetensors"] == new
        ended = train(*NEW)
        assert ended.code == 0, ended.stderr
        assert (tmp_path / FOLDER / "model.safetensors").read_bytes() == new
        stamps = {stamp_of(read_json(tmp_path / FOLDER / name)) for name in ("metrics.json", "hardware.json")}
        stamps |= {stamp_of_rows(read_csv(tmp_path / FOLDER / f"{name}.csv")) for name in ("history", "phases")}
        assert stamps == {model_of(tmp_path / FOLDER)}
        hidden = {path.name for path in (tmp_path / FOLDER).iterdir() if path.name[0] == "."}
        assert hidden == {".lock"}
        assert train(*OLD, "--overwrite").code == 0
        old = result(tmp_path / FOLDER)
    assert found["old"] > 5
    assert found["new"] > 3


def test_an_interrupted_replacement_is_resumed_and_the_old_result_can_still_be_asked_for(train, tmp_path):
    assert train(*OLD).code == 0
    assert train(*NEW, die_before=4).code == -signal.SIGKILL
    assert (tmp_path / FOLDER / STATE_NAME).exists()
    assert train(*OLD).code == 0
    assert train(*OLD, "--alpha", 4).code == 1
    done = train(*NEW)
    assert done.code == 0, done.stderr
    assert read_json(tmp_path / FOLDER / "metrics.json")["config"]["recipe_settings"]["alpha"] == 4


def test_what_was_derived_from_the_replaced_model_is_stale_everywhere(train, tmp_path, digits, ff):
    folder = tmp_path / FOLDER
    assert train(*OLD).code == 0
    run_evaluation(folder, digits)
    run_early_exit(folder, digits, repeats=1)
    assert ff("measure", folder, "--devices", "cpu", "--batch-sizes", "1,8", "--repeats", 2).returncode == 0
    read = {name: getattr(tables, name) for name in ("early_exit", "operating_points", "layers", "latency", "history")}
    for name, table in read.items():
        assert len(table(files_of(tmp_path / "results", [RUN]))), name
    assert train(*NEW).code == 0
    assert len(tables.history(files_of(tmp_path / "results", [RUN]))) == 2
    for name in ("early_exit", "operating_points", "layers", "latency"):
        assert read[name](files_of(tmp_path / "results", [RUN])).empty, name
    missing = tables.missing(files_of(tmp_path / "results", [RUN])).set_index("file")["reason"]
    for name in ("evaluation.json", "early_exit.json", "variance/cpu.json"):
        assert missing[name].startswith("stale: it belongs to model")
        assert missing[name].endswith(f"the run now holds model {model_of(folder)}")
    write_everything(tmp_path / "results")
    page = (tmp_path / "results/report.html").read_text()
    assert "stale: it belongs to model" in page
    # Made again from the new model, they are back.
    run_evaluation(folder, digits)
    assert len(tables.layers(files_of(tmp_path / "results", [RUN]))) == 2


def test_metrics_of_another_model_than_the_weights_are_no_result(tmp_path):
    [run, other] = make_grid(tmp_path, seeds=(1, 2), recipes=("ff",), hidden=((20, 10),))
    from made_networks import made_config, made_network

    config = made_config(layers=run.layers, seed=1)
    checkpoint.save(run.folder(tmp_path) / "model.safetensors", made_network(config), 0, config)
    assert set(tables.accuracy(files_of(tmp_path, [run, other]))["seed"]) == {2}
    assert list(tables.runs(files_of(tmp_path, [run, other]))["finished"]) == [0, 1]
    [row] = tables.missing(files_of(tmp_path, [run])).to_dict("records")
    assert row["file"] == "metrics.json"
    assert row["reason"].startswith("stale")


@pytest.mark.parametrize("name", ["early_exit.csv", "history.csv", "variance/cpu.csv", "hardware.csv"])
def test_rows_of_another_model_are_left_out(tmp_path, name):
    [run] = make_grid(tmp_path, seeds=(1,), recipes=("ff",))
    assert RunFiles(run, tmp_path).csv(name) is not None
    path = run.folder(tmp_path) / name
    path.write_text(path.read_text().replace(model_of(run.folder(tmp_path)), "f" * 16))
    assert RunFiles(run, tmp_path).csv(name) is None


def test_a_process_that_a_large_one_started_reports_its_own_memory(prepared_dir, tmp_path):
    """ru_maxrss survives exec: the peak of whoever started the training would be taken for its own."""
    starter = (
        "import subprocess, sys; ballast = bytearray(3 * 2**30); ballast[::4096] = b'x' * len(ballast[::4096]);"
        "sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    )
    import sys

    command = ff_command("train", *OLD, "--prepared-dir", prepared_dir)
    done = subprocess.run(
        [sys.executable, "-c", starter, *command], cwd=tmp_path, env=ff_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    peak = read_json(tmp_path / FOLDER / "metrics.json")["peak_memory_mb"]["host"]
    assert 100 < peak < 2000


def test_the_total_is_the_wall_time_of_the_process_and_its_parts_add_up(prepared_dir, tmp_path):
    import time

    command = ff_command("train", *OLD, "--prepared-dir", prepared_dir)
    before = time.monotonic()
    done = subprocess.run(command, cwd=tmp_path, env=ff_environment(), capture_output=True, text=True)
    wall = time.monotonic() - before
    assert done.returncode == 0, done.stderr
    seconds = read_json(tmp_path / FOLDER / "metrics.json")["seconds"]
    assert seconds["total"] == pytest.approx(sum(value for name, value in seconds.items() if name != "total"))
    # Importing torch alone is most of it; only the interpreter's end comes after.
    assert seconds["import"] > 0.3 * seconds["total"]
    assert 0.5 * wall < seconds["total"] <= wall + 0.02
