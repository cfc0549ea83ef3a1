"""Early exit: what samples that leave at an early head save, beside what a shallower network saves.

Two adaptive rules (`ff.assess.exit_rules`), their thresholds swept, stand beside the static cuts: the network cut after
layer d, for d = 1..L, which answers every sample with head d and knows no other head. The cut at L is full depth. All
of them are scored on the same logits and timed in the same passes, so that they differ in the rule alone.

An exit that costs more than a network of fewer layers saves nothing. So savings are given against two bases: full
depth, and the *reference cut*, the cheapest cut that is as accurate on validation as the operating point must be (at
most 0.1 points below full depth).

MACs are those of the matrix products: a sample that leaves at layer l pays layers 1..l and all heads it was
shown to; a cut at d pays layers 1..d and head d only.
"""

import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ff.assess.exit_rules import KS, RULE_TEXTS, RULES, calibrate, exit_layers, exits_at, tolerated_error
from ff.assess.readings import readings_of
from ff.data.images import Part
from ff.data.prepared import Prepared
from ff.files import write_csv, write_json
from ff.learn import checkpoint
from ff.learn.checkpoint import check_data
from ff.learn.inference import Exits, Inference
from ff.learn.network import Network, head_macs, layer_macs
from ff.learn.products import choose_library
from ff.learn.readings_file import Kept
from ff.learn.readouts import HEAD
from ff.learn.scores import confusion, scores
from ff.settings import RunConfig
from ff.stamps import identify

SCHEMA = 2
STATIC = "static"
STATIC_TEXT = "the network cut after layer `depth`: everybody is answered there, by that head alone"
TOLERANCE_POINTS = 0.1
CHOICE = "largest MACs saved on validation within 0.1 points of full depth"
CUT_CHOICE = "cheapest cut on validation within 0.1 points of full depth"
TIMED_BATCHES = {1: 48, 32: 3, 512: 1}
"""Batch sizes at which time is measured, and how many batches of each make up one timed pass."""
OFTEN = 4
TIME_STATISTIC = (
    "mean over the batches of the median over repeats of each one's time per sample; each batch is timed alone, the "
    "device synchronised before and after it"
)


class AnswerPath(NamedTuple):
    """A way to answer: a rule at one k, or (rule `static`) the network cut after layer `depth`.

    `exits` None: nobody leaves before `depth`; `depth` None: the last layer.
    """

    rule: str
    k: float | None
    exits: Exits | None
    depth: int | None


def static_cuts(depth: int) -> list[AnswerPath]:
    """The network cut after layer 1..L; the last is full depth."""
    return [AnswerPath(STATIC, None, None, layer) for layer in range(1, depth + 1)]


# -- accuracy and work ----


def curve_point(
    logits: Tensor,
    labels: Tensor,
    exits: Exits | None,
    layers: Sequence[int],
    depth: int | None = None,
    heads_see: str = "below",
) -> dict[str, Any]:
    """Accuracy, macro-F1, exits and mean MACs per sample: logits [n, L, C] of all heads, labels [n].

    `exits` and `depth` mean what they do in `ff.learn.inference.Inference.answer`.
    """
    whole, classes = logits.shape[1:]
    depth = depth or whole
    exits = exits or Exits((None,) * (depth - 1))
    left = exit_layers(logits[:, :depth], exits)
    predicted = logits.argmax(-1).gather(1, left.unsqueeze(1) - 1).squeeze(1)
    result = scores(confusion(predicted, labels, classes))
    consulted = [*(threshold is not None for threshold in exits.thresholds), True, *[False] * (whole - depth)]
    ff = torch.tensor(layer_macs(layers)).cumsum(0)
    heads = (torch.tensor(head_macs(layers, classes, heads_see)) * torch.tensor(consulted)).cumsum(0)
    share = torch.bincount(left - 1, minlength=whole).double() / len(labels)
    macs_ff, macs_heads = float(share @ ff.double()), float(share @ heads.double())
    return {
        "n": result["n"],
        "accuracy": result["accuracy"],
        "macro_f1": result["macro_f1"],
        "mean_layers": float(share @ torch.arange(1, whole + 1, dtype=torch.float64)),
        "macs_ff": macs_ff,
        "macs_heads": macs_heads,
        "macs_total": macs_ff + macs_heads,
        **{f"share_exit_{layer + 1}": float(share[layer]) for layer in range(whole)},
    }


