"""How fast a trained network answers: the measurement protocol, for each device and batch size.

Two paths are timed. *deploy*: standardised pixels lie on the device, the predicted classes stay there.
*end_to_end*: uint8 images in host memory (pageable), their transfer, standardisation, the answer, and the
classes back in host memory. Both answer by the head at full depth, through `ff.inference`, and the batch
size under test is the size of the batch that goes through the network.

Every repeat of every (device, path, batch size) has its own place in one order, shuffled with a recorded
seed, and its own images. Directly before it the same work is done once untimed, with the same shape. The
device is synchronised before each reading of the host clock; on a GPU a pair of CUDA events stands beside
it.

Energy is measured in windows of at least 20 periods of the power sensor and 5 s, in which the work is
repeated. A window begins after the work has run for two periods (0.5 s at least), so that the sensor shows
load and not what was before. Idle power is measured before and after all windows; the idle level of a
window is interpolated between both, so that a level that drifts evenly does no harm.
"""

import gc
import os
import platform
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ff import __version__, checkpoint, statistics
from ff.config import CLASS_COUNT
from ff.datasets import Part, Prepared
from ff.errors import FFError
from ff.evaluation import check_data, identify
from ff.files import write_csv, write_json
from ff.hardware import energy
from ff.inference import Inference
from ff.network import Network
from ff.phases import PhaseLog

SCHEMA = 1
BATCH_SIZES = (1, 2, 8, 16, 32, 64, 128, 256, 512)
PATHS = ("deploy", "end_to_end")
REPEATS = 50
SINGLE_SAMPLES = 100
DEVICES = ("cpu", "cuda")
SENSOR_PERIODS = 20
WINDOW_S = 5.0
LEAD_IN_PERIODS = 2
LEAD_IN_S = 0.5
COLUMNS = ("model", "device", "path", "batch_size", "repeat", "order", "latency_ms", "device_ms")
_STAGED = 4

Clock = Callable[[], float]


class Subject(Protocol):
    """What is measured: a network on a device. `run` may return before the device has finished."""

    name: str

    def stage(self, path: str, size: int, generator: torch.Generator) -> Any:
        """Inputs of `path` for a batch of `size` images, drawn with `generator`, where the path wants
        them."""

    def run(self, path: str, inputs: Any) -> Any:
        """The timed work."""

    def synchronise(self) -> None:
        """Return when all work given to the device is done."""

    def events(self) -> tuple[Any, Any] | None:
        """A pair of device events (record(), elapsed_time(other) in ms), or None where the device has
        none."""

    def reset_peak_memory(self) -> None:
        """Forget the highest memory use so far."""

    def peak_memory_mb(self) -> float | None:
        """Highest memory use since then in MB (2^20 bytes); None where it cannot be known."""


class Measurement(NamedTuple):
    """Raw rows (variance/{device}.csv) and a summary for each path and batch size, by device."""

    rows: dict[str, list[dict[str, Any]]]
    batches: dict[str, list[dict[str, Any]]]
    idle_mw: dict[str, float | None]


class Window(NamedTuple):
    """A stretch of work whose energy is asked for: seconds on the meter's clock, and samples answered in
    it."""

    start_s: float
    end_s: float
    samples: int


# -- the network on a device ----


class DeployedNetwork:
    """A `Subject`: one network on a torch device, answering images of `part`."""

    def __init__(self, name: str, network: Network, part: Part, facts):
        self.name, self.part = name, part
        self.inference = Inference(network.to(name), facts)
        self.device = self.inference.device

    def stage(self, path: str, size: int, generator: torch.Generator) -> Tensor:
        """Pixels [B, D] on the device (deploy), or uint8 images [B, C, H, W] in host memory (end_to_end)."""
        rows = torch.randint(len(self.part.labels), (size,), generator=generator)
        images = self.part.images[rows]
        return self.inference.pixels(images) if path == "deploy" else images

    def run(self, path: str, inputs: Tensor) -> Tensor:
        """Classes [B]: on the device (deploy), or in host memory (end_to_end)."""
        if path == "deploy":
            return self.inference.answer(inputs).classes
        return self.inference.answer(self.inference.pixels(inputs)).classes.cpu()

    def synchronise(self) -> None:
        """Wait for the device; the CPU has finished when a call returns."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def events(self) -> tuple[Any, Any] | None:
        """CUDA events on the device's current stream; None on the CPU."""
        if self.device.type != "cuda":
            return None
        return _CudaEvent(self.device), _CudaEvent(self.device)

    def reset_peak_memory(self) -> None:
        """GPU: the allocator's peak. CPU: the kernel's mark of this process's resident memory (proc(5))."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        self._reset = False
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
            self._reset = True

    def peak_memory_mb(self) -> float | None:
        """GPU: tensors at their highest (weights included). CPU: resident memory of the whole process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        if not getattr(self, "_reset", False):
            return None
        with suppress(OSError):
            mark = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
            return int(mark[1]) / 1024 if mark else None
        return None


