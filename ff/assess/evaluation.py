"""An evaluation: what a trained network is worth on every split, by every readout, depth and class.

`run_evaluation` reads a checkpoint and writes evaluation.json and distributions.csv beside it. Nothing here
changes a network or chooses anything, so the test split may be read.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ff.assess import distributions
from ff.assess.distributions import moments
from ff.assess.readings import readings_of
from ff.data.prepared import Prepared
from ff.data.registry import DATASETS
from ff.files import read_about, write_csv, write_json
from ff.learn import checkpoint
from ff.learn.readings_file import Answers, Kept
from ff.learn.readouts import HEAD
from ff.learn.scores import confusion, scores
from ff.settings import RunConfig
from ff.stamps import identify

SCHEMA = 1
ECE_BINS = 15


class Evaluation(NamedTuple):
    """Contents of evaluation.json and rows of distributions.csv."""

    document: dict[str, Any]
    distributions: list[dict[str, Any]]


def run_evaluation(
    run_folder: str | os.PathLike,
    prepared: Prepared,
    device: torch.device | str = "cpu",
    batch_size: int = 512,
) -> None:
    """Write evaluation.json and distributions.csv of the run whose model.safetensors lies in `run_folder`."""
    folder = Path(run_folder)
    kept = readings_of(folder, prepared, device, batch_size)
    meta = read_about(folder / "model.safetensors")
    found = evaluate_run(kept, checkpoint.config(meta), meta["model"])
    write_json(folder / "evaluation.json", found.document)
    write_csv(folder / "distributions.csv", distributions.COLUMNS, found.distributions)


def evaluate_run(kept: Kept, config: RunConfig, model: str) -> Evaluation:
    """Everything that evaluation.json and distributions.csv say of a network trained with `config`, from what it said.

    `model` is its stamp.

    Negatives of the goodness distributions are the test images under a wrong label each, drawn evenly from the nine
    wrong ones with the run's seed.
    """
    classes = DATASETS[config.dataset].classes
    readouts, confidence = [], []
    for (split, readout), seen in kept.answers.items():
        readouts += _readouts(split, readout, seen, classes)
        if readout == HEAD.name:
            confidence += distributions.confidence(split, seen)
    groups = distributions.goodness_groups(kept, config.seed)
    # The test split decides nothing, not even which units count as dead.
    alive_split = "val" if "val" in kept.active else "train"
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
            "sparsity": "share of outputs that are not above 0, neutral test inputs",
            "dead_units": f"units that are above 0 for no neutral input of the {alive_split} split",
        },
        "readouts": readouts,
        "layers": _layers(kept, alive_split, config.layers[1:], groups),
        "confidence": confidence,
    }
    rows = [{"model": model, **row} for row in distributions.histograms(kept, groups)]
    return Evaluation(document, rows)


# -- scores by split, readout and depth ----


def _readouts(split: str, readout: str, seen: Answers, classes: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for layer in range(seen.classes.shape[1]):
        chosen = seen.classes[:, layer]
        counts = confusion(chosen, seen.labels, len(classes))
        # Goodness is no probability, so only heads can be calibrated or not.
        sureness = None if seen.sureness is None else seen.sureness[:, layer]
        rows.append(
            {
                "split": split,
                "readout": readout,
                "depth": layer + 1,
                **scores(counts),
                "per_class": class_scores(counts, classes),
                "confusion": counts.tolist(),
                "ece": None if sureness is None else calibration_error(sureness, chosen == seen.labels),
            }
        )
    return rows


def class_scores(counts: Tensor, classes: Sequence[str]) -> list[dict[str, Any]]:
    """n, precision, recall and F1 of each class of a confusion matrix [C, C]; None where undefined: precision of a
    class that was never predicted, recall of one that does not occur, F1 of one that does neither."""
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


def _layers(
    kept: Kept, alive_split: str, widths: Sequence[int], groups: Mapping[str, Tensor | None]
) -> list[dict[str, Any]]:
    n, alive = len(kept.neutral["test"]), kept.active[alive_split]
    rows = []
    for layer, width in enumerate(widths):
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
                "sparsity": 1 - int(kept.active["test"][layer].sum()) / (n * width) if n else None,
                "dead_units": int((alive[layer] == 0).sum()),
                "goodness": by_group,
                "separation_auc": auc,
                "paired_share": paired,
            }
        )
    return rows


def separation(positive: Tensor, negative: Tensor) -> float | None:
    """Share of pairs (one of `positive` [n], one of `negative` [m]) in which the positive is larger, ties counted half:
    the area under the ROC curve (Mann & Whitney 1947). None where one of them is empty."""
    if len(positive) == 0 or len(negative) == 0:
        return None
    ordered = negative.sort().values
    below = torch.searchsorted(ordered, positive.contiguous(), right=False)
    not_above = torch.searchsorted(ordered, positive.contiguous(), right=True)
    return float((below + not_above).double().mean()) / (2 * len(negative))
