"""Scores of a trained network: predictions of both readouts at every depth, and what they are worth.

`run_evaluation` reads a checkpoint and writes evaluation.json and distributions.csv beside it. Nothing here
changes a network or chooses anything, so the test split may be read.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ff.data.images import Images, Part, standardise
from ff.data.prepared import Prepared
from ff.data.registry import Facts
from ff.errors import FFError
from ff.files import write_csv, write_json
from ff.learn import checkpoint
from ff.learn.labels import uniform_wrong_labels
from ff.learn.network import Network
from ff.learn.trainer import draw_generator, split_rows
from ff.settings import CLASS_COUNT, RunConfig

SCHEMA = 1
ECE_BINS = 15
HISTOGRAM_BINS = 80
PROBABILITY_BINS = 40
DISTRIBUTION_COLUMNS = ("model", "split", "kind", "depth", "group", "bin_low", "bin_high", "count")


class Predictions(NamedTuple):
    """What S networks say about n images: predicted classes [S, n, L] by depth, with the labels [S, n]."""

    head: Tensor
    goodness: Tensor | None
    labels: Tensor


def blocks(images: Images, rows: Tensor | None, seeds: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Pixels [S, B, D], their squares [S, B] and labels [S, B] of `rows` [S, n] (None: all images), B at
    most the batch size. Images and labels always come from one index."""
    count = len(images.labels) if rows is None else rows.shape[1]
    for start in range(0, count, batch_size):
        part = slice(start, start + batch_size)
        if rows is None:
            block = images.block(part, seeds)
            yield block.pixels, block.square, block.labels
        else:
            yield images.rows(rows[:, part].to(images.pixels.device))


def predict(
    network: Network, images: Images, rows: Tensor | None = None, batch_size: int = 512, goodness: bool = True
) -> Predictions:
    """Predict `rows` [S, n] of `images` (None: all of them) by the head readout and, if asked, by goodness.

    Head: one pass on neutral inputs, the class with the largest logit of head k. Goodness: one pass for each
    of ten labels, the label whose goodness summed over layers 1..k is largest.
    """
    heads, by_goodness, labels = [], [], []
    for pixels, square, truth in blocks(images, rows, len(network.heads), batch_size):
        features = network.features(network.neutral_outputs(pixels, square))
        heads.append(network.all_head_logits(features).argmax(-1))
        if goodness:
            by_goodness.append(network.goodness_by_label(pixels, square).cumsum(2).argmax(-1))
        labels.append(truth)
    return Predictions(torch.cat(heads, 1), torch.cat(by_goodness, 1) if goodness else None, torch.cat(labels, 1))


def confusion(predicted: Tensor, labels: Tensor) -> Tensor:
    """Counts [10, 10] (int64): row = true class, column = predicted class; `predicted` and `labels` [n]."""
    pairs = labels.cpu().long() * CLASS_COUNT + predicted.cpu().long()
    return torch.bincount(pairs, minlength=CLASS_COUNT**2).view(CLASS_COUNT, CLASS_COUNT)


def scores(counts: Tensor) -> dict[str, Any]:
    """n, accuracy, macro-F1 and error of a confusion matrix; None each where n is 0.

    Macro-F1 is the mean of the F1 of the classes that occur, as truth or prediction (as scikit-learn does).
    """
    n = int(counts.sum())
    if n == 0:
        return {"n": 0, "accuracy": None, "macro_f1": None, "error": None}
    right = counts.diagonal().double()
    occurring = (counts.sum(0) + counts.sum(1)).double()
    accuracy = float(right.sum()) / n
    f1 = (2 * right / occurring)[occurring > 0]
    return {"n": n, "accuracy": accuracy, "macro_f1": float(f1.mean()), "error": 1 - accuracy}


# -- what is drawn from a checkpoint ----


class Readings(NamedTuple):
    """What one network of L layers says about n images (on the CPU)."""

    logits: Tensor  # [n, L, 10], of head 1..L on neutral inputs
    goodness: Tensor | None  # [n, L, 10], of each layer under each label; None where goodness was never trained
    neutral: Tensor  # [n, L], goodness of each layer on neutral inputs
    active: list[Tensor]  # L x [W_l], how many of the images a unit is above 0 for (neutral inputs)
    labels: Tensor  # [n]


