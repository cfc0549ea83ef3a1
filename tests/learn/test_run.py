"""A run from config to finished folder: its files, their contents, warnings, failures."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from made_networks import schema_errors
from made_raw_data import write_raw

import ff.learn.run
from ff.data.images import Part, standardise
from ff.data.prepared import prepare
from ff.errors import FFError
from ff.files import read_csv, read_json
from ff.learn import checkpoint
from ff.learn.readings import read
from ff.learn.recipes import RECIPES, make_run_config, rule_of, run_config_of
from ff.learn.rules import forward_forward
from ff.learn.run import NOTHING, SAME, choose_device, run_folder, standing_result, train
from ff.learn.trainer import Epoch, Trainer, history_columns
from ff.phases import read_phases
from ff.provenance import training_hash
from ff.settings import ExecutionConfig

FILES = {
    "model.safetensors",
    "metrics.json",
    "history.csv",
    "phases.csv",
    "readings.safetensors",
    "hardware.csv",
    "hardware.json",
    # What hardware.csv is made of, and the lock, which outlives the process that held it.
    "hardware.jsonl",
    ".lock",
}


@pytest.fixture
def run(prepared_dir, tmp_path):
    """Train on the digits; gives the run's folder."""

    def start(*, seeds=None, execution=None, say=lambda text: None, overwrite=True, **values) -> Path:
        config = small(**values)
        options = {"prepared_dir": str(prepared_dir), "out": str(tmp_path / "out"), "sidecar": "off"}
        # A test that trains a folder twice means the second time.
        options |= execution or {}
        return train(config, ExecutionConfig(**options), seeds, say=say, overwrite=overwrite)[0]

    return start


def small(**values):
    settings = {"dataset": "DIGITS", "layers": "784,20,16", "rep_epochs": 2, "softmax_epochs": 2, "val_size": 200}
    return make_run_config(settings | values)[0]


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_a_run_folder_holds_these_files_and_metrics_fit_their_schema(run, recipe):
    folder = run(recipe=recipe, execution={"sidecar": "inline"})
    assert {path.name for path in folder.iterdir()} == FILES
    metrics = read_json(folder / "metrics.json")
    assert schema_errors(metrics, "metrics") == []
    assert schema_errors(read_json(folder / "hardware.json"), "hardware") == []
    config = small(recipe=recipe)
    assert folder.parts[-4:] == ("DIGITS", "784-20-16", recipe, "seed0")
    assert metrics["config"] == config.as_dict()
    assert run_config_of(metrics["config"]) == config
    assert metrics["run"]["name"] == "/".join(folder.parts[-4:])
    second = {"bp": None, "ff": "goodness", "edgeff": "goodness"}.get(recipe, "summed")
    readouts = ("head", second) if second else ("head",)
    expected = itertools.product(("train", "val", "test"), readouts, (1, 2))
    assert [(r["split"], r["readout"], r["depth"]) for r in metrics["results"]] == list(expected)
    for row in metrics["results"]:
        assert row["n"] == {"train": 1237, "val": 200, "test": 360}[row["split"]]
        assert row["error"] == pytest.approx(1 - row["accuracy"])
        assert (row["accuracy"] * row["n"]) == pytest.approx(round(row["accuracy"] * row["n"]))
    last = {(r["split"], r["readout"]): r["accuracy"] for r in metrics["results"] if r["depth"] == 2}
    for split in ("train", "val", "test"):
        assert metrics["final"][f"{split}_accuracy"] == last[split, "head"]
        assert metrics["final"][f"{split}_goodness_accuracy"] == last.get((split, "goodness"))
        assert metrics["final"][f"{split}_summed_accuracy"] == last.get((split, "summed"))
    seconds = metrics["seconds"]
    assert seconds["total"] == pytest.approx(sum(value for name, value in seconds.items() if name != "total"))
    assert metrics["resumed_from_epoch"] is None
    assert metrics["shared_by_seeds"] == 1
    execution = ExecutionConfig(prepared_dir=str(folder / "nowhere"))
    assert standing_result(folder, config, execution) == SAME
    assert "seed is 0 there, not 1" in standing_result(folder, small(recipe=recipe, seed=1), execution)
    assert standing_result(folder.parent, config, execution) == NOTHING


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("provenance"),
        lambda m: m.update(surprise=1),
        lambda m: m["config"].pop("seed"),
        lambda m: m["config"]["recipe_settings"].update(alpha=0),
        lambda m: m["results"][0].update(accuracy=1.1),
        lambda m: m["results"][0].update(n=0),
        lambda m: m["final"].update(test_accuracy="97 %"),
        lambda m: m["seconds"].update(backprop=1.0),
        lambda m: m["seconds"].pop("softmax"),
        lambda m: m["samples_per_s"].update(softmax=0),
        lambda m: m["peak_memory_mb"].update(host=0),
        lambda m: m["provenance"].update(host_name="here"),
        lambda m: m.update(resumed_from_epoch=0),
    ],
)
def test_the_schema_refuses_what_no_run_writes(run, change):
    metrics = read_json(run(rep_epochs=1, softmax_epochs=1) / "metrics.json")
    change(metrics)
    assert schema_errors(metrics, "metrics")


