"""What networks say of images: asked once, kept in a file, and the same as if all of it were asked anew."""

import json
from pathlib import Path

import pytest
import textbook
import torch
from made_networks import made_config, made_network, made_prepared
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ff.learn.readings
import ff.learn.trainer
from ff.assess.readings import ask, readings_of, splits_of
from ff.data.images import standardise
from ff.data.prepared import Prepared
from ff.errors import FFError
from ff.files import read_csv, read_json
from ff.learn import checkpoint, readings_file
from ff.learn.readings import Readings, read, read_splits, spread
from ff.learn.readings_file import NAME, Kept, keep
from ff.learn.readouts import GOODNESS, HEAD
from ff.learn.recipes import make_run_config, rule_of
from ff.learn.run import read_all, train
from ff.learn.trainer import Trainer
from ff.settings import ExecutionConfig, RunConfig

BOTH = (HEAD, GOODNESS)


def small(**values) -> RunConfig:
    settings = {"dataset": "DIGITS", "layers": "784,20,16", "rep_epochs": 2, "softmax_epochs": 2, "val_size": 200}
    return make_run_config(settings | values)[0]


def trained(prepared: Prepared, seeds: list[int], **values) -> Trainer:
    config = small(**values)
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    trainer = Trainer(config, seeds, standardise(prepared.train, prepared.facts, "cpu", dtype))
    for phase, _ in trainer.schedule:
        list(trainer.epochs(phase))
    return trainer


# -- which images are asked about ----


@pytest.mark.parametrize(("n", "count"), [(10, 4), (1237, 500), (60_000, 2000), (2001, 2000), (500, 500), (3, 500)])
def test_a_sample_is_spread_evenly_over_all_rows(n, count):
    rows = torch.stack([torch.arange(n), torch.arange(n) + 1_000_000])
    chosen = spread(rows, count)
    assert chosen.shape == (2, min(n, count))
    assert torch.equal(chosen[1] - chosen[0], torch.full((min(n, count),), 1_000_000)), "each seed has its own rows"
    # From the first row on, in steps that differ by one at most, to the last step's end.
    steps = torch.cat([chosen[0], torch.tensor([n])]).diff()
    assert chosen[0, 0] == 0
    assert steps.max() - steps.min() <= 1


@pytest.mark.parametrize("batch_size", [1, 7, 10_000])
def test_what_is_read_is_what_the_textbook_says_in_batches_of_any_size(batch_size):
    config = made_config(precision="float64", seed=4)
    prepared, network = made_prepared(), made_network(config)
    images = standardise(prepared.test, prepared.facts, "cpu", torch.float64)
    rows = torch.tensor([[3, 59, 0, 3, 17, 20, 21, 22]])
    seen = read(network, images, rows, BOTH, batch_size, layers=True)
    assert torch.equal(seen.labels, prepared.test.labels[rows].long())
    plain = textbook.standardised(prepared.test, "MNIST")[rows[0]]
    weights, biases, heads, head_biases = textbook.parameters_of(network, 0)
    neutral = textbook.neutral(plain, 1, config.settings.neutral_value)
    outputs = textbook.forward(neutral, weights, biases, network.normalisation)
    for layer, h in enumerate(outputs):
        logits = textbook.head_logits(outputs, heads, head_biases, layer + 1, network.normalisation)
        assert torch.allclose(seen.said["head"][0, :, layer], logits, rtol=1e-9, atol=1e-12)
        assert torch.allclose(seen.neutral[0, :, layer], textbook.goodness(h), rtol=1e-9)
        assert torch.equal(seen.active[layer][0], (h > 0).sum(0))
    for label in range(10):
        labelled = textbook.with_label(plain, torch.full((8,), label), 1, config.settings.overlay_value)
        for layer, h in enumerate(textbook.outputs_of(network, labelled)):
            assert torch.allclose(seen.said["goodness"][0, :, layer, label], textbook.goodness(h)[0], rtol=1e-9)
    without = read(network, images, rows, (HEAD,), batch_size)
    assert (without.neutral, list(without.active), list(without.said)) == (None, [], ["head"])


