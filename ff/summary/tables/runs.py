"""Every expected run: whether it finished, and where it comes from."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from ff.summary.tables.rows import KEYS, Rows, columns
from ff.summary.tables.run_files import RunFiles

RUNS = KEYS + columns("method finished started_at git_commit git_dirty python torch machine warnings")


def runs(runs: Iterable[RunFiles]) -> pd.DataFrame:
    """One row per expected run: how it learned (method), finished (1) or not (0), commit, versions, machine, warnings
    joined with '; '."""
    rows = Rows(RUNS)
    for files in runs:
        metrics = files.json("metrics.json")
        facts = (metrics or {}).get("provenance") or {}
        dirty = facts.get("git_dirty")
        rows.add(
            files.run,
            {
                **{key: facts.get(key) for key in ("started_at", "git_commit", "python")},
                "method": (((metrics or {}).get("config") or {}).get("recipe_settings") or {}).get("method"),
                "finished": int(metrics is not None),
                "git_dirty": None if dirty is None else int(dirty),
                "torch": (facts.get("packages") or {}).get("torch"),
                "machine": machine_name(facts.get("machine") or {}),
                "warnings": "; ".join(map(str, facts.get("warnings") or [])) or None,
            },
        )
    return rows.frame()


def machine_name(machine: Mapping[str, Any]) -> str | None:
    """The names in a machine description (`ff.hardware.machine.describe`): board, CPU, GPUs."""
    found = []
    for key in ("model", "cpu", "gpus"):
        value = machine.get(key)
        if isinstance(value, Mapping):
            value = value.get("name") or value.get("model")
        if isinstance(value, Sequence) and not isinstance(value, str):
            value = ", ".join(str(v.get("name", v)) if isinstance(v, Mapping) else str(v) for v in value)
        if value and str(value) not in found:
            found.append(str(value))
    return ", ".join(found) or None