def cut_macs(layers: Sequence[int], classes: int, heads_see: str = "below") -> list[int]:
    """MACs of a sample in the network cut after layer 1..L: layers 1..d and head d; the last is full depth."""
    return [sum(layer_macs(layers)[: d + 1]) + head for d, head in enumerate(head_macs(layers, classes, heads_see))]


# -- choices, on validation ----


def choose(points: Sequence[dict[str, Any]], full: dict[str, Any]) -> int | None:
    """Which of validation points (`curve_point`) takes the fewest MACs while it is right on at most 0.1 points fewer
    samples than full depth; None where full depth itself is cheapest. Of equal ones the more accurate, then the first.
    """
    fit = [i for i, point in enumerate(points) if _as_accurate(point, full)]
    fit = [i for i in fit if points[i]["macs_total"] < full["macs_total"]]
    return min(fit, key=lambda i: (points[i]["macs_total"], -points[i]["accuracy"]), default=None)


def reference_cut(cuts: Sequence[dict[str, Any]]) -> int:
    """Which of the validation points of the cuts after layer 1..L is the cheapest that may stand for full depth, the
    last of them: the same tolerance as in `choose`."""
    cheaper = choose(cuts, cuts[-1])
    return len(cuts) - 1 if cheaper is None else cheaper


def _as_accurate(point: dict[str, Any], full: dict[str, Any]) -> bool:
    return point["accuracy"] >= full["accuracy"] - TOLERANCE_POINTS / 100 - 1e-9


def add_savings(rows: Iterable[dict[str, Any]], full: dict[str, Any], cut: dict[str, Any]) -> None:
    """Fill in what each row saves against full depth and against the reference cut, rows of the same split: a share of
    MACs and, where both were timed, of time."""
    for row in rows:
        row["is_reference_cut"] = int(row is cut)
        for name, base in (("cut", cut), ("full", full)):
            row[f"macs_saved_share_vs_{name}"] = 1 - row["macs_total"] / base["macs_total"]
            for size in TIMED_BATCHES:
                time_ms, base_ms = row[f"time_ms_batch_{size}"], base[f"time_ms_batch_{size}"]
                saved = None if time_ms is None or base_ms is None else 1 - time_ms / base_ms
                row[f"time_saved_share_vs_{name}_batch_{size}"] = saved


# -- time ----


def timed_rows(first_logits: Tensor, count: int, seed: int) -> Tensor:
    """`count` rows of the test split [count] for timing, in a random order.

    They are spread evenly over the samples as ordered by the largest logit of the first head ([n, C]), so that a small
    sample leaves early as often as the whole split does. With fewer samples than `count` rows repeat.
    """
    n = len(first_logits)
    ordered = first_logits.amax(-1).argsort()
    evenly = ((torch.arange(count, dtype=torch.float64) + 0.5) * (n / count)).long().clamp_(max=n - 1)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return ordered[evenly][order]


def timed_batches(inference: Inference, part: Part, first_logits: Tensor, seed: int) -> dict[int, list[Tensor]]:
    """Pixels of the batches of one timed pass, {size: [[size, D]]}, of `timed_rows` of the official part."""
    return {
        size: list(inference.pixels(part.images[timed_rows(first_logits, size * count, seed)]).split(size))
        for size, count in TIMED_BATCHES.items()
    }