def test_answers_by_goodness_go_by_the_sum_over_the_layers_and_those_of_heads_by_their_own_logits():
    said = torch.tensor([[[1.0, 0.0, 0.9], [0.0, 0.0, 0.2]]])
    assert HEAD.answers(said).tolist() == [[0, 2]]
    assert GOODNESS.answers(said).tolist() == [[0, 2]]
    said[0, 1] = torch.tensor([0.0, 0.05, 0.0])
    assert HEAD.answers(said).tolist() == [[0, 1]]
    assert GOODNESS.answers(said).tolist() == [[0, 0]]


@pytest.mark.parametrize(("sample", "expected"), [(30, [30, 200, 30, 200]), (500, [200] * 4)])
def test_epochs_are_validated_on_a_sample_and_the_last_of_a_phase_on_all(digits, monkeypatch, sample, expected):
    monkeypatch.setattr(ff.learn.trainer, "VALIDATION_SAMPLE", sample)
    config = small()
    trainer = Trainer(config, [0, 3], standardise(digits.train, digits.facts, "cpu"))
    found = []
    for (phase, _), readout in zip(trainer.schedule, (GOODNESS, HEAD), strict=True):
        for epoch in trainer.epochs(phase):
            found.append(epoch.validation_n)
            # Asked anew, of the rows by hand.
            rows = trainer.split.val[:, [int(i * 200 / epoch.validation_n) for i in range(epoch.validation_n)]]
            seen = read(trainer.state.network, trainer.images, rows, (readout,))
            right = readout.answers(seen.said[readout.name])[:, :, -1] == digits.train.labels[rows]
            assert epoch.validation_accuracy == pytest.approx(right.double().mean(1).tolist())
    assert found == expected


