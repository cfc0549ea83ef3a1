"""A made clock, devices of known speed and power sensors of known truth, to drive the measurement
protocol."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


class World:
    """A clock that moves only when somebody works or waits, and the power that the machine draws meanwhile.

    `idle_mw(t)` is drawn always (a straight line, so that its energy is exact), `load_mw` on top while busy.
    """

    def __init__(self, idle_mw: Callable[[float], float] = lambda t: 5000.0, load_mw: float = 3000.0):
        self.idle_mw, self.load_mw, self.now = idle_mw, load_mw, 0.0
        self.busy_at: list[tuple[float, float]] = []  # finished stretches of load
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
        """What `ff.timing.in_thread` is in real time."""
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


class Sensor:
    """Shows, until its next update, the mean power of the period before its last one."""

    name = "made sensor"

    def __init__(self, world: World, period_s: float = 0.5, rail: str = "VDD_IN"):
        self.world, self.period_s, self.rail = world, period_s, rail
        self.reads = 0

    def sample(self) -> dict[str, float]:
        self.reads += 1
        tick = int(self.world.now / self.period_s + 1e-9) * self.period_s
        if tick <= 0:
            return {}
        return {self.rail: self.world.mean_mw(tick - self.period_s, tick)}

    def close(self) -> None:
        pass

    def __enter__(self) -> "Sensor":
        return self

    def __exit__(self, *_) -> None:
        pass


class Device:
    """A device that returns at once and is done later: `latency_s(path, size)` after the work was given to
    it.

    `log` holds what was asked of it, in order: ("stage" | "run", path, size), ("wait",), ("clock",).
    """

    launch_s = 20e-6

    def __init__(self, world: World, name: str = "made", latency_s=lambda path, size: 0.001 + 0.0001 * size):
        self.world, self.name, self.latency_s = world, name, latency_s
        self.done = 0.0
        self.log: list[tuple] = []

    def stage(self, path: str, size: int, generator: torch.Generator):
        self.log.append(("stage", path, size))
        return path, size, torch.randint(1000, (size,), generator=generator).tolist()

    def run(self, path: str, inputs) -> None:
        assert inputs[0] == path
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
    """A device with event timers, which see its own time only."""

    class Event:
        def __init__(self, device: "EventDevice"):
            self.device = device

        def record(self) -> None:
            self.at = max(self.device.done, self.device.world.now)

        def elapsed_time(self, other: "EventDevice.Event") -> float:
            return 1000 * (other.at - self.at)

    def events(self):
        return self.Event(self), self.Event(self)

    def peak_memory_mb(self) -> float | None:
        return 12.5
