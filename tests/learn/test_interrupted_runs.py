"""What a training leaves while it runs and when it is interrupted, and what the next one makes of it."""

import contextlib
import fcntl
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import ff.learn.run
from ff.files import read_json
from ff.learn import checkpoint, products, resume
from ff.learn.recipes import make_run_config
from ff.learn.resume import LOCK_NAME, STATE_NAME
from ff.learn.run import run_folder, train
from ff.learn.trainer import TrainingState
from ff.settings import ExecutionConfig, RunConfig


def small(**values) -> RunConfig:
    settings = {"dataset": "DIGITS", "layers": "784,9", "rep_epochs": 2, "softmax_epochs": 2, "val_size": 200}
    return make_run_config(settings | values)[0]


@pytest.fixture
def execution(prepared_dir, tmp_path) -> ExecutionConfig:
    return ExecutionConfig(prepared_dir=str(prepared_dir), out=str(tmp_path / "out"), sidecar="off", save_every_s=0)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def interrupt(execution: ExecutionConfig, **options) -> None:
    """A training that ends after its first epoch."""
    with pytest.raises(KeyboardInterrupt):
        train(small(), execution, on_epoch=interrupted, **options)


def test_where_each_epoch_is_saved_it_is_before_it_is_reported(execution):
    """Whoever kills a run because an epoch was reported does not lose it."""
    saved, reported = [], []

    def on_epoch(epoch, total):
        reported.append((epoch.phase, epoch.epoch))
        with safe_open(run_folder(small(), execution.out) / STATE_NAME, framework="pt") as file:
            history = json.loads(file.metadata()["ff"])["history"]
        saved.append([(row["phase"], row["epoch"]) for row in history])

    train(small(), execution, on_epoch=on_epoch)
    assert saved == [reported[: n + 1] for n in range(4)]


@pytest.mark.parametrize("group", [[0, 2], [0], [0, 1, 2], [1, 0]], ids=str)
def test_the_state_of_a_group_is_that_of_its_seeds_in_their_order(execution, group):
    interrupt(execution, seeds=[0, 1])
    said = []
    train(small(), execution, group, say=said.append)
    resumed = any(text.startswith("resuming") for text in said)
    # A group that begins with another seed keeps its state elsewhere.
    assert not resumed
    assert any("belongs to another config" in text for text in said) == (group[0] == 0)


def test_the_state_of_another_device_is_another_run_to_the_resume(execution, monkeypatch):
    interrupt(execution)
    said, on_cpu = [], ff.learn.run.standardise
    monkeypatch.setattr(ff.learn.run, "choose_device", lambda _: torch.device("cuda"))
    # There is none here; what counts is where the state says that it comes from.
    monkeypatch.setattr(
        ff.learn.run, "standardise", lambda part, facts, device, dtype: on_cpu(part, facts, "cpu", dtype)
    )
    interrupt(execution, say=said.append)
    assert any("belongs to another config" in text for text in said)


def test_the_state_of_products_by_another_library_is_another_run_to_the_resume(execution, monkeypatch):
    monkeypatch.setattr(products, "onednn_error", lambda: 0.0)
    monkeypatch.setattr(products, "onednn_gain", lambda: 2.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path(execution.out).parent / "cache"))
    [folder] = train(small(seed=1), execution)
    assert read_json(folder / "metrics.json")["provenance"]["float32_products"] == "onednn"
    interrupt(execution)
    said = []
    # As on a machine of the same cluster whose processor rounds.
    monkeypatch.setattr(products, "onednn_error", lambda: 3e-3)
    [folder] = train(small(), execution, say=said.append)
    assert any("belongs to another config" in text for text in said)
    assert read_json(folder / "metrics.json")["provenance"]["float32_products"] == "default"


# -- when the state is written ----


class Machine:
    """A clock, a disk that takes `writing_s` for a state, and a training that notes which epochs were written."""

    def __init__(self, monkeypatch, writing_s: float, every_s: float):
        self.now, self.writing_s, self.epoch, self.written = 1000.0, writing_s, 0, []
        monkeypatch.setattr(resume, "write_tensors", self.write)
        state = TrainingState(None, {})
        self.saver = resume.Saver(Path(), "key", state, every_s, clock=lambda: self.now)

    def write(self, path: Path, tensors: dict, meta: dict) -> None:
        assert (path.name, meta["key"], meta["phases"]) == (STATE_NAME, "key", [self.epoch])
        self.now += self.writing_s
        self.written.append(self.epoch)

    def train(self, seconds: float, epoch_s: float) -> "Machine":
        for _ in range(round(seconds / epoch_s)):
            self.epoch += 1
            self.now += epoch_s
            self.saver.after_epoch([self.epoch])
        return self


def test_the_state_is_written_when_its_time_has_come_and_not_before(monkeypatch):
    machine = Machine(monkeypatch, writing_s=0, every_s=2).train(10, epoch_s=0.25)
    assert machine.written == [8, 16, 24, 32, 40]
    # An epoch that is longer than the time is written as it ends.
    assert Machine(monkeypatch, writing_s=0, every_s=2).train(15, epoch_s=3).written == [1, 2, 3, 4, 5]


