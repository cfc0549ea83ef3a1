"""The numbers of a run folder against numpy and scikit-learn, computed again from model.safetensors and the images."""

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import by_numpy
import numpy as np
import pytest
import torch
from by_numpy import Weights
from made_networks import made_config, made_network, made_prepared
from sklearn import metrics as sklearn_metrics

from ff.assess.distributions import goodness_groups
from ff.assess.evaluation import run_evaluation
from ff.assess.readings import ask
from ff.data.prepared import Prepared
from ff.files import read_csv, read_json
from ff.learn import checkpoint
from ff.learn.draws import split_rows
from ff.learn.recipes import make_run_config
from ff.learn.run import train
from ff.settings import ExecutionConfig


class Seen(NamedTuple):
    """What the network of a run folder says about the images of one split."""

    outputs: list[np.ndarray]  # neutral, L x [n, W_l]
    logits: np.ndarray  # [n, L, 10]
    goodness: np.ndarray  # [n, L, 10]
    labels: np.ndarray  # [n]


def splits_of(prepared: Prepared, weights: Weights) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels of the three splits of a run."""
    held_out = split_rows(len(prepared.train.labels), weights.config["val_size"], [weights.config["seed"]]).val[0]
    others = [row for row in range(len(prepared.train.labels)) if row not in set(held_out.tolist())]
    parts = {"train": (prepared.train, others), "val": (prepared.train, held_out), "test": (prepared.test, slice(None))}
    return {
        split: (part.images[rows].numpy(), part.labels[rows].numpy().astype(int))
        for split, (part, rows) in parts.items()
    }


def seen(folder: Path, prepared: Prepared) -> dict[str, Seen]:
    """The three splits of a run, read by numpy."""
    weights, facts = Weights(folder / "model.safetensors"), prepared.facts
    found = {}
    for split, (images, labels) in splits_of(prepared, weights).items():
        outputs = weights.neutral_outputs(images, facts.mean, facts.std)
        goodness = weights.goodness(images, facts.mean, facts.std)
        found[split] = Seen(outputs, weights.logits(outputs), goodness, labels)
    return found


def said(split: Seen, readout: str, depth: int) -> np.ndarray:
    """The classes that a readout names at a depth, [n]."""
    if readout == "head":
        return split.logits[:, depth - 1].argmax(1)
    if readout == "summed":
        return np.log(by_numpy.probability(split.logits[:, :depth])).sum(1).argmax(1)
    return split.goodness[:, :depth].sum(1).argmax(1)


def check_scores(row: dict, splits: dict[str, Seen]) -> None:
    split = splits[row["split"]]
    answers = said(split, row["readout"], row["depth"])
    assert row["n"] == len(split.labels)
    assert row["accuracy"] == pytest.approx((answers == split.labels).mean())
    assert row["error"] == pytest.approx((answers != split.labels).mean())
    assert row["macro_f1"] == pytest.approx(sklearn_metrics.f1_score(split.labels, answers, average="macro"))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"recipe": "edgeff", "rep_epochs": 8},
        {"recipe": "bp"},
        {"recipe": "mono"},
        {"recipe": "predsim"},
        {"recipe": "hff"},
    ],
    ids=str,
)
def test_metrics_of_trained_runs(values, digits, prepared_dir, tmp_path):
    settings = {"dataset": "DIGITS", "layers": "784,20,16,12", "rep_epochs": 2, "softmax_epochs": 1, "val_size": 200}
    config = make_run_config(settings | {"precision": "float64", "test_batch_size": 77} | values)[0]
    execution = ExecutionConfig(prepared_dir=str(prepared_dir), out=str(tmp_path), sidecar="off")
    readouts = {"bp": ("head",), **dict.fromkeys(("mono", "predsim", "hff"), ("head", "summed"))}.get(
        config.recipe, ("head", "goodness")
    )
    for seed, folder in zip((0, 4), train(config, execution, [0, 4]), strict=True):
        metrics, splits = read_json(folder / "metrics.json"), seen(folder, digits)
        assert metrics["config"]["seed"] == seed
        assert len(metrics["results"]) == 3 * len(readouts) * 3
        for row in metrics["results"]:
            check_scores(row, splits)
        for split in ("train", "val", "test"):
            for readout, name in {"head": "accuracy", **{r: f"{r}_accuracy" for r in ("goodness", "summed")}}.items():
                final = metrics["final"][f"{split}_{name}"]
                if readout in readouts:
                    right = said(splits[split], readout, 3) == splits[split].labels
                    assert final == pytest.approx(right.mean())
                else:
                    assert final is None
        # The last epoch's validation is that of the network that was kept.
        assert float(read_csv(folder / "history.csv")[-1]["validation_accuracy"]) == pytest.approx(
            metrics["final"]["val_accuracy"]
        )


# -- evaluation.json and distributions.csv ----

CASES = {
    "ff": {},
    "unit norm": {"recipe": "edgeff", "overlay_value": 3.0, "neutral_value": 0.4},
    "colour": {"dataset": "SVHN", "layers": "3072,14,9"},
}


@pytest.fixture(scope="module", params=CASES)
def run(request, tmp_path_factory) -> tuple[Path, Prepared, dict[str, Seen]]:
    """A run folder with evaluation.json, its set, and what numpy reads of it.

    The heads say different things at each depth, with biases of their own. In the first layer, one unit fires for a
    single validation image, one for no validation image but for others, one never.
    """
    folder = tmp_path_factory.mktemp("run")
    config = made_config(**{"precision": "float64", "seed": 5, "val_size": 40} | CASES[request.param])
    prepared = made_prepared(config.dataset, train=150, test=70, classes=9)
    network = made_network(config, prepared.facts.shape[0])
    generator = torch.Generator().manual_seed(9)
    network.head_biases = torch.randn(network.head_biases.shape, generator=generator, dtype=torch.float64)
    checkpoint.save(folder / "model.safetensors", network, 0, config)
    products = first_products(folder, prepared)
    top = {split: values.max(0) for split, values in products.items()}
    silent_in_validation = np.minimum(top["train"], top["test"]) - top["val"]
    silent_in_validation[:2] = 0
    unit = int(silent_in_validation.argmax())
    assert silent_in_validation[unit] > 1e-6
    network.biases[0][0, unit] = -float(top["val"][unit]) - 1e-9
    network.biases[0][0, 0] = -float(np.sort(products["val"][:, 0])[-2:].mean())
    network.biases[0][0, 1] = -1e3
    checkpoint.save(folder / "model.safetensors", network, 0, config)
    run_evaluation(folder, prepared, batch_size=32)
    return folder, prepared, seen(folder, prepared)


def first_products(folder: Path, prepared: Prepared) -> dict[str, np.ndarray]:
    """W norm(x) of the first layer by split, [n, W_1]."""
    weights, facts = Weights(folder / "model.safetensors"), prepared.facts
    return {
        split: weights.first_products(images, facts.mean, facts.std)
        for split, (images, _) in splits_of(prepared, weights).items()
    }


def negatives(folder: Path, prepared: Prepared, seed: int) -> np.ndarray:
    """The wrong label that `seed` gives each test image, [n]: read off goodness that names its label."""
    network, meta = checkpoint.load(folder / "model.safetensors")
    kept = ask(network, prepared, checkpoint.config(meta))
    kept.said["test", "goodness"] = torch.arange(10.0).expand_as(kept.said["test", "goodness"])
    return goodness_groups(kept, seed)["negative"][:, 0].numpy().astype(int)


def groups_of(folder: Path, prepared: Prepared, test: Seen, seed: int) -> dict[str, np.ndarray]:
    """Goodness of each layer, [n, L], of the test images as positives, as negatives and with the neutral label."""
    every = np.arange(len(test.labels))
    return {
        "positive": test.goodness[every, :, test.labels],
        "negative": test.goodness[every, :, negatives(folder, prepared, seed)],
        "neutral": np.stack([(h**2).mean(1) for h in test.outputs], 1),
    }


# What heads say most loudly, and how sure they are, is kept in float32.
SINGLE = 1e-6


def same_moments(found: dict | None, values: np.ndarray, rel: float = 1e-9, abs: float = 1e-12) -> bool:
    return found == (None if not len(values) else pytest.approx(by_numpy.moments(values), rel=rel, abs=abs))


def test_scores_of_every_split_readout_and_depth(run):
    folder, prepared, splits = run
    rows = read_json(folder / "evaluation.json")["readouts"]
    depth = splits["test"].logits.shape[1]
    assert len(rows) == 3 * 2 * depth
    for row in rows:
        check_scores(row, splits)
        split = splits[row["split"]]
        answers = said(split, row["readout"], row["depth"])
        expected = sklearn_metrics.confusion_matrix(split.labels, answers, labels=range(10))
        assert row["confusion"] == expected.tolist()
        assert [scores["class"] for scores in row["per_class"]] == list(prepared.facts.classes)
        by_class = sklearn_metrics.precision_recall_fscore_support(
            split.labels, answers, labels=range(10), zero_division=np.nan
        )
        for name, values in zip(("precision", "recall", "f1", "n"), by_class, strict=True):
            found = [np.nan if scores[name] is None else scores[name] for scores in row["per_class"]]
            assert found == pytest.approx(list(values), nan_ok=True), name
        if row["readout"] == "head":
            sure = by_numpy.probability(split.logits[:, row["depth"] - 1]).max(1)
            assert row["ece"] == pytest.approx(by_numpy.calibration_error(sure, answers == split.labels))


def test_the_depths_of_the_run_differ_so_that_one_is_not_taken_for_another(run):
    folder, _, splits = run
    rows = read_json(folder / "evaluation.json")["readouts"]
    depth = splits["test"].logits.shape[1]
    for name in ("accuracy", "ece"):
        assert len({row[name] for row in rows if (row["split"], row["readout"]) == ("train", "head")}) == depth


def test_layers_of_the_run(run):
    folder, prepared, splits = run
    document = read_json(folder / "evaluation.json")
    test, validation = splits["test"], splits["val"]
    # Anybody can draw the negatives again from what the document says of them.
    assert document["definitions"]["negatives_seed"] == 5
    groups = groups_of(folder, prepared, test, 5)
    for k, row in enumerate(document["layers"]):
        assert row["sparsity"] == pytest.approx((test.outputs[k] == 0).mean())
        assert row["dead_units"] == (validation.outputs[k] == 0).all(0).sum()
        for name, values in groups.items():
            assert same_moments(row["goodness"][name], values[:, k]), name
        positive, negative = groups["positive"][:, k], groups["negative"][:, k]
        truth = [1] * len(positive) + [0] * len(negative)
        area = sklearn_metrics.roc_auc_score(truth, np.concatenate([positive, negative]))
        assert row["separation_auc"] == pytest.approx(area)
        assert row["paired_share"] == pytest.approx((positive > negative).mean())
    assert document["layers"][0]["dead_units"] >= 2


def test_confidence_of_the_run(run):
    folder, _, splits = run
    rows = read_json(folder / "evaluation.json")["confidence"]
    for row in rows:
        split, k = splits[row["split"]], row["depth"] - 1
        right = split.logits[:, k].argmax(1) == split.labels
        chosen = right if row["outcome"] == "right" else ~right
        assert row["n"] == chosen.sum()
        assert same_moments(row["logit"], split.logits[chosen, k].max(1), SINGLE, SINGLE)
        assert same_moments(row["probability"], by_numpy.probability(split.logits[chosen, k]).max(1), SINGLE, SINGLE)
    assert len(rows) == 3 * 2 * splits["test"].logits.shape[1]


def test_histograms_of_the_run(run):
    folder, prepared, splits = run
    test, k = splits["test"], range(splits["test"].logits.shape[1])
    right = test.logits.argmax(2) == test.labels[:, None]
    sure, largest = by_numpy.probability(test.logits).max(2), test.logits.max(2)
    expected = {
        ("goodness", depth + 1, name): values[:, depth]
        for name, values in groups_of(folder, prepared, test, 5).items()
        for depth in k
    }
    for depth in k:
        for name, chosen in (("right", right[:, depth]), ("wrong", ~right[:, depth])):
            expected["confidence_logit", depth + 1, name] = largest[chosen, depth]
            expected["confidence_probability", depth + 1, name] = sure[chosen, depth]
    rows = defaultdict(list)
    for row in read_csv(folder / "distributions.csv"):
        assert row["split"] == "test"
        bin_ = float(row["bin_low"]), float(row["bin_high"]), int(row["count"])
        rows[row["kind"], int(row["depth"]), row["group"]].append(bin_)
    assert set(rows) == set(expected)
    for (kind, depth, group), bins in rows.items():
        low, high, counts = zip(*bins, strict=True)
        edges = np.array([*low, high[-1]])
        assert low[1:] == high[:-1]
        assert np.diff(edges) == pytest.approx((edges[-1] - edges[0]) / len(bins))
        # From the smallest value of any group to the largest, so that groups can be compared; probabilities: 0 to 1.
        together = np.concatenate([values for key, values in expected.items() if key[:2] == (kind, depth)])
        ends = (0, 1) if kind == "confidence_probability" else (together.min(), together.max())
        assert (edges[0], edges[-1]) == pytest.approx(ends)
        # A value on an edge may fall on either side of it for its last digit.
        found = np.cumsum(counts)
        for place, edge in enumerate(edges[1:]):
            values = expected[kind, depth, group]
            width = (1e-9 if kind == "goodness" else SINGLE) * (edges[-1] - edges[0])
            assert (values < edge - width).sum() <= found[place] <= (values <= edge + width).sum()
        assert found[-1] == len(expected[kind, depth, group])
