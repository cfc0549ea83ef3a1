"""Which energy a phase of a job took: per rail and in total, gross and net of idle, with 95 % intervals.

A phase has a row of phases.csv for each epoch or other part; its energy is the sum over them.

    gross   sum over the rows of the rail's energy, by its counter or the integral of its power (`energy`)
    net     gross less, for each row, idle power times the time that was measured

Idle power is that of the windows idle_before and idle_after, all of them. Between two it is taken to go in a straight
line, so that a level that drifts while a machine warms up does no harm; before the first and after the last, and in a
boot without any, the nearest or the mean of all is held. A window in which something else ran is no baseline.

Intervals, with P_i the mean power of window i, n windows and T the seconds that were measured in all. A window is a
row, or as many as it takes to be no shorter than the sensor's period and the sampling interval: below that, readings of
neighbours are the same reading.

    gross   + - T t(0.975, n-1) s(P) / sqrt(n), Student's t interval of the mean power (`ff.statistics.mean_interval`,
            which takes a bootstrap instead for many windows); none for one window
    idle    + - the same of the mean power of sub-windows of the idle windows, which are 20 periods of the sensor long
            where a window has room for two. Their spread includes a drift: how the level went in between is not known.
    net     both in quadrature, the idle one times T

For a whole run the phases' gross spreads are added in quadrature; idle power is the same for all of them, so its part
is times the seconds of the run. A phase of one window adds no spread, which the method says. The sum is missing where
a phase was not measured: a part of it would pass for the whole. The start of the program, the phase `import`, is no
part of the run: a recorder in the process begins after it.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from ff.hardware import energy
from ff.hardware.series import Series
from ff.phases import IDLE, START, Phase

PERIODS = 20
"""A window shorter than so many periods of its sensor says little."""
_MOST_PARTS = 5
_INTERVALS_PER_PART = 4

NO_SPREAD = "one window, no interval"


class _IdleWindow(NamedTuple):
    """An idle window of one rail: mean power in mW, and that of its parts."""

    name: str
    boot_id: str
    middle_s: float
    power_mw: float
    parts_mw: list[float]


class _Spread(NamedTuple):
    """How far an interval reaches below and above its estimate; None where it is not known."""

    below: float | None
    above: float | None
    method: str

    def times(self, factor: float) -> "_Spread":
        below = None if self.below is None else self.below * factor
        above = None if self.above is None else self.above * factor
        return _Spread(below, above, self.method)


class _Part(NamedTuple):
    """What rails took in a phase: mJ, the seconds that were measured, and the spread of the gross energy."""

    gross_mj: float
    net_mj: float | None
    covered_s: float
    spread: _Spread


class Attribution:
    """The energy of phases from the readings of a job.

    `period_s` is that of the slowest sensor. `idle`, `energy` and `run` are what hardware.json holds as idle, energy
    and run_energy; `notes` says what could not be had, and why.
    """

    def __init__(self, phases: Sequence[Phase], series: dict[str, dict[str, Series]], period_s: float | None):
        self.notes: list[str] = []
        self._series = series
        self._period_s = period_s
        self._rails = list(dict.fromkeys(rail for one in series.values() for rail in one))
        self._total_name, self._total_rails = energy.total_rails(self._rails) or ("", [])
        intervals_s = [one.interval_s for rails in series.values() for one in rails.values()]
        self._shortest_s = max([period_s or 0.0, *intervals_s])
        work = [phase for phase in phases if phase.name not in IDLE]
        self._idle_spreads: dict[tuple[str, ...], _Spread] = {}
        self._integrals: dict[tuple[str, Phase], energy.Integral] = {}
        self._rows = {name: [row for row in work if row.name == name] for name in dict.fromkeys(p.name for p in work)}
        self._idle = self._idle_windows([phase for phase in phases if phase.name in IDLE])
        self.idle = self._describe_idle()
        self.energy = {name: self._phase(name, rows) for name, rows in self._rows.items()} if series and work else None
        self.run = self._run(self.energy) if self.energy else None
        if self.energy and not self._idle:
            self.notes.append("idle power was not measured, so energy net of it is not known")

    # ------------------------------------------------------------------ idle

    def _idle_windows(self, windows: Sequence[Phase]) -> dict[str, list[_IdleWindow]]:
        found: dict[str, list[_IdleWindow]] = defaultdict(list)
        for window in windows:
            start_s, end_s = window.start_monotonic_s, window.end_monotonic_s
            rails = self._series.get(window.boot_id, {})
            edges = self._parts(start_s, end_s, max((one.interval_s for one in rails.values()), default=0.0))
            for rail, one in rails.items():
                mean, parts = one.mean_power_mw(start_s, end_s), [one.mean_power_mw(*edge) for edge in edges]
                measured = [part for part in parts if part is not None]
                if mean is None or len(measured) < len(parts):
                    self.notes.append(f"{window.name}: {rail} was not read all the time")
                    continue
                shared, names = one.shared(start_s, end_s)
                if shared:
                    self.notes.append(f"{window.name}: not idle for {rail}, shared with {', '.join(names)}")
                    continue
                found[rail].append(_IdleWindow(window.name, window.boot_id, (start_s + end_s) / 2, mean, measured))
        return dict(found)

    def _parts(self, start_s: float, end_s: float, interval_s: float) -> list[tuple[float, float]]:
        """Sub-windows of an idle window: at least two, as long as the sensor asks for where there is room."""
        length_s = max(PERIODS * (self._period_s or 0.0), _INTERVALS_PER_PART * interval_s)
        count = min(max(int((end_s - start_s) / length_s) if length_s > 0 else 0, 2), _MOST_PARTS)
        step_s = (end_s - start_s) / count
        return [(start_s + i * step_s, start_s + (i + 1) * step_s) for i in range(count)]

    def _level(self, rail: str, boot_id: str, at_s: float) -> float | None:
        """Idle power of a rail at an instant in mW."""
        windows = self._idle.get(rail, [])
        points = sorted((window.middle_s, window.power_mw) for window in windows if window.boot_id == boot_id)
        if not points and windows:
            return sum(window.power_mw for window in windows) / len(windows)
        return energy.idle_level(points, at_s)

    def _idle_parts(self, rails: Sequence[str]) -> list[float]:
        """Mean power of the sub-windows of all idle windows in which all of the rails were measured, added up."""
        by_window: dict[tuple, list[list[float]]] = defaultdict(list)
        for rail in rails:
            for window in self._idle.get(rail, []):
                by_window[window.boot_id, window.middle_s].append(window.parts_mw)
        whole = [parts for parts in by_window.values() if len(parts) == len(rails)]
        return [sum(values) for parts in whole for values in zip(*parts, strict=True)]

    def _idle_spread(self, rails: Sequence[str]) -> _Spread:
        key = tuple(rails)
        if key not in self._idle_spreads:
            self._idle_spreads[key] = _spread(self._idle_parts(rails))
        return self._idle_spreads[key]

    def _describe_idle(self) -> dict:
        by_name: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in IDLE}
        for rail, windows in self._idle.items():
            for window in windows:
                by_name[window.name][rail].append(window.power_mw)
        means = [
            {rail: round(sum(values) / len(values), 3) for rail, values in rails.items()} or None
            for rails in by_name.values()
        ]
        total = self._power_of(self._total_rails)
        return {
            "before": means[0],
            "after": means[1],
            "windows": max((len(windows) for windows in self._idle.values()), default=0),
            "rails": {rail: self._power_of([rail]) for rail in self._idle},
            "total": {"rail": self._total_name, **total} if total else None,
        }

    def _power_of(self, rails: Sequence[str]) -> dict | None:
        parts = self._idle_parts(rails)
        if not parts:
            return None
        mean, spread = sum(parts) / len(parts), self._idle_spread(rails)
        return {"power_mw": round(mean, 3), **_ends(mean, spread, "mw"), "n": len(parts), "method": spread.method}

    # ------------------------------------------------------------------ phases

    def _phase(self, name: str, rows: Sequence[Phase]) -> dict:
        seconds = sum(row.seconds for row in rows)
        foreign = {row.boot_id for row in rows} - set(self._series)
        if foreign:
            self.notes.append(f"phase {name} ran during another boot than the samples, its energy is not known")
        parts = {rail: self._part([rail], rows) for rail in self._rails}
        for rail, part in parts.items():
            if part is None and not foreign and name != START:
                missed_s = seconds - sum(self._integral(rail, row).covered_s for row in rows)
                self.notes.append(f"phase {name}: {rail} was not read for {missed_s:.1f} s of {seconds:.1f} s")
        short = self._period_s is not None and seconds < PERIODS * self._period_s
        if short and name != START and not self._counted(rows):
            self.notes.append(
                f"phase {name} lasted {seconds:.1f} s, less than {PERIODS} periods of the power sensor: its energy is "
                "rough"
            )
        total = self._part(self._total_rails, rows) if self._total_rails else None
        if total is not None and total.gross_mj <= 0:
            # As the counters of some virtual machines do; no machine draws nothing.
            self.notes.append(f"phase {name}: the power sensor says 0, so it does not measure")
            total = None
        return self._described(rows, len(self._windows(rows)), parts, total)

    def _run(self, phases: dict[str, dict]) -> dict | None:
        """The same for the phases of the run together."""
        names = [name for name in self._rows if name != START]
        if not names:
            return None
        rows = [row for name in names for row in self._rows[name]]
        parts = {rail: self._sum([rail], names) for rail in self._rails}
        measured = all(phases[name]["total"] is not None for name in names)
        total = self._sum(self._total_rails, names) if self._total_rails and measured else None
        windows = sum(phases[name]["windows"] for name in names)
        return {"phases": names, **self._described(rows, windows, parts, total)}

    def _described(
        self, rows: Sequence[Phase], windows: int, parts: dict[str, _Part | None], total: _Part | None
    ) -> dict:
        covered_s = [part.covered_s for part in parts.values() if part is not None]
        shared, names = self._shared(self._total_rails or self._rails, rows)
        whole = None
        if total is not None:
            numbers = self._numbers(self._total_rails, rows, total)
            whole = {"rail": self._total_name, "rails": self._total_rails, **numbers}
        return {
            "seconds": round(sum(row.seconds for row in rows), 3),
            "covered_s": round(min(covered_s), 3) if covered_s else 0.0,
            "windows": windows,
            "rails": {rail: self._numbers([rail], rows, part) for rail, part in parts.items()},
            "total": whole,
            "shared": shared,
            "shared_with": names,
        }

    def _numbers(self, rails: Sequence[str], rows: Sequence[Phase], part: _Part | None) -> dict:
        shared = self._shared(rails, rows)[0]
        if part is None:
            return {**dict.fromkeys(_NUMBERS), "method": None, "shared": shared}
        net = self._net_spread(rails, part)
        # No machine gives energy back; net of idle it may look so.
        cut = part.spread.below is not None and part.spread.below > part.gross_mj
        return {
            "gross_mj": round(part.gross_mj, 3),
            **_ends(part.gross_mj, part.spread, "mj", "gross_", lowest=0.0),
            "net_mj": None if part.net_mj is None else round(part.net_mj, 3),
            **_ends(part.net_mj, net, "mj", "net_"),
            "method": f"{part.spread.method}, cut at the bound" if cut else part.spread.method,
            "shared": shared,
        }

    def _net_spread(self, rails: Sequence[str], part: _Part) -> _Spread:
        idle = self._idle_spread(rails).times(part.covered_s)
        # The more the idle machine draws, the less is left for the work.
        return _Spread(_quadrature([part.spread.below, idle.above]), _quadrature([part.spread.above, idle.below]), "")

    def _part(self, rails: Sequence[str], rows: Sequence[Phase]) -> _Part | None:
        """What the rails took together; None when one of them is not covered well enough."""
        seconds = sum(row.seconds for row in rows)
        covered = [sum(self._integral(rail, row).covered_s for row in rows) for rail in rails]
        if min(covered) < energy.MIN_COVERED * seconds:
            return None
        powers = [power for window in self._windows(rows) if (power := self._power(rails, window)) is not None]
        gross, idle = 0.0, []
        for row in rows:
            for rail in rails:
                integral = self._integral(rail, row)
                gross += integral.energy_mj
                level = self._level(rail, row.boot_id, (row.start_monotonic_s + row.end_monotonic_s) / 2)
                idle.append(None if level is None else level * integral.covered_s)
        base = _total(idle)
        net = None if base is None else gross - base
        return _Part(gross, net, min(covered), _spread(powers).times(min(covered)))

    def _windows(self, rows: Sequence[Phase]) -> list[list[Phase]]:
        """The rows, neighbours put together that are shorter than the sensor can tell apart."""
        windows: list[list[Phase]] = []
        for row in rows:
            if not windows or sum(part.seconds for part in windows[-1]) >= self._shortest_s:
                windows.append([])
            windows[-1].append(row)
        if len(windows) > 1 and sum(part.seconds for part in windows[-1]) < self._shortest_s:
            last = windows.pop()
            windows[-1] += last
        return windows

    def _power(self, rails: Sequence[str], window: Sequence[Phase]) -> float | None:
        """Mean power of the rails together in a window in mW; None where one was not read in it."""
        total = 0.0
        for rail in rails:
            integrals = [self._integral(rail, row) for row in window]
            covered_s = sum(integral.covered_s for integral in integrals)
            if covered_s <= 0:
                return None
            total += sum(integral.energy_mj for integral in integrals) / covered_s
        return total

    def _sum(self, rails: Sequence[str], names: Sequence[str]) -> _Part | None:
        parts = {name: part for name in names if (part := self._part(rails, self._rows[name])) is not None}
        if len(parts) < len(names):
            return None
        known = {name: part for name, part in parts.items() if part.spread.below is not None}
        methods = list(dict.fromkeys(part.spread.method for part in known.values()))
        single = [name for name in parts if name not in known]
        method = " and ".join(methods) + (f"; one window, no spread: {', '.join(single)}" if single else "")
        spread = _Spread(
            _quadrature([part.spread.below for part in known.values()]),
            _quadrature([part.spread.above for part in known.values()]),
            method if known else NO_SPREAD,
        )
        return _Part(
            sum(part.gross_mj for part in parts.values()),
            _total([part.net_mj for part in parts.values()]),
            sum(part.covered_s for part in parts.values()),
            spread,
        )

    def _integral(self, rail: str, row: Phase) -> energy.Integral:
        if (rail, row) not in self._integrals:
            one = self._series.get(row.boot_id, {}).get(rail)
            window = (row.start_monotonic_s, row.end_monotonic_s)
            self._integrals[rail, row] = one.integral(*window) if one else energy.Integral(0.0, 0.0, [])
        return self._integrals[rail, row]

    def _counted(self, rows: Sequence[Phase]) -> bool:
        """Whether all rails of the total have counters, whose windows may be short."""
        return all(
            self._series.get(row.boot_id, {}).get(rail, Series()).counters for row in rows for rail in self._total_rails
        )

    def _shared(self, rails: Sequence[str], rows: Sequence[Phase]) -> tuple[bool | None, list[str]]:
        found = [
            self._series[row.boot_id][rail].shared(row.start_monotonic_s, row.end_monotonic_s)
            for row in rows
            for rail in rails
            if rail in self._series.get(row.boot_id, {})
        ]
        names = list(dict.fromkeys(name for _, names in found for name in names))
        states = [state for state, _ in found]
        return (True if names else None if not states or None in states else False), names


_NUMBERS = ("gross_mj", "gross_low_mj", "gross_high_mj", "net_mj", "net_low_mj", "net_high_mj")


def _spread(values: Sequence[float]) -> _Spread:
    """How far the 95 % interval of the values' mean reaches."""
    if len(values) < 2:
        return _Spread(None, None, NO_SPREAD)
    from ff.statistics import mean_interval  # numpy, which a recorder does without

    interval = mean_interval(values)
    below, above = interval.reach or (None, None)
    return _Spread(below, above, interval.method)


def _total(values: Sequence[float | None]) -> float | None:
    """The sum; None where one is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _quadrature(values: Sequence[float | None]) -> float | None:
    """The values added in quadrature; None without any, or where one is not known."""
    known = [value for value in values if value is not None]
    return math.hypot(*known) if known and len(known) == len(values) else None


def _ends(estimate: float | None, spread: _Spread, unit: str, prefix: str = "", lowest: float = -math.inf) -> dict:
    low = high = None
    if estimate is not None and spread.below is not None and spread.above is not None:
        low, high = round(max(estimate - spread.below, lowest), 3), round(estimate + spread.above, 3)
    return {f"{prefix}low_{unit}": low, f"{prefix}high_{unit}": high}