def test_history_and_phases(run):
    folder = run()
    rows = read_csv(folder / "history.csv")
    assert list(rows[0]) == ["model", *history_columns(2)]
    assert [(row["phase"], row["epoch"]) for row in rows] == [
        ("representation", "1"),
        ("representation", "2"),
        ("softmax", "1"),
        ("softmax", "2"),
    ]
    assert all(float(row["goodness_positive_1"]) > 0 for row in rows[:2])
    # Not measured in the second phase: empty, not 0.
    assert {rows[2][f"goodness_{sign}_{layer}"] for sign in ("positive", "negative") for layer in (1, 2)} == {""}
    assert all(0 < float(row["validation_accuracy"]) <= 1 for row in rows)
    phases = read_phases(folder / "phases.csv")
    epochs = [*["representation", "validation"] * 2, *["softmax", "validation"] * 2]
    assert [phase.name for phase in phases] == ["import", "load", *epochs, "evaluation", "write"]
    for one, other in itertools.pairwise(phases):
        assert one.start_monotonic_s <= one.end_monotonic_s <= other.start_monotonic_s


def test_what_is_reported_is_what_the_checkpoint_says(run, digits):
    folder = run()
    network, meta = checkpoint.load(folder / "model.safetensors")
    assert checkpoint.config(meta) == small()
    images, rows = standardise(digits.test, digits.facts, "cpu"), torch.arange(360).unsqueeze(0)
    found = read(network, images, rows, forward_forward.READOUTS, batch_size=7)
    metrics = read_json(folder / "metrics.json")
    for readout in forward_forward.READOUTS:
        right = (readout.answers(found.said[readout.name])[0, :, -1] == digits.test.labels).double().mean().item()
        reported = [
            r for r in metrics["results"] if (r["split"], r["readout"], r["depth"]) == ("test", readout.name, 2)
        ]
        assert reported[0]["accuracy"] == pytest.approx(right)


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_the_same_config_gives_the_same_bytes(run, recipe):
    first = (run(recipe=recipe) / "model.safetensors").read_bytes()
    assert (run(recipe=recipe) / "model.safetensors").read_bytes() == first
    assert (run(recipe=recipe, seed=1) / "model.safetensors").read_bytes() != first


def test_evaluation_does_not_depend_on_its_batch_size(run):
    results = [read_json(run(test_batch_size=size) / "metrics.json")["results"] for size in (512, 7, 100_000)]
    assert results[0] == results[1] == results[2]


