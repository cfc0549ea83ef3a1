"""The last sections: what is missing, and where the results come from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ff.errors import FFError
from ff.files import read_json
from ff.layout import RunKey
from ff.summary.report.blocks import MOST_ROWS, Block, Column, Facts, Table, table, words
from ff.summary.report.numbers import plural
from ff.summary.tables.rows import KEYS
from ff.summary.tables.runs import machine_name

MOST_MACHINES = 5
MOST_NAMES = 6
MOST_WARNINGS = 20


def missing(frame: pd.DataFrame) -> list[Block]:
    """The files that are not there, by file and reason, those of most runs first where they are many."""
    if frame.empty:
        return ["Nothing: every run that was asked for has all its files."]
    rows = []
    for (file, reason), part in frame.groupby(["file", "reason"], sort=False):
        names = [RunKey(*key).name for key in part[list(KEYS)].itertuples(index=False, name=None)]
        rows.append((file, reason, len(names), _some(names)))
    columns = [*words("file", "reason"), Column("runs"), *words("which")]
    note, left_out = "One row a run and file is in missing.csv.", ""
    if len(rows) > MOST_ROWS:
        left_out = f"{MOST_ROWS:,} of {len(rows):,} rows are shown: those of most runs."
        rows = sorted(rows, key=lambda row: -row[2])[:MOST_ROWS]
    shown = table("Missing files", columns, rows, note, "missing")
    return [shown._replace(left_out=left_out) if isinstance(shown, Table) else shown]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def provenance(runs: pd.DataFrame, results_root: Path, written_at: str) -> list[Block]:
    """Commits, dates and warnings of the finished runs, and the machines that made them."""
    finished = runs[runs["finished"] == 1]
    if finished.empty:
        return [f"No run has finished. Page written {written_at}."]
    dirty = int(finished["git_dirty"].fillna(0).sum())
    commits = finished["git_commit"].fillna("unknown").value_counts(sort=False)
    started = finished["started_at"].dropna()
    warnings = finished["warnings"].dropna().value_counts(sort=False)
    facts = [
        ("git commit", _some([f"{commit} ({plural(n, 'run')})" for commit, n in commits.items()])),
        ("uncommitted changes", f"in {dirty} of {len(finished)} runs" if dirty else "none"),
        ("runs started", f"{started.min()} to {started.max()}" if len(started) else "unknown"),
        ("page written", written_at),
        *(("warning", f"{text} ({plural(n, 'run')})") for text, n in warnings.iloc[:MOST_WARNINGS].items()),
    ]
    if len(warnings) > MOST_WARNINGS:
        facts.append(("warnings", f"{len(warnings) - MOST_WARNINGS:,} more are in runs.csv"))
    return [Facts(None, facts), *_machines(finished, results_root)]


def _machines(finished: pd.DataFrame, results_root: Path) -> list[Block]:
    """The different machines, with Python and packages, of the first runs."""
    found: dict[str, Block] = {}
    for row in finished[list(KEYS)].itertuples(index=False, name=None):
        if len(found) == MOST_MACHINES:
            break
        try:
            facts = read_json(RunKey(*row).folder(results_root) / "metrics.json").get("provenance") or {}
        except FFError:
            continue
        machine, packages, python = facts.get("machine") or {}, facts.get("packages") or {}, facts.get("python")
        name = machine_name(machine)
        identity = json.dumps([name, packages, python], sort_keys=True, default=str)
        pairs = [*_known(machine), ("python", python), ("packages", packages)]
        found.setdefault(identity, Facts(name or "Machine", [(key, _flat(value)) for key, value in pairs]))
    return list(found.values())


def _known(facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in facts.items() if value is not None and value != [] and value != {}]


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_flat(part)}" for key, part in _known(value)) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(_flat(part) for part in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else str(value)
