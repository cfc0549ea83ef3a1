"""The power readings of a job, one series per rail and boot, put together from the samples of its log."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from ff.hardware import energy
from ff.hardware.log import Attempt, number


class Series:
    """The readings of one rail during one boot: power, counters where the sensor has one, and who shared it."""

    def __init__(self):
        self.nominal_s = 0.0
        self.power: list[tuple[float, float]] = []
        self.counters: list[list[tuple[float, float]]] = []  # one list per attempt; each starts at 0 again
        self.others: list[tuple[float, list[str] | None]] = []

    def finish(self) -> None:
        """Sort what was added."""
        self.power.sort()
        self.others.sort(key=lambda mark: mark[0])
        self.seen = [time for time, _ in self.others]
        self.interval_s = energy.sampling_interval_s(self.seen, self.nominal_s)
        self._power = ([time for time, _ in self.power], [value for _, value in self.power])
        self._counters = [([t for t, _ in counter], [v for _, v in counter]) for counter in self.counters]

    def integral(self, start_s: float, end_s: float) -> energy.Integral:
        """The energy between two instants, by a counter that covers them, else from power."""
        for times_s, values_mj in self._counters:
            if len(times_s) > 1 and times_s[0] < end_s and times_s[-1] > start_s:
                counted = energy.count(times_s, values_mj, start_s, end_s, self.interval_s)
                if counted.covered_s >= energy.MIN_COVERED * (end_s - start_s):
                    return counted
        return energy.integrate(*self._power, start_s, end_s, self.interval_s)

    def mean_power_mw(self, start_s: float, end_s: float) -> float | None:
        """Mean power between two instants; None where less than `energy.MIN_COVERED` of that time was measured."""
        integral = self.integral(start_s, end_s)
        measured = integral.covered_s > 0 and integral.covered_s >= energy.MIN_COVERED * (end_s - start_s)
        return integral.energy_mj / integral.covered_s if measured else None

    def shared(self, start_s: float, end_s: float) -> tuple[bool | None, list[str]]:
        """Whether anything else ran on what the rail feeds between two instants (None: not known), and what."""
        first, last = bisect_left(self.seen, start_s), bisect_right(self.seen, end_s)
        if first == last:  # shorter than the sampling interval: the readings around it
            first, last = max(first - 1, 0), last + 1
        marks = [names for _, names in self.others[first:last]]
        names = list(dict.fromkeys(name for one in marks if one for name in one))
        return (True if names else None if not marks or None in marks else False), names


def power_series(attempts: Sequence[Attempt]) -> dict[str, dict[str, Series]]:
    """{boot: {rail: readings}}; a rail that two sources name is one, as one takes over from the other."""
    boots: dict[str, dict[str, Series]] = defaultdict(lambda: defaultdict(Series))
    for attempt in attempts:
        rails = boots[attempt.boot_id]
        counters: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for sample in attempt.samples:
            time = float(sample["monotonic_s"])
            power, counted = _numbers(sample.get("power_mw")), _numbers(sample.get("energy_mj"))
            for rail, value in power:
                rails[rail].power.append((time, value))
            for rail, value in counted:
                key = (str(sample.get("source")), rail)
                if key not in counters or (counters[key] and value < counters[key][-1][1]):
                    counters[key] = []  # the source was opened anew and counts from 0
                    rails[rail].counters.append(counters[key])
                counters[key].append((time, value))
            for rail in dict(power + counted):
                rails[rail].others.append((time, _names(sample.get("shared_with"))))
                rails[rail].nominal_s = max(rails[rail].nominal_s, attempt.interval_s)
    for rails in boots.values():
        for one in rails.values():
            one.finish()
    return {boot: dict(rails) for boot, rails in boots.items() if rails}


def _numbers(values: Any) -> list[tuple[str, float]]:
    if not isinstance(values, dict):
        return []
    pairs = [(str(name), number(value)) for name, value in values.items()]
    return [(name, value) for name, value in pairs if value is not None]


def _names(value: Any) -> list[str] | None:
    return [str(name) for name in value] if isinstance(value, list) else None
