"""Evaluation against scikit-learn, against slow and plain code, and against made cases of known truth."""

import dataclasses
import itertools

import numpy as np
import pytest
import textbook
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_networks import (
    labels_of_pixels,
    made_config,
    made_network,
    made_prepared,
    made_run,
    schema_errors,
    trained_on_digits,
)
from sklearn import metrics

from ff.assess.distributions import goodness_groups, moments
from ff.assess.early_exit import run_early_exit
from ff.assess.evaluation import (
    Evaluation,
    calibration_error,
    class_scores,
    evaluate_run,
    run_evaluation,
    separation,
)
from ff.assess.readings import ask, splits_of
from ff.data.images import standardise
from ff.data.prepared import Prepared
from ff.errors import FFError
from ff.files import read_csv, read_json
from ff.learn.network import Network
from ff.learn.readings import read
from ff.learn.readings_file import NAME, largest_probability
from ff.learn.readouts import GOODNESS, HEAD
from ff.learn.recipes import make_run_config
from ff.learn.run import train
from ff.learn.scores import confusion, scores
from ff.learn.trainer import Trainer
from ff.measure.agreement import run_agreement
from ff.measure.run import run_measurement
from ff.settings import ExecutionConfig, RunConfig

NAMES = [str(c) for c in range(10)]

STAMP = "0123456789abcdef"


def evaluated(network: Network, prepared: Prepared, config: RunConfig) -> Evaluation:
    """The evaluation of a network that is asked now."""
    return evaluate_run(ask(network, prepared, config), config, STAMP)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 80), st.integers(1, 10), st.integers(1, 10), st.integers(0, 10_000))
def test_scores_are_those_of_scikit_learn(n, true_classes, said_classes, seed):
    rng = np.random.default_rng(seed)
    truth, said = rng.integers(0, true_classes, n), rng.integers(0, said_classes, n)
    counts = confusion(torch.tensor(said), torch.tensor(truth), 10)
    assert counts.numpy().tolist() == metrics.confusion_matrix(truth, said, labels=range(10)).tolist()
    result = scores(counts)
    assert result["accuracy"] == pytest.approx(metrics.accuracy_score(truth, said))
    assert result["error"] == pytest.approx(1 - metrics.accuracy_score(truth, said))
    assert result["macro_f1"] == pytest.approx(metrics.f1_score(truth, said, average="macro"))
    per_class = class_scores(counts, NAMES)
    expected = metrics.precision_recall_fscore_support(truth, said, labels=range(10), zero_division=np.nan)
    for key, values in zip(("precision", "recall", "f1", "n"), expected, strict=True):
        for row, value in zip(per_class, values, strict=True):
            assert row[key] == (None if np.isnan(value) else pytest.approx(value)), key


def test_scores_of_no_samples_are_missing_and_not_zero():
    counts = confusion(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), 10)
    assert scores(counts) == {"n": 0, "accuracy": None, "macro_f1": None, "error": None}
    assert all(row["precision"] is row["recall"] is row["f1"] is None for row in class_scores(counts, NAMES))


def test_calibration_error_of_known_cases():
    sure, right = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.9]), torch.tensor([True, True, True, True, False])
    # One bin: accuracy 0.8, confidence 0.9.
    assert calibration_error(sure, right) == pytest.approx(0.1, abs=1e-6)
    # Two bins: 2 of 4 samples with |1 - 0.95|, 2 of 4 with |0.5 - 0.3|.
    mixed = torch.tensor([0.95, 0.95, 0.3, 0.3]), torch.tensor([True, True, True, False])
    assert calibration_error(*mixed) == pytest.approx(0.5 * 0.05 + 0.5 * 0.2, abs=1e-6)
    assert calibration_error(torch.ones(3), torch.ones(3, dtype=torch.bool)) == 0
    assert calibration_error(torch.empty(0), torch.empty(0, dtype=torch.bool)) is None


def test_calibration_error_equals_a_plain_loop_over_bins():
    generator = torch.Generator().manual_seed(1)
    sure = torch.rand(500, generator=generator, dtype=torch.float64)
    # Too sure in some bins and not sure enough in others: with one sign alone, bins would not matter.
    right = torch.rand(500, generator=generator) < (sure * 9).sin() ** 2
    total = 0.0
    for low in range(15):
        inside = (sure > low / 15) & (sure <= (low + 1) / 15)
        if inside.any():
            gap = right[inside].double().mean() - sure[inside].mean()
            total += float(inside.double().mean() * gap.abs())
    assert calibration_error(sure, right) == pytest.approx(total)


