"""Energy from power: the one place where samples become millijoules.

Power is integrated by the trapezoid rule over monotonic time between any two instants, with the power at both
instants interpolated between the neighbouring samples.

Gaps. Two samples further apart than GAP_INTERVALS sampling intervals leave a gap: what the machine drew in between is
not known, so it is not guessed. The integral covers the rest, `covered_s` says how much of the window that is, and the
gap is listed. Before the first and after the last sample the nearest reading is held for HOLD_INTERVALS at most: a
recorder needs that long to start. Whoever turns an integral into a result calls it measured only when at least
MIN_COVERED of the window is covered.

Counters (RAPL, NVML) hold energy themselves, so their energy is the difference of the counter at both instants, also
across a gap in the sampling.

Net energy is gross energy less idle power times the covered time. It may be slightly negative for a light load: the
power sensors of Jetson boards are quantised to about 40 mW and need about 0.5 s of steady load, so a window shorter
than some seconds tells little.

Totals. A board's input rail is the total where there is one; its other rails are parts of it and are not added. Without
one the total is the sum of the rails that do not contain each other, and is called SUM.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

GAP_INTERVALS = 3
HOLD_INTERVALS = 2
MIN_COVERED = 0.95
SUM = "sum of rails"

# Rails that carry everything the module or board draws:
#   VDD_IN        TX1, TX2, Xavier NX, Orin NX, Orin Nano: the module
#   POM_5V_IN     Nano: the board
#   VIN           AGX Thor: the carrier board included
_INPUT_RAILS = ("VDD_IN", "POM_5V_IN", "VIN")

# Rails that are part of another one: left out of the sum when the rail they hang on is there.
#   AGX Orin: NVIDIA's guide says of VIN_SYS_5V0 that "VDDQ_VDD2_1V8AO power is also included".
_PART_OF = {"VDDQ_VDD2_1V8AO": "VIN_SYS_5V0"}


class Integral(NamedTuple):
    """Energy in mJ over the covered part of a window, that part in s, and the gaps [(start_s, end_s)]."""

    energy_mj: float
    covered_s: float
    gaps: list[tuple[float, float]]


def sampling_interval_s(times_s: Sequence[float], nominal_s: float) -> float:
    """The interval to measure gaps by: the nominal one, or the median spacing where the sensor is slower."""
    spacings = [b - a for a, b in pairwise(times_s) if b > a]
    return max(nominal_s, median(spacings)) if spacings else nominal_s


def integrate(
    times_s: Sequence[float], power_mw: Sequence[float], start_s: float, end_s: float, interval_s: float
) -> Integral:
    """Energy between two instants from samples of power; `times_s` ascending, at any spacing."""
    energy, covered, gaps = 0.0, 0.0, []
    if end_s <= start_s:
        return Integral(0.0, 0.0, [])
    if not times_s:
        return Integral(0.0, 0.0, [(start_s, end_s)])

    def add_held(low: float, high: float, power: float) -> None:
        nonlocal energy, covered
        low, high = max(low, start_s), min(high, end_s)
        if high > low:
            energy += power * (high - low)
            covered += high - low

    def add_gap(low: float, high: float) -> None:
        low, high = max(low, start_s), min(high, end_s)
        if high > low:
            gaps.append((low, high))

    hold_s = HOLD_INTERVALS * interval_s
    add_gap(start_s, times_s[0] - hold_s)
    add_held(times_s[0] - hold_s, times_s[0], power_mw[0])
    first = max(bisect_right(times_s, start_s) - 1, 0)
    last = min(bisect_left(times_s, end_s), len(times_s) - 1)
    for i in range(first, last):
        t0, t1 = times_s[i], times_s[i + 1]
        low, high = max(t0, start_s), min(t1, end_s)
        if high <= low:
            continue
        if t1 - t0 > GAP_INTERVALS * interval_s:
            gaps.append((low, high))
            continue
        slope = (power_mw[i + 1] - power_mw[i]) / (t1 - t0)
        middle = power_mw[i] + slope * ((low + high) / 2 - t0)
        energy += middle * (high - low)
        covered += high - low
    add_held(times_s[-1], times_s[-1] + hold_s, power_mw[-1])
    add_gap(times_s[-1] + hold_s, end_s)
    return Integral(energy, covered, gaps)


def count(
    times_s: Sequence[float], energy_mj: Sequence[float], start_s: float, end_s: float, interval_s: float
) -> Integral:
    """Energy between two instants from samples of a counter; `times_s` ascending.

    The counter is interpolated at both instants. Beyond its first and last reading it is extended by
    HOLD_INTERVALS at most, at the mean power of the nearest interval; what lies further out is a gap.
    """
    if end_s <= start_s:
        return Integral(0.0, 0.0, [])
    if len(times_s) < 2:
        return Integral(0.0, 0.0, [(start_s, end_s)])
    hold_s = HOLD_INTERVALS * interval_s
    first, last = times_s[0] - hold_s, times_s[-1] + hold_s
    low, high = max(start_s, first), min(end_s, last)
    if high <= low:
        return Integral(0.0, 0.0, [(start_s, end_s)])
    gaps = [(a, b) for a, b in ((start_s, low), (high, end_s)) if b > a]
    energy = _counter_at(times_s, energy_mj, high) - _counter_at(times_s, energy_mj, low)
    return Integral(energy, high - low, gaps)


def _counter_at(times_s: Sequence[float], energy_mj: Sequence[float], instant_s: float) -> float:
    i = min(max(bisect_right(times_s, instant_s) - 1, 0), len(times_s) - 2)
    span = times_s[i + 1] - times_s[i]
    if span <= 0:
        return energy_mj[i]
    share = (instant_s - times_s[i]) / span
    return energy_mj[i] + share * (energy_mj[i + 1] - energy_mj[i])


def idle_level(points: Sequence[tuple[float, float]], at_s: float) -> float | None:
    """Idle power at an instant, from (instant s, mW) in the order of time, on straight lines; None without points.

    Before the first and after the last the nearest is held.
    """
    if not points:
        return None
    after = bisect_right(points, (at_s, math.inf))
    if after == 0 or after == len(points):
        return points[min(after, len(points) - 1)][1]
    (t0, p0), (t1, p1) = points[after - 1], points[after]
    return p0 + (p1 - p0) * (at_s - t0) / (t1 - t0)


def total_rails(rails: Iterable[str]) -> tuple[str, list[str]] | None:
    """Which rails make up the total: (name of the total, rails to add); None where there is no rail.

    The name is that of the input rail, or SUM. Left out of the sum: channels that are not connected (NC), parts of
    another rail (AGX Orin's memory rail; a processor's cores beside their package) and the platform counter psys, of
    which it depends on the machine what it contains.
    """
    rails = list(dict.fromkeys(rails))
    for name in _INPUT_RAILS:
        if name in rails:
            return name, [name]
    parts = [rail for rail in rails if not _left_out(rail, rails)]
    return (SUM, parts) if parts else None


def _left_out(rail: str, rails: list[str]) -> bool:
    if rail.upper() == "NC" or rail.upper().startswith("NC_"):
        return True
    if _PART_OF.get(rail) in rails:
        return True
    package, slash, part = rail.partition("/")
    if slash:
        return package in rails and part.split("_")[0] != "dram"
    return rail == "psys" and any(other.startswith("package") for other in rails)


def total_power(power_mw: Mapping[str, float]) -> tuple[str, float] | None:
    """The total of one reading: (name of the total, mW); None where nothing was measured."""
    total = total_rails(power_mw)
    return (total[0], sum(power_mw[rail] for rail in total[1])) if total else None
