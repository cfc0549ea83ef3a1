"""What is timed, how often and in which order: the measurement protocol.

A *subject* is a network on a device in a runtime: on the CPU one for each number of threads, so that a GPU can be
compared with one CPU thread and with all of them. Two paths are timed. *deploy*: standardised pixels lie on the device,
the predicted classes stay there. *end_to_end*: uint8 images in host memory (pageable), their transfer, standardisation,
the answer, and the classes back in host memory; it is the one path of exported networks. Both answer at full depth, in
torch through `ff.learn.inference`, and the batch size under test is that of the batch which goes through the network.

*Latency*: one batch, the device synchronised before each reading of the host clock; on a GPU a pair of CUDA events
stands beside it. Directly before each timed repeat the same work is done once untimed, with the same shape, and each
repeat has images of its own. *Synchronised* throughput is the inverse of that: batches whose answer is waited for
before the next is handed over. *Queued* throughput: batches of the deploy path handed over back to back without
waiting, one synchronisation at the end, in windows of at least 50 ms and 10 batches; a GPU then hides the time that
the host takes to launch. Batches that end in host memory wait by their nature, so end_to_end has no queued throughput.

Repeats and queued windows are dealt to rounds. In each round the subjects come as blocks, in a new random order, so
that a drift of the machine meets all of them. A block begins with at least 0.5 s of untimed work, since a device that
rested needs some of that to raise its clock (frequency scaling decides every 10 ms to 100 ms), and path, batch size
and repeat are shuffled inside of it. Thread counts are switched between blocks only. All random choices follow from
one recorded seed.

Energy follows in rounds of its own, after the times: in each round one window (`ff.measure.power`) of every subject
and batch size, in random order, with an idle window before, between and after the rounds.
"""

import gc
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from ff import statistics
from ff.errors import FFError, is_out_of_memory
from ff.measure.devices import STAGED
from ff.measure.power import Clock, Idle, PowerMeter, Window, energy_of, idle_summary
from ff.phases import PhaseLog
from ff.settings import MeasureConfig

if TYPE_CHECKING:
    from ff.documents.variance import IdlePower

PATHS = ("deploy", "end_to_end")
QUEUED_WINDOWS = 5
QUEUED_S = 0.05
QUEUED_BATCHES = 10
WARM_UP_S = 0.5


class Subject(Protocol):
    """What is measured: a network on a device. `run` may return before the device has finished."""

    name: str
    """The device, and the runtime where that is not torch: what its rows are kept under."""
    threads: int
    """CPU threads it works with."""

    @property
    def paths(self) -> Sequence[str]:
        """Those of PATHS that it can be timed on; warm-up and energy take the first."""

    def prepare(self) -> None:
        """Called before it is given work, never in a timed part: switch the machine to this subject."""

    def stage(self, path: str, size: int, generator: torch.Generator) -> Any:
        """Inputs of `path` for a batch of `size` images, drawn with `generator`, where the path wants them."""

    def run(self, path: str, inputs: Any) -> Any:
        """The timed work."""

    def synchronise(self) -> None:
        """Return when all work given to the device is done."""

    def events(self) -> tuple[Any, Any] | None:
        """A pair of device events (record(), elapsed_time(other) in ms), or None where the device has none."""

    def reset_peak_memory(self) -> None:
        """Forget the highest memory use so far."""

    def peak_memory_mb(self) -> float | None:
        """Highest memory use since then in MB (2^20 bytes); None where it cannot be known."""


class Times(NamedTuple):
    """How much is timed: repeats of each path and batch size (`single_samples` at least at batch 1), dealt to `rounds`,
    queued windows of each batch size, and the untimed work before a block."""

    repeats: int = MeasureConfig.repeats
    single_samples: int = MeasureConfig.single_samples
    rounds: int = MeasureConfig.rounds
    queued_windows: int = QUEUED_WINDOWS
    warm_up_s: float = WARM_UP_S


