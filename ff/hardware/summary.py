"""From a hardware log and the phase marks of its job to hardware.csv and hardware.json.

A log can hold several attempts, each begun by a header. Their samples are put together by the boot they come from,
since that is what a monotonic clock belongs to; phase marks of another boot find no samples and are not measured.
Attempts that ended before the job's first phase are those of an earlier job, and left out.

hardware.json (workflow/schemas/hardware.schema.json) holds mJ, mW and s; `ff.hardware.attribution` says how energy and
its intervals come about.
"""

import math
import os
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from ff.files import read_json, write_csv, write_json
from ff.hardware import energy
from ff.hardware.attribution import Attribution
from ff.hardware.log import Attempt, number, read_log
from ff.hardware.series import power_series
from ff.layout import HARDWARE_FILES, RunKey, hardware_log, watched_folder
from ff.phases import Phase, model_of_phases, read_phases
from ff.stamps import COLUMN

if TYPE_CHECKING:
    from ff.documents.hardware import AttemptRow, Gap

_MAX_GAPS = 100
_MAX_NOTES = 200


def summarise(
    log_path: str | os.PathLike,
    phases_path: str | os.PathLike | None = None,
    csv_path: str | os.PathLike | None = None,
    json_path: str | os.PathLike | None = None,
) -> dict:
    """Write hardware.csv and hardware.json (either may be None) for a log; returns what hardware.json holds.

    Both name the model that phases.csv names. A log or phase file that is not there is no error: the summary then says
    that there are 0 samples, or holds no energy. Raises FFError when an output cannot be written.
    """
    phases: list[Phase] = []
    model = None
    if phases_path is not None and Path(phases_path).exists():
        phases, model = read_phases(phases_path), model_of_phases(phases_path)
    attempts = _of_this_job(read_log(log_path), phases)
    summary = {"schema": 1, "model": model, **_summary(attempts, phases)}
    if csv_path is not None:
        rows = [flat_row(sample) for attempt in attempts for sample in attempt.samples]
        write_csv(csv_path, [COLUMN, *_columns(rows)], [{COLUMN: model, **row} for row in rows])
    if json_path is not None:
        write_json(json_path, summary)
    return summary


def watched_log(results: str, phases_path: str | os.PathLike, job: str) -> str:
    """The hardware log of a run's job, one of `ff.layout.WATCHED`, whose phases are `phases_path`. Runs that were
    trained together have one, under the name of the first: metrics.json says which runs they are."""
    folder = Path(phases_path).parent.relative_to(results)
    run = RunKey.parse(folder.as_posix())
    if job == "train":
        run = run._replace(seed=read_json(Path(results, folder, "metrics.json"))["provenance"]["group_seeds"][0])
    return hardware_log(results, run, job)


def _of_this_job(attempts: list[Attempt], phases: list[Phase]) -> list[Attempt]:
    """The attempts that a job's phases reach back to: a sidecar's log goes on where that of an earlier job ended."""
    first_s: dict[str, float] = {}
    for phase in phases:
        first_s[phase.boot_id] = min(first_s.get(phase.boot_id, math.inf), phase.start_monotonic_s)
    kept = [
        attempt
        for attempt in attempts
        if attempt.boot_id in first_s and attempt.end_s is not None and attempt.end_s >= first_s[attempt.boot_id]
    ]
    return kept or attempts


def _summary(attempts: list[Attempt], phases: list[Phase]) -> dict:
    notes = [_note_text(note) for attempt in attempts for note in attempt.notes if note.get("event") != "end"]
    sources = _sources(attempts)
    periods_s = [source["period_s"] for source in sources["power"] if source["period_s"] is not None]
    found = Attribution(phases, power_series(attempts), max(periods_s, default=None))
    if not attempts:
        notes.append("there is no hardware log: the job ran without a recorder, or it could not write")
    return {
        "machine": attempts[-1].header.get("machine") if attempts else None,
        "sources": sources,
        "attempts": [_attempt_row(attempt) for attempt in attempts],
        "samples": sum(len(attempt.samples) for attempt in attempts),
        "duration_s": round(sum(_duration_s(attempt) for attempt in attempts), 3),
        "interval_ms": attempts[-1].header.get("interval_ms") if attempts else None,
        "gaps": [gap for attempt in attempts for gap in _gaps(attempt)][:_MAX_GAPS],
        "idle": found.idle,
        "energy": found.energy,
        "run_energy": found.run,
        # What concerns the energy is always kept; a sensor that fails again and again must not crowd it out.
        "notes": notes[:_MAX_NOTES] + found.notes,
    }


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
    power = {
        (record.get("source"), record.get("method")): {
            "source": record.get("source"),
            "method": record.get("method"),
            "period_s": number(record.get("period_s")),
        }
        for attempt in attempts
        for record in attempt.sources
    }
    return {
        "used": used,
        "power": list(power.values()),
        "missing": [{"source": name, "reason": text} for name, text in missing.items() if name not in used],
    }


def _attempt_row(attempt: Attempt) -> "AttemptRow":
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


def _gaps(attempt: Attempt) -> "list[Gap]":
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

    `cpu_percent` is the mean over the cores that are on, `gpu_freq_mhz` the highest of the GPU's parts, `shared_with`
    one text ("nobody", where it is known to be nobody).
    """
    row: dict = {}
    for name, value in sample.items():
        if name in _NOT_IN_CSV:
            continue
        if name == "shared_with" and isinstance(value, list):
            row[name] = "; ".join(map(str, value)) or "nobody"
        elif isinstance(value, dict):
            row.update({f"{name}.{key}": item for key, item in value.items()})
        elif isinstance(value, list):
            numbers = [item for item in map(number, value) if item is not None]
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


def summarise_pending(logs: str | os.PathLike, results: str | os.PathLike) -> list[Path]:
    """Summarise each log under `logs` whose summary under `results` is missing or older; returns those.

    Jobs that failed leave such a log: their sidecar was killed. `logs/<run>/train.jsonl` belongs to `results/<run>/`,
    `measure.jsonl` to `results/<run>/variance/`.
    """
    written = []
    for log in sorted(Path(logs).rglob("*.jsonl")):
        place = watched_folder(log.relative_to(logs))
        if place is None:
            continue
        folder = Path(results, place)
        table, target = (folder / name for name in HARDWARE_FILES)
        if target.exists() and table.exists() and target.stat().st_mtime_ns >= log.stat().st_mtime_ns:
            continue
        summarise(log, folder / "phases.csv", table, target)
        written.append(target)
    return written