def test_with_no_seconds_between_each_epoch_is_written(monkeypatch):
    assert Machine(monkeypatch, writing_s=0.5, every_s=0).train(5, epoch_s=0.5).written == list(range(1, 11))


def test_writing_takes_at_most_a_twentieth_of_the_time(monkeypatch):
    machine = Machine(monkeypatch, writing_s=1, every_s=2).train(400, epoch_s=0.5)
    # The first after 2 s, and then 20 s of training to each second of writing.
    assert machine.written[:3] == [4, 44, 84]
    assert len(machine.written) / 400 == pytest.approx(0.05, abs=0.003)
    # A disk that is fast enough changes nothing.
    assert Machine(monkeypatch, writing_s=0.05, every_s=2).train(8, epoch_s=0.5).written == [4, 8, 12, 16]


def test_a_run_saves_by_the_setting(execution, monkeypatch):
    asked = []
    monkeypatch.setattr(ff.learn.run, "Saver", lambda *arguments: asked.append(arguments) or resume.Saver(*arguments))
    interrupt(ExecutionConfig(**vars(execution) | {"save_every_s": 3600.0}))
    assert asked[0][-1] == 3600
    assert not (run_folder(small(), execution.out) / STATE_NAME).exists()
    assert ExecutionConfig().save_every_s == 2


# -- the hardware log ----


def samples(path: Path) -> list[dict]:
    return [row for row in map(json.loads, path.read_text().splitlines()) if "monotonic_s" in row]


@pytest.fixture
def watched(prepared_dir, tmp_path) -> ExecutionConfig:
    """As `execution`, with the hardware recorded."""
    return ExecutionConfig(prepared_dir=str(prepared_dir), out=str(tmp_path / "out"), hw_interval_ms=10, save_every_s=0)


def test_a_resumed_run_keeps_the_samples_of_its_first_stretch(watched):
    interrupt(watched)
    folder = run_folder(small(), watched.out)
    [log] = folder.glob(".hardware*")
    first = samples(log)
    train(small(), watched)
    assert first
    assert samples(folder / "hardware.jsonl")[: len(first)] == first


def test_a_run_that_begins_anew_has_samples_of_its_own_only(watched, monkeypatch):
    with monkeypatch.context() as patch:
        # Before there is a state.
        patch.setattr(ff.learn.run, "open_or_prepare", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(small(), watched)
    folder = run_folder(small(), watched.out)
    [log] = folder.glob(".hardware*")
    first = samples(log)
    train(small(), watched)
    assert first
    assert first[-1]["monotonic_s"] < samples(folder / "hardware.jsonl")[0]["monotonic_s"]


# -- the lock ----


def is_locked(folder: Path) -> bool:
    """Whether somebody holds the run, also against those who would share it."""
    handle = os.open(folder / LOCK_NAME, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def test_a_training_holds_the_folders_of_all_its_seeds_until_it_ends(execution):
    folders = [run_folder(small(seed=seed), execution.out) for seed in (0, 1)]
    held = []
    train(small(), execution, [0, 1], on_epoch=lambda *_: held.append([is_locked(folder) for folder in folders]))
    assert held == [[True, True]] * 4
    assert not any(map(is_locked, folders))


def test_who_waited_for_a_replacement_does_not_make_it_again(execution):
    """As two calls of a workflow do, which always replace."""
    [folder] = train(small(), execution)
    finished = (folder / "metrics.json").read_bytes()
    (folder / "metrics.json").unlink()
    said = []
    with contextlib.ExitStack() as other:
        handle = other.enter_context(open(folder / LOCK_NAME, "r+"))
        fcntl.flock(handle, fcntl.LOCK_EX)

        def say(text: str) -> None:
            said.append(text)
            if "waiting" in text:
                # The other process ends its training, and goes.
                (folder / "metrics.json").write_bytes(finished)
                other.close()

        train(small(), execution, say=say, overwrite=True)
    assert len(said) == 2
    assert "nothing left to do" in said[1]
    assert (folder / "metrics.json").read_bytes() == finished


def test_metrics_beside_the_weights_of_another_model_are_no_finished_run(execution):
    [folder] = train(small(), execution)
    weights = (folder / "model.safetensors").read_bytes()
    network, _ = checkpoint.load(folder / "model.safetensors")
    network.biases[0][0, 0] += 1
    checkpoint.save(folder / "model.safetensors", network, 0, small())
    train(small(), execution)
    assert (folder / "model.safetensors").read_bytes() == weights


def test_the_number_of_threads_is_the_one_asked_for(execution):
    before = torch.get_num_threads()
    wanted = 3 if before != 3 else 2
    try:
        [folder] = train(small(), ExecutionConfig(**vars(execution) | {"threads": wanted}))
        assert torch.get_num_threads() == wanted
        assert read_json(folder / "metrics.json")["provenance"]["threads"] == wanted
    finally:
        torch.set_num_threads(before)