def test_a_bin_of_the_calibration_error_holds_its_upper_end():
    # Bins of a fifteenth: 0.15 and 0.2 = 3/15 share one, 0.2 and 0.21 do not.
    right = torch.tensor([True, False])
    assert calibration_error(torch.tensor([0.2, 0.15], dtype=torch.float64), right) == pytest.approx(0.5 - 0.175)
    assert calibration_error(torch.tensor([0.2, 0.21], dtype=torch.float64), right) == pytest.approx(0.505)


def test_largest_probability_is_that_of_softmax_and_survives_large_logits():
    logits = torch.randn(20, 3, 10, generator=torch.Generator().manual_seed(0)) * 5
    assert torch.allclose(largest_probability(logits), logits.double().softmax(-1).amax(-1))
    assert float(largest_probability(torch.tensor([1e5, 0.0]))) == 1.0


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10_000))
def test_separation_is_the_area_under_the_roc_curve_with_ties(n, m, seed):
    rng = np.random.default_rng(seed)
    positive, negative = rng.integers(0, 6, n).astype(float), rng.integers(0, 5, m).astype(float)
    expected = metrics.roc_auc_score([1] * n + [0] * m, np.concatenate([positive, negative]))
    assert separation(torch.tensor(positive), torch.tensor(negative)) == pytest.approx(expected)


def test_moments_are_numpys_and_missing_without_values():
    values = torch.tensor([1.0, 2.0, 3.0, 10.0])
    assert moments(values) == {
        "mean": 4.0,
        "std": pytest.approx(np.std([1, 2, 3, 10])),
        "p5": pytest.approx(np.percentile([1, 2, 3, 10], 5)),
        "p50": 2.5,
        "p95": pytest.approx(np.percentile([1, 2, 3, 10], 95)),
    }
    assert moments(torch.empty(0)) is None


def test_reading_does_not_depend_on_the_batch_size():
    prepared, config = made_prepared(), made_config(precision="float64")
    whole, parts = (ask(made_network(config), prepared, config, size) for size in (512, 7))
    for key, seen in whole.answers.items():
        assert torch.equal(seen.labels, parts.answers[key].labels)
        assert torch.equal(seen.classes, parts.answers[key].classes)
    for key, said in whole.said.items():
        assert torch.allclose(said, parts.said[key])
    for split in ("val", "test"):
        assert torch.allclose(whole.neutral[split], parts.neutral[split])
        assert all(map(torch.equal, whole.active[split], parts.active[split]))
    assert whole.answers["test", "head"].labels.tolist() == prepared.test.labels.tolist()


def test_readings_are_those_of_plain_forward_passes():
    """Logits, goodness under each label, neutral goodness and activity, from overlaid images one at a time."""
    prepared, config = made_prepared(test=12), made_config(precision="float64")
    network = made_network(config)
    kept = ask(network, prepared, config)
    pixels = textbook.standardised(prepared.test, "MNIST")
    neutral = textbook.outputs_of(network, textbook.neutral(pixels, 1, config.settings.neutral_value))
    for layer, h in enumerate(neutral):
        assert torch.allclose(kept.neutral["test"][:, layer], h[0].square().mean(-1))
        assert kept.active["test"][layer].tolist() == (h[0] > 0).sum(0).tolist()
    for label in range(10):
        labels = torch.full((12,), label)
        outputs = textbook.outputs_of(network, textbook.with_label(pixels, labels, 1, config.settings.overlay_value))
        for layer, h in enumerate(outputs):
            assert torch.allclose(kept.said["test", "goodness"][:, layer, label], h[0].square().mean(-1))
    groups = goodness_groups(kept, seed=3)
    own = kept.said["test", "goodness"][5, :, prepared.test.labels[5].item()]
    assert torch.equal(groups["positive"][5], own)


def test_negatives_are_wrong_labels_drawn_evenly_and_the_same_for_a_seed():
    prepared, config = made_prepared(test=900), made_config()
    kept = ask(made_network(config), prepared, config)
    # Goodness that names its label, so that the label of each negative can be read off.
    kept.said["test", "goodness"] = torch.arange(10.0).expand(900, 3, 10)
    negative, labels = goodness_groups(kept, seed=4)["negative"][:, 0].long(), prepared.test.labels.long()
    assert not (negative == labels).any()
    shift = (negative - labels) % 10
    assert torch.bincount(shift, minlength=10)[1:].min() > 60
    assert torch.equal(goodness_groups(kept, seed=4)["negative"][:, 0].long(), negative)
    assert not torch.equal(goodness_groups(kept, seed=5)["negative"][:, 0].long(), negative)


def test_splits_are_those_of_training():
    prepared, config = made_prepared(), made_config(seed=7)
    splits = splits_of(config, prepared)
    trainer = Trainer(config, [7], standardise(prepared.train, prepared.facts, "cpu"))
    assert torch.equal(splits["train"][1], trainer.split.train)
    assert torch.equal(splits["val"][1], trainer.split.val)
    assert splits["test"][1].tolist() == [list(range(60))]