def time_paths(
    inference: Inference,
    batches: dict[int, list[Tensor]],
    paths: Sequence[AnswerPath],
    repeats: int,
    seed: int,
    clock: Callable[[], float] = time.perf_counter,
    synchronise: Callable[[], None] | None = None,
) -> dict[int, list[list[list[float]]]]:
    """Milliseconds per sample, {batch size: [paths][repeats][batches]}, of answering `batches` {size: [pixels
    [size, D]]}.

    One timed pass answers all batches of a size, each timed alone (latency): the device has finished before the clock
    is read, before and after each. An exit rule has to wait for the device at every layer where somebody may leave; a
    path that does not would otherwise have its batches queued, and look faster than it answers. Every pass is done once
    untimed first, on the same batches; then the passes of all paths and sizes follow in a new random order in each
    repeat.
    """
    wait = synchronise or synchroniser(inference.device)
    order = [(size, index) for size in batches for index in range(len(paths))]
    shuffle = random.Random(seed).shuffle
    times: dict[int, list[list[list[float]]]] = {size: [[] for _ in paths] for size in batches}
    for repeat in range(repeats + 1):
        shuffle(order)
        for size, index in order:
            path, milliseconds = paths[index], []
            for pixels in batches[size]:
                wait()
                start = clock()
                inference.answer(pixels, path.exits, path.depth)
                wait()
                milliseconds.append((clock() - start) * 1000 / size)
            if repeat > 0:
                times[size][index].append(milliseconds)
    return times


def synchroniser(device: torch.device) -> Callable[[], None]:
    """A function that returns when all work given to `device` is done."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


# -- a run ----


class EarlyExit(NamedTuple):
    """Contents of early_exit.json and rows of early_exit.csv."""

    document: dict[str, Any]
    rows: list[dict[str, Any]]


def run_early_exit(
    run_folder: str | os.PathLike,
    prepared: Prepared,
    device: torch.device | str = "cpu",
    batch_size: int = 512,
    repeats: int = 5,
    ks: Sequence[float] = KS,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Write early_exit.csv and early_exit.json of the run whose model.safetensors lies in `run_folder`.

    Without a validation split nothing can be calibrated or compared: the table is empty and the JSON says why. `clock`
    gives seconds.
    """
    choose_library()
    folder = Path(run_folder)
    network, meta = checkpoint.load(folder / "model.safetensors", device)
    config = checkpoint.config(meta)
    check_data(config, prepared)
    kept = readings_of(folder, prepared, device, batch_size)
    if ("val", HEAD.name) not in kept.said:
        found = EarlyExit({"available": False, "reason": WHY_NOT, **dict.fromkeys(_CHOSEN)}, [])
    else:
        found = evaluate_early_exit(network, kept, prepared, config, repeats, ks, clock)
    model = meta["model"]
    columns = ["model", *_COLUMNS, *(f"share_exit_{layer + 1}" for layer in range(network.depth)), *_TIME_COLUMNS]
    write_csv(folder / "early_exit.csv", columns, [{"model": model, **row} for row in found.rows])
    write_json(folder / "early_exit.json", {"schema": SCHEMA, "run": identify(config, model), **found.document})


WHY_NOT = "the run has no validation split (val_size 0) to calibrate on, and the test split may not choose"
_CHOSEN = ("calibration", "reference_cut", "operating_point")