def test_a_group_writes_a_folder_for_each_seed_as_if_alone(run, tmp_path):
    run(seeds=[0, 3], execution={"out": str(tmp_path / "group")})
    for seed in (0, 3):
        alone = run(seed=seed)
        folder = run_folder(small(seed=seed), tmp_path / "group")
        metrics, other = (read_json(path / "metrics.json") for path in (folder, alone))
        assert schema_errors(metrics, "metrics") == []
        assert metrics["config"] == other["config"]
        assert metrics["provenance"]["group_seeds"] == [0, 3]
        for row, twin in zip(metrics["results"], other["results"], strict=True):
            # Float32 rounding may turn a sample that is on the edge.
            assert row["accuracy"] == pytest.approx(twin["accuracy"], abs=0.01)
        found, expected = (checkpoint.load(path / "model.safetensors")[0] for path in (folder, alone))
        for one, twin in zip(found.weights, expected.weights, strict=True):
            assert ((one - twin).norm() / twin.norm()).item() < 1e-3


def test_the_test_data_is_read_after_training_only(run, digits, monkeypatch):
    epochs, reads = [], []

    class Watched:
        """The prepared set, which notes when its test part is asked for."""

        def __getattr__(self, name):
            if name == "test":
                reads.append(len(epochs))
            return getattr(digits, name)

    monkeypatch.setattr(ff.learn.run, "open_or_prepare", lambda *_: Watched())
    original = Trainer.epochs

    def counted(self, phase):
        for epoch in original(self, phase):
            epochs.append(epoch)
            yield epoch

    monkeypatch.setattr(Trainer, "epochs", counted)
    run()
    assert len(epochs) == 4
    assert set(reads) == {4}


def test_nothing_of_the_test_data_reaches_the_weights(run, digits, monkeypatch):
    expected = (run() / "model.safetensors").read_bytes()
    noise = Part(torch.randint_like(digits.test.images[:50], 256), digits.test.labels[:50])
    monkeypatch.setattr(ff.learn.run, "open_or_prepare", lambda *_: digits._replace(test=noise))
    folder = run()
    assert (folder / "model.safetensors").read_bytes() == expected
    assert read_json(folder / "metrics.json")["results"][-1]["n"] == 50


def test_without_validation_its_numbers_are_missing_not_zero(run):
    folder = run(val_size=0)
    metrics = read_json(folder / "metrics.json")
    assert schema_errors(metrics, "metrics") == []
    assert {row["split"] for row in metrics["results"]} == {"train", "test"}
    assert {row["n"] for row in metrics["results"] if row["split"] == "train"} == {1437}
    assert metrics["final"]["val_accuracy"] is None
    assert {row["validation_accuracy"] for row in read_csv(folder / "history.csv")} == {""}


def test_a_validation_set_that_is_too_large_becomes_a_fifth_with_a_warning(run):
    said = []
    metrics = read_json(run(val_size=10_000, say=said.append) / "metrics.json")
    [warning] = metrics["provenance"]["warnings"]
    assert "val_size 10000" in warning
    assert "287" in warning
    assert f"warning: {warning}" in said
    assert {row["n"] for row in metrics["results"] if row["split"] == "val"} == {287}


@pytest.mark.parametrize(
    ("values", "n"), [({"train_batch_size": 5000, "test_batch_size": 5000}, 1237), ({"train_batch_size": 1236}, 1237)]
)
def test_batches_larger_than_the_set_and_last_batches_of_one(run, values, n):
    metrics = read_json(run(**values) / "metrics.json")
    assert metrics["results"][0]["n"] == n
    assert metrics["final"]["test_accuracy"] > 0.1


def test_a_phase_without_epochs_has_no_rate_and_no_epochs_at_all_are_refused(run):
    metrics = read_json(run(rep_epochs=0, softmax_epochs=1) / "metrics.json")
    assert schema_errors(metrics, "metrics") == []
    assert metrics["samples_per_s"]["representation"] is None
    assert metrics["samples_per_s"]["softmax"] > 0
    with pytest.raises(FFError, match="rep_epochs and softmax_epochs are both 0"):
        run(rep_epochs=0, softmax_epochs=0)


