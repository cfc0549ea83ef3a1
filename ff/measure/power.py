"""Energy of repeated work: readings of a power source over windows, less what the idle machine draws.

A window is a stretch in which the same work is repeated without a pause: at least 20 periods of the sensor and 5 s.
It begins after the work has run for two periods (0.5 s at least), so that the sensor shows load and not what was
before. The energy of a rail is the difference of its counter where the sensor has one, else the integral of its power
(`ff.hardware.energy`). Each window of a cell gives one energy per sample; the result is their mean with its 95 %
interval (`ff.statistics.mean_interval`), for every rail and for the total.

Idle power has windows of its own, before, between and after those of work. What the idle machine would have drawn in
a window is interpolated between the two nearest, so that a level that drifts does no harm; net is gross less that.
"""

import math
import threading
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ff import statistics
from ff.hardware import energy

if TYPE_CHECKING:
    from ff.documents.variance import IdlePower, Interval

SENSOR_PERIODS = 20
WINDOW_S = 5.0
LEAD_IN_PERIODS = 2
LEAD_IN_S = 0.5

Clock = Callable[[], float]


class Reading(Protocol):
    """What a source says at one instant, by rail; {} where it has nothing new.

    A source that knows of others on its devices names them in `shared` too: [] where there is nobody, None where that
    cannot be known.
    """

    power_mw: Mapping[str, float]
    energy_mj: Mapping[str, float]
    """Counters: energy since the source was opened, for the rails that count it."""


class Source(Protocol):
    """A power source, opened; `period_s` is how often its slowest sensor has something new."""

    name: str
    period_s: float

    def read(self) -> Reading:
        """The readings of now."""


class Window(NamedTuple):
    """A stretch of work: seconds on the meter's clock, samples answered, and its place among all windows."""

    start_s: float
    end_s: float
    samples: int
    order: int = 0


class Idle(NamedTuple):
    """Mean power of an idle window by rail (mW), and the instant of its middle."""

    at_s: float
    rails_mw: dict[str, float]


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
    """Reads a power source while work runs, and says how much energy each rail took between two instants.

    `every(interval_s, take)` is a context manager that calls `take` at that interval; the source is read twice a
    period.
    """

    def __init__(
        self,
        source: Source,
        clock: Clock = time.perf_counter,
        every: Callable[[float, Callable[[], None]], AbstractContextManager] = in_thread,
    ):
        self.source, self.clock, self.every = source, clock, every
        self._power: dict[str, _Series] = defaultdict(_Series)
        self._counters: dict[str, _Series] = defaultdict(_Series)
        self._readings_s: list[float] = []
        self._shared: list[list[str] | None] = []

    @property
    def window_s(self) -> float:
        """The shortest window that this sensor allows: 20 periods and 5 s."""
        return max(SENSOR_PERIODS * self.source.period_s, WINDOW_S)

    @property
    def lead_in_s(self) -> float:
        """How long work runs before a window begins, so that the sensor shows nothing from before."""
        return max(LEAD_IN_PERIODS * self.source.period_s, LEAD_IN_S)

    def sampling(self) -> AbstractContextManager:
        """Read while the block runs; only there, as reading sensors takes time from what is timed."""
        return self.every(self.source.period_s / 2, self.take)

    def take(self) -> None:
        """Read the source once."""
        reading, now = self.source.read(), self.clock()
        for series, values in ((self._power, reading.power_mw), (self._counters, reading.energy_mj)):
            for rail, value in values.items():
                series[rail].add(now, value)
        if reading.power_mw or reading.energy_mj:
            self._readings_s.append(now)
            self._shared.append(getattr(reading, "shared", None))

    @property
    def rails(self) -> list[str]:
        """All rails that were read so far."""
        return list(dict.fromkeys([*self._power, *self._counters]))

    def readings(self, start_s: float, end_s: float) -> int:
        """How many readings lie between two instants."""
        return bisect_right(self._readings_s, end_s) - bisect_left(self._readings_s, start_s)

    def shared(self, windows: Sequence["Window"]) -> list[str] | None:
        """Who else used the devices in the windows; None where the source never said."""
        said = [
            names
            for window in windows
            for names in self._shared[
                bisect_left(self._readings_s, window.start_s) : bisect_right(self._readings_s, window.end_s)
            ]
            if names is not None
        ]
        return sorted({name for names in said for name in names}) if said else None

    def rails_mj(self, start_s: float, end_s: float) -> dict[str, float]:
        """Energy of each rail between two instants in mJ: the counter's difference, else the integral of power.

        Left out: rails whose readings cover less than 95 % of the time.
        """
        found, seconds = {}, end_s - start_s
        for rail in self.rails:
            for series, how in ((self._counters, energy.count), (self._power, energy.integrate)):
                times_s, values = series[rail].near(start_s, end_s, self.lead_in_s)
                interval_s = energy.sampling_interval_s(times_s, self.source.period_s / 2)
                integral = how(times_s, values, start_s, end_s, interval_s)
                if seconds > 0 and integral.covered_s >= energy.MIN_COVERED * seconds:
                    found[rail] = integral.energy_mj / integral.covered_s * seconds
                    break
        return found

    def idle(self, start_s: float, end_s: float) -> Idle | None:
        """Mean power of each rail between two instants; None where nothing was read."""
        rails = self.rails_mj(start_s, end_s)
        mean = {rail: value / (end_s - start_s) for rail, value in rails.items()}
        return Idle((start_s + end_s) / 2, mean) if mean else None

    def total(self, rails: Mapping[str, float]) -> tuple[str, float] | None:
        """The total of values by rail: (its name, value); None where a rail that is part of it is missing."""
        parts = energy.total_rails(self.rails)
        if parts is None or any(rail not in rails for rail in parts[1]):
            return None
        return parts[0], sum(rails[rail] for rail in parts[1])