class Evaluation(NamedTuple):
    """Contents of evaluation.json and rows of distributions.csv."""

    document: dict[str, Any]
    distributions: list[dict[str, Any]]


def identify(config: RunConfig, model: str) -> dict[str, Any]:
    """The `run` block that each JSON file of a run folder begins with; `model` is the stamp of its model."""
    return {
        "name": config.name,
        "dataset": config.dataset,
        "layers": config.layers_name,
        "recipe": config.recipe,
        "seed": config.seed,
        "model": model,
    }


def check_data(config: RunConfig, prepared: Prepared) -> None:
    """FFError where `prepared` is another data set than the run was trained on."""
    if prepared.name != config.dataset:
        raise FFError(
            f"the run was trained on {config.dataset}, not on {prepared.name}; open the prepared {config.dataset}"
        )


def split_of(config: RunConfig, prepared: Prepared) -> dict[str, tuple[Part, Tensor]]:
    """For train, val and test: the official part and the rows [n] of it, as training drew them."""
    check_data(config, prepared)
    count = len(prepared.train.labels)
    rows = split_rows(count, config.val_size, [config.seed])
    every = torch.arange(len(prepared.test.labels))
    return {
        "train": (prepared.train, rows.train[0]),
        "val": (prepared.train, rows.val[0]),
        "test": (prepared.test, every),
    }


def read(
    network: Network, part: Part, rows: Tensor, facts: Facts, batch_size: int = 512, goodness: bool = True
) -> Readings:
    """Pass rows [n] of `part` through a network (S = 1) on its own device, `batch_size` at a time."""
    device, dtype = network.heads.device, network.heads.dtype
    logits, by_label, neutral, labels = [], [], [], []
    active = [torch.zeros(width, dtype=torch.int64) for width in network.widths]
    for batch in rows.split(batch_size) if len(rows) else ():
        images = standardise(Part(part.images[batch], part.labels[batch]), facts, device, dtype)
        block = images.block(slice(None), 1)
        outputs = network.neutral_outputs(block.pixels, block.square)
        for count, h in zip(active, outputs, strict=True):
            count += (h[0] > 0).sum(0).cpu()
        neutral.append(torch.stack([network.goodness(h)[0] for h in outputs], -1).cpu())
        logits.append(network.all_head_logits(network.features(outputs))[0].cpu())
        if goodness:
            by_label.append(network.goodness_by_label(block.pixels, block.square)[0].cpu())
        labels.append(images.labels.cpu())
    empty = torch.empty(0, network.depth, CLASS_COUNT, dtype=dtype)
    return Readings(
        torch.cat([empty, *logits]),
        torch.cat([empty, *by_label]) if goodness else None,
        torch.cat([empty[:, :, 0], *neutral]),
        active,
        torch.cat([torch.empty(0, dtype=torch.int64), *labels]),
    )


def run_evaluation(
    run_folder: str | os.PathLike,
    prepared: Prepared,
    device: torch.device | str = "cpu",
    batch_size: int = 512,
) -> None:
    """Write evaluation.json and distributions.csv of the run whose model.safetensors lies in `run_folder`."""
    folder = Path(run_folder)
    network, meta = checkpoint.load(folder / "model.safetensors", device)
    evaluation = evaluate_run(network, prepared, checkpoint.config(meta), meta["model"], batch_size)
    write_json(folder / "evaluation.json", evaluation.document)
    write_csv(folder / "distributions.csv", DISTRIBUTION_COLUMNS, evaluation.distributions)