@pytest.mark.parametrize("recipe", ["ff", "edgeff"])
def test_a_run_that_diverges_writes_no_result_and_leaves_the_one_before_it(run, recipe):
    with pytest.raises(FFError, match="epoch 1"):
        run(recipe=recipe, learning_rate=1e30)
    folder = run(recipe=recipe, execution={"sidecar": "inline"})
    before = contents(folder)
    with pytest.raises(FFError, match="epoch 1"):
        run(recipe=recipe, learning_rate=1e30, execution={"sidecar": "inline"})
    assert contents(folder) == before


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a result, without what belongs to a training that is not finished."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def test_files_that_are_not_official_leave_a_warning_in_metrics(run, tmp_path):
    write_raw(tmp_path / "raw", "MNIST")
    said = []
    execution = {"data_dir": str(tmp_path / "raw"), "prepared_dir": str(tmp_path / "made"), "verify": False}
    folder = run(dataset="MNIST", val_size=10, execution=execution, say=said.append)
    metrics = read_json(folder / "metrics.json")
    assert schema_errors(metrics, "metrics") == []
    assert metrics["provenance"]["data"]["verified"] is False
    [warning] = metrics["provenance"]["warnings"]
    assert "not the official bytes" in warning
    assert "train-images-idx3-ubyte" in warning
    assert f"warning: {warning}" in said
    with pytest.raises(FFError, match="verify: false"):
        run(dataset="MNIST", execution=execution | {"verify": True})


def test_a_colour_set_trains_from_layers_that_begin_with_784(run, tmp_path):
    write_raw(tmp_path / "raw", "CIFAR10")
    execution = {"data_dir": str(tmp_path / "raw"), "prepared_dir": str(tmp_path / "made"), "verify": False}
    folder = run(dataset="CIFAR10", layers="784,8,6", val_size=10, execution=execution)
    assert folder.parts[-3] == "3072-8-6"
    assert checkpoint.load(folder / "model.safetensors")[0].channels == 3