def test_how_many_images_a_number_is_of_stands_beside_it(prepared_dir, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(ff.learn.trainer, "VALIDATION_SAMPLE", 30)
    monkeypatch.setattr(ff.learn.readings, "TRAIN_SAMPLE", 100)
    execution = ExecutionConfig(prepared_dir=str(prepared_dir), out=str(tmp_path), sidecar="off")
    [folder] = train(small(), execution)
    assert [row["validation_n"] for row in read_csv(folder / "history.csv")] == ["30", "200", "30", "200"]
    metrics = read_json(folder / "metrics.json")
    found = {(row["split"], row["readout"]): row["n"] for row in metrics["results"]}
    expected = {("train", "head"): 1237, ("val", "head"): 200, ("test", "head"): 360}
    expected |= {("train", "goodness"): 100, ("val", "goodness"): 200, ("test", "goodness"): 360}
    assert found == expected
    # The sample's labels are those of its images.
    network, _ = checkpoint.load(folder / "model.safetensors")
    images, rows = splits_of(small(), digits)["train"]
    some = rows[:, [int(i * 1237 / 100) for i in range(100)]]
    answers = GOODNESS.answers(read(network, images, some, (GOODNESS,)).said["goodness"])
    right = (answers[0, :, -1] == digits.train.labels[some[0]]).double().mean().item()
    assert metrics["final"]["train_goodness_accuracy"] == pytest.approx(right)
    assert right > 0.5
    # What an epoch reports last is what is reported.
    rows = read_csv(folder / "history.csv")
    assert float(rows[1]["validation_accuracy"]) == pytest.approx(metrics["final"]["val_goodness_accuracy"])
    assert float(rows[3]["validation_accuracy"]) == pytest.approx(metrics["final"]["val_accuracy"])


def test_the_sizes_of_the_samples_are_as_documented():
    assert (ff.learn.trainer.VALIDATION_SAMPLE, ff.learn.readings.TRAIN_SAMPLE) == (500, 2000)


# -- what is known already is what would be said ----


def anew(trainer: Trainer, prepared: Prepared) -> dict[tuple[str, str], Readings]:
    """All splits asked for all that can be said, with nothing known."""
    test = standardise(prepared.test, prepared.facts, "cpu", trainer.images.factor.dtype)
    every = torch.arange(len(prepared.test.labels)).expand(len(trainer.seeds), -1)
    splits = {
        "train": (trainer.images, trainer.split.train),
        "val": (trainer.images, trainer.split.val),
        "test": (test, every),
    }
    readouts = rule_of(trainer.config).READOUTS
    return read_splits(trainer.state.network, splits, readouts, trainer.config.test_batch_size)


def same(one: Kept, other: Kept) -> bool:
    """Whether all numbers are equal to the last bit, in the same order."""
    parts = [(list(kept.answers), list(kept.said), list(kept.neutral), list(kept.active)) for kept in (one, other)]
    return parts[0] == parts[1] and all(
        map(torch.equal, *([t for t in _tensors(kept) if t is not None] for kept in (one, other)))
    )


def _tensors(kept: Kept):
    for answers in kept.answers.values():
        yield from (answers.labels, answers.classes, answers.largest, answers.sureness)
    yield from kept.said.values()
    yield from kept.neutral.values()
    for counts in kept.active.values():
        yield from counts


@pytest.mark.parametrize("seeds", [[0], [0, 7]])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"recipe": "edgeff"},
        {"recipe": "bp"},
        {"precision": "float64"},
        {"precision": "bfloat16"},
        {"val_size": 0},
        {"rep_epochs": 0},
        {"softmax_epochs": 0},
        {"test_batch_size": 70},
    ],
    ids=str,
)
def test_what_is_known_from_training_is_what_the_networks_say_at_its_end(digits, monkeypatch, values, seeds):
    monkeypatch.setattr(ff.learn.readings, "TRAIN_SAMPLE", 300)
    monkeypatch.setattr(ff.learn.trainer, "VALIDATION_SAMPLE", 30)
    trainer = trained(digits, seeds, **values)
    found, expected = read_all(trainer, digits), anew(trainer, digits)
    readouts = rule_of(trainer.config).READOUTS
    for seed in range(len(seeds)):
        assert same(keep(found, readouts, seed), keep(expected, readouts, seed))
    # Dead units are counted on the validation split, on the training split only where there is none.
    kept = keep(found, readouts)
    assert list(kept.active) == (["train", "test"] if values.get("val_size") == 0 else ["val", "test"])
    assert {split for split, _ in kept.said} == {"val", "test"} - ({"val"} if values.get("val_size") == 0 else set())


def test_the_known_readings_are_used_and_nothing_is_asked_twice(digits, monkeypatch):
    trainer = trained(digits, [0])
    asked = []
    monkeypatch.setattr(
        ff.learn.readings,
        "read",
        lambda network, images, rows, readouts, *a, **k: (
            asked.append((rows.shape[1], [readout.name for readout in readouts]))
            or read(network, images, rows, readouts, *a, **k)
        ),
    )
    read_all(trainer, digits)
    assert asked == [(1237, ["goodness"]), (360, ["head", "goodness"])]


def test_where_features_are_not_kept_the_same_is_said(digits, monkeypatch):
    kept = trained(digits, [0, 1])
    expected = read_all(kept, digits)
    monkeypatch.setattr("ff.learn.heads.FEATURE_CACHE_BYTES", 0)
    found = read_all(kept, digits)
    for seed in range(2):
        assert same(keep(found, BOTH, seed), keep(expected, BOTH, seed))


# -- the file ----


@pytest.fixture
def run(prepared_dir, tmp_path) -> Path:
    """The folder of a trained run."""
    return train(small(), ExecutionConfig(prepared_dir=str(prepared_dir), out=str(tmp_path), sidecar="off"))[0]


