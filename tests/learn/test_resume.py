"""Killed at any moment and started again: the bytes of the uninterrupted run. And the lock."""

import fcntl
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from ff_process import ff_command, ff_environment
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ff.data.images import standardise
from ff.files import read_csv, read_json
from ff.learn.recipes import RECIPES, make_run_config
from ff.learn.resume import LOCK_NAME, STATE_NAME, discard_state, load_state, run_lock, save_state
from ff.learn.trainer import Trainer
from ff.phases import Phase, read_phases

KILLS = 20
SETTINGS = ("--dataset", "DIGITS", "--layers", "784,24,16", "--val-size", 200, "--train-batch-size", 64)
EPOCHS = ("--rep-epochs", 12, "--softmax-epochs", 12)
# The state is written after every epoch. It makes no difference to a result, so both kinds are compared.
EACH = ("--save-every-s", 0)
UNTIMED = {"seconds": "", "validation_seconds": ""}
RUN = Path("results/DIGITS/784-24-16/ff/seed0")


@pytest.fixture(scope="module")
def train(warm, prepared_dir):
    """Start `ff train` in a folder, with the settings of this file."""

    def start(folder: Path, *more: object, **options) -> int:
        folder.mkdir(exist_ok=True)
        settings = (*SETTINGS, *EPOCHS, *EACH, "--prepared-dir", prepared_dir)
        return warm.start(folder, "train", *settings, *more, **options)

    return start


@pytest.fixture(scope="module")
def uninterrupted(train, warm, tmp_path_factory):
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(folder)
    done = warm.wait()
    assert done.code == 0, done.stderr
    return folder


def state_of(run: Path) -> str:
    """How far a killed run had come."""
    if (run / "metrics.json").exists():
        return "finished"
    if (run / "model.safetensors").exists():
        return "writing"
    if not (run / STATE_NAME).exists():
        return "load"
    with safe_open(run / STATE_NAME, framework="pt") as file:
        history = json.loads(file.metadata()["ff"])["history"]
    return "evaluation" if len(history) == 24 else history[-1]["phase"]


