"""From a hardware log and the phase marks of its job to hardware.csv and hardware.json.

    python -m ff.hardware.summary --log LOG [--phases CSV] --csv CSV --json JSON
    python -m ff.hardware.summary --pending logs/hardware results

The second form does it for every log that has no summary yet or is newer than it, which is what jobs leave
that failed: their sidecar was killed. `logs/hardware/<run>/train.jsonl` belongs to `results/<run>/`,
`measure.jsonl` to `results/<run>/variance/`.

A log can hold several attempts, each begun by a header. Their samples are put together by the boot they
come from, since that is what a monotonic clock belongs to; phase marks of another boot find no samples and
are not measured.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from ff.errors import FFError
from ff.files import write_csv, write_json
from ff.hardware import energy
from ff.phases import Phase, model_of_phases, read_phases
from ff.stamps import COLUMN

_MAX_GAPS = 100
_MAX_NOTES = 200
_IDLE_BEFORE, _IDLE_AFTER = "idle_before", "idle_after"
# Outside of phases the job itself starts and ends, so only the quiet part of that time stands for idle.
_MIN_IDLE_READINGS = 4


class Attempt:
    """What one recorder left: its header, samples and notes, in the order written."""

    def __init__(self, header: dict):
        self.header = header
        self.samples: list[dict] = []
        self.notes: list[dict] = []

    @property
    def boot_id(self) -> str:
        return str(self.header.get("boot_id") or "")

    @property
    def interval_s(self) -> float:
        interval_ms = _float(self.header.get("interval_ms"))
        return interval_ms / 1000 if interval_ms and interval_ms > 0 else 0.5


def read_log(path: str | os.PathLike) -> list[Attempt]:
    """Read a log; lines that are cut short or make no sense are left out. A missing log is an empty one."""
    attempts: list[Attempt] = []
    try:
        lines = Path(path).read_bytes().decode("utf-8", "replace").split("\n")
    except OSError:
        return []
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(record, dict):
            continue
        if record.get("kind") == "header":
            attempts.append(Attempt(record))
            continue
        if not attempts:
            attempts.append(Attempt({}))
        if record.get("kind") == "sample" and _float(record.get("monotonic_s")) is not None:
            attempts[-1].samples.append(record)
        elif record.get("kind") == "note":
            attempts[-1].notes.append(record)
    return attempts


def summarise(
    log_path: str | os.PathLike,
    phases_path: str | os.PathLike | None = None,
    csv_path: str | os.PathLike | None = None,
    json_path: str | os.PathLike | None = None,
) -> dict:
    """Write hardware.csv and hardware.json (either may be None) for a log; returns what hardware.json holds.

    A log or phase file that is not there is no error: the summary then says that there are 0 samples, or
    holds no energy. Raises FFError when an output cannot be written.
    """
    attempts = read_log(log_path)
    phases: list[Phase] = []
    if phases_path is not None and Path(phases_path).exists():
        phases = read_phases(phases_path)
    model = model_of_phases(phases_path) if phases_path is not None else None
    summary = {"schema": 1, "model": model, **_summary(attempts, phases)}
    if csv_path is not None:
        rows = [flat_row(sample) for attempt in attempts for sample in attempt.samples]
        write_csv(csv_path, [COLUMN, *_columns(rows)], [{COLUMN: model, **row} for row in rows])
    if json_path is not None:
        write_json(json_path, summary)
    return summary


def _summary(attempts: list[Attempt], phases: list[Phase]) -> dict:
    notes = [_note_text(note) for attempt in attempts for note in attempt.notes if note.get("event") != "end"]
    series = _power_series(attempts)
    idle, idle_from = _idle(attempts, phases, series)
    result = {
        "machine": attempts[-1].header.get("machine") if attempts else None,
        "sources": _sources(attempts),
        "attempts": [_attempt_row(attempt) for attempt in attempts],
        "samples": sum(len(attempt.samples) for attempt in attempts),
        "duration_s": round(sum(_duration_s(attempt) for attempt in attempts), 3),
        "interval_ms": attempts[-1].header.get("interval_ms") if attempts else None,
        "gaps": [gap for attempt in attempts for gap in _gaps(attempt)][:_MAX_GAPS],
        "idle": {"before": idle[0], "after": idle[1], "from": idle_from},
        "energy": _energy(phases, series, idle, notes),
        "notes": notes[:_MAX_NOTES],
    }
    if not attempts:
        result["notes"].append("there is no hardware log: the job ran without a recorder, or it could not write")
    return result


# ---------------------------------------------------------------------- energy


class _Series:
    """The readings of one rail during one boot: power, and counters where the sensor counts energy."""

    def __init__(self):
        self.nominal_s = 0.0
        self.power: list[tuple[float, float]] = []
        self.counters: list[list[tuple[float, float]]] = []  # one list per attempt; each starts at 0 again

    def finish(self) -> None:
        self.power.sort()
        self.times = [time for time, _ in self.power]
        self.values = [value for _, value in self.power]
        self.interval_s = energy.sampling_interval_s(self.times, self.nominal_s)

    def integral(self, start_s: float, end_s: float) -> energy.Integral:
        for counter in self.counters:
            if len(counter) > 1 and counter[0][0] < end_s and counter[-1][0] > start_s:
                times, values = [time for time, _ in counter], [value for _, value in counter]
                interval_s = energy.sampling_interval_s(times, self.nominal_s)
                counted = energy.count(times, values, start_s, end_s, interval_s)
                if counted.covered_s >= energy.MIN_COVERED * (end_s - start_s):
                    return counted
        return energy.integrate(self.times, self.values, start_s, end_s, self.interval_s)


def _power_series(attempts: list[Attempt]) -> dict[str, dict[str, _Series]]:
    """{boot: {rail: readings}}; a rail that two sources name is one, as one takes over from the other."""
    boots: dict[str, dict[str, _Series]] = defaultdict(lambda: defaultdict(_Series))
    for attempt in attempts:
        rails = boots[attempt.boot_id]
        counters: dict[tuple[str, str], list] = {}
        for sample in attempt.samples:
            time = float(sample["monotonic_s"])
            for rail, value in _numbers(sample.get("power_mw")):
                rails[rail].power.append((time, value))
                rails[rail].nominal_s = max(rails[rail].nominal_s, attempt.interval_s)
            for rail, value in _numbers(sample.get("energy_mj")):
                key = (str(sample.get("source")), rail)
                if key not in counters or (counters[key] and value < counters[key][-1][1]):
                    counters[key] = []  # the source was opened anew and counts from 0
                    rails[rail].counters.append(counters[key])
                counters[key].append((time, value))
                rails[rail].nominal_s = max(rails[rail].nominal_s, attempt.interval_s)
    for rails in boots.values():
        for one in rails.values():
            one.finish()
    return {boot: dict(rails) for boot, rails in boots.items() if rails}


def _idle(
    attempts: list[Attempt], phases: list[Phase], series: dict[str, dict[str, _Series]]
) -> tuple[tuple[dict | None, dict | None], str | None]:
    """Idle power before and after, {rail: mW} or None each, and where it comes from.

    Phases named idle_before and idle_after are made for it. Without them it is the lower quartile of the
    readings before the first and after the last phase: the job's own start and end fall into that time too.
    """
    named = [phase for phase in phases if phase.name in (_IDLE_BEFORE, _IDLE_AFTER)]
    if named:
        both = []
        for name in (_IDLE_BEFORE, _IDLE_AFTER):
            windows = [phase for phase in named if phase.name == name]
            both.append(_mean_power(windows[-1], series) if windows else None)
        if any(both):
            return (both[0], both[1]), "phases"
    outside = []
    for boot, rails in series.items():
        own = [phase for phase in phases if phase.boot_id == boot]
        if not own:
            continue
        first = min(phase.start_monotonic_s for phase in own)
        last = max(phase.end_monotonic_s for phase in own)
        for early in (True, False):
            quiet = {}
            for rail, one in rails.items():
                values = [v for t, v in one.power if (t < first if early else t > last)]
                if len(values) >= _MIN_IDLE_READINGS:
                    quiet[rail] = round(sorted(values)[len(values) // 4], 3)
            outside.append(quiet or None)
    if outside and any(outside):
        return (outside[0], outside[-1]), "outside of phases"
    return (None, None), None


def _mean_power(window: Phase, series: dict[str, dict[str, _Series]]) -> dict | None:
    found = {}
    for rail, one in series.get(window.boot_id, {}).items():
        integral = one.integral(window.start_monotonic_s, window.end_monotonic_s)
        if integral.covered_s > 0 and _covers(integral, window.end_monotonic_s - window.start_monotonic_s):
            found[rail] = round(integral.energy_mj / integral.covered_s, 3)
    return found or None


def _energy(
    phases: list[Phase],
    series: dict[str, dict[str, _Series]],
    idle: tuple[dict | None, dict | None],
    notes: list[str],
) -> dict | None:
    """{phase: energy} over all rows of a phase; None where no power was measured or no phase is known."""
    if not phases or not series:
        return None
    rails = list(dict.fromkeys(rail for one in series.values() for rail in one))
    quiet = _mean_idle(idle)
    result = {}
    for name in dict.fromkeys(phase.name for phase in phases):
        rows = [phase for phase in phases if phase.name == name]
        seconds = sum(row.end_monotonic_s - row.start_monotonic_s for row in rows)
        foreign = sorted({row.boot_id for row in rows} - set(series))
        if foreign:
            notes.append(f"phase {name} ran during another boot than the samples, its energy is not known")
        per_rail, covered_s = {}, []
        for rail in rails:
            measured, gaps = _rail_energy(rows, series, rail)
            net = None
            if measured is not None and rail in quiet:
                net = round(measured.energy_mj - quiet[rail] * measured.covered_s, 3)
            gross = round(measured.energy_mj, 3) if measured is not None else None
            per_rail[rail] = {"gross_mj": gross, "net_mj": net}
            if measured is not None:
                covered_s.append(measured.covered_s)
            elif gaps and not foreign:
                notes.append(f"phase {name}: {rail} was not read for {gaps:.1f} s of {seconds:.1f} s")
        result[name] = {
            "seconds": round(seconds, 3),
            "covered_s": round(min(covered_s), 3) if covered_s else 0.0,
            "rails": per_rail,
            "total": _total(per_rail),
        }
    return result


def _rail_energy(
    rows: list[Phase], series: dict[str, dict[str, _Series]], rail: str
) -> tuple[energy.Integral | None, float]:
    """The energy over all rows, None when they are not covered well enough; and the seconds not covered."""
    total, covered, seconds = 0.0, 0.0, 0.0
    for row in rows:
        seconds += row.end_monotonic_s - row.start_monotonic_s
        one = series.get(row.boot_id, {}).get(rail)
        if one is not None:
            integral = one.integral(row.start_monotonic_s, row.end_monotonic_s)
            total += integral.energy_mj
            covered += integral.covered_s
    measured = energy.Integral(total, covered, [])
    return (measured if _covers(measured, seconds) else None), seconds - covered


def _covers(integral: energy.Integral, seconds: float) -> bool:
    return integral.covered_s >= energy.MIN_COVERED * seconds


def _total(per_rail: dict[str, dict]) -> dict | None:
    chosen = energy.total_rails(per_rail)
    if chosen is None:
        return None
    name, rails = chosen
    total: dict = {"rail": name, "rails": rails}
    for key in ("gross_mj", "net_mj"):
        values = [per_rail[rail][key] for rail in rails]
        total[key] = None if None in values else round(sum(values), 3)
    return total if total["gross_mj"] is not None else None


def _mean_idle(idle: tuple[dict | None, dict | None]) -> dict[str, float]:
    known = [part for part in idle if part]
    rails = {rail for part in known for rail in part}
    return {
        rail: sum(part[rail] for part in known if rail in part) / sum(rail in part for part in known) for rail in rails
    }


# ---------------------------------------------------------------------- the rest of the summary


def _sources(attempts: list[Attempt]) -> dict:
    used, missing = [], {}
    for attempt in attempts:
        for entry in (attempt.header.get("sources") or {}).get("missing") or []:
            missing[entry.get("source")] = entry.get("reason")
        for note in attempt.notes:
            if note.get("event") == "missing":
                missing[note.get("source")] = note.get("text")
        used += [sample.get("source") for sample in attempt.samples]
        used += (attempt.header.get("sources") or {}).get("used") or []
    used = list(dict.fromkeys(used))
    return {
        "used": used,
        "missing": [{"source": name, "reason": text} for name, text in missing.items() if name not in used],
    }


def _attempt_row(attempt: Attempt) -> dict:
    ends = [note.get("text") for note in attempt.notes if note.get("event") == "end"]
    return {
        "started_unix_s": attempt.header.get("unix_s"),
        "boot_id": attempt.header.get("boot_id"),
        "pid": attempt.header.get("pid"),
        "mode": attempt.header.get("mode"),
        "interval_ms": attempt.header.get("interval_ms"),
        "samples": len(attempt.samples),
        # None: the recorder was killed, or still runs
        "ended": ends[-1] if ends else None,
    }


def _duration_s(attempt: Attempt) -> float:
    times = [float(sample["monotonic_s"]) for sample in attempt.samples]
    return max(times) - min(times) if times else 0.0


def _gaps(attempt: Attempt) -> list[dict]:
    """Times without power readings (without any, where no sensor reads power), beyond what is usual."""
    powered = [s for s in attempt.samples if s.get("power_mw") or s.get("energy_mj")]
    times = sorted(float(sample["monotonic_s"]) for sample in powered or attempt.samples)
    spacings = [b - a for a, b in pairwise(times)]
    if not spacings:
        return []
    limit = energy.GAP_INTERVALS * max(attempt.interval_s, median(spacings))
    return [{"start_s": round(a, 3), "end_s": round(b, 3)} for a, b in pairwise(times) if b - a > limit]


def _note_text(note: dict) -> str:
    source = f"{note['source']}: " if note.get("source") else ""
    return f"{source}{note.get('event')}: {note.get('text')}"


# ---------------------------------------------------------------------- hardware.csv

_LEADING = (
    "monotonic_s",
    "unix_s",
    "source",
    "cpu_percent",
    "ram_used_mb",
    "ram_total_mb",
    "swap_used_mb",
    "gpu_percent",
    "gpu_freq_mhz",
    "emc_percent",
    "emc_freq_mhz",
)
_NESTED = ("temperature_c", "power_mw", "energy_mj", "engines", "cpu_percent", "cpu_freq_mhz")
_NOT_IN_CSV = ("kind", "raw", "timestamp")


def flat_row(sample: dict) -> dict:
    """One sample as one row: lists and dicts become columns `name.key`.

    `cpu_percent` is the mean over the cores that are on, `gpu_freq_mhz` the highest of the GPU's parts.
    """
    row: dict = {}
    for name, value in sample.items():
        if name in _NOT_IN_CSV:
            continue
        if isinstance(value, dict):
            row.update({f"{name}.{key}": item for key, item in value.items()})
        elif isinstance(value, list):
            numbers = [number for number in map(_float, value) if number is not None]
            if name == "gpu_freq_mhz":
                row[name] = max(numbers) if numbers else None
                continue
            if name == "cpu_percent":
                row[name] = round(sum(numbers) / len(numbers), 2) if numbers else None
            row.update({f"{name}.{index}": item for index, item in enumerate(value)})
        else:
            row[name] = value
    return row


def _columns(rows: list[dict]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))

    def place(name: str) -> tuple:
        group = name.partition(".")[0]
        return _NESTED.index(group) if group in _NESTED else len(_NESTED), names.index(name)

    rest = sorted((name for name in names if name not in _LEADING), key=place)
    return [*_LEADING, *rest]


def _numbers(values) -> list[tuple[str, float]]:
    if not isinstance(values, dict):
        return []
    pairs = [(str(name), _float(value)) for name, value in values.items()]
    return [(name, value) for name, value in pairs if value is not None]


def _float(value) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    value = float(value)
    return value if -1e300 < value < 1e300 else None


# ---------------------------------------------------------------------- command line


def summarise_pending(logs: str | os.PathLike, results: str | os.PathLike) -> list[Path]:
    """Summarise each log under `logs` whose summary under `results` is missing or older; returns those."""
    written = []
    for log in sorted(Path(logs).rglob("*.jsonl")):
        if log.stem not in ("train", "measure"):
            continue
        folder = Path(results) / log.parent.relative_to(logs)
        if log.stem == "measure":
            folder = folder / "variance"
        target = folder / "hardware.json"
        table = folder / "hardware.csv"
        if target.exists() and table.exists() and target.stat().st_mtime_ns >= log.stat().st_mtime_ns:
            continue
        summarise(log, folder / "phases.csv", table, target)
        written.append(target)
    return written


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ff.hardware.summary", description=__doc__.split("\n")[0])
    parser.add_argument("--pending", nargs=2, metavar=("LOGS", "RESULTS"), help="all logs without a summary")
    parser.add_argument("--log")
    parser.add_argument("--phases")
    parser.add_argument("--csv")
    parser.add_argument("--json")
    args = parser.parse_args(argv)
    if bool(args.pending) == bool(args.log):
        parser.error("give either --log or --pending")
    try:
        if args.pending:
            for path in summarise_pending(*args.pending):
                print(path)
        else:
            summarise(args.log, args.phases, args.csv, args.json)
    except FFError as error:
        print(f"ff: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
