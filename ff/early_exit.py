"""Early exit: samples that an early head is sure of leave there, which saves the layers above.

Two rules, both without the true label (see `ff.inference.Exits`), both calibrated on the validation split:

*logit*: over the validation samples that head l gets right, per class the mean and standard deviation of
the class's logit, averaged over classes: mu_l, sigma_l. A sample leaves at the first l whose largest logit
> mu_l - k sigma_l.

*probability*: head l's logits are divided by a temperature T_l that minimises the validation cross-entropy
(Guo et al. 2017, arXiv 1706.04599, section 4.2). A sample leaves at the first l whose largest probability
is above 1 - e(k), with the tolerated error e(k) = 0.001 * 500^(k/4): 0.1 % at k = 0, 50 % at k = 4. So k
means more exits for both rules, but equal k of the two are not equal in any other way.

The last layer always answers. MACs are those of the matrix products: a sample that leaves at layer l pays
layers 1..l and all heads it was shown to; full depth pays all layers and the last head only.
"""

import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ff import checkpoint
from ff.config import CLASS_COUNT
from ff.datasets import Part, Prepared
from ff.evaluation import Readings, identify, read, scores, split_of
from ff.files import write_csv, write_json
from ff.inference import Exits, Inference
from ff.network import head_macs, layer_macs

SCHEMA = 1
RULES = ("logit", "probability")
# 0, 0.25 ... 4, and some on either side, so that the curve reaches full depth and the first layer.
KS = (-3.0, -2.0, -1.5, -1.0, -0.75, -0.5, -0.25, *(0.25 * step for step in range(17)), 5.0, 6.0)
TOLERANCE_POINTS = 0.1
CHOICE = "largest MACs saved on validation within 0.1 points of full depth"
TIMED_BATCHES = {1: 48, 32: 3, 512: 1}
"""Batch sizes at which time is measured, and how many batches of each make up one timed pass."""
OFTEN = 4
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
    """Calibrate head 1..L on validation logits [n, L, 10] and labels [n].

    A class counts for mu and sigma (n - 1 in the denominator) of a head that gets two of its samples right,
    at least; without such a class both are None.
    """
    mu, sigma, used = [], [], []
    for layer in range(logits.shape[1]):
        scores_of_layer = logits[:, layer].double()
        right = scores_of_layer.argmax(-1) == labels
        own, truth = scores_of_layer.amax(-1)[right], labels[right]
        count = torch.bincount(truth, minlength=CLASS_COUNT).double()
        mean = torch.zeros(CLASS_COUNT, dtype=torch.float64).index_add_(0, truth, own) / count
        squares = torch.zeros_like(mean).index_add_(0, truth, (own - mean[truth]).square())
        enough = count >= 2
        deviation = (squares[enough] / (count[enough] - 1)).sqrt()
        used.append(int(enough.sum()))
        mu.append(float(mean[enough].mean()) if used[-1] else None)
        sigma.append(float(deviation.mean()) if used[-1] else None)
    return Calibration(len(labels), mu, sigma, used, temperatures(logits, labels))


def temperatures(logits: Tensor, labels: Tensor) -> list[float | None]:
    """The temperature of each head that minimises the mean cross-entropy of logits [n, L, 10] / T.

    The cross-entropy is convex in b = 1/T with slope mean(E_p[z] - z_true), so its sign is bisected (on log
    b), for all heads at once. Where no minimum lies within the limits 0.02 and 50 (every sample right, or
    hopeless) the limit is taken. None without samples.
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


def tolerated_error(k: float) -> float:
    """e(k) of the probability rule; at most 0.9, where every sample leaves (ten classes)."""
    return min(0.001 * 500 ** (k / 4), 0.9)


def exits_at(rule: str, k: float, calibration: Calibration) -> Exits:
    """The rule's thresholds at `k`, for layers 1..L-1; None where the calibration says nothing."""
    if rule == "logit":
        pairs = zip(calibration.mu[:-1], calibration.sigma[:-1], strict=True)
        return Exits(tuple(None if mu is None or sigma is None else mu - k * sigma for mu, sigma in pairs))
    known = tuple(calibration.temperature[:-1])
    thresholds = tuple(None if temperature is None else 1 - tolerated_error(k) for temperature in known)
    return Exits(thresholds, tuple(1.0 if temperature is None else temperature for temperature in known))


# -- the curve ----


def exit_layers(logits: Tensor, exits: Exits) -> Tensor:
    """The layer (from 1) at which each sample leaves: logits of all heads [n, L, 10] -> [n]."""
    last = torch.ones(len(logits), dtype=torch.bool)
    leaving = [
        exits.leaving(layer, logits[:, layer], logits[:, layer].amax(-1)) if threshold is not None else ~last
        for layer, threshold in enumerate(exits.thresholds)
    ]
    # argmax gives the first of equal values.
    return torch.stack([*leaving, last], 1).int().argmax(1) + 1