class Measurement(NamedTuple):
    """By device: raw rows (variance/{device}.csv), and a summary for each thread count, path and batch size. `idle` is
    the idle power with its windows; None where no energy was measured."""

    rows: dict[str, list[dict[str, Any]]]
    batches: dict[str, list[dict[str, Any]]]
    idle: "IdlePower | None"


class _Item(NamedTuple):
    """One entry of the plan: a repeat of a path, or (`queued`) a window of batches back to back."""

    queued: bool
    path: str
    size: int
    repeat: int


def measure(
    subjects: Iterable[Subject],
    batch_sizes: Sequence[int] = MeasureConfig.batch_sizes,
    times: Times = Times(),  # noqa: B008 - it cannot be changed
    seed: int = 0,
    clock: Clock = time.perf_counter,
    power: PowerMeter | None = None,
    energy_windows: int = MeasureConfig.energy_windows,
    phases: PhaseLog | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Measurement:
    """Measure all subjects together: times as `times` says, then, where there is a power meter, `energy_windows` of
    each batch size.

    Subjects are built one after the other as they are taken from the iterable, and each one's memory is looked at
    before the next is built. Idle power is that of a machine that has everything loaded and does nothing. Raises
    FFError where a batch does not fit into a device's memory.
    """
    phases = phases or PhaseLog()
    ready: list[Subject] = []
    memory: dict[tuple[str, int, str, int], float | None] = {}
    for subject in subjects:
        ready.append(subject)
        memory |= _memory(subject, batch_sizes, seed)
    with phases.phase("measure"), _no_collection():
        rows, queued = _timed(ready, batch_sizes, times, seed, clock)
    windows: dict[tuple[str, int, int], list[Window]] = {}
    idle: list[Idle | None] = []
    if power is not None and energy_windows > 0 and ready:
        windows, idle = _energy(ready, batch_sizes, energy_windows, seed, clock, power, phases, sleep)
    by_device: dict[str, list[dict[str, Any]]] = {subject.name: [] for subject in ready}
    batches: dict[str, list[dict[str, Any]]] = {subject.name: [] for subject in ready}
    for subject in ready:
        of_subject = rows[subject.name, subject.threads]
        by_device[subject.name] += of_subject
        for path in subject.paths:
            for size in batch_sizes:
                key, first = (subject.name, subject.threads, size), path == subject.paths[0]
                of_cell = [row for row in of_subject if (row["path"], row["batch_size"]) == (path, size)]
                summary = _summary(of_cell, queued.get(key, []) if path == "deploy" else [])
                summary["peak_memory_mb"] = memory[subject.name, subject.threads, path, size]
                summary["energy"] = energy_of(power, windows[key], idle) if power and first and key in windows else None
                batches[subject.name].append(summary)
    return Measurement(by_device, batches, idle_summary(power, idle) if power and idle else None)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of what is timed."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _memory(subject: Subject, batch_sizes: Sequence[int], seed: int) -> dict[tuple[str, int, str, int], float | None]:
    """Peak memory of each cell, small batches first: freed memory that an allocator keeps stays visible."""
    peaks = {}
    subject.prepare()
    for size in sorted(batch_sizes):
        for path in subject.paths:
            subject.reset_peak_memory()
            with _naming(subject, size):
                subject.run(path, subject.stage(path, size, _draw(seed, size, 0)))
                subject.synchronise()
            peaks[subject.name, subject.threads, path, size] = subject.peak_memory_mb()
    return peaks


@contextmanager
def _naming(subject: Subject, size: int) -> Iterator[None]:
    """Turn a lack of memory into an FFError that names the batch size."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise FFError(
            f"batch size {size} does not fit into the memory of {subject.name}; take a smaller batch size"
        ) from error


def _draw(seed: int, size: int, repeat: int) -> torch.Generator:
    """Which images a repeat answers; the same for all subjects and paths."""
    return torch.Generator().manual_seed((seed * 1_000_003 + size) * 1_000_003 + repeat)


# -- times ----


def plan(
    subjects: Sequence[Subject], batch_sizes: Sequence[int], times: Times, seed: int
) -> Iterator[tuple[Subject, list[_Item]]]:
    """Blocks of work in the order in which they are done. One subject alone has one block: it meets nobody."""
    items = [
        _Item(False, path, size, repeat)
        for path in PATHS
        for size in batch_sizes
        for repeat in range(max(times.repeats, times.single_samples) if size == 1 else times.repeats)
    ]
    items += [_Item(True, "deploy", size, window) for size in batch_sizes for window in range(times.queued_windows)]
    chance, rounds = random.Random(seed), times.rounds if len(subjects) > 1 else 1
    for number in range(rounds):
        for subject in chance.sample(subjects, len(subjects)):
            dealt = [item for item in items if item.repeat % rounds == number and item.path in subject.paths]
            if dealt:
                yield subject, chance.sample(dealt, len(dealt))


def _timed(
    subjects: Sequence[Subject], batch_sizes: Sequence[int], times: Times, seed: int, clock: Clock
) -> tuple[dict[tuple[str, int], list[dict[str, Any]]], dict[tuple[str, int, int], list[dict[str, Any]]]]:
    """Raw rows by (device, threads), and queued windows by (device, threads, batch size)."""
    rows: dict[tuple[str, int], list] = {(subject.name, subject.threads): [] for subject in subjects}
    queued: dict[tuple[str, int, int], list] = {}
    counts: dict[tuple[str, int, int], int] = {}
    order = 0
    for subject, items in plan(subjects, batch_sizes, times, seed):
        subject.prepare()
        warm_up(subject, max(batch_sizes), times.warm_up_s, seed, clock)
        for is_queued, path, size, repeat in items:
            if is_queued:
                key = (subject.name, subject.threads, size)
                inputs = _staged(subject, size, seed, repeat)
                subject.run(path, inputs[0])
                counts[key], seconds = queued_window(subject, inputs, counts.get(key, QUEUED_BATCHES), clock)
                window = {"order": order, "batches": counts[key], "seconds": seconds}
                queued.setdefault(key, []).append(window | {"samples_per_s": counts[key] * size / seconds})
            else:
                inputs = subject.stage(path, size, _draw(seed, size, repeat))
                subject.run(path, inputs)
                latency_ms, device_ms = time_once(subject, path, inputs, clock)
                cell = {"device": subject.name, "threads": subject.threads, "path": path, "batch_size": size}
                cell |= {"repeat": repeat, "order": order, "latency_ms": latency_ms, "device_ms": device_ms}
                rows[subject.name, subject.threads].append(cell)
            order += 1
    return rows, queued


def _staged(subject: Subject, size: int, seed: int, window: int) -> list[Any]:
    """Inputs of the first path for work that is repeated; other images for each window."""
    with _naming(subject, size):
        return [subject.stage(subject.paths[0], size, _draw(seed, size, STAGED * window + i)) for i in range(STAGED)]


def warm_up(subject: Subject, size: int, seconds: float, seed: int, clock: Clock) -> None:
    """Work on batches of `size` for at least `seconds`, untimed."""
    repeat_for(subject, [subject.stage(subject.paths[0], size, _draw(seed, size, 0))], seconds, clock)


def time_once(subject: Subject, path: str, inputs: Any, clock: Clock) -> tuple[float, float | None]:
    """Milliseconds of one run on the host clock, and between two device events where the device has them."""
    events = subject.events()
    subject.synchronise()
    start = clock()
    if events is not None:
        events[0].record()
    subject.run(path, inputs)
    if events is not None:
        events[1].record()
    subject.synchronise()
    end = clock()
    device_ms = events[0].elapsed_time(events[1]) if events is not None else None
    return (end - start) * 1000, device_ms


def time_queued(subject: Subject, inputs: Sequence[Any], count: int, clock: Clock) -> float:
    """Seconds for `count` batches of the deploy path, handed over back to back; waits once, at the end."""
    subject.synchronise()
    start = clock()
    for i in range(count):
        subject.run("deploy", inputs[i % len(inputs)])
    subject.synchronise()
    return clock() - start


def queued_window(subject: Subject, inputs: Sequence[Any], count: int, clock: Clock) -> tuple[int, float]:
    """Batches and seconds of a queued window: `count` batches, or as many as QUEUED_S take.

    A window that comes out too short does not count; the next has a fifth more batches than it should have needed.
    """
    seconds = time_queued(subject, inputs, count, clock)
    while seconds < QUEUED_S:
        count = min(100 * count, max(count + 1, math.ceil(1.2 * count * QUEUED_S / seconds)))
        seconds = time_queued(subject, inputs, count, clock)
    return count, seconds


def _summary(rows: Sequence[dict[str, Any]], windows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    size = rows[0]["batch_size"]
    latency = statistics.summarise([row["latency_ms"] for row in rows])
    on_device = statistics.summarise([row["device_ms"] for row in rows])
    queued = statistics.median_interval([window["samples_per_s"] for window in windows])
    return {
        "threads": rows[0]["threads"],
        "path": rows[0]["path"],
        "batch_size": size,
        "n_repeats": latency.n,
        "latency_ms": _spread(latency),
        "device_ms": _spread(on_device) if on_device.n else None,
        # More time is less throughput, so the ends of the interval change places.
        "throughput_synchronised_per_s": {
            name: None if value is None else 1000 * size / value
            for name, value in (("median", latency.median), ("low", latency.high), ("high", latency.low))
        },
        "throughput_queued_per_s": {
            "median": queued.estimate,
            "low": queued.low,
            "high": queued.high,
            "method": queued.method,
            "windows": sorted(windows, key=lambda window: window["order"]),
        }
        if windows
        else None,
    }


def _spread(summary: statistics.Summary) -> dict[str, Any]:
    return {name: getattr(summary, name) for name in ("median", "p5", "p95", "low", "high", "method")}


# -- energy ----


def _energy(
    subjects: Sequence[Subject],
    batch_sizes: Sequence[int],
    count: int,
    seed: int,
    clock: Clock,
    meter: PowerMeter,
    phases: PhaseLog,
    sleep: Callable[[float], None],
) -> tuple[dict[tuple[str, int, int], list[Window]], list[Idle | None]]:
    """`count` windows of each (device, threads, batch size), and the idle windows around their rounds."""
    windows: dict[tuple[str, int, int], list[Window]] = {}
    idle = [idle_window(meter, phases, "idle_before", clock, sleep)]
    chance, cells = random.Random(seed), [(subject, size) for subject in subjects for size in batch_sizes]
    order = 0
    for number in range(count):
        for subject, size in chance.sample(cells, len(cells)):
            subject.prepare()
            inputs = _staged(subject, size, seed, number)
            with meter.sampling():
                repeat_for(subject, inputs, meter.lead_in_s, clock)
                with phases.phase(f"energy:{subject.name}:{subject.threads}:{size}"):
                    start, end, runs = repeat_for(subject, inputs, meter.window_s, clock)
            key = (subject.name, subject.threads, size)
            windows.setdefault(key, []).append(Window(start, end, runs * size, order))
            order += 1
        idle.append(idle_window(meter, phases, "idle_after" if number == count - 1 else "idle_between", clock, sleep))
    return windows, idle


def idle_window(
    meter: PowerMeter, phases: PhaseLog, name: str, clock: Clock, sleep: Callable[[float], None]
) -> Idle | None:
    """Power while nothing runs; None where the sensor failed."""
    with meter.sampling():
        sleep(meter.lead_in_s)
        with phases.phase(name):
            start = clock()
            sleep(meter.window_s)
            end = clock()
    return meter.idle(start, end)


def repeat_for(subject: Subject, inputs: Sequence[Any], seconds: float, clock: Clock) -> tuple[float, float, int]:
    """Repeat the first path for `seconds` or a little longer: (start, end, whole runs), each run finished."""
    subject.synchronise()
    start = end = clock()
    runs = 0
    while end - start < seconds:
        subject.run(subject.paths[0], inputs[runs % len(inputs)])
        subject.synchronise()
        runs += 1
        end = clock()
    return start, end, runs
