"""Seconds, rates and marks of a run on a clock that only moves when the test says so: known truth, no stopwatch."""

import time

import pytest

import ff.learn.run
import ff.learn.trainer
import ff.phases
from ff.files import read_csv, read_json
from ff.learn import checkpoint
from ff.learn.heads import Heads
from ff.learn.network import Network
from ff.learn.recipes import make_run_config
from ff.learn.rules import forward_forward
from ff.learn.run import train
from ff.phases import read_phases
from ff.settings import ExecutionConfig
from ff.stamps import model_of, stamp_of, stamp_of_rows

SEEDS = [0, 7]
# Of the 1,437 digits 200 are held out: 5 mini-batches of 256 an epoch, 2 blocks of 100 a validation, and 13 and 4
# blocks of training and test images.
CONFIG = make_run_config(
    {
        "dataset": "DIGITS",
        "layers": "784,9,8",
        "rep_epochs": 3,
        "softmax_epochs": 2,
        "val_size": 200,
        "train_batch_size": 256,
        "test_batch_size": 100,
    }
)[0]
IMPORT_S, LOAD_S, LAYERS_S, HEADS_S, GOODNESS_S, NEUTRAL_S, SAVE_S, REPORT_S = 4.0, 30.0, 1.0, 2.0, 10.0, 20.0, 5.0, 0.5


class Clock:
    """Stands in for the module `time`."""

    def __init__(self):
        self.now = 1000.0
        self.gmtime, self.strftime = time.gmtime, time.strftime

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic

    def time(self) -> float:
        return 1e9 + self.now

    def takes(self, seconds: float, call):
        """`call`, which takes so long."""

        def slow(*args, **kwargs):
            self.now += seconds
            return call(*args, **kwargs)

        return slow


@pytest.fixture
def clock(monkeypatch, digits) -> Clock:
    clock = Clock()
    for module in (ff.learn.trainer, ff.phases, ff.learn.run):
        monkeypatch.setattr(module, "time", clock)
    slow = [
        (ff.learn.run, "open_or_prepare", LOAD_S),
        (forward_forward.Learner, "gradients", LAYERS_S),
        (Heads, "gradients", HEADS_S),
        (Network, "goodness_by_label", GOODNESS_S),
        (Network, "neutral_pass", NEUTRAL_S),
        (checkpoint, "save", SAVE_S),
    ]
    for place, name, seconds in slow:
        monkeypatch.setattr(place, name, clock.takes(seconds, getattr(place, name)))
    return clock


@pytest.fixture
def run(clock, prepared_dir, tmp_path):
    """Train both seeds; gives their folders."""

    def start(on_epoch=lambda *_: None):
        execution = ExecutionConfig(prepared_dir=str(prepared_dir), out=str(tmp_path), sidecar="off", save_every_s=0)
        started = clock.now
        clock.now += IMPORT_S
        return train(
            CONFIG, execution, SEEDS, started_s=started, on_epoch=clock.takes(REPORT_S, on_epoch), overwrite=True
        )

    return start


EXPECTED = {
    "import": IMPORT_S,
    "load": LOAD_S,
    "representation": 3 * 5 * LAYERS_S,
    # What the heads see is computed once, in the first epoch.
    "softmax": 13 * NEUTRAL_S + 2 * 5 * HEADS_S,
    "validation": 3 * 2 * GOODNESS_S + 2 * 2 * NEUTRAL_S,
    # Known already: what both readouts say of the validation images, and what the heads saw of the training images.
    "evaluation": (13 + 4) * GOODNESS_S + 4 * NEUTRAL_S,
    "write": 2 * SAVE_S,
    "idle": 0.0,
    "other": 5 * REPORT_S,
}


def test_each_second_is_counted_once_and_under_its_name(run):
    for folder in run():
        metrics = read_json(folder / "metrics.json")
        assert metrics["seconds"] == pytest.approx(EXPECTED | {"total": sum(EXPECTED.values())})
        # Both seeds together: what they cost is stored with how many they are.
        assert metrics["shared_by_seeds"] == 2
        assert metrics["samples_per_s"] == pytest.approx(
            {"representation": 2 * 3 * 1237 / 15, "softmax": 2 * 2 * 1237 / 280}
        )
        rows = read_csv(folder / "history.csv")
        assert [float(row["seconds"]) for row in rows] == pytest.approx(
            [5 * LAYERS_S] * 3 + [13 * NEUTRAL_S + 5 * HEADS_S, 5 * HEADS_S]
        )
        validation = [2 * GOODNESS_S] * 3 + [2 * NEUTRAL_S] * 2
        assert [float(row["validation_seconds"]) for row in rows] == pytest.approx(validation)


def test_the_marks_say_when_each_part_began_and_ended(run):
    [folder, _] = run()
    marks = read_phases(folder / "phases.csv")
    assert marks[0].start_monotonic_s == 1000
    for mark in marks:
        assert mark.start_unix_s == pytest.approx(1e9 + mark.start_monotonic_s)
        assert mark.end_unix_s == pytest.approx(1e9 + mark.end_monotonic_s)
    found: dict[str, float] = {}
    for mark in marks:
        found[mark.name] = found.get(mark.name, 0) + mark.seconds
    assert found == pytest.approx({name: s for name, s in EXPECTED.items() if name not in ("idle", "other")})


def test_what_an_interrupted_stretch_took_counts_up_to_its_last_saved_epoch(run, clock):
    def stop(epoch, total):
        if epoch.epoch == 2:
            clock.now += 77  # of an epoch that is lost
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(stop)
    clock.now += 100_000
    [folder, _] = run()
    metrics = read_json(folder / "metrics.json")
    assert metrics["resumed_from_epoch"] == 2
    expected = EXPECTED | {"import": 2 * IMPORT_S, "load": 2 * LOAD_S}
    # What happened after the last mark that counts is no part of the run, and the report of epoch 1 lies before it.
    expected["other"] = (1 + 3) * REPORT_S
    assert metrics["seconds"] == pytest.approx(expected | {"total": sum(expected.values())})


def test_every_file_of_every_seed_names_its_own_model(run):
    folders = run()
    models = [model_of(folder) for folder in folders]
    assert len(set(models)) == 2
    for folder, model in zip(folders, models, strict=True):
        assert stamp_of(read_json(folder / "metrics.json")) == model
        for name in ("history.csv", "phases.csv"):
            assert {row["model"] for row in read_csv(folder / name)} == {model}
            assert stamp_of_rows(read_csv(folder / name)) == model
    losses = [[row["loss"] for row in read_csv(folder / "history.csv")] for folder in folders]
    assert not set(losses[0]) & set(losses[1])
