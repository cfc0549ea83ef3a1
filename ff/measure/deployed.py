"""Early exit as it is deployed, in each runtime: how fast and how accurate, beside the network cut after each layer.

Images come as they are stored, uint8 in host memory, and classes go back there, so standardising and transfers count,
and the same code gives accuracy and time (`ff.measure.ways`).

An exit is worth what it saves against the *reference cut* of the same runtime, the cheapest cut whose accuracy on
validation, in that runtime, is at most 0.1 points below that of its full depth.
"""

import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ff import statistics
from ff.assess.early_exit import OFTEN, TIMED_BATCHES, reference_cut, timed_rows
from ff.assess.kept import readings_of
from ff.assess.readings import drawn_rows
from ff.data.images import Part
from ff.data.prepared import Prepared
from ff.files import write_csv, write_json
from ff.hardware.power_modes import put_back
from ff.layout import EXPORT_FOLDER
from ff.learn import checkpoint
from ff.learn.products import choose_library
from ff.measure.devices import machine_state, thread_counts, versions
from ff.measure.ways import Way, runtime_facts, ways_on
from ff.settings import MeasureConfig
from ff.stamps import identify

SCHEMA = 1
COLUMNS = ("model", "device", "runtime", "path", "depth", "batch_size", "repeat", "batch", "time_ms")