def test_what_training_kept_is_what_the_trained_network_says_when_it_is_asked(run, digits):
    kept = readings_file.load(run, digits.content)
    network, _ = checkpoint.load(run / "model.safetensors")
    assert same(kept, ask(network, digits, small()))
    for (split, readout), answers in kept.answers.items():
        n = {"train": 1237, "val": 200, "test": 360}[split]
        assert answers.classes.shape == (n, 2)
        if readout == "goodness":
            assert (answers.largest, answers.sureness) == (None, None)
            continue
        assert answers.largest.dtype == answers.sureness.dtype == torch.float32
        if split != "train":
            logits = kept.said[split, readout].double()
            assert torch.equal(answers.classes, logits.argmax(-1))
            assert torch.allclose(answers.largest.double(), logits.amax(-1), rtol=1e-6)
            assert torch.allclose(answers.sureness.double(), logits.softmax(-1).amax(-1), rtol=1e-6)
    expected = {
        (r["split"], r["readout"], r["depth"]): r["accuracy"] for r in read_json(run / "metrics.json")["results"]
    }
    for (split, readout), answers in kept.answers.items():
        accuracy = (answers.classes == answers.labels.unsqueeze(1)).double().mean(0)
        for depth in (1, 2):
            assert accuracy[depth - 1].item() == pytest.approx(expected[split, readout, depth])


def test_each_seed_of_a_group_keeps_its_own(digits, prepared_dir, tmp_path):
    execution = ExecutionConfig(prepared_dir=str(prepared_dir), out=str(tmp_path), sidecar="off")
    for folder, seed in zip(train(small(), execution, [0, 3]), (0, 3), strict=True):
        network, _ = checkpoint.load(folder / "model.safetensors")
        found, expected = readings_file.load(folder, digits.content), ask(network, digits, small(seed=seed))
        assert torch.equal(found.answers["train", "head"].labels, expected.answers["train", "head"].labels)
        for key, said in found.said.items():
            assert torch.allclose(said, expected.said[key], rtol=1e-4, atol=1e-4)


def missing(folder: Path) -> None:
    (folder / NAME).unlink()


def of_another_model(folder: Path) -> None:
    rewrite(folder, lambda tensors, about: about.update(model="f" * 16))


def rewrite(folder: Path, change) -> None:
    path = folder / NAME
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["ff"])
    tensors = load_file(path)
    change(tensors, about)
    save_file(tensors, path, metadata={"ff": json.dumps(about)})


BROKEN = [
    missing,
    of_another_model,
    lambda folder: rewrite(folder, lambda tensors, about: about.update(images="f" * 16)),
    lambda folder: (folder / NAME).write_bytes(b"noise"),
    lambda folder: (folder / NAME).write_bytes(b""),
    lambda folder: (folder / NAME).write_bytes((folder / NAME).read_bytes()[:-100]),
    lambda folder: rewrite(folder, lambda tensors, about: about.pop("model")),
    lambda folder: rewrite(folder, lambda tensors, about: about.update(tensors=None)),
    lambda folder: rewrite(folder, lambda tensors, about: tensors.pop("test/head/answers")),
    lambda folder: rewrite(
        folder, lambda tensors, about: [tensors.pop("test/active/2"), about["tensors"].remove("test/active/2")]
    ),
]


@pytest.mark.parametrize("damage", BROKEN)
def test_readings_that_are_gone_stale_or_damaged_are_made_again_to_the_byte(run, digits, damage):
    before = (run / NAME).read_bytes()
    damage(run)
    assert readings_file.load(run, digits.content) is None
    again = readings_of(run, digits)
    assert (run / NAME).read_bytes() == before
    assert same(again, readings_file.load(run, digits.content))


def test_readings_that_are_current_are_not_made_again(run, digits, monkeypatch):
    before = (run / NAME).stat().st_mtime_ns
    monkeypatch.setattr("ff.assess.readings.ask", None)
    readings_of(run, digits)
    assert (run / NAME).stat().st_mtime_ns == before


def test_readings_of_another_data_set_are_refused(run, digits):
    with pytest.raises(FFError):
        readings_of(run, digits._replace(name="MNIST", content="of others"))
