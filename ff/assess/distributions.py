"""Distributions: goodness of positives, negatives and neutral inputs, and how sure right and wrong answers are."""

from typing import Any

import numpy as np

from ff.learn.readings_file import Answers, Kept
from ff.learn.readouts import HEAD

HISTOGRAM_BINS = 80
PROBABILITY_BINS = 40
COLUMNS = ("model", "split", "kind", "depth", "group", "bin_low", "bin_high", "count")


def goodness_groups(kept: Kept) -> dict[str, np.ndarray | None]:
    """Goodness [n, L] of the test images as positives, negatives (wrong labels) and neutral."""
    return {inputs: kept.goodness.get(inputs) for inputs in ("positive", "negative", "neutral")}


def moments(values: np.ndarray) -> dict[str, float] | None:
    """Mean, standard deviation (of the values themselves, divided by n), p5, p50 and p95 of values [n]; None
    without values."""
    if len(values) == 0:
        return None
    numbers = values.astype(float)
    low, middle, high = np.percentile(numbers, [5, 50, 95])
    summary = {"mean": numbers.mean(), "std": numbers.std(), "p5": low, "p50": middle, "p95": high}
    return {name: float(value) for name, value in summary.items()}


def outcomes(seen: Answers) -> dict[str, np.ndarray]:
    """Which answers are right and which wrong, [n, L] each."""
    right = seen.classes == seen.labels[:, None]
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


def histograms(kept: Kept, groups: dict[str, np.ndarray | None]) -> list[dict[str, Any]]:
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
            edges = _edges(kind, np.concatenate([part.astype(float) for part in values.values()]))
            for group, part in values.items():
                counts, _ = np.histogram(part.astype(float), edges)
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


def _edges(kind: str, values: np.ndarray) -> np.ndarray:
    if kind == "confidence_probability":
        return np.linspace(0, 1, PROBABILITY_BINS + 1)
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        # All values are the same: one unit around them, so that a bin has a width.
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, HISTOGRAM_BINS + 1)