def curve_point(logits: Tensor, labels: Tensor, exits: Exits, layers: Sequence[int]) -> dict[str, Any]:
    """Accuracy, macro-F1, exits and mean MACs per sample of one rule: logits [n, L, 10] of all heads,
    labels [n]."""
    depth = logits.shape[1]
    left = exit_layers(logits, exits)
    predicted = logits.argmax(-1).gather(1, left.unsqueeze(1) - 1).squeeze(1)
    pairs = torch.bincount(labels * CLASS_COUNT + predicted, minlength=CLASS_COUNT**2)
    result = scores(pairs.view(CLASS_COUNT, CLASS_COUNT))
    consulted = torch.tensor([threshold is not None for threshold in (*exits.thresholds, 0.0)])
    ff = torch.tensor(layer_macs(layers)).cumsum(0)
    heads = (torch.tensor(head_macs(layers)) * consulted).cumsum(0)
    share = torch.bincount(left - 1, minlength=depth).double() / len(labels)
    macs_ff, macs_heads = float(share @ ff.double()), float(share @ heads.double())
    return {
        "n": result["n"],
        "accuracy": result["accuracy"],
        "macro_f1": result["macro_f1"],
        "mean_layers": float(share @ torch.arange(1, depth + 1, dtype=torch.float64)),
        "macs_ff": macs_ff,
        "macs_heads": macs_heads,
        "macs_total": macs_ff + macs_heads,
        "macs_saved_share": 1 - (macs_ff + macs_heads) / full_macs(layers),
        **{f"share_exit_{layer + 1}": float(share[layer]) for layer in range(depth)},
    }


def full_macs(layers: Sequence[int]) -> int:
    """MACs of a sample without early exit: all layers and the last head."""
    return sum(layer_macs(layers)) + head_macs(layers)[-1]


def choose(points: Sequence[dict[str, Any]], full: dict[str, Any]) -> dict[str, Any] | None:
    """Of validation points (rows with rule, k and `curve_point`) the one that saves most MACs while it is
    right on at most 0.1 points fewer samples than full depth; None where full depth itself is cheapest. Of
    equal ones the more accurate, then the first."""
    allowed = full["accuracy"] - TOLERANCE_POINTS / 100 - 1e-9
    fit = [point for point in points if point["accuracy"] >= allowed and point["macs_saved_share"] > 0]
    return max(fit, key=lambda point: (point["macs_saved_share"], point["accuracy"]), default=None)


# -- time ----


def timed_rows(first_logits: Tensor, count: int, seed: int) -> Tensor:
    """`count` rows of the test split [count] for timing, in a random order.

    They are spread evenly over the samples as ordered by the largest logit of the first head ([n, 10]), so
    that a small sample leaves early as often as the whole split does. With fewer samples than `count` rows
    repeat.
    """
    n = len(first_logits)
    ordered = first_logits.amax(-1).argsort()
    evenly = ((torch.arange(count, dtype=torch.float64) + 0.5) * (n / count)).long().clamp_(max=n - 1)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return ordered[evenly][order]


def time_paths(
    inference: Inference,
    batches: dict[int, list[Tensor]],
    paths: Sequence[Exits | None],
    repeats: int,
    seed: int,
    clock: Callable[[], float] = time.perf_counter,
    synchronise: Callable[[], None] | None = None,
) -> dict[int, list[list[float]]]:
    """Milliseconds per sample, {batch size: [paths][repeats]}, of answering `batches` {size: [pixels [size,
    D]]}.

    One timed pass answers all batches of a size. Every pass is done once untimed first, on the same
    batches; then the passes of all paths and sizes follow in a new random order in each repeat. Clock
    readings are taken after the device has finished.
    """
    wait = synchronise or synchroniser(inference.device)
    order = [(size, index) for size in batches for index in range(len(paths))]
    shuffle = random.Random(seed).shuffle
    times: dict[int, list[list[float]]] = {size: [[] for _ in paths] for size in batches}
    for repeat in range(repeats + 1):
        shuffle(order)
        for size, index in order:
            parts, exits = batches[size], paths[index]
            wait()
            start = clock()
            for pixels in parts:
                inference.answer(pixels, exits)
            wait()
            end = clock()
            if repeat > 0:
                times[size][index].append((end - start) * 1000 / (size * len(parts)))
    return times