def test_accuracies_are_those_of_what_the_network_answers():
    prepared, config = made_prepared(), made_config(precision="float64")
    network = made_network(config)
    document = evaluated(network, prepared, config).document
    seen = read(network, *splits_of(config, prepared, dtype=torch.float64)["test"], (HEAD, GOODNESS))
    labels, answers = seen.labels[0], {r.name: r.answers(seen.said[r.name])[0] for r in (HEAD, GOODNESS)}
    for row in document["readouts"]:
        if row["split"] == "test":
            classes = answers[row["readout"]][:, row["depth"] - 1]
            assert row["accuracy"] == pytest.approx(float((classes == labels).double().mean()))
            assert row["confusion"] == confusion(classes, labels, 10).tolist()


CASES = {
    "three layers": ({}, {}),
    "one layer": ({}, {"layers": "784,25"}),
    "colour": ({"dataset": "SVHN"}, {"layers": "3072,20,10"}),
    "classes missing": ({"classes": 4}, {}),
    "one test sample": ({"test": 1}, {}),
    "no validation": ({}, {"val_size": 0}),
    "backprop": ({}, {"recipe": "bp"}),
    "mono": ({}, {"recipe": "mono"}),
    "unit norm": ({}, {"recipe": "edgeff"}),
    "local similarity": ({}, {"recipe": "predsim"}),
    "bfloat16": ({}, {"precision": "bfloat16"}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_run_is_evaluated(case, tmp_path):
    data, values = CASES[case]
    prepared = made_prepared(**data)
    _, config = made_run(tmp_path, prepared, **values)
    run_evaluation(tmp_path, prepared, batch_size=32)
    document = read_json(tmp_path / "evaluation.json")
    assert schema_errors(document, "evaluation") == []
    depth = len(config.layers) - 1
    readouts = {row["readout"] for row in document["readouts"]}
    without_goodness = {"backprop": {"head"}, "mono": {"head", "summed"}, "local similarity": {"head", "summed"}}
    assert readouts == without_goodness.get(case, {"head", "goodness"})
    splits = {row["split"] for row in document["readouts"]}
    assert splits == ({"train", "test"} if case == "no validation" else {"train", "val", "test"})
    assert len(document["readouts"]) == len(splits) * len(readouts) * depth
    assert {row["depth"] for row in document["readouts"]} == set(range(1, depth + 1))
    assert [row["width"] for row in document["layers"]] == list(config.layers[1:])
    for row in document["readouts"]:
        assert sum(map(sum, row["confusion"])) == row["n"]
        assert [c["n"] for c in row["per_class"]] == [sum(line) for line in row["confusion"]]
        assert (row["ece"] is None) == (row["readout"] == "goodness")
    n = len(prepared.test.labels)
    for layer in range(1, depth + 1):
        parts = [r for r in document["confidence"] if (r["split"], r["depth"]) == ("test", layer)]
        assert sum(part["n"] for part in parts) == n
        assert all((part["logit"] is None) == (part["n"] == 0) for part in parts)


def test_histograms_hold_every_test_sample_once(tmp_path):
    prepared = made_prepared(test=50)
    made_run(tmp_path, prepared)
    run_evaluation(tmp_path, prepared)
    rows = read_csv(tmp_path / "distributions.csv")
    total: dict[tuple, int] = {}
    for row in rows:
        assert row["split"] == "test" and float(row["bin_low"]) < float(row["bin_high"])
        key = row["kind"], row["depth"], row["group"]
        total[key] = total.get(key, 0) + int(row["count"])
    for depth in "123":
        for group in ("positive", "negative", "neutral"):
            assert total["goodness", depth, group] == 50
        for kind in ("confidence_logit", "confidence_probability"):
            assert total[kind, depth, "right"] + total[kind, depth, "wrong"] == 50


def test_equal_values_get_a_bin_of_their_own(tmp_path):
    prepared = made_prepared()
    network, config = made_run(tmp_path, prepared)
    network.heads.zero_()
    rows = evaluated(network, prepared, config).distributions
    same = [row for row in rows if row["kind"] == "confidence_logit" and row["count"]]
    assert all(row["bin_low"] <= 0 <= row["bin_high"] for row in same)


def test_dead_units_and_sparsity_of_a_network_with_known_ones():
    prepared, config = made_prepared(), made_config()
    network = made_network(config)
    # Three units that never fire and the rest always: sparsity is the share of dead ones.
    for weight, bias in zip(network.weights, network.biases, strict=True):
        weight.abs_().mul_(1e-6)
        bias.fill_(1)
        bias[0, :3] = -1
    layers = evaluated(network, prepared, config).document["layers"]
    assert [layer["dead_units"] for layer in layers] == [3, 3, 3]
    assert [layer["sparsity"] for layer in layers] == [pytest.approx(3 / width) for width in (30, 20, 10)]


def test_a_layer_that_never_fires_separates_nothing():
    prepared, config = made_prepared(), made_config()
    network = made_network(config)
    network.biases[2].fill_(-1e3)
    silent = evaluated(network, prepared, config).document["layers"][2]
    assert (silent["sparsity"], silent["dead_units"]) == (1, 10)
    # Equal goodness is no success of the true label; as chance goes, half of the pairs.
    assert (silent["separation_auc"], silent["paired_share"]) == (0.5, 0)


def test_dead_units_are_counted_without_the_test_split():
    prepared, config = made_prepared(), made_config()
    network = made_network(config)
    other = prepared._replace(test=made_prepared(seed=9).test)
    first, second = (evaluated(network, one, config).document["layers"] for one in (prepared, other))
    assert [layer["dead_units"] for layer in first] == [layer["dead_units"] for layer in second]
    assert [layer["sparsity"] for layer in first] != [layer["sparsity"] for layer in second]


def test_a_trained_network_separates_the_labels_of_an_image(digits, tmp_path):
    trained_on_digits(tmp_path, digits)
    run_evaluation(tmp_path, digits)
    document = read_json(tmp_path / "evaluation.json")
    last = [r for r in document["readouts"] if (r["split"], r["readout"], r["depth"]) == ("test", "head", 3)]
    assert last[0]["accuracy"] > 0.8
    assert document["layers"][0]["paired_share"] > 0.8
    right, wrong = [r for r in document["confidence"] if (r["split"], r["depth"]) == ("test", 3)]
    assert right["probability"]["mean"] > wrong["probability"]["mean"]


def test_images_and_labels_stay_together():
    prepared, config = made_prepared(), made_config()
    kept = ask(made_network(config), prepared, config, 13)
    for split, (images, rows) in splits_of(config, prepared).items():
        block = images.rows(rows)
        assert torch.equal(labels_of_pixels(prepared, block.pixels[0]), block.labels[0])
        for readout in ("head", "goodness"):
            assert torch.equal(kept.answers[split, readout].labels, block.labels[0])


def test_another_data_set_than_the_runs_is_refused(tmp_path):
    config = made_config()
    with pytest.raises(FFError, match="trained on MNIST, not on FMNIST"):
        evaluated(made_network(config), made_prepared("FMNIST"), config)
    folder = tmp_path / "run"
    made_run(folder, made_prepared())
    for job in (run_evaluation, run_early_exit, run_measurement, run_agreement):
        with pytest.raises(FFError, match="trained on MNIST, not on FMNIST"):
            job(folder, made_prepared("FMNIST"))


def test_an_evaluation_is_the_same_each_time():
    prepared, config = made_prepared(), made_config()
    network = made_network(config)
    first, second = evaluated(network, prepared, config), evaluated(network, prepared, config)
    assert first == second
    other = evaluated(network, prepared, dataclasses.replace(config, seed=1))
    assert other.document["layers"] != first.document["layers"]


def test_an_evaluation_of_what_training_kept_is_that_of_asking_anew(digits, prepared_dir, tmp_path):
    """Byte by byte, whether the readings are those of the training or were made again."""
    settings = {"dataset": "DIGITS", "layers": "784,20,16", "rep_epochs": 2, "softmax_epochs": 2, "val_size": 200}
    execution = ExecutionConfig(prepared_dir=str(prepared_dir), out=str(tmp_path), sidecar="off")
    [folder] = train(make_run_config(settings)[0], execution)
    written = []
    for kept in (True, False, True):
        if not kept:
            (folder / NAME).unlink()
        run_evaluation(folder, digits)
        run_early_exit(folder, digits, repeats=1)
        curve = [{k: v for k, v in row.items() if "time" not in k} for row in read_csv(folder / "early_exit.csv")]
        written.append([(folder / name).read_bytes() for name in ("evaluation.json", "distributions.csv")] + [curve])
    assert written[0] == written[1] == written[2]
    # Both say what metrics.json says.
    rows = {(row["split"], row["readout"], row["depth"]): row for row in read_json(folder / "metrics.json")["results"]}
    for row in read_json(folder / "evaluation.json")["readouts"]:
        reported = rows.pop((row["split"], row["readout"], row["depth"]))
        assert {name: row[name] for name in reported} == reported
    assert rows == {}


def test_readouts_are_listed_by_split_readout_and_depth(tmp_path):
    prepared = made_prepared()
    made_run(tmp_path, prepared)
    for _ in range(2):
        run_evaluation(tmp_path, prepared)
        rows = read_json(tmp_path / "evaluation.json")["readouts"]
        expected = itertools.product(("train", "val", "test"), ("head", "goodness"), (1, 2, 3))
        assert [(row["split"], row["readout"], row["depth"]) for row in rows] == list(expected)