def evaluate_early_exit(
    network: Network,
    kept: Kept,
    prepared: Prepared,
    config: RunConfig,
    repeats: int = 5,
    ks: Sequence[float] = KS,
    clock: Callable[[], float] = time.perf_counter,
) -> EarlyExit:
    """Score static cuts and exit rules by what a network (S = 1) said, and time them on it; `config` is what it was
    trained with, and leaves a validation split."""
    seen = {split: (kept.said[split, HEAD.name], kept.answers[split, HEAD.name].labels) for split in ("val", "test")}
    calibration = calibrate(*seen["val"])
    paths = static_cuts(network.depth)
    paths += [AnswerPath(rule, k, exits_at(rule, k, calibration, network.classes), None) for rule in RULES for k in ks]
    rows = {
        split: [_row(path, split, *seen[split], config.layers, network.heads_see) for path in paths] for split in seen
    }
    count, full = network.depth, network.depth - 1
    cut = reference_cut(rows["val"][:count])
    best = choose(rows["val"][count:], rows["val"][full])
    chosen = full if best is None else count + best
    inference = Inference(network, prepared.facts)
    batches = timed_batches(inference, prepared.test, seen["test"][0][:, 0], config.seed)
    # The cuts are what all others are held against, and the operating point is what is quoted.
    often = {*range(count), chosen}
    _add_times(rows["test"], paths, often, inference, batches, repeats, config.seed, clock)
    for part in rows.values():
        add_savings(part, part[full], part[cut])
    exits = paths[chosen].exits
    document = {
        "available": True,
        "reason": None,
        "rules": RULE_TEXTS | {STATIC: STATIC_TEXT},
        "macs": {
            "ff": layer_macs(config.layers),
            "heads": head_macs(config.layers, network.classes, network.heads_see),
            "cuts": cut_macs(config.layers, network.classes, network.heads_see),
        },
        "calibration": {"split": "val", **calibration._asdict()},
        "static_cuts": [{"depth": d + 1, "val": rows["val"][d], "test": rows["test"][d]} for d in range(count)],
        "reference_cut": {"depth": cut + 1, "choice": CUT_CHOICE},
        "operating_point": {
            "rule": "none" if exits is None else paths[chosen].rule,
            "k": paths[chosen].k,
            "choice": CHOICE,
            "thresholds": [None] * full if exits is None else list(exits.thresholds),
            "val": rows["val"][chosen],
            "test": rows["test"][chosen],
        },
        "timing": {
            "device": str(inference.device),
            "threads": torch.get_num_threads(),
            "repeats": repeats,
            "repeats_static_cuts_and_operating_point": OFTEN * repeats,
            "samples": {str(size): size * len(parts) for size, parts in batches.items()},
            "seed": config.seed,
            "statistic": TIME_STATISTIC,
        },
    }
    return EarlyExit(document, [row for pair in zip(rows["val"], rows["test"], strict=True) for row in pair])


_COLUMNS = (
    *("rule", "k", "depth", "is_reference_cut", "threshold", "split", "n", "accuracy", "macro_f1", "mean_layers"),
    *("macs_ff", "macs_heads", "macs_total", "macs_saved_share_vs_cut", "macs_saved_share_vs_full"),
)
_TIME_COLUMNS = (
    *(f"time_ms_batch_{size}" for size in TIMED_BATCHES),
    *(f"time_saved_share_vs_{base}_batch_{size}" for base in ("cut", "full") for size in TIMED_BATCHES),
)


def _row(
    path: AnswerPath, split: str, logits: Tensor, labels: Tensor, layers: Sequence[int], heads_see: str
) -> dict[str, Any]:
    # The probability rule has one threshold for all layers; those of the other follow from mu, sigma and k.
    threshold = None
    if path.rule == "probability" and path.k is not None:
        threshold = 1 - tolerated_error(path.k, logits.shape[-1])
    row = {"rule": path.rule, "k": path.k, "depth": path.depth, "threshold": threshold, "split": split}
    row |= curve_point(logits, labels, path.exits, layers, path.depth, heads_see)
    return row | {f"time_ms_batch_{size}": None for size in TIMED_BATCHES}


def _add_times(
    rows: Sequence[dict[str, Any]],
    paths: Sequence[AnswerPath],
    often: set[int],
    inference: Inference,
    batches: dict[int, list[Tensor]],
    repeats: int,
    seed: int,
    clock: Callable[[], float],
) -> None:
    """Measure the paths and fill in the times of their rows; those whose index is in `often` are timed four times as
    often as the others."""
    times = [index for index in range(len(rows)) for _ in range(OFTEN if index in often else 1)]
    measured = time_paths(inference, batches, [paths[index] for index in times], repeats, seed, clock)
    for size, by_path in measured.items():
        pooled: list[list[list[float]]] = [[] for _ in rows]
        for index, passes in zip(times, by_path, strict=True):
            pooled[index] += passes
        for row, passes in zip(rows, pooled, strict=True):
            row[f"time_ms_batch_{size}"] = _typical(passes)


def _typical(passes: Sequence[Sequence[float]]) -> float:
    """Mean over batches of the median over repeats: [repeats][batches]. Whoever disturbs a pass disturbs one of
    its batches; which batches are slow because nobody leaves early must count."""
    return float(torch.tensor(passes, dtype=torch.float64).quantile(0.5, dim=0).mean())
