"""What is not there, and why."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from ff.errors import FFError
from ff.files import read_csv
from ff.job_log import cause
from ff.layout import MEASURE_FOLDER, RunKey
from ff.stamps import stamp_of, stamp_of_rows, why_stale
from ff.summary.tables.rows import KEYS, Rows, columns
from ff.summary.tables.run_files import RunFiles

EXPECTED = (
    *("metrics.json", "history.csv", "hardware.json", "evaluation.json", "early_exit.json"),
    MEASURE_FOLDER + "cpu.json",
)
"""Files of a run that are looked for, beside the other devices' that are there."""
MISSING = KEYS + columns("file reason")


def missing(runs: Iterable[RunFiles], train_log: str | None = None) -> pd.DataFrame:
    """One row per expected file that is absent, unreadable or says itself that it measured nothing, with the reason.

    `train_log`: path pattern of the training logs (`ff.layout.train_log`); the last error in the log is the reason why
    a run is missing.
    """
    rows = Rows(MISSING)
    for files in runs:
        run = files.run
        reason = _why_absent(files, "metrics.json")
        if not (files.folder / "metrics.json").is_file():
            reason = _why_untrained(run, train_log)
        if reason is not None:
            # One row says it all: everything else of the run follows from its training.
            rows.add(run, {"file": "metrics.json", "reason": reason})
            continue
        for name in dict.fromkeys([*EXPECTED, *files.measurements]):
            reason = _why_absent(files, name)
            if reason is not None:
                rows.add(run, {"file": name, "reason": reason})
    return rows.frame()


def _why_untrained(run: RunKey, train_log: str | None) -> str:
    why = cause(train_log.format(**run._asdict())) if train_log is not None else None
    if why is not None:
        return f"training failed: {why[:300]}"
    return "not trained: the job was killed, was not started or is still running"


def _why_absent(files: RunFiles, name: str) -> str | None:
    path = files.folder / name
    if not path.is_file():
        return "the file is not there: its job failed, was not asked for or has not run yet"
    if path.suffix != ".json":
        rows = read_csv(path)
        return why_stale(stamp_of_rows(rows), files.model) if rows else "the file is empty"
    try:
        content = files.content(name)
    except FFError as error:
        return str(error)
    if not isinstance(content, Mapping):
        return f"{path} is not a JSON object; delete it and run again"
    if stale := why_stale(stamp_of(content), files.model):
        return stale
    if path.name == "hardware.json":
        return _why_no_energy(content)
    facts = content.get("device", content)
    if isinstance(facts, Mapping) and facts.get("available") is False:
        return facts.get("reason") or "not available on this machine"
    return None


def _why_no_energy(content: Mapping[str, Any]) -> str | None:
    """Why the energy of the whole run is not known; None where it is."""
    if (content.get("run_energy") or {}).get("total"):
        return None
    phases = content.get("energy") or {}
    if any(phase.get("total") for phase in phases.values()):
        wanted = (content.get("run_energy") or {}).get("phases") or phases
        gone = [name for name in wanted if not phases[name].get("total")]
        return f"the run's energy is not known: it was not measured of the phases {', '.join(gone)}"
    sources = (content.get("sources") or {}).get("missing") or []
    reasons = "; ".join(f"{source.get('source')}: {source.get('reason')}" for source in sources)
    return "no energy was measured" + (f" ({reasons})" if reasons else "")