def same_run(found: Path, expected: Path) -> None:
    """The same weights, byte for byte, and the same numbers everywhere but in times."""
    for name in ("model.safetensors", "readings.safetensors"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    one, other = (read_json(run / "metrics.json") for run in (found, expected))
    assert one["results"] == other["results"]
    assert one["config"] == other["config"]
    for row, twin in zip(*(read_csv(run / "history.csv") for run in (found, expected)), strict=True):
        assert {**row, **UNTIMED} == {**twin, **UNTIMED}
    assert not (found / STATE_NAME).exists()
    assert not list(found.glob(".*.tmp"))


def test_twenty_kills_at_random_moments_give_twenty_times_the_same_bytes(train, warm, uninterrupted, tmp_path):
    """A moment is a call of a function and not a time, so that all stages are met on a busy machine too."""
    train(tmp_path / "counted", die_at_call=0)
    assert warm.wait().code == 0
    calls = int((tmp_path / "counted/.calls.txt").read_text())
    moments, stages = random.Random(20), Counter()
    for kill in range(KILLS):
        folder = tmp_path / str(kill)
        # One in each twentieth of the run's calls; the last of them are those of leaving.
        train(folder, die_at_call=1 + int(0.98 * calls * (kill + moments.random()) / KILLS))
        assert warm.wait().code == -signal.SIGKILL
        stage = state_of(folder / RUN)
        stages[stage] += 1
        train(folder)
        done = warm.wait()
        assert done.code == 0, done.stderr
        assert ("resuming after epoch" in done.stderr) == (stage in ("representation", "softmax", "evaluation"))
        same_run(folder / RUN, uninterrupted / RUN)
    print(f"{KILLS} kills, by stage: {dict(stages)}")
    assert {"load", "representation", "softmax", "evaluation"} <= set(stages)


@pytest.mark.parametrize(("every_s", "kills"), [(0.1, 6), (2, 3)])
def test_kills_of_a_run_that_saves_by_time_lose_what_came_after_and_no_byte(
    train, warm, uninterrupted, tmp_path, every_s, kills
):
    """With 2 s, the default, this run usually ends before its state is written."""
    train(tmp_path / "counted", "--save-every-s", every_s, die_at_call=0)
    assert warm.wait().code == 0
    same_run(tmp_path / "counted" / RUN, uninterrupted / RUN)
    calls = int((tmp_path / "counted/.calls.txt").read_text())
    moments, resumed_from = random.Random(every_s), []
    for kill in range(kills):
        folder = tmp_path / str(kill)
        train(folder, "--save-every-s", every_s, die_at_call=1 + int(0.98 * calls * (kill + moments.random()) / kills))
        assert warm.wait().code == -signal.SIGKILL
        reported = (folder / ".stderr.txt").read_text().count("epoch ")
        saved = state_of(folder / RUN) in ("representation", "softmax", "evaluation")
        train(folder, "--save-every-s", every_s)
        done = warm.wait()
        assert done.code == 0, done.stderr
        assert ("resuming after epoch" in done.stderr) == saved
        same_run(folder / RUN, uninterrupted / RUN)
        resumed_from.append((read_json(folder / RUN / "metrics.json")["resumed_from_epoch"], reported))
    print(f"resumed from epoch, of so many reported: {resumed_from}")
    # How many epochs fit into the time is the machine's affair.
    assert every_s >= 2 or any(epoch for epoch, _ in resumed_from)


def test_a_kill_before_any_change_of_a_file_name_gives_the_same_bytes(train, warm, tmp_path):
    """Every state that a run folder can be in, one after the other."""
    few = ("--rep-epochs", 1, "--softmax-epochs", 1)
    train(tmp_path / "expected", *few)
    assert warm.wait().code == 0
    stages, step = Counter(), 0
    while True:
        step += 1
        folder = tmp_path / str(step)
        train(folder, *few, die_before=step)
        code = warm.wait().code
        if code == 0:
            break
        assert code == -signal.SIGKILL
        stages[(folder / RUN / "metrics.json").exists(), (folder / RUN / "model.safetensors").exists()] += 1
        assert not (folder / RUN / "metrics.json").exists() or is_whole(folder / RUN)
        train(folder, *few)
        done = warm.wait()
        assert done.code == 0, done.stderr
        same_run(folder / RUN, tmp_path / "expected" / RUN)
    # Before the model, between model and metrics, after the metrics.
    assert set(stages) == {(False, False), (False, True), (True, True)}


def is_whole(run: Path) -> bool:
    """Where metrics.json stands, all that belongs to it does."""
    names = ("model.safetensors", "history.csv", "phases.csv", "readings.safetensors")
    return all((run / name).stat().st_size for name in names)


def test_killed_again_and_again_it_still_ends_with_the_same_bytes(train, warm, uninterrupted, tmp_path):
    for step in (3, 10, 4, 12):
        train(tmp_path, die_before=step)
        assert warm.wait().code == -signal.SIGKILL
    train(tmp_path)
    assert warm.wait().code == 0
    same_run(tmp_path / RUN, uninterrupted / RUN)
    metrics = read_json(tmp_path / RUN / "metrics.json")
    assert metrics["resumed_from_epoch"] > 3
    # The marks of all stretches count, each epoch once; those of what was trained twice do not.
    rows = read_csv(tmp_path / RUN / "history.csv")
    marks = read_phases(tmp_path / RUN / "phases.csv")
    names = [mark.name for mark in marks]
    assert names.count("import") == names.count("load") > 1
    assert (names.count("representation"), names.count("softmax"), names.count("validation")) == (12, 12, 24)
    assert names[-2:] == ["evaluation", "write"]
    for phase, column in (("representation", "seconds"), ("softmax", "seconds"), ("validation", "validation_seconds")):
        spent = sum(float(row[column]) for row in rows if phase in (row["phase"], "validation"))
        assert sum(mark.seconds for mark in marks if mark.name == phase) == pytest.approx(spent, abs=0.05)
        assert metrics["seconds"][phase] == pytest.approx(spent, abs=0.05)
    assert sum(s for name, s in metrics["seconds"].items() if name != "total") == pytest.approx(
        metrics["seconds"]["total"]
    )


def test_the_same_through_the_real_command_and_an_interrupt_from_the_keyboard(uninterrupted, prepared_dir, tmp_path):
    command = ff_command("train", *SETTINGS, *EPOCHS, *EACH, "--prepared-dir", prepared_dir)
    process = subprocess.Popen(command, cwd=tmp_path, env=ff_environment(), stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "epoch 3" in line:
            break
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    code = process.wait(60)
    assert (code, "Traceback" in rest) == (130, False), rest
    assert rest.strip().splitlines()[-1].startswith("ff: interrupted; a training goes on from its last saved state")
    assert not (tmp_path / RUN / "metrics.json").exists()
    done = subprocess.run(command, cwd=tmp_path, env=ff_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "resuming after epoch" in done.stderr
    same_run(tmp_path / RUN, uninterrupted / RUN)


def test_a_state_of_another_config_is_ignored_and_said(train, warm, uninterrupted, tmp_path):
    train(tmp_path, "--learning-rate", 0.5, die_before=10)
    assert warm.wait().code == -signal.SIGKILL
    assert (tmp_path / RUN / STATE_NAME).exists()
    train(tmp_path)
    done = warm.wait()
    assert "belongs to another config, code or data: starting from the first epoch" in done.stderr
    assert "resuming" not in done.stderr
    same_run(tmp_path / RUN, uninterrupted / RUN)
    assert read_json(tmp_path / RUN / "metrics.json")["resumed_from_epoch"] is None
    # Nor do the marks of that other training count.
    names = [phase.name for phase in read_phases(tmp_path / RUN / "phases.csv")]
    assert (names.count("import"), names.count("load"), names.count("representation")) == (1, 1, 12)


# -- the state itself ----

MARKS = [Phase("import", 1.0, 2.0, 11.0, 12.0, "boot"), Phase("representation", 2.0, 3.5, 12.0, 13.5, "boot")]


@pytest.fixture
def halfway(digits, tmp_path):
    """A trainer after one of two epochs, whose state is in `tmp_path`."""
    config = make_run_config({"dataset": "DIGITS", "layers": "784,9,8", "rep_epochs": 2, "val_size": 200})[0]
    trainer = Trainer(config, [0], standardise(digits.train, digits.facts, "cpu"))
    next(iter(trainer.epochs("representation")))
    save_state(tmp_path, "key", trainer.state, MARKS)
    return trainer


def fresh(halfway: Trainer) -> Trainer:
    return Trainer(halfway.config, halfway.seeds, halfway.images)


def parameters(trainer: Trainer) -> list[torch.Tensor]:
    optimisers = trainer.state.optimisers.values()
    return [tensor.clone() for adam in optimisers for tensor in (adam.parameters, adam.mean, adam.square)]


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_every_rule_goes_on_with_the_same_bytes_from_any_epoch(digits, tmp_path, recipe):
    settings = {"dataset": "DIGITS", "layers": "784,9,8", "rep_epochs": 2, "softmax_epochs": 2, "val_size": 200}
    settings |= {"shift": 1, "flip": True, "dropout": 0.2, "weight_decay": 0.1, "schedule": "step"}
    config = make_run_config(settings | {"recipe": recipe})[0]
    images = standardise(digits.train, digits.facts, "cpu")
    whole = Trainer(config, [0, 4], images)
    for phase, _ in whole.schedule:
        for _ in whole.epochs(phase):
            (tmp_path / str(len(whole.state.history))).mkdir()
            save_state(tmp_path / str(len(whole.state.history)), "key", whole.state, MARKS)
    for epochs in (1, 2, 3):
        trainer = Trainer(config, [0, 4], images)
        assert load_state(tmp_path / str(epochs), "key", trainer.state)
        for phase, _ in trainer.schedule:
            list(trainer.epochs(phase))
        assert len(trainer.state.history) == 4
        assert all(map(torch.equal, parameters(trainer), parameters(whole)))
        # What follows from them, or goes on beside them.
        one, other = ([*t.state.averages.values(), *t.state.network.weights] for t in (trainer, whole))
        assert all(map(torch.equal, one, other))


def test_a_state_comes_back_whole(halfway, tmp_path):
    trainer, said = fresh(halfway), []
    assert load_state(tmp_path, "key", trainer.state, said.append) == MARKS
    assert said == []
    assert all(map(torch.equal, parameters(trainer), parameters(halfway)))
    assert trainer.state.optimisers["layers"].steps == halfway.state.optimisers["layers"].steps > 0
    assert trainer.state.history == halfway.state.history
    # The layers of the network are views of what was loaded.
    assert torch.equal(trainer.state.network.weights[1], halfway.state.network.weights[1])
    discard_state(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not load_state(tmp_path, "key", trainer.state, said.append)
    assert said == []


def test_discarding_a_state_leaves_what_other_jobs_are_writing(halfway, tmp_path):
    for name in (f"{STATE_NAME}.abc.tmp", "evaluation.json.abc.tmp"):
        (tmp_path / f".{name}").write_text("half")
    discard_state(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".evaluation.json.abc.tmp"]


def damaged(path: Path, change) -> None:
    with safe_open(path, framework="pt") as file:
        meta = json.loads(file.metadata()["ff"])
    tensors = load_file(path)
    change(tensors, meta)
    save_file(tensors, path, metadata={"ff": json.dumps(meta)})


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, meta: tensors.pop("heads.square"),
        lambda tensors, meta: tensors.pop("layers.parameters"),
        lambda tensors, meta: tensors.update({"heads.mean": torch.zeros(1, 3)}),
        # A single number would be spread over all parameters.
        lambda tensors, meta: tensors.update({"heads.parameters": torch.zeros(1, 1)}),
        lambda tensors, meta: tensors.update({"layers.mean": tensors["layers.mean"].double()}),
        lambda tensors, meta: meta.pop("steps"),
        lambda tensors, meta: meta["steps"].pop("heads"),
        lambda tensors, meta: meta["steps"].update(heads="x"),
        lambda tensors, meta: meta.pop("history"),
        lambda tensors, meta: meta["history"][0].pop("loss"),
        lambda tensors, meta: meta["history"][0].update(surprise=1),
        lambda tensors, meta: meta.update(history=3),
        lambda tensors, meta: meta.pop("phases"),
        lambda tensors, meta: meta["phases"][0].pop(),
        lambda tensors, meta: meta["phases"][0].insert(1, "soon"),
    ],
)
def test_a_state_that_is_not_whole_is_ignored_and_leaves_no_trace(halfway, tmp_path, change):
    damaged(tmp_path / STATE_NAME, change)
    trainer, said = fresh(halfway), []
    before = parameters(trainer)
    assert not load_state(tmp_path, "key", trainer.state, said.append)
    [message] = said
    assert "cannot be read" in message
    assert "starting from the first epoch" in message
    assert all(map(torch.equal, parameters(trainer), before))
    assert [adam.steps for adam in trainer.state.optimisers.values()] == [0, 0]
    assert trainer.state.history == []


@pytest.mark.parametrize("content", [b"", b"noise", b"\xff" * 1000, None])
def test_a_state_that_is_no_state_is_ignored_and_said(halfway, tmp_path, content):
    data = (tmp_path / STATE_NAME).read_bytes()
    (tmp_path / STATE_NAME).write_bytes(data[: len(data) // 2] if content is None else content)
    said = []
    assert not load_state(tmp_path, "key", fresh(halfway).state, said.append)
    assert "starting from the first epoch" in said[0]


# -- the lock ----


def test_a_second_process_waits_for_the_first_and_then_finds_the_work_done(
    train, warm, uninterrupted, prepared_dir, tmp_path
):
    command = ff_command("train", *SETTINGS, *EPOCHS, "--prepared-dir", prepared_dir)
    (tmp_path / RUN).mkdir(parents=True)
    with open(tmp_path / RUN / LOCK_NAME, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = subprocess.Popen(command, cwd=tmp_path, env=ff_environment(), stderr=subprocess.PIPE, text=True)
        assert "another process is training" in second.stderr.readline()
        # Time in which one that does not wait would begin to write.
        time.sleep(0.5)
        # This test holds the run in the first one's place, and gives it what that would have written.
        assert [file.name for file in (tmp_path / RUN).iterdir()] == [LOCK_NAME]
        for name in ("model.safetensors", "history.csv", "phases.csv", "readings.safetensors", "metrics.json"):
            (tmp_path / RUN / name).write_bytes((uninterrupted / RUN / name).read_bytes())
        before = (tmp_path / RUN / "model.safetensors").stat().st_mtime_ns
    rest = second.stderr.read()
    assert second.wait(60) == 0
    assert "nothing left to do" in rest
    assert (tmp_path / RUN / "model.safetensors").stat().st_mtime_ns == before
    same_run(tmp_path / RUN, uninterrupted / RUN)


def test_two_processes_started_together_write_one_run(train, warm, uninterrupted, prepared_dir, tmp_path):
    train(tmp_path)
    command = ff_command("train", *SETTINGS, *EPOCHS, "--prepared-dir", prepared_dir)
    second = subprocess.run(command, cwd=tmp_path, env=ff_environment(), capture_output=True, text=True, timeout=60)
    assert warm.wait().code == 0
    assert second.returncode == 0, second.stderr
    same_run(tmp_path / RUN, uninterrupted / RUN)


def test_the_lock_goes_with_the_process_that_held_it(tmp_path):
    child = os.fork()
    if child == 0:
        with run_lock(tmp_path, print):
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    said = []
    with run_lock(tmp_path, said.append) as waited:
        assert not waited
    assert said == []


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    said = []
    with run_lock(tmp_path, said.append) as waited:
        assert not waited
    assert "without locks" in said[0]