def run_deployed(
    run_folder: str | os.PathLike,
    prepared: Prepared,
    devices: Sequence[str] = ("cpu",),
    runtimes: Sequence[str] = MeasureConfig.runtimes,
    threads: Sequence[int | str] = (1,),
    repeats: int = MeasureConfig.early_exit_repeats,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Write export/deployed.csv and deployed.json of the exported run in `run_folder`, timed with the first of
    `threads` CPU threads; a runtime or device that is not there leaves its reason.

    Raises FFError where the bundle is refused, or the data set is not the one of the run.
    """
    from ff.export.files import open_bundle, sha256

    folder = Path(run_folder)
    bundle, file = open_bundle(folder), folder / EXPORT_FOLDER / "bundle.json"
    network, meta = checkpoint.load(folder / "model.safetensors", "cpu")
    config, count = checkpoint.config(meta), thread_counts(threads)[0]
    splits = {
        "val": (prepared.train, drawn_rows(config, prepared).val[0]),
        "test": (prepared.test, torch.arange(len(prepared.test.labels))),
    }
    logits = torch.from_numpy(readings_of(folder, prepared).logits["test"])
    batches = _batches(prepared.test, logits[:, 0], config.seed)
    put_back()
    choose_library()
    facts = [runtime_facts(device, runtime, bundle) for device in devices for runtime in runtimes]
    before, threads_before = machine_state(), torch.get_num_threads()
    ways: list[Way] = []
    try:
        torch.set_num_threads(count)
        for one in facts:
            ways += ways_on(one, folder, network, prepared.facts, bundle, count)
        scored = _scored(ways, splits, bundle["macs"]["cuts"])
        times = time_ways(ways, batches, OFTEN * repeats, config.seed, clock)
    finally:
        torch.set_num_threads(threads_before)
    document = {
        "schema": SCHEMA,
        "run": identify(config, meta["model"]),
        "bundle": sha256(file),
        "split": "test",
        "n": len(prepared.test.labels),
        "threads": count,
        "repeats": OFTEN * repeats,
        "samples": {str(size): size * len(parts) for size, parts in batches.items()},
        "seed": config.seed,
        "versions": versions(),
        "before": before,
        "after": machine_state(),
        "runtimes": facts,
        "ways": _summaries(ways, scored, times),
    }
    rows = [
        {**_name(way), "model": meta["model"], "batch_size": size, "repeat": repeat, "batch": batch, "time_ms": value}
        for (index, size), passes in times.items()
        for way in (ways[index],)
        for repeat, values in enumerate(passes)
        for batch, value in enumerate(values)
    ]
    write_csv(folder / EXPORT_FOLDER / "deployed.csv", COLUMNS, rows)
    write_json(folder / EXPORT_FOLDER / "deployed.json", document)


# -- accuracy ----


class _Score(NamedTuple):
    """Accuracy of a way on validation (None: no such split), and on test, and layers that a test image goes through."""

    val: float | None
    test: float | None
    mean_layers: float | None
    is_reference: bool = False


def _scored(
    ways: Sequence[Way], splits: Mapping[str, tuple[Part, torch.Tensor]], macs: Sequence[int]
) -> dict[tuple[int, int], _Score]:
    """The score of each way at each batch size. An exit may go another path at batch 1; a cut does not."""
    largest = max(TIMED_BATCHES)
    scores = {}
    for index, way in enumerate(ways):
        (part, rows), test = splits["val"], splits["test"]
        val = _score(way, part, rows, largest)[0]
        whole = _Score(val, *_score(way, *test, largest))
        for size in TIMED_BATCHES:
            alone = size == 1 and way.path == "exit"
            scores[index, size] = _Score(val, *_score(way, *test, 1)) if alone else whole
    for place in dict.fromkeys((way.device, way.runtime) for way in ways):
        cuts = [i for i, way in enumerate(ways) if (way.device, way.runtime) == place and way.path == "cut"]
        known = [{"accuracy": scores[i, largest].val, "macs_total": cost} for i, cost in zip(cuts, macs, strict=True)]
        chosen = cuts[reference_cut(known)] if scores[cuts[0], largest].val is not None else cuts[-1]
        for size in TIMED_BATCHES:
            scores[chosen, size] = scores[chosen, size]._replace(is_reference=True)
    return scores


def _score(way: Way, part: Part, rows: torch.Tensor, size: int) -> tuple[float | None, float | None]:
    """Accuracy and mean layers of `rows` of an official part, answered `size` at a time; None without rows."""
    if len(rows) == 0:
        return None, None
    right, layers = 0, 0
    for batch in rows.split(size):
        classes, left = way.answer(part.images[batch].numpy())
        right += int((classes == part.labels[batch].numpy()).sum())
        layers += int(left.sum())
    return right / len(rows), layers / len(rows)


# -- time ----


def _batches(part: Part, first: torch.Tensor, seed: int) -> dict[int, list[np.ndarray]]:
    """Images of the batches of a timed pass by batch size, spread over the test split as ordered by the logits [n, C]
    of the first head."""
    return {
        size: [batch.numpy() for batch in part.images[timed_rows(first, size * count, seed)].split(size)]
        for size, count in TIMED_BATCHES.items()
    }


def time_ways(
    ways: Sequence[Way],
    batches: Mapping[int, Sequence[np.ndarray]],
    repeats: int,
    seed: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[tuple[int, int], list[list[float]]]:
    """Milliseconds per image, {(way, batch size): [repeats][batches]}.

    A pass answers all batches of a size one after the other, each timed alone, after one of them untimed. The passes of
    all ways and sizes follow in a new random order in each repeat, the first of which does not count.
    """
    order = [(index, size) for index in range(len(ways)) for size in batches]
    shuffle = random.Random(seed).shuffle
    times: dict[tuple[int, int], list[list[float]]] = {key: [] for key in order}
    for repeat in range(repeats + 1):
        shuffle(order)
        for index, size in order:
            answer, milliseconds = ways[index].answer, []
            answer(batches[size][-1])
            for images in batches[size]:
                start = clock()
                answer(images)
                milliseconds.append((clock() - start) * 1000 / size)
            if repeat > 0:
                times[index, size].append(milliseconds)
    return {(index, size): times[index, size] for index in range(len(ways)) for size in batches}


# -- the document ----


def _name(way: Way) -> dict[str, Any]:
    return {"device": way.device, "runtime": way.runtime, "path": way.path, "depth": way.depth}


def _summaries(
    ways: Sequence[Way], scored: Mapping[tuple[int, int], _Score], times: Mapping[tuple[int, int], list[list[float]]]
) -> list[dict[str, Any]]:
    passes = {key: np.mean(values, 1) for key, values in times.items()}
    found = []
    for (index, size), values in passes.items():
        way, score = ways[index], scored[index, size]
        cuts = [i for i, one in enumerate(ways) if one[:3] == (way.device, way.runtime, "cut")]
        [reference] = [i for i in cuts if scored[i, size].is_reference]
        spread = statistics.summarise(values)
        found.append(
            {
                **_name(way),
                "batch_size": size,
                "is_reference_cut": int(score.is_reference),
                "val_accuracy": score.val,
                "test_accuracy": score.test,
                "mean_layers": score.mean_layers,
                "time_ms": {name: getattr(spread, name) for name in ("median", "p5", "p95", "low", "high", "method")},
                "time_vs_cut": _ratio(values / passes[reference, size]),
                "time_vs_full": _ratio(values / passes[cuts[-1], size]),
            }
        )
    return found


def _ratio(values: np.ndarray) -> dict[str, Any]:
    """The median of ratios of passes of the same repeat, with its interval."""
    found = statistics.median_interval(values)
    return {"estimate": found.estimate, "low": found.low, "high": found.high, "method": found.method}