def evaluate_run(
    network: Network, prepared: Prepared, config: RunConfig, model: str, batch_size: int = 512
) -> Evaluation:
    """Everything that evaluation.json and distributions.csv say of a network (S = 1) trained with `config`.

    `model` is its stamp.

    Negatives of the goodness distributions are the test images under a wrong label each, drawn evenly from
    the nine wrong ones with the run's seed. Raises FFError when the data set is not the one `config` names.
    """
    goodness = config.settings.method == "forward-forward"
    readings = {
        split: read(network, part, rows, prepared.facts, batch_size, goodness)
        for split, (part, rows) in split_of(config, prepared).items()
    }
    classes = prepared.facts.classes
    readouts, confidence = [], []
    for split, seen in readings.items():
        if len(seen.labels) == 0:
            continue
        readouts += _readouts(split, seen, classes)
        confidence += _confidence(split, seen)
    test = readings["test"]
    groups = goodness_groups(test, config.seed)
    # The test split decides nothing, not even which units count as dead.
    alive_split = "val" if len(readings["val"].labels) else "train"
    document = {
        "schema": SCHEMA,
        "run": identify(config, model),
        "classes": list(classes),
        "definitions": {
            "negatives": "test images under one wrong label each, drawn evenly from the nine wrong ones",
            "negatives_seed": config.seed,
            "ece": f"{ECE_BINS} equal-width bins of the largest probability (arXiv 1706.04599)",
            "separation_auc": "share of pairs of a positive and a negative in which the positive is larger",
            "paired_share": "share of images whose goodness is larger as positive than as negative",
            "sparsity": "share of outputs that are 0, neutral test inputs",
            "dead_units": f"units that are 0 for every neutral input of the {alive_split} split",
        },
        "readouts": readouts,
        "layers": _layers(network, test, readings[alive_split], groups),
        "confidence": confidence,
    }
    rows = [{"model": model, **row} for row in _distributions(test, groups)]
    return Evaluation(document, rows)


# -- scores by split, readout and depth ----


def _readouts(split: str, seen: Readings, classes: Sequence[str]) -> list[dict[str, Any]]:
    probability = largest_probability(seen.logits)
    says = {"head": seen.logits.argmax(-1)}
    if seen.goodness is not None:
        says["goodness"] = seen.goodness.cumsum(1).argmax(-1)
    rows = []
    for readout, predicted in says.items():
        for depth in range(1, predicted.shape[1] + 1):
            chosen = predicted[:, depth - 1]
            counts = confusion(chosen, seen.labels)
            right = chosen == seen.labels
            rows.append(
                {
                    "split": split,
                    "readout": readout,
                    "depth": depth,
                    **scores(counts),
                    "per_class": class_scores(counts, classes),
                    "confusion": counts.tolist(),
                    # Goodness is no probability, so only heads can be calibrated or not.
                    "ece": calibration_error(probability[:, depth - 1], right) if readout == "head" else None,
                }
            )
    return rows


def class_scores(counts: Tensor, classes: Sequence[str]) -> list[dict[str, Any]]:
    """n, precision, recall and F1 of each class of a confusion matrix [10, 10]; None where undefined:
    precision of a class that was never predicted, recall of one that does not occur, F1 of one that does
    neither."""
    right, true, said = counts.diagonal().tolist(), counts.sum(1).tolist(), counts.sum(0).tolist()
    return [
        {
            "class": name,
            "n": true[c],
            "precision": right[c] / said[c] if said[c] else None,
            "recall": right[c] / true[c] if true[c] else None,
            "f1": 2 * right[c] / (true[c] + said[c]) if true[c] + said[c] else None,
        }
        for c, name in enumerate(classes)
    ]


def largest_probability(logits: Tensor) -> Tensor:
    """Softmax probability of the most probable class: logits [..., 10] -> [...] (float64)."""
    logits = logits.double()
    return (logits.amax(-1) - logits.logsumexp(-1)).exp()


