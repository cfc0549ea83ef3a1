"""A made clock, devices of known speed and power sensors of known truth, to drive the measurement
protocol."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch


class World:
    """A clock that moves only when somebody works or waits, and the power that the machine draws meanwhile.

    `idle_mw(t)` is drawn always (a straight line, so that its energy is exact), `load_mw` on top while busy.
    """

    def __init__(self, idle_mw: Callable[[float], float] = lambda t: 5000.0, load_mw: float = 3000.0):
        self.idle_mw, self.load_mw, self.now = idle_mw, load_mw, 0.0
        self.busy_at: list[tuple[float, float]] = []  # finished stretches of load
        self.switched_to: Device | None = None
        self._due: list[list] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float, busy: bool = False) -> None:
        """Let time pass; whoever asked to be called at an interval is called on the way."""
        end = self.now + seconds
        while self._due and min(due[0] for due in self._due) <= end:
            first = min(self._due, key=lambda due: due[0])
            self._move(first[0], busy)
            first[0] += first[1]
            first[2]()
        self._move(end, busy)

    def _move(self, to: float, busy: bool) -> None:
        if busy and to > self.now:
            if self.busy_at and self.busy_at[-1][1] == self.now:
                self.busy_at[-1] = (self.busy_at[-1][0], to)
            else:
                self.busy_at.append((self.now, to))
        self.now = max(self.now, to)

    @contextmanager
    def every(self, interval_s: float, take: Callable[[], None]) -> Iterator[None]:
        """What `ff.measure.power.in_thread` is in real time."""
        due = [self.now, interval_s, take]
        self._due.append(due)
        try:
            yield
        finally:
            self._due.remove(due)

    def mean_mw(self, start: float, end: float) -> float:
        """True mean power of the past."""
        load = 0.0
        for low, high in reversed(self.busy_at):
            if high <= start:
                break
            load += max(0.0, min(high, end) - max(low, start))
        return (self.idle_mw(start) + self.idle_mw(end)) / 2 + self.load_mw * load / (end - start)


class Reading(NamedTuple):
    """What `ff.measure.power.Reading` asks for."""

    power_mw: dict[str, float]
    energy_mj: dict[str, float]


class Sensor:
    """Power only: shows, until its next update, the mean of the period before its last one."""

    name = "made sensor"

    def __init__(self, world: World, period_s: float = 0.5, rail: str = "VDD_IN"):
        self.world, self.period_s, self.rail = world, period_s, rail
        self.reads = 0

    def read(self) -> Reading:
        self.reads += 1
        tick = int(self.world.now / self.period_s + 1e-9) * self.period_s
        if tick <= 0:
            return Reading({}, {})
        return Reading({self.rail: self.world.mean_mw(tick - self.period_s, tick)}, {})

    def close(self) -> None:
        pass

    def __enter__(self) -> "Sensor":
        return self

    def __exit__(self, *_) -> None:
        pass


class Counter(Sensor):
    """An exact energy counter beside a power that lags: the mean of the last `average_s` seconds."""

    average_s = 1.0

    def __init__(self, world: World, period_s: float = 0.1, rail: str = "gpu0"):
        super().__init__(world, period_s, rail)
        self.counted_mj, self.counted_s = 0.0, 0.0

    def read(self) -> Reading:
        self.reads += 1
        now = self.world.now
        if now > self.counted_s:
            self.counted_mj += self.world.mean_mw(self.counted_s, now) * (now - self.counted_s)
            self.counted_s = now
        start = max(0.0, now - self.average_s)
        power = {self.rail: self.world.mean_mw(start, now)} if now > start else {}
        return Reading(power, {self.rail: self.counted_mj})


class Device:
    """A device that returns at once and is done later: `latency_s(path, size)` after the work was given to
    it. It does not work while the machine is switched to another.

    `log` holds what was asked of it, in order: ("prepare",), ("stage" | "run", path, size), ("wait",), ("clock",).
    """

    launch_s = 20e-6
    paths = ("deploy", "end_to_end")

    def __init__(
        self, world: World, name: str = "made", latency_s=lambda path, size: 0.001 + 0.0001 * size, threads: int = 1
    ):
        self.world, self.name, self.latency_s, self.threads = world, name, latency_s, threads
        self.done = 0.0
        self.log: list[tuple] = []

    def prepare(self) -> None:
        self.log.append(("prepare",))
        self.world.switched_to = self

    def stage(self, path: str, size: int, generator: torch.Generator):
        self.log.append(("stage", path, size))
        return path, size, torch.randint(1000, (size,), generator=generator).tolist()

    def run(self, path: str, inputs) -> None:
        assert inputs[0] == path
        assert self.world.switched_to in (None, self), "the machine is switched to another device"
        self.log.append(("run", path, inputs[1]))
        self.world.advance(self.launch_s)
        self.done = max(self.done, self.world.now) + self.latency_s(path, inputs[1])

    def synchronise(self) -> None:
        self.log.append(("wait",))
        self.world.advance(max(0.0, self.done - self.world.now), busy=True)

    def clock(self) -> float:
        self.log.append(("clock",))
        return self.world.clock()

    def events(self):
        return None

    def reset_peak_memory(self) -> None:
        self.log.append(("reset memory",))

    def peak_memory_mb(self) -> float | None:
        return None

    def true_ms(self, path: str, size: int) -> float:
        return 1000 * (self.launch_s + self.latency_s(path, size))


class EventDevice(Device):
    """A device with event timers, which see its own time only: not what the host takes to launch."""

    class Event:
        def __init__(self, device: "EventDevice"):
            self.device = device

        def record(self) -> None:
            self.at = max(self.device.done, self.device.world.now)

        def elapsed_time(self, other: "EventDevice.Event") -> float:
            return 1000 * (other.at - self.at - self.device.launch_s)

    def events(self):
        return self.Event(self), self.Event(self)

    def peak_memory_mb(self) -> float | None:
        return 12.5


class ScalingDevice(Device):
    """A device with frequency scaling: after a rest of 20 ms its first 0.3 s of work take `cold` times as long.

    `speeds` holds that factor for each run.
    """

    cold = 3.0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.worked_s, self.speeds = 0.0, []
        self.warm_s = self.latency_s
        self.latency_s = lambda path, size: self.warm_s(path, size) * self.speeds[-1]

    def run(self, path: str, inputs) -> None:
        if self.world.now - self.done > 0.02:
            self.worked_s = 0.0
        self.speeds.append(self.cold if self.worked_s < 0.3 else 1.0)
        super().run(path, inputs)
        self.worked_s += self.latency_s(path, inputs[1])

    def true_ms(self, path: str, size: int) -> float:
        return 1000 * (self.launch_s + self.warm_s(path, size))


# -- a board ----


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def made_jetson(root: Path) -> None:
    """The files of a Jetson in power mode 15W, under `root`."""
    write(
        root / "etc/nv_tegra_release",
        "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic, EABI: aarch64",
    )
    write(root / "var/lib/nvpmodel/status", "pmode:0002\n")
    write(root / "etc/nvpmodel.conf", "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=15W >\n")
    cores = root / "sys/devices/system/cpu"
    write(cores / "present", "0")
    values = {"scaling_governor": "schedutil", "scaling_cur_freq": "1190400", "scaling_min_freq": "729600"}
    for name, text in {**values, "scaling_max_freq": "1510400", "related_cpus": "0"}.items():
        write(cores / "cpu0/cpufreq" / name, text)
    gpu = root / "sys/class/devfreq/17000000.gpu"
    for name, text in {"governor": "nvhost_podgov", "cur_freq": "306000000", "min_freq": "306000000"}.items():
        write(gpu / name, text)
    write(gpu / "max_freq", "624750000")
    write(root / "sys/class/thermal/thermal_zone0/type", "cpu-thermal")
    write(root / "sys/class/thermal/thermal_zone0/temp", "48500")
