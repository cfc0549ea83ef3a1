"""Distributions: goodness of positives, negatives and neutral inputs, and how sure right and wrong answers are."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ff.assess.readings import Readings
from ff.learn.draws import draw_generator
from ff.learn.negatives import Uniform

HISTOGRAM_BINS = 80
PROBABILITY_BINS = 40
COLUMNS = ("model", "split", "kind", "depth", "group", "bin_low", "bin_high", "count")


def goodness_groups(seen: Readings, seed: int) -> dict[str, Tensor | None]:
    """Goodness [n, L] of the same images as positives, negatives (wrong labels drawn by `seed`), neutral."""
    groups: dict[str, Tensor | None] = {"positive": None, "negative": None, "neutral": seen.neutral}
    if seen.goodness is not None:
        wrong = Uniform(seen.goodness.shape[-1])
        drawn = wrong.draw(draw_generator(seed, "evaluation-negatives"), len(seen.labels))
        for name, labels in (("positive", seen.labels), ("negative", wrong.choose(seen.labels, drawn))):
            under = labels[:, None, None].expand(-1, seen.goodness.shape[1], 1)
            groups[name] = seen.goodness.gather(-1, under).squeeze(-1)
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


def largest_probability(logits: Tensor) -> Tensor:
    """Softmax probability of the most probable class: logits [..., C] -> [...] (float64)."""
    logits = logits.double()
    return (logits.amax(-1) - logits.logsumexp(-1)).exp()


def outcomes(seen: Readings) -> dict[str, Tensor]:
    """Which answers of the heads are right and which wrong, [n, L] each."""
    right = seen.logits.argmax(-1) == seen.labels.unsqueeze(-1)
    return {"right": right, "wrong": ~right}


def confidence(split: str, seen: Readings) -> list[dict[str, Any]]:
    """How sure the heads are of right and of wrong answers: one row per depth and outcome."""
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
        for outcome, chosen in outcomes(seen).items()
    ]


def histograms(test: Readings, groups: dict[str, Tensor | None]) -> list[dict[str, Any]]:
    """Histograms of the test split; the groups of one kind and depth share their bins."""
    logit, probability = test.logits.amax(-1), largest_probability(test.logits)
    by_outcome = outcomes(test)
    rows = []
    for layer in range(test.logits.shape[1]):
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