def calibration_error(probability: Tensor, right: Tensor, bins: int = ECE_BINS) -> float | None:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599, section 2): the mean over samples of
    |accuracy - mean confidence| of the sample's bin; equal-width bins (low, high]. None without samples.

    `probability` [n] of the predicted class, `right` [n] whether it is the true one.
    """
    if len(right) == 0:
        return None
    place = (probability.double() * bins).ceil().long().sub_(1).clamp_(0, bins - 1)
    excess = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, right.double() - probability.double())
    return float(excess.abs().sum()) / len(right)


# -- layers ----


def goodness_groups(seen: Readings, seed: int) -> dict[str, Tensor | None]:
    """Goodness [n, L] of the same images as positives, negatives (wrong labels drawn by `seed`), neutral."""
    groups: dict[str, Tensor | None] = {"positive": None, "negative": None, "neutral": seen.neutral}
    if seen.goodness is not None:
        shift = torch.randint(1, CLASS_COUNT, seen.labels.shape, generator=draw_generator(seed, "evaluation-negatives"))
        for name, labels in (
            ("positive", seen.labels),
            ("negative", uniform_wrong_labels(seen.labels, shift)),
        ):
            under = labels[:, None, None].expand(-1, seen.goodness.shape[1], 1)
            groups[name] = seen.goodness.gather(-1, under).squeeze(-1)
    return groups


def _layers(
    network: Network, test: Readings, alive: Readings, groups: dict[str, Tensor | None]
) -> list[dict[str, Any]]:
    n = len(test.labels)
    rows = []
    for layer, width in enumerate(network.widths):
        by_group = {name: None if values is None else moments(values[:, layer]) for name, values in groups.items()}
        auc, paired = None, None
        if groups["positive"] is not None and groups["negative"] is not None:
            positive, negative = groups["positive"][:, layer], groups["negative"][:, layer]
            auc = separation(positive, negative)
            paired = float((positive > negative).double().mean()) if n else None
        rows.append(
            {
                "depth": layer + 1,
                "width": width,
                "sparsity": 1 - int(test.active[layer].sum()) / (n * width) if n else None,
                "dead_units": int((alive.active[layer] == 0).sum()) if len(alive.labels) else None,
                "goodness": by_group,
                "separation_auc": auc,
                "paired_share": paired,
            }
        )
    return rows


def separation(positive: Tensor, negative: Tensor) -> float | None:
    """Share of pairs (one of `positive` [n], one of `negative` [m]) in which the positive is larger, ties
    counted half: the area under the ROC curve (Mann & Whitney 1947). None where one of them is empty."""
    if len(positive) == 0 or len(negative) == 0:
        return None
    ordered = negative.sort().values
    below = torch.searchsorted(ordered, positive.contiguous(), right=False)
    not_above = torch.searchsorted(ordered, positive.contiguous(), right=True)
    return float((below + not_above).double().mean()) / (2 * len(negative))


def moments(values: Tensor) -> dict[str, float] | None:
    """Mean, standard deviation (of the values themselves, divided by n), p5, p50 and p95 of values [n]; None
    without values."""
    if len(values) == 0:
        return None
    numbers = values.double().numpy()
    low, middle, high = np.percentile(numbers, [5, 50, 95])
    summary = {"mean": numbers.mean(), "std": numbers.std(), "p5": low, "p50": middle, "p95": high}
    return {name: float(value) for name, value in summary.items()}


# -- confidence and distributions ----


def _outcomes(seen: Readings) -> dict[str, Tensor]:
    """Which answers of the heads are right and which wrong, [n, L] each."""
    right = seen.logits.argmax(-1) == seen.labels.unsqueeze(-1)
    return {"right": right, "wrong": ~right}


def _confidence(split: str, seen: Readings) -> list[dict[str, Any]]:
    logit, probability = seen.logits.amax(-1), largest_probability(seen.logits)
    return [
        {
            "split": split,
            "depth": layer + 1,
            "outcome": outcome,
            "n": int(chosen[:, layer].sum()),
            "logit": moments(logit[chosen[:, layer], layer]),
            "probability": moments(probability[chosen[:, layer], layer]),
        }
        for layer in range(seen.logits.shape[1])
        for outcome, chosen in _outcomes(seen).items()
    ]


def _distributions(test: Readings, groups: dict[str, Tensor | None]) -> list[dict[str, Any]]:
    """Histograms of the test split; the groups of one kind and depth share their bins."""
    logit, probability = test.logits.amax(-1), largest_probability(test.logits)
    outcomes = _outcomes(test)
    rows = []
    for layer in range(test.logits.shape[1]):
        kinds = {
            "goodness": {name: values[:, layer] for name, values in groups.items() if values is not None},
            "confidence_logit": {name: logit[chosen[:, layer], layer] for name, chosen in outcomes.items()},
            "confidence_probability": {name: probability[chosen[:, layer], layer] for name, chosen in outcomes.items()},
        }
        for kind, values in kinds.items():
            edges = _edges(kind, torch.cat([part.double() for part in values.values()]))
            for group, part in values.items():
                counts, _ = np.histogram(part.double().numpy(), edges)
                rows += [
                    {
                        "split": "test",
                        "kind": kind,
                        "depth": layer + 1,
                        "group": group,
                        "bin_low": float(low),
                        "bin_high": float(high),
                        "count": int(count),
                    }
                    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
                ]
    return rows


def _edges(kind: str, values: Tensor) -> np.ndarray:
    if kind == "confidence_probability":
        return np.linspace(0, 1, PROBABILITY_BINS + 1)
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        # All values are the same: one unit around them, so that a bin has a width.
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, HISTOGRAM_BINS + 1)
