"""A sweep run here: the DAG's whole work on it, and which settings did best."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ff import statistics
from ff.errors import FFError
from ff.files import read_json, write_json
from ff.settings import RunConfig
from ff.tracking import names
from ff.tracking.parts import SWEEP_NOTE, Part
from ff.tracking.sweeps.cells import Sweep
from ff.tracking.sweeps.files import is_number


def snakemake_command(
    path: str | os.PathLike,
    configfile: str,
    cores: str,
    count: int | None = None,
    seed: int = 0,
    out: str | None = None,
    dry_run: bool = False,
) -> list[str]:
    """The Snakemake command that does for the sweep what target `all` does for the grid.

    Snakemake takes what follows `--config` for settings, so the target comes first. It reads a bare 2024 as a number,
    in quotes too: paths are given with their folder.
    """
    settings = {"sweep": _as_path(path), "sweep_seed": seed, "sweep_count": count, "sweep_out": out and _as_path(out)}
    words = [f"{name}={value}" for name, value in settings.items() if value is not None]
    command = [sys.executable, "-m", "snakemake", "all", "--cores", cores, "--configfile", configfile]
    return [*command, *(["--dry-run"] if dry_run else []), "--config", *words]


def _as_path(path: str | os.PathLike) -> str:
    return str(path) if Path(path).is_absolute() else f"./{path}"


def claim(results: Path, path: str | os.PathLike, sweep: Sweep, grid_results: Path) -> None:
    """Note in the results folder which sweep it is of. Raises FFError where it holds other results."""
    note = {"schema": 1, "file": Path(path).name, "digest": sweep.digest(), "runs": len(sweep.runs)}
    there = results / SWEEP_NOTE
    if results.resolve() == grid_results.resolve():
        raise FFError(f"{results} is the results folder of the grid; give the sweep another --out")
    if there.is_file():
        found = read_json(there)
        if found.get("digest") != note["digest"]:
            raise FFError(f"{results} holds another sweep, of {found.get('file')}; give another --out or remove it")
    elif results.is_dir() and any(results.iterdir()):
        raise FFError(f"{results} is there already and no sweep's; give another --out")
    write_json(there, note)


@dataclass(frozen=True)
class Place:
    """A cell in the ranking: the mean of a metric over its seeds, of `asked` that the sweep has."""

    cell: str
    interval: statistics.Interval
    asked: int


def ranking(runs: Sequence[RunConfig], metric: Mapping[str, Any] | None, results: str | os.PathLike) -> list[Place]:
    """The cells of the sweep by the mean over seeds of its metric, best first; [] without a metric.

    A run counts when it is finished and of these very settings. W&B's default goal is to minimise.
    """
    if not metric:
        return []
    cells: dict[str, list[float | None]] = {}
    for run in runs:
        value = _metric_of(run, str(metric["name"]), Path(results))
        cells.setdefault(run.name.rpartition("/")[0], []).append(value)
    # Shares of images, whose interval stays within 0 and 1.
    share = str(metric["name"]).endswith(("accuracy", "f1_score", "error"))
    mean = statistics.share_interval if share else statistics.mean_interval
    places = [Place(cell, mean(values), len(values)) for cell, values in cells.items()]
    sign = -1 if metric.get("goal") == "maximize" else 1
    known = [(sign * place.interval.estimate, place) for place in places if place.interval.estimate is not None]
    return [place for _, place in sorted(known, key=lambda pair: pair[0])]


def _metric_of(run: RunConfig, name: str, results: Path) -> float | None:
    """The metric as W&B's summary of the run has it; None where the run is not finished or was trained otherwise."""
    part = Part("train", results / run.name)
    try:
        metrics = part.document("metrics.json")
        if metrics is None or metrics["config"] != run.as_dict():
            return None
        summary: dict[str, Any] = {}
        for row in part.rows("history.csv"):
            summary |= names.epoch_row(row)
        summary |= names.training_summary(metrics)
        summary |= names.energy_summary(part.document("hardware.json") or {})
    except (FFError, KeyError, TypeError):
        return None
    return summary[name] if is_number(summary.get(name)) else None
