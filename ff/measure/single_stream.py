"""`ff measure --protocol single-stream`: a number that others can hold against theirs.

After MLPerf Tiny (inference rules v1.2, single stream; EEMBC runner): one image after the other, five runs of at least
10 s each after a warm-up, the median of the runs is the result, and a run that is shorter is refused. Accuracy comes
from the very function that is timed, on the whole test split, one image at a time. Energy is what the sensors say
between the first and the last time stamp of a run, by inferences: gross as MLPerf Tiny counts it, and net of the power
of the idle machine before and after, which it does not subtract. Power mode, clocks and temperatures are recorded
before and after each network.

The protocol `quick` does the same in a moment, to try it; its result says that it is not one.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ff import statistics
from ff.data.images import Part
from ff.data.prepared import Prepared
from ff.errors import FFError
from ff.files import write_json
from ff.hardware.power_modes import put_back
from ff.layout import SINGLE_STREAM_FILE
from ff.learn import checkpoint
from ff.learn.products import choose_library
from ff.measure.devices import machine_state, thread_counts, versions
from ff.measure.power import Clock, Idle, PowerMeter, Window, energy_of
from ff.measure.protocol import idle_window
from ff.measure.run import power_source
from ff.measure.runtimes import TORCH
from ff.measure.ways import Way, runtime_facts, ways_on
from ff.phases import PhaseLog
from ff.stamps import identify

SCHEMA = 1
ENOUGH_RUNS, ENOUGH_S = 5, 10.0
"""What MLPerf Tiny asks for."""


class Stream(NamedTuple):
    """How many runs, how long each and the warm-up last; `conforms`: whether its result counts as one."""

    runs: int
    run_s: float
    warm_up_s: float
    conforms: bool


PROTOCOLS = {
    "single-stream": Stream(ENOUGH_RUNS, ENOUGH_S, 2.0, True),
    "quick": Stream(ENOUGH_RUNS, 0.02, 0.0, False),
}


def run_single_stream(
    run_folder: str | os.PathLike,
    prepared: Prepared,
    protocol: str = "single-stream",
    devices: Sequence[str] = ("cpu",),
    runtimes: Sequence[str] = (TORCH,),
    threads: Sequence[int | str] = (1,),
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Write single_stream.json of the run in `run_folder`: at full depth and, of an exported run, with early exit, in
    each of `runtimes` on each of `devices`, with the first of `threads` CPU threads.

    Raises FFError where a run came out too short, the bundle is refused, or the data set is not the one of the run.
    """
    folder, stream = Path(run_folder), PROTOCOLS[protocol]
    network, meta = checkpoint.load(folder / "model.safetensors", "cpu")
    config, count = checkpoint.config(meta), thread_counts(threads)[0]
    checkpoint.check_data(config, prepared)
    bundle = _bundle(folder, runtimes)
    places = [runtime_facts(device, runtime, bundle) for device in devices for runtime in runtimes]
    put_back()
    choose_library()
    threads_before = torch.get_num_threads()
    source, why_no_power = power_source() if stream.conforms else (None, "a trial is too short for a sensor")
    results = []
    try:
        torch.set_num_threads(count)
        with source or nullcontext():
            for place in places:
                for way in ways_on(place, folder, network, prepared.facts, bundle, count):
                    if way.path == "exit" or way.depth == network.depth:
                        meter = PowerMeter(source, clock) if source is not None else None
                        results.append(_result(way, prepared.test, stream, meter, clock, sleep))
    finally:
        torch.set_num_threads(threads_before)
    document = {
        "schema": SCHEMA,
        "run": identify(config, meta["model"]),
        "protocol": protocol,
        "conforms": stream.conforms,
        "batch_size": 1,
        "threads": count,
        "warm_up_s": stream.warm_up_s,
        "versions": versions(),
        "power": {"source": source.name if source is not None else None, "reason": why_no_power},
        "runtimes": places,
        "results": results,
    }
    write_json(folder / SINGLE_STREAM_FILE, document)


def _bundle(folder: Path, runtimes: Sequence[str]) -> Mapping[str, Any]:
    """The run's bundle where another runtime than torch asks for it; {} otherwise."""
    if set(runtimes) <= {TORCH}:
        return {}
    from ff.export.files import open_bundle

    return open_bundle(folder)


def _result(
    way: Way, part: Part, stream: Stream, meter: PowerMeter | None, clock: Clock, sleep: Callable[[float], None]
) -> dict[str, Any]:
    """Accuracy, the runs and the energy of one way to answer."""
    before = machine_state()
    accuracy, layers = _accuracy(way, part)
    images = np.split(part.images.numpy(), len(part.images))
    idle: list[Idle | None] = []
    if meter is not None:
        idle.append(idle_window(meter, PhaseLog(), "idle_before", clock, sleep))
    _stream(way, images, stream.warm_up_s, clock)
    with meter.sampling() if meter is not None else nullcontext():
        if meter is not None:
            # For so long the sensor shows what was before.
            _stream(way, images, meter.lead_in_s, clock)
        # A slow sensor asks for longer runs.
        seconds = max(stream.run_s, meter.window_s) if meter is not None else stream.run_s
        windows = [_stream(way, images, seconds, clock, order) for order in range(stream.runs)]
    if meter is not None:
        idle.append(idle_window(meter, PhaseLog(), "idle_after", clock, sleep))
    runs = [{"inferences": window.samples, "seconds": window.end_s - window.start_s} for window in windows]
    if stream.conforms:
        check_runs(runs, f"{way.runtime} on {way.device}")
    latency = statistics.summarise([1000 * run["seconds"] / run["inferences"] for run in runs])
    return {
        "device": way.device,
        "runtime": way.runtime,
        "path": "exit" if way.path == "exit" else "full",
        "test_accuracy": accuracy,
        "mean_layers": layers,
        "latency_ms": latency.median,
        "inferences_per_s": 1000 / latency.median if latency.median else None,
        "runs": runs,
        "energy": energy_of(meter, windows, idle) if meter is not None else None,
        "before": before,
        "after": machine_state(),
    }


def check_runs(runs: Sequence[Mapping[str, Any]], name: str) -> None:
    """Raise FFError where runs, of `seconds` each, are no result: fewer than five, or one shorter than 10 s."""
    if len(runs) < ENOUGH_RUNS:
        raise FFError(f"{name}: {len(runs)} runs are no result of single-stream, which asks for {ENOUGH_RUNS}")
    shortest = min(run["seconds"] for run in runs)
    if shortest < ENOUGH_S:
        raise FFError(
            f"{name}: a run lasted {shortest:.3g} s and single-stream asks for {ENOUGH_S:.0f} s or more; measure "
            "again, and leave the clock alone meanwhile"
        )


def _accuracy(way: Way, part: Part) -> tuple[float, float]:
    """Accuracy and mean layers on all images of an official part, one at a time."""
    labels, right, layers = part.labels.numpy(), 0, 0
    for row, image in enumerate(np.split(part.images.numpy(), len(part.images))):
        classes, left = way.answer(image)
        right += int(classes[0] == labels[row])
        layers += int(left[0])
    return right / len(labels), layers / len(labels)


def _stream(way: Way, images: Sequence[np.ndarray], seconds: float, clock: Clock, order: int = 0) -> Window:
    """Answer one image after the other for `seconds` or a little longer."""
    start = end = clock()
    count = 0
    while end - start < seconds:
        way.answer(images[count % len(images)])
        count += 1
        end = clock()
    return Window(start, end, count, order)