class _Series:
    """Readings of one rail, in the order of time."""

    def __init__(self):
        self.times_s: list[float] = []
        self.values: list[float] = []

    def add(self, time_s: float, value: float) -> None:
        self.times_s.append(time_s)
        self.values.append(value)

    def near(self, start_s: float, end_s: float, margin_s: float) -> tuple[list[float], list[float]]:
        """Times and values between two instants and `margin_s` around: nothing is read between two windows, and a
        counter that failed in this one must not be bridged from one window to the next."""
        low, high = bisect_left(self.times_s, start_s - margin_s), bisect_right(self.times_s, end_s + margin_s)
        return self.times_s[low:high], self.values[low:high]


def energy_of(meter: PowerMeter, windows: Sequence[Window], idle: Sequence[Idle | None]) -> dict[str, Any] | None:
    """Energy per sample from the windows of one cell; None where the sensor failed in all of them.

    Each window counts with its own idle level; net is missing for a window where none was measured.
    """
    rows = [row for window in windows for row in _rows(meter, window, [point for point in idle if point is not None])]
    names = list(dict.fromkeys(row["rail"] for row in rows))
    totals = [row for row in rows if row["is_total"]]
    if not rows:
        return None
    return {
        "total": _over_windows(totals) if totals else None,
        "rails": {
            name: _over_windows(own)
            for name in names
            if (own := [row for row in rows if row["rail"] == name and not row["is_total"]])
        },
        "windows": [{key: value for key, value in row.items() if key != "is_total"} for row in totals],
        "shared": meter.shared(windows),
    }


def _rows(meter: PowerMeter, window: Window, idle: Sequence[Idle]) -> list[dict[str, Any]]:
    """What one window says: a row for each rail and one for the total."""
    seconds, middle = window.end_s - window.start_s, (window.start_s + window.end_s) / 2
    if window.samples == 0 or seconds <= 0 or meter.readings(window.start_s, window.end_s) == 0:
        # Of a window in which the reading thread was held up, readings around it say nothing, though they span it.
        return []
    rails = meter.rails_mj(window.start_s, window.end_s)
    points = {rail: [(p.at_s, p.rails_mw[rail]) for p in idle if rail in p.rails_mw] for rail in rails}
    known = [(rail, energy.idle_level(own, middle)) for rail, own in points.items()]
    levels = {rail: level for rail, level in known if level is not None}
    found = [(rail, value, levels.get(rail), False) for rail, value in rails.items()]
    total, idle_total = meter.total(rails), meter.total(levels)
    if total is not None:
        found.append((*total, idle_total[1] if idle_total else None, True))
    return [
        {
            "order": window.order,
            "rail": rail,
            "is_total": is_total,
            "window_s": seconds,
            "inferences": window.samples,
            "readings": meter.readings(window.start_s, window.end_s),
            "power_mw": gross / seconds,
            "idle_mw": level,
            "gross_mj_per_sample": gross / window.samples,
            "net_mj_per_sample": None if level is None else (gross - level * seconds) / window.samples,
        }
        for rail, gross, level, is_total in found
    ]


def _over_windows(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    intervals = {
        # Light work may seem to take a little less than idle; no machine draws less than nothing.
        name: interval_of([row[name] for row in rows], -math.inf if name == "net_mj_per_sample" else 0.0)
        for name in ("gross_mj_per_sample", "net_mj_per_sample", "power_mw", "idle_mw")
    }
    return {"rail": rows[0]["rail"], **intervals}


def idle_summary(meter: PowerMeter, idle: Sequence[Idle | None]) -> "IdlePower":
    """Idle power over its windows: the total and each rail with intervals, and each window's total (null: failed)."""
    totals = [meter.total(point.rails_mw) if point is not None else None for point in idle]
    return {
        "total": interval_of([total[1] if total else None for total in totals]),
        "rails": {rail: interval_of([p.rails_mw.get(rail) for p in idle if p is not None]) for rail in meter.rails},
        "windows_mw": [total[1] if total else None for total in totals],
    }


def interval_of(values: Sequence[float | None], at_least: float = 0.0) -> "Interval | None":
    """Mean of what was measured with its 95 % interval, for a JSON file; None without values. No true value lies below
    `at_least`."""
    interval = statistics.mean_interval(values, at_least)
    if interval.estimate is None:
        return None
    return {
        "n": interval.n,
        "mean": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "method": interval.method,
    }
