"""A sweep run here, through the DAG, and its best runs."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ff.files import read_json
from ff.tracking.names import training_summary
from ff.tracking.sweeps.files import is_number


def local_command(
    path: str | os.PathLike,
    runs: Sequence[Mapping[str, Any]],
    configfile: str,
    count: int | None,
    seed: int,
    cores: str,
    results: str = "results",
    dry_run: bool = False,
) -> list[str]:
    """The Snakemake command that trains `runs` (of `grid`): their metrics.json as explicit targets.

    Snakemake takes what follows `--config` for settings, so the targets come first.
    """
    targets = [f"{results}/{run_name(run)}/metrics.json" for run in runs]
    settings = [f"sweep={path}", f"sweep_seed={seed}", *([f"sweep_count={count}"] if count else [])]
    words = [sys.executable, "-m", "snakemake", *targets, "--cores", cores, "--configfile", configfile]
    return [*words, *(["--dry-run"] if dry_run else []), "--config", *settings]


def run_name(run: Mapping[str, Any]) -> str:
    """The folder of a run of `grid` below the results folder."""
    return f"{run['dataset']}/{'-'.join(map(str, run['layers']))}/{run['recipe']}/seed{run['seed']}"


def best(
    runs: Sequence[Mapping[str, Any]],
    metric: Mapping[str, Any] | None,
    results: str = "results",
    top: int = 5,
) -> list[tuple[float, str]]:
    """(value, run) of the best finished runs by the sweep's metric, best first; [] without a metric."""
    if not metric:
        return []
    found = []
    for run in runs:
        name = run_name(run)
        path = Path(results) / name / "metrics.json"
        value = training_summary(read_json(path)).get(metric["name"]) if path.is_file() else None
        if is_number(value):
            found.append((value, name))
    return sorted(found, reverse=metric.get("goal") == "maximize")[:top]
