"""Hardware logs and phase marks of jobs that never ran, so that every energy in them is known."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jsonschema

from ff.hardware.summary import summarise
from ff.phases import COLUMNS

SCHEMA = json.loads((Path(__file__).parents[2] / "workflow/schemas/hardware.schema.json").read_text())
BOOT = "boot-1"
MODEL = "0123456789abcdef"


def header(boot=BOOT, interval_ms=100, at_s=0.0, **more):
    return {
        "kind": "header", "schema": 1, "monotonic_s": at_s, "unix_s": 5.0, "boot_id": boot, "pid": 7, "mode": "inline",
        "interval_ms": interval_ms, "machine": {"model": "a board"},
        "sources": {"used": ["ina3221"], "missing": [{"source": "tegrastats", "reason": "not there"}]}, **more,
    }  # fmt: skip


def source(period_s, name="ina3221", method="power monitor chips"):
    return {"kind": "source", "monotonic_s": 0.0, "unix_s": 5.0, "source": name, "method": method, "period_s": period_s}


def sample(time, **fields):
    return {"kind": "sample", "monotonic_s": time, "unix_s": 1000 + time, "source": "ina3221", **fields}


def powered(start, end, rails: Mapping[str, float | Callable[[float], float]], step=0.1, **fields):
    """Samples of power, a rail at a fixed power or on a curve of time."""
    times = [start + step * i for i in range(round((end - start) / step) + 1)]
    return [
        sample(t, power_mw={rail: mw(t) if callable(mw) else mw for rail, mw in rails.items()}, **fields) for t in times
    ]


def steps(*parts: tuple[float, float]) -> Callable[[float], float]:
    """A curve in steps: (until when, mW) in the order of time; the last holds on."""
    return lambda time: next((power for until, power in parts if time < until - 1e-9), parts[-1][1])


def write(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def write_phases(path, rows: Iterable[tuple]):
    """Rows are (phase, start, end), with the boot as a fourth where it is another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(COLUMNS)]
    for name, start, end, *boot in rows:
        lines.append(f"{MODEL},{name},{start},{end},{1000 + start},{1000 + end},{boot[0] if boot else BOOT}")
    path.write_text("\n".join(lines) + "\n")
    return path


def summary_of(folder, entries, phases=None):
    """The summary of a log and its phases, which fits the schema and is what hardware.json holds."""
    log = write(folder / "log.jsonl", entries)
    marks = write_phases(folder / "phases.csv", phases) if phases is not None else None
    summary = summarise(log, marks, folder / "hardware.csv", folder / "hardware.json")
    jsonschema.validate(summary, SCHEMA)
    assert json.loads((folder / "hardware.json").read_text()) == summary
    return summary