def synchroniser(device: torch.device) -> Callable[[], None]:
    """A function that returns when all work given to `device` is done."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


# -- a run ----


def run_early_exit(
    run_folder: str | os.PathLike,
    prepared: Prepared,
    device: torch.device | str = "cpu",
    batch_size: int = 512,
    repeats: int = 5,
    ks: Sequence[float] = KS,
) -> None:
    """Write early_exit.csv and early_exit.json of the run whose model.safetensors lies in `run_folder`.

    Without a validation split nothing can be calibrated: the table is empty and the JSON says why.
    """
    folder = Path(run_folder)
    network, meta = checkpoint.load(folder / "model.safetensors", device)
    config = checkpoint.config(meta)
    splits = split_of(config, prepared)
    columns = ["model", *_COLUMNS[:-6], *(f"share_exit_{k + 1}" for k in range(network.depth)), *_COLUMNS[-6:]]
    head = {"schema": SCHEMA, "run": identify(config, meta["model"])}
    if len(splits["val"][1]) == 0:
        reason = "the run has no validation split (val_size 0) to calibrate on, and the test split may not choose"
        nothing = {"available": False, "reason": reason, "operating_point": None, "calibration": None}
        write_json(folder / "early_exit.json", head | nothing)
        write_csv(folder / "early_exit.csv", columns, [])
        return
    seen = {
        split: read(network, *splits[split], prepared.facts, batch_size, goodness=False) for split in ("val", "test")
    }
    calibration = calibrate(seen["val"].logits, seen["val"].labels)
    keys = [(rule, k) for rule in RULES for k in ks]
    exits = {key: exits_at(*key, calibration) for key in keys}
    points = {split: [_row(*key, exits[key], split, seen[split], config.layers) for key in keys] for split in seen}
    never = Exits((None,) * (network.depth - 1))
    full = {split: _row("none", None, never, split, seen[split], config.layers) for split in seen}
    best = choose(points["val"], full["val"])
    at = keys.index((best["rule"], best["k"])) if best else None
    timing = _add_times(
        [full["test"], *points["test"]],
        [None, *exits.values()],
        # Full depth is what all others are held against, and the operating point is what is quoted.
        {0} if at is None else {0, at + 1},
        Inference(network, prepared.facts),
        splits["test"][0],
        seen["test"].logits[:, 0],
        repeats,
        config.seed,
    )
    chosen = never if best is None else exits[keys[at]]
    document = head | {
        "available": True,
        "reason": None,
        "rules": RULE_TEXTS,
        "macs": {
            "ff": layer_macs(config.layers),
            "heads": head_macs(config.layers),
            "full": full_macs(config.layers),
        },
        "calibration": {"split": "val", **calibration._asdict()},
        "full_depth": full,
        "operating_point": {
            "rule": best["rule"] if best else "none",
            "k": best["k"] if best else None,
            "choice": CHOICE,
            "thresholds": list(chosen.thresholds),
            "val": best or full["val"],
            "test": points["test"][at] if best else full["test"],
        },
        "timing": timing,
    }
    rows = [row for pair in zip(points["val"], points["test"], strict=True) for row in pair]
    write_csv(folder / "early_exit.csv", columns, [{"model": meta["model"], **row} for row in rows])
    write_json(folder / "early_exit.json", document)


_COLUMNS = (
    *("rule", "k", "threshold", "split", "n", "accuracy", "macro_f1", "mean_layers"),
    *("macs_ff", "macs_heads", "macs_total", "macs_saved_share"),
    *(f"time_ms_batch_{size}" for size in TIMED_BATCHES),
    *(f"time_saved_share_batch_{size}" for size in TIMED_BATCHES),
)


def _row(rule: str, k: float | None, exits: Exits, split: str, seen: Readings, layers: Sequence[int]) -> dict[str, Any]:
    # The probability rule has one threshold for all layers; those of the other follow from mu, sigma and k.
    threshold = 1 - tolerated_error(k) if rule == "probability" else None
    row = {"rule": rule, "k": k, "threshold": threshold, "split": split}
    row |= curve_point(seen.logits, seen.labels, exits, layers)
    for size in TIMED_BATCHES:
        row |= {f"time_ms_batch_{size}": None, f"time_saved_share_batch_{size}": None}
    return row


def _add_times(
    rows: Sequence[dict[str, Any]],
    exits: Sequence[Exits | None],
    often: set[int],
    inference: Inference,
    part: Part,
    first_logits: Tensor,
    repeats: int,
    seed: int,
) -> dict[str, Any]:
    """Measure the paths, full depth first, and fill in the times of their rows; gives how it was done.

    Paths whose index is in `often` are timed four times as often as the others.
    """
    batches = {}
    for size, count in TIMED_BATCHES.items():
        chosen = timed_rows(first_logits, size * count, seed)
        batches[size] = list(inference.pixels(part.images[chosen]).split(size))
    times = [index for index in range(len(rows)) for _ in range(OFTEN if index in often else 1)]
    measured = time_paths(inference, batches, [exits[index] for index in times], repeats, seed)
    for size, by_path in measured.items():
        pooled: list[list[float]] = [[] for _ in rows]
        for index, values in zip(times, by_path, strict=True):
            pooled[index] += values
        full = _median(pooled[0])
        for row, values in zip(rows, pooled, strict=True):
            row[f"time_ms_batch_{size}"] = _median(values)
            row[f"time_saved_share_batch_{size}"] = 1 - _median(values) / full
    return {
        "device": str(inference.device),
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "repeats_full_depth_and_operating_point": OFTEN * repeats,
        "samples": {str(size): size * count for size, count in TIMED_BATCHES.items()},
        "seed": seed,
        "statistic": "median over repeats of the time per sample; full depth runs the same code and batches",
    }


def _median(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(0.5))
