"""Who leaves at which layer: two early-exit rules, calibrated on the validation split, blind to the label.

*logit*: over the validation samples that head l gets right, per class the mean and standard deviation of
the class's logit, averaged over classes: mu_l, sigma_l. A sample leaves at the first l whose largest logit
> mu_l - k sigma_l.

*probability*: head l's logits are divided by a temperature T_l that minimises the validation cross-entropy (Guo et al.
2017, arXiv 1706.04599, section 4.2). A sample leaves at the first l whose largest probability is above 1 - e(k), with
the tolerated error e(k) = 0.001 * 500^(k/4): 0.1 % at k = 0, 50 % at k = 4. So k means more exits for both rules, but
equal k of the two are not equal in any other way.

The last layer always answers.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ff.learn.inference import Exits

RULES = ("logit", "probability")
# 0, 0.25 ... 4, and some on either side, so that the curve reaches full depth and the first layer.
KS = (-3.0, -2.0, -1.5, -1.0, -0.75, -0.5, -0.25, *(0.25 * step for step in range(17)), 5.0, 6.0)
RULE_TEXTS = {
    "logit": "leave at the first layer whose largest logit > mu - k sigma",
    "probability": "leave at the first layer whose largest softmax(logits / temperature) > threshold",
}
_TEMPERATURES = (0.02, 50.0)


class Calibration(NamedTuple):
    """What the validation split says of head 1..L; None where it says nothing (too few right samples)."""

    n: int
    mu: list[float | None]
    sigma: list[float | None]
    classes_used: list[int]
    temperature: list[float | None]


# -- calibration ----


def calibrate(logits: Tensor, labels: Tensor) -> Calibration:
    """Calibrate head 1..L on validation logits [n, L, C] and labels [n].

    A class counts for mu and sigma (n - 1 in the denominator) of a head that gets two of its samples right, at least;
    without such a class both are None.
    """
    classes = logits.shape[-1]
    mu, sigma, used = [], [], []
    for layer in range(logits.shape[1]):
        scores_of_layer = logits[:, layer].double()
        right = scores_of_layer.argmax(-1) == labels
        own, truth = scores_of_layer.amax(-1)[right], labels[right]
        count = torch.bincount(truth, minlength=classes).double()
        mean = torch.zeros(classes, dtype=torch.float64).index_add_(0, truth, own) / count
        squares = torch.zeros_like(mean).index_add_(0, truth, (own - mean[truth]).square())
        enough = count >= 2
        deviation = (squares[enough] / (count[enough] - 1)).sqrt()
        used.append(int(enough.sum()))
        mu.append(float(mean[enough].mean()) if used[-1] else None)
        sigma.append(float(deviation.mean()) if used[-1] else None)
    return Calibration(len(labels), mu, sigma, used, temperatures(logits, labels))


def temperatures(logits: Tensor, labels: Tensor) -> list[float | None]:
    """The temperature of each head that minimises the mean cross-entropy of logits [n, L, C] / T.

    The cross-entropy is convex in b = 1/T with slope mean(E_p[z] - z_true), so its sign is bisected (on log b), for all
    heads at once. Where no minimum lies within the limits 0.02 and 50 (every sample right, or hopeless) the limit is
    taken. None without samples.
    """
    n, depth = logits.shape[:2]
    if n == 0:
        return [None] * depth
    z = logits.double()
    true = z.gather(-1, labels[:, None, None].expand(-1, depth, 1)).squeeze(-1)
    low, high = (torch.full((depth,), 1 / limit, dtype=torch.float64).log() for limit in reversed(_TEMPERATURES))
    for _ in range(40):
        middle = (low + high) / 2
        probability = (z * middle.exp()[:, None]).softmax(-1)
        rising = ((probability * z).sum(-1) - true).mean(0) > 0
        low, high = torch.where(rising, low, middle), torch.where(rising, middle, high)
    return (-(low + high) / 2).exp().tolist()


def tolerated_error(k: float, classes: int) -> float:
    """e(k) of the probability rule; at most that of a guess among C classes, where every sample leaves."""
    return min(0.001 * 500 ** (k / 4), 1 - 1 / classes)


def exits_at(rule: str, k: float, calibration: Calibration, classes: int) -> Exits:
    """The rule's thresholds at `k`, for layers 1..L-1; None where the calibration says nothing."""
    if rule == "logit":
        pairs = zip(calibration.mu[:-1], calibration.sigma[:-1], strict=True)
        return Exits(tuple(None if mu is None or sigma is None else mu - k * sigma for mu, sigma in pairs))
    known = tuple(calibration.temperature[:-1])
    thresholds = tuple(None if temperature is None else 1 - tolerated_error(k, classes) for temperature in known)
    return Exits(thresholds, tuple(1.0 if temperature is None else temperature for temperature in known))


def chosen_exits(document: Mapping[str, Any]) -> Exits | None:
    """The exits of the operating point in early_exit.json; None where nobody leaves early."""
    point = document["operating_point"]
    if point is None or point["rule"] == "none":
        return None
    if point["rule"] != "probability":
        return Exits(tuple(point["thresholds"]))
    found = document["calibration"]["temperature"][:-1]
    return Exits(tuple(point["thresholds"]), tuple(1.0 if value is None else value for value in found))


def exit_layers(logits: Tensor, exits: Exits) -> Tensor:
    """The layer (from 1) at which each sample leaves: logits of all heads [n, L, C] -> [n]."""
    last = torch.ones(len(logits), dtype=torch.bool)
    heads = [logits[:, layer] for layer in range(len(exits.thresholds))]
    leaving = [exits.leaving(layer, head, head.amax(-1)) for layer, head in enumerate(heads)]
    # argmax gives the first of equal values.
    return torch.stack([*leaving, last], 1).int().argmax(1) + 1