def test_other_code_or_data_is_another_run_to_the_resume(run, digits, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    execution = ExecutionConfig(out=str(tmp_path / "out"), sidecar="off", save_every_s=0)
    for change in ("code", "data"):
        monkeypatch.setattr(ff.learn.run, "open_or_prepare", lambda *_: digits)
        with pytest.raises(KeyboardInterrupt):
            train(small(), execution, on_epoch=interrupted, overwrite=True)
        said = []
        with monkeypatch.context() as patch:
            if change == "code":
                patch.setattr(ff.learn.run.provenance, "training_hash", lambda _: "changed")
            else:
                patch.setattr(ff.learn.run, "open_or_prepare", lambda *_: digits._replace(content="changed"))
            train(small(), execution, say=said.append, overwrite=True)
        assert any("belongs to another config, code or data" in text for text in said), change


def test_epochs_are_reported_as_they_end(prepared_dir, tmp_path):
    seen: list[tuple[Epoch, int]] = []
    execution = ExecutionConfig(prepared_dir=str(prepared_dir), out=str(tmp_path), sidecar="off")
    train(small(), execution, on_epoch=lambda epoch, total: seen.append((epoch, total)))
    assert [(epoch.phase, epoch.epoch, total) for epoch, total in seen] == [
        ("representation", 1, 4),
        ("representation", 2, 4),
        ("softmax", 1, 4),
        ("softmax", 2, 4),
    ]


def test_a_second_training_starts_its_hardware_log_anew(run):
    lengths = []
    for _ in range(2):
        folder = run(execution={"sidecar": "inline", "hw_interval_ms": 10})
        lengths.append([json.loads(line) for line in (folder / "hardware.jsonl").read_text().splitlines()])
    first, second = lengths
    assert first[0] not in second


def test_devices_that_are_not_there_are_refused():
    assert choose_device(ExecutionConfig(device="cuda:7", no_cuda=True)) == torch.device("cpu")
    for wanted in ("cuda:77", "gpu", "mps", "meta", "", "cuda:-1"):
        with pytest.raises(FFError, match="device"):
            choose_device(ExecutionConfig(device=wanted))


def test_a_network_that_is_too_large_is_one_sentence(run):
    with pytest.raises(FFError, match=r"does not fit into the memory of cpu"):
        run(layers="784,1,1000000,1000000")


def test_other_errors_are_not_taken_for_a_lack_of_memory(run, monkeypatch):
    def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(forward_forward.Learner, "gradients", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run()


@pytest.mark.parametrize("name", ["MNIST", "SVHN"])
def test_a_run_on_real_images(real_data, run, tmp_path, name):
    execution = {"data_dir": str(real_data), "prepared_dir": str(tmp_path / "made"), "verify": name == "MNIST"}
    prepare(name, str(real_data), tmp_path / "made", verify=name == "MNIST", download=False)
    values = {"val_size": 10_000, "layers": "784,50,30"}
    epochs = 2 if name == "MNIST" else 10
    metrics = read_json(
        run(dataset=name, execution=execution, rep_epochs=epochs, softmax_epochs=epochs, **values) / "metrics.json"
    )
    assert schema_errors(metrics, "metrics") == []
    # Far above guessing; SVHN has 803 images here.
    assert metrics["final"]["test_accuracy"] > (0.9 if name == "MNIST" else 0.15)


class PowerSensor:
    """A sensor that is there: what `ff.hardware.idle` asks for."""

    period_s = 0.01

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_idle_power_has_windows_of_its_own_before_and_after_the_training(run, monkeypatch):
    import ff.hardware.idle

    monkeypatch.setattr(ff.hardware.idle, "open_power_source", lambda root: PowerSensor())
    monkeypatch.setattr(ff.hardware.idle, "SETTLE_S", 0.02)
    folder = run(execution={"sidecar": "inline", "idle_s": 0.1})
    marks = read_phases(folder / "phases.csv")
    names = [mark.name for mark in marks]
    assert names[:4] == ["import", "load", "idle_before", "representation"]
    assert names[-3:] == ["evaluation", "idle_after", "write"]
    idle = [mark.seconds for mark in marks if mark.name.startswith("idle")]
    assert all(seconds >= 0.1 for seconds in idle)
    seconds = read_json(folder / "metrics.json")["seconds"]
    assert seconds["idle"] == pytest.approx(sum(idle))
    assert seconds["total"] == pytest.approx(sum(value for name, value in seconds.items() if name != "total"))


def test_a_sidecar_beside_the_job_records_and_the_training_keeps_still_for_it(run, monkeypatch):
    import ff.hardware.idle

    monkeypatch.setattr(ff.hardware.idle, "open_power_source", lambda root: PowerSensor())
    monkeypatch.setattr(ff.hardware.idle, "SETTLE_S", 0.02)
    folder = run(execution={"sidecar": "service", "idle_s": 0.1})
    names = [mark.name for mark in read_phases(folder / "phases.csv")]
    assert {"idle_before", "idle_after"} <= set(names)
    assert not list(folder.glob("*hardware*"))


@pytest.mark.parametrize("execution", [{"sidecar": "off"}, {"sidecar": "inline", "idle_s": 0}])
def test_nobody_waits_for_idle_power_that_is_not_recorded_or_not_wanted(run, monkeypatch, execution):
    import ff.hardware.idle

    monkeypatch.setattr(ff.hardware.idle, "open_power_source", lambda root: PowerSensor())
    folder = run(execution=execution)
    assert not [mark for mark in read_phases(folder / "phases.csv") if mark.name.startswith("idle")]
    assert read_json(folder / "metrics.json")["seconds"]["idle"] == 0


@pytest.mark.parametrize("recipe", ["ff", "bp"])
def test_a_run_records_the_hash_of_the_code_that_trained_it(run, recipe):
    found = read_json(run(recipe=recipe, rep_epochs=1, softmax_epochs=1) / "metrics.json")["provenance"]["code_hash"]
    assert found == training_hash(rule_of(small(recipe=recipe)).__name__)