class _CudaEvent:
    """An event that is recorded on the current stream of its own device, whichever device is current."""

    def __init__(self, device: torch.device):
        with torch.cuda.device(device):
            self.event, self.stream = torch.cuda.Event(enable_timing=True), torch.cuda.current_stream(device)

    def record(self) -> None:
        self.event.record(self.stream)

    def elapsed_time(self, other: "_CudaEvent") -> float:
        return self.event.elapsed_time(other.event)


MEMORY_SOURCE = {
    "cuda": "highest sum of tensors on the device (torch.cuda.max_memory_allocated), weights included",
    "cpu": "highest resident memory of the whole process (VmHWM, reset before), libraries included",
}


def why_missing(name: str) -> str | None:
    """Why device `name` cannot be measured here; None where it can."""
    try:
        device = torch.device(name)
    except RuntimeError:
        return f"{name!r} is no device that torch knows"
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        return f"devices of type {device.type} are not supported"
    if not torch.cuda.is_available():
        built = "" if torch.version.cuda else ": this torch was built without CUDA"
        return f"no CUDA device is usable on this machine{built}"
    if (device.index or 0) >= torch.cuda.device_count():
        return f"this machine has {torch.cuda.device_count()} CUDA device(s), none with number {device.index}"
    return None


# -- power ----


