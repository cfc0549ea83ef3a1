"""Distributions: goodness of positives, negatives and neutral inputs, and how sure right and wrong answers are."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ff.learn.draws import draw_generator
from ff.learn.negatives import Uniform
from ff.learn.readings_file import Answers, Kept
from ff.learn.readouts import GOODNESS, HEAD

HISTOGRAM_BINS = 80
PROBABILITY_BINS = 40
COLUMNS = ("model", "split", "kind", "depth", "group", "bin_low", "bin_high", "count")


def goodness_groups(kept: Kept, seed: int) -> dict[str, Tensor | None]:
    """Goodness [n, L] of the test images as positives, negatives (wrong labels drawn by `seed`) and neutral."""
    groups: dict[str, Tensor | None] = {"positive": None, "negative": None, "neutral": kept.neutral["test"]}
    goodness = kept.said.get(("test", GOODNESS.name))
    if goodness is not None:
        true = kept.answers["test", GOODNESS.name].labels
        wrong = Uniform(goodness.shape[-1])
        drawn = wrong.draw(draw_generator(seed, "evaluation-negatives"), len(true))
        for name, labels in (("positive", true), ("negative", wrong.choose(true, drawn))):
            under = labels[:, None, None].expand(-1, goodness.shape[1], 1)
            groups[name] = goodness.gather(-1, under).squeeze(-1)
    return groups


def moments(values: Tensor) -> dict[str, float] | None:
    """Mean, standard deviation (of the values themselves, divided by n), p5, p50 and p95 of values [n]; None
    without values."""
    if len(values) == 0:
        return None
    numbers = values.double().numpy()
    low, middle, high = np.percentile(numbers, [5, 50, 95])
    summary = {"mean": numbers.mean(), "std": numbers.std(), "p5": low, "p50": middle, "p95": high}
    return {name: float(value) for name, value in summary.items()}


def outcomes(seen: Answers) -> dict[str, Tensor]:
    """Which answers are right and which wrong, [n, L] each."""
    right = seen.classes == seen.labels.unsqueeze(-1)
    return {"right": right, "wrong": ~right}


def confidence(split: str, seen: Answers) -> list[dict[str, Any]]:
    """How sure the heads are of right and of wrong answers: one row per depth and outcome."""
    logit, probability = seen.largest, seen.sureness
    assert logit is not None and probability is not None
    return [
        {
            "split": split,
            "depth": layer + 1,
            "outcome": outcome,
            "n": int(chosen[:, layer].sum()),
            "logit": moments(logit[chosen[:, layer], layer]),
            "probability": moments(probability[chosen[:, layer], layer]),
        }
        for layer in range(seen.classes.shape[1])
        for outcome, chosen in outcomes(seen).items()
    ]


def histograms(kept: Kept, groups: dict[str, Tensor | None]) -> list[dict[str, Any]]:
    """Histograms of the test split; the groups of one kind and depth share their bins."""
    test = kept.answers["test", HEAD.name]
    logit, probability = test.largest, test.sureness
    assert logit is not None and probability is not None
    by_outcome = outcomes(test)
    rows = []
    for layer in range(test.classes.shape[1]):
        kinds = {
            "goodness": {name: values[:, layer] for name, values in groups.items() if values is not None},
            "confidence_logit": {name: logit[chosen[:, layer], layer] for name, chosen in by_outcome.items()},
            "confidence_probability": {
                name: probability[chosen[:, layer], layer] for name, chosen in by_outcome.items()
            },
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