@contextmanager
def in_thread(interval_s: float, take: Callable[[], None]) -> Iterator[None]:
    """Call `take` every `interval_s` seconds from a thread while the block runs."""
    done = threading.Event()

    def loop() -> None:
        take()
        while not done.wait(interval_s):
            take()

    thread = threading.Thread(target=loop, name="ff-power", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class PowerMeter:
    """Samples a power source while work runs, and says how much energy a window took.

    `source` has `sample() -> {rail: mW}` ({} where there is nothing new) and `period_s`; `every(interval_s,
    take)` is a context manager that calls `take` at that interval. The sensor is read twice a period.
    """

    def __init__(
        self,
        source: Any,
        clock: Clock = time.perf_counter,
        every: Callable[[float, Callable[[], None]], AbstractContextManager] = in_thread,
    ):
        self.source, self.clock, self.every = source, clock, every
        self.times_s: list[float] = []
        self.power_mw: list[float] = []
        self.rail: str | None = None
        self._latest: dict[str, float] = {}

    @property
    def window_s(self) -> float:
        """The shortest window that this sensor allows: 20 periods and 5 s."""
        return max(SENSOR_PERIODS * self.source.period_s, WINDOW_S)

    @property
    def lead_in_s(self) -> float:
        """How long work runs before a window begins, so that the sensor shows nothing from before."""
        return max(LEAD_IN_PERIODS * self.source.period_s, LEAD_IN_S)

    def sampling(self) -> AbstractContextManager:
        """Sample while the block runs; only there, as reading sensors takes time from what is timed."""
        return self.every(self.source.period_s / 2, self.take)

    def take(self) -> None:
        """Read the sensor once. Of several sensors the ones with nothing new count with their last
        reading."""
        reading = self.source.sample()
        if not reading:
            return
        self._latest.update(reading)
        total = energy.total_power(self._latest)
        if total is not None:
            self.rail = total[0]
            self.times_s.append(self.clock())
            self.power_mw.append(total[1])

    def mean_mw(self, start_s: float, end_s: float) -> tuple[float, int] | None:
        """Mean power between two instants and the number of readings in between; None where the readings
        cover less than 95 % of the time."""
        times, powers = list(self.times_s), list(self.power_mw)
        interval = energy.sampling_interval_s(times, self.source.period_s / 2)
        integral = energy.integrate(times, powers, start_s, end_s, interval)
        if end_s <= start_s or integral.covered_s < energy.MIN_COVERED * (end_s - start_s):
            return None
        return integral.energy_mj / integral.covered_s, sum(start_s <= t <= end_s for t in times)


def energy_of(meter: PowerMeter, window: Window, idle: Sequence[tuple[float, float] | None]) -> dict[str, Any] | None:
    """Energy per sample of a window; None where the sensor failed in it.

    `idle` are (instant s, mW) before and after; net energy takes off the level interpolated at the middle
    of the window. With one of them that level is used; without any, net is None.
    """
    mean = meter.mean_mw(window.start_s, window.end_s)
    if mean is None or window.samples == 0:
        return None
    power, readings = mean
    seconds = window.end_s - window.start_s
    level = idle_level([point for point in idle if point is not None], (window.start_s + window.end_s) / 2)
    return {
        "gross_mj_per_sample": power * seconds / window.samples,
        "net_mj_per_sample": None if level is None else (power - level) * seconds / window.samples,
        "power_mw": power,
        "idle_mw": level,
        "window_s": seconds,
        "samples": readings,
        "inferences": window.samples,
        "rail": meter.rail,
    }


def idle_level(points: Sequence[tuple[float, float]], at_s: float) -> float | None:
    """Idle power at an instant from (instant s, mW) before and after, on a straight line; None without
    any."""
    if not points:
        return None
    (t0, p0), (t1, p1) = points[0], points[-1]
    return p0 if t1 == t0 else p0 + (p1 - p0) * (at_s - t0) / (t1 - t0)


# -- the protocol ----


def measure(
    subjects: Iterable[Subject],
    batch_sizes: Sequence[int] = BATCH_SIZES,
    repeats: int = REPEATS,
    single_samples: int = SINGLE_SAMPLES,
    seed: int = 0,
    clock: Clock = time.perf_counter,
    power: PowerMeter | None = None,
    energy_batch_sizes: Sequence[int] | None = None,
    phases: PhaseLog | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Measurement:
    """Measure all subjects together: `repeats` timed repeats (at batch 1 at least `single_samples`) of each
    path and batch size, and energy windows at `energy_batch_sizes` (None: all) where there is a power
    meter.

    Subjects are built one after the other as they are taken from the iterable, and each one's memory is
    looked at before the next is built. Idle power is that of a machine that has everything loaded and does
    nothing.
    """
    phases = phases or PhaseLog()
    ready: list[Subject] = []
    memory: dict[tuple[str, str, int], float | None] = {}
    for subject in subjects:
        ready.append(subject)
        memory |= _memory(subject, batch_sizes, seed)
    idle: list[tuple[float, float] | None] = [None, None]
    windows: dict[tuple[str, int], Window] = {}
    if power is not None:
        idle[0] = _idle(power, phases, "idle_before", clock, sleep)
    with phases.phase("measure"):
        rows = _timed(ready, batch_sizes, repeats, single_samples, seed, clock)
    if power is not None:
        wanted = batch_sizes if energy_batch_sizes is None else energy_batch_sizes
        windows = _windows(ready, wanted, seed, clock, power, phases)
        idle[1] = _idle(power, phases, "idle_after", clock, sleep)
    energies = {key: energy_of(power, window, idle) for key, window in windows.items() if power is not None}
    batches = {
        subject.name: [
            _summary(
                [row for row in rows[subject.name] if row["path"] == path and row["batch_size"] == size],
                memory[subject.name, path, size],
                energies.get((subject.name, size)) if path == "deploy" else None,
            )
            for path in PATHS
            for size in batch_sizes
        ]
        for subject in ready
    }
    levels = {name: point[1] if point else None for name, point in zip(("before", "after"), idle, strict=True)}
    return Measurement(rows, batches, levels)


def _memory(subject: Subject, batch_sizes: Sequence[int], seed: int) -> dict[tuple[str, str, int], float | None]:
    """Peak memory of each cell, small batches first: freed memory that an allocator keeps stays visible."""
    peaks = {}
    for size in sorted(batch_sizes):
        for path in PATHS:
            subject.reset_peak_memory()
            subject.run(path, subject.stage(path, size, _draw(seed, size, 0)))
            subject.synchronise()
            peaks[subject.name, path, size] = subject.peak_memory_mb()
    return peaks


def _draw(seed: int, size: int, repeat: int) -> torch.Generator:
    """Which images a repeat answers; the same on all devices and paths."""
    return torch.Generator().manual_seed((seed * 1_000_003 + size) * 1_000_003 + repeat)


def _timed(
    subjects: Sequence[Subject],
    batch_sizes: Sequence[int],
    repeats: int,
    single_samples: int,
    seed: int,
    clock: Clock,
) -> dict[str, list[dict[str, Any]]]:
    plan = [
        (subject, path, size, repeat)
        for subject in subjects
        for path in PATHS
        for size in batch_sizes
        for repeat in range(max(repeats, single_samples) if size == 1 else repeats)
    ]
    random.Random(seed).shuffle(plan)
    rows: dict[str, list[dict[str, Any]]] = {subject.name: [] for subject in subjects}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for order, (subject, path, size, repeat) in enumerate(plan):
            inputs = subject.stage(path, size, _draw(seed, size, repeat))
            subject.run(path, inputs)
            latency_ms, device_ms = time_once(subject, path, inputs, clock)
            cell = {
                "device": subject.name,
                "path": path,
                "batch_size": size,
                "repeat": repeat,
                "order": order,
            }
            rows[subject.name].append(cell | {"latency_ms": latency_ms, "device_ms": device_ms})
    finally:
        if collecting:
            gc.enable()
    return rows


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


def _idle(
    meter: PowerMeter, phases: PhaseLog, name: str, clock: Clock, sleep: Callable[[float], None]
) -> tuple[float, float] | None:
    """(middle of the window in s, mean mW) while nothing runs; None where the sensor failed."""
    with meter.sampling():
        sleep(meter.lead_in_s)
        with phases.phase(name):
            start = clock()
            sleep(meter.window_s)
            end = clock()
    mean = meter.mean_mw(start, end)
    return ((start + end) / 2, mean[0]) if mean else None


def _windows(
    subjects: Sequence[Subject],
    batch_sizes: Iterable[int],
    seed: int,
    clock: Clock,
    meter: PowerMeter,
    phases: PhaseLog,
) -> dict[tuple[str, int], Window]:
    plan = [(subject, size) for subject in subjects for size in batch_sizes]
    random.Random(seed).shuffle(plan)
    windows = {}
    for subject, size in plan:
        inputs = [subject.stage("deploy", size, _draw(seed, size, repeat)) for repeat in range(_STAGED)]
        with meter.sampling():
            repeat_for(subject, inputs, meter.lead_in_s, clock)
            with phases.phase(f"energy:{subject.name}:{size}"):
                start, end, runs = repeat_for(subject, inputs, meter.window_s, clock)
        windows[subject.name, size] = Window(start, end, runs * size)
    return windows


def repeat_for(subject: Subject, inputs: Sequence[Any], seconds: float, clock: Clock) -> tuple[float, float, int]:
    """Repeat the deploy path for `seconds` or a little longer: (start, end, whole runs), each run
    finished."""
    subject.synchronise()
    start = end = clock()
    runs = 0
    while end - start < seconds:
        subject.run("deploy", inputs[runs % len(inputs)])
        subject.synchronise()
        runs += 1
        end = clock()
    return start, end, runs


def _summary(
    rows: Sequence[dict[str, Any]], peak_memory_mb: float | None, used: dict[str, Any] | None
) -> dict[str, Any]:
    size = rows[0]["batch_size"]
    latency = statistics.summarise([row["latency_ms"] for row in rows])
    on_device = statistics.summarise([row["device_ms"] for row in rows])
    return {
        "path": rows[0]["path"],
        "batch_size": size,
        "n_repeats": latency.n,
        "latency_ms": _spread(latency),
        "device_ms": _spread(on_device) if on_device.n else None,
        # More time is less throughput, so the ends of the interval change places.
        "throughput_per_s": {
            name: None if value is None else 1000 * size / value
            for name, value in (("median", latency.median), ("low", latency.high), ("high", latency.low))
        },
        "peak_memory_mb": peak_memory_mb,
        "energy": used,
    }


def _spread(summary: statistics.Summary) -> dict[str, Any]:
    return {name: getattr(summary, name) for name in ("median", "p5", "p95", "low", "high", "method")}


# -- conditions ----


def machine_state(root: str | os.PathLike = "/") -> dict[str, Any]:
    """What can change the speed between two moments: clocks (MHz), governor, power mode, temperatures (C).

    `root` is where the machine's files are looked up, as in `ff.hardware.machine.describe`.
    """
    from ff.hardware.machine import describe

    machine = describe(root)
    cpu, gpus = machine["cpu"], machine["gpus"]
    governor = {"cpu": cpu["governor"], **{gpu["name"] or "gpu": gpu["governor"] for gpu in gpus}}
    clocks = {"cpu": cpu["current_mhz"], **{gpu["name"] or "gpu": gpu["current_mhz"] for gpu in gpus}}
    temperature = dict(machine["temperature_c"])
    if torch.cuda.is_available():
        # Both need NVML, which not every machine with CUDA has.
        with suppress(Exception):
            temperature["cuda"] = float(torch.cuda.temperature())
        with suppress(Exception):
            clocks["cuda"] = float(torch.cuda.clock_rate())
    mode = machine["nvpmodel"]
    return {
        "clocks_mhz": {name: value for name, value in clocks.items() if value is not None},
        "governor": {name: value for name, value in governor.items() if value is not None},
        "power_mode": None if mode is None else mode["mode"] or str(mode["id"]),
        "jetson_clocks": machine["jetson_clocks"],
        "temperature_c": temperature,
    }


def versions() -> dict[str, str | None]:
    """Versions of what computes."""
    return {
        "ff": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": str(torch.backends.cudnn.version()) if torch.cuda.is_available() else None,
    }


def device_facts(name: str) -> dict[str, Any]:
    """The `device` block of variance/{device}.json; a missing device says why."""
    reason, kind = why_missing(name), name.split(":")[0]
    if reason is not None:
        return {"name": None, "kind": kind, "available": False, "reason": reason}
    if kind == "cuda":
        return {"name": torch.cuda.get_device_name(name), "kind": kind, "available": True, "reason": None}
    from ff.hardware.machine import describe

    machine = describe()
    title = machine["cpu"]["model"] or machine["model"] or machine["architecture"]
    return {"name": title, "kind": kind, "available": True, "reason": None}


# -- a run ----


def run_measurement(
    run_folder: str | os.PathLike,
    prepared: Prepared,
    devices: Sequence[str] = DEVICES,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    repeats: int = REPEATS,
    single_samples: int = SINGLE_SAMPLES,
    energy_batch_sizes: Sequence[int] | None = None,
    seed: int | None = None,
) -> None:
    """Measure the run in `run_folder` on `devices` and write variance/{device}.csv and .json,
    variance/phases.csv.

    A device that is not there gets its files too: no rows, and the reason. `seed` (None: the run's) draws
    the order and the images. `energy_batch_sizes`: None for all batch sizes, empty for no energy.
    Raises FFError when a count is below 1, or when the data set is not the one the run was trained on.
    """
    counts = {"repeats": repeats, "single_samples": single_samples, "batch size": min(batch_sizes, default=0)}
    for name, count in counts.items():
        if count < 1:
            raise FFError(f"cannot measure with {name} {count}; give at least 1")
    folder = Path(run_folder)
    network, meta = checkpoint.load(folder / "model.safetensors", "cpu")
    config = checkpoint.config(meta)
    check_data(config, prepared)
    seed = config.seed if seed is None else seed
    variance = folder / "variance"
    (variance / "phases.csv").unlink(missing_ok=True)
    facts = {name: device_facts(name) for name in devices}
    # The CPU comes first: a CUDA context would add to the process's memory.
    present = sorted((name for name in devices if facts[name]["available"]), key=lambda name: name != "cpu")
    before = machine_state()
    source, why_no_power = (
        _power_source() if energy_batch_sizes is None or energy_batch_sizes else (None, "not asked for")
    )
    with source or nullcontext():
        measured = measure(
            (DeployedNetwork(name, network, prepared.test, prepared.facts) for name in present),
            batch_sizes,
            repeats,
            single_samples,
            seed,
            power=PowerMeter(source) if source is not None else None,
            energy_batch_sizes=energy_batch_sizes,
            phases=PhaseLog(variance / "phases.csv", meta["model"]),
        )
    after = machine_state()
    power = {
        "source": source.name if source is not None else None,
        "period_s": source.period_s if source is not None else None,
        "reason": why_no_power,
        "idle_before_mw": measured.idle_mw["before"],
        "idle_after_mw": measured.idle_mw["after"],
    }
    conditions = {
        "threads": torch.get_num_threads(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "versions": versions(),
        "before": before,
        "after": after,
        "power": power,
    }
    for name in devices:
        document = {
            "schema": SCHEMA,
            "run": identify(config, meta["model"]),
            "device": facts[name],
            "conditions": conditions,
            "seed": seed,
            "measured_together": list(present),
            "peak_memory_source": MEMORY_SOURCE.get(facts[name]["kind"]),
            "batches": measured.batches.get(name, []),
        }
        rows = [{"model": meta["model"], **row} for row in measured.rows.get(name, [])]
        write_csv(variance / f"{name}.csv", COLUMNS, rows)
        write_json(variance / f"{name}.json", document)


def _power_source() -> tuple[Any, str | None]:
    from ff.hardware.sources import open_power_source

    source = open_power_source()
    return source, None if source is not None else "no power sensor can be read on this machine"


# -- agreement ----


def compare(first: Tensor, second: Tensor, names: tuple[str, str]) -> dict[str, Any]:
    """Do two devices say the same? Logits [n, 10] of both for the same images.

    A margin is the largest logit less the second largest: a sample that differs by a margin of rounding
    size was undecided, one with a large margin shows a fault.
    """
    first, second = first.double(), second.double()
    n = len(first)
    differing = (first.argmax(-1) != second.argmax(-1)).nonzero().squeeze(1)
    margins = [
        values.topk(2, -1).values.diff(dim=-1).neg().squeeze(-1)[differing].tolist() for values in (first, second)
    ]
    return {
        "n": n,
        "same_predictions_share": 1 - len(differing) / n if n else None,
        "max_logit_difference": float((first - second).abs().max()) if n else None,
        "differing": [
            {"index": index, f"margin_{names[0]}": a, f"margin_{names[1]}": b}
            for index, a, b in zip(differing.tolist(), *margins, strict=True)
        ],
    }


def last_head_logits(network: Network, prepared: Prepared, device: str, batch_size: int) -> Tensor:
    """Logits [n, 10] of the last head for all test images, computed on `device`."""
    inference = Inference(network.to(device), prepared.facts)
    parts = [inference.logits(inference.pixels(images)).cpu() for images in prepared.test.images.split(batch_size)]
    return torch.cat(parts) if parts else torch.empty(0, CLASS_COUNT)


def run_agreement(
    run_folder: str | os.PathLike,
    prepared: Prepared,
    devices: tuple[str, str] = DEVICES,
    batch_size: int = 512,
) -> None:
    """Write variance/agreement.json of the run in `run_folder`: the two devices' answers on the test
    images."""
    folder = Path(run_folder)
    network, meta = checkpoint.load(folder / "model.safetensors", "cpu")
    config = checkpoint.config(meta)
    check_data(config, prepared)
    reasons = [f"{name}: {reason}" for name in devices if (reason := why_missing(name)) is not None]
    if reasons:
        result = {"n": None, "same_predictions_share": None, "max_logit_difference": None, "differing": []}
    else:
        names = tuple(name.replace(":", "_") for name in devices)
        result = compare(*(last_head_logits(network, prepared, name, batch_size) for name in devices), names)
    head = {"schema": SCHEMA, "run": identify(config, meta["model"]), "devices": list(devices)}
    head |= {"available": not reasons, "reason": "; ".join(reasons) or None}
    write_json(folder / "variance" / "agreement.json", head | result)
