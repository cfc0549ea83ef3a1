"""Run folders in, tidy data frames out: one function per table, called as its file, and `write_all`.

Every function takes the files of an explicit list of runs (`files_of`), or tables made before. A run that is missing,
failed or unreadable gives no rows and never stops the others; `missing` lists each file that is not there, with the
reason. Files that a run need not have (measurements, hardware log, early exit) are read where they exist. What was not
measured is an empty cell, never 0. docs/tables.md describes every column.

Each file is read once and only rows are kept, a few runs at a time, so memory grows with the tables, not the folders. A
file that belongs to another model than the run now holds (`ff.stamps`) is left out like one that is missing.
"""

import csv
import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from ff.errors import FFError
from ff.files import write_through
from ff.layout import TABLES, RunKey
from ff.summary.recipe_order import controls_of
from ff.summary.tables.accuracy import accuracy, accuracy_summary, recipes
from ff.summary.tables.deployed import deployed
from ff.summary.tables.early_exit import early_exit, operating_points
from ff.summary.tables.energy import energy, inference_energy
from ff.summary.tables.measuring import agreement, devices, gpu_wins, latency, speedup
from ff.summary.tables.missing import missing
from ff.summary.tables.power_modes import power_modes
from ff.summary.tables.rows import stacked
from ff.summary.tables.run_files import RunFiles, files_of
from ff.summary.tables.runs import runs
from ff.summary.tables.runtimes import runtimes
from ff.summary.tables.same_weights import check_seeds
from ff.summary.tables.scoreboard import scoreboard
from ff.summary.tables.training import history, layers, training

_OF_RUN_FOLDERS: tuple[Callable[[list[RunFiles]], pd.DataFrame], ...] = (
    *(runs, accuracy, training, history, layers, early_exit, operating_points),
    *(latency, devices, agreement, energy, inference_energy, deployed, runtimes, power_modes),
)
RUNS_AT_ONCE, ROWS_AT_ONCE = 100, 5000


def write_all(
    results_root: str | Path, runs: Iterable[RunKey], out_dir: str | Path, train_log: str | None = None
) -> dict[str, pd.DataFrame]:
    """Build every table and write it as `out_dir/NAME.csv`; returns them by name. Never fails for a missing run.

    `train_log`: path pattern of the training logs, for `missing`. Raises FFError where two seeds are one run.
    """
    runs = list(runs)
    check_seeds(results_root, runs)
    tables = _of_run_folders(results_root, runs, train_log)
    tables["accuracy_summary"] = accuracy_summary(tables["accuracy"])
    with controls_of(tables["runs"]):
        tables["recipes"] = recipes(tables["accuracy"])
        tables["scoreboard"] = scoreboard(tables["runs"], tables["accuracy"], tables["training"])
    tables["speedup"] = speedup(results_root, tables["latency"])
    tables["gpu_wins"] = gpu_wins(tables["speedup"], tables["latency"])
    assert tables.keys() == set(TABLES), "ff.layout.TABLES names other tables than are made"
    for name in TABLES:
        write_table(tables[name], Path(out_dir) / f"{name}.csv")
    return tables


def _of_run_folders(results_root: str | Path, runs: list[RunKey], train_log: str | None) -> dict[str, pd.DataFrame]:
    """The tables that are made from run folders, in one pass over them."""
    parts: dict[str, list[pd.DataFrame]] = {}
    with _no_cycles():
        for start in range(0, max(len(runs), 1), RUNS_AT_ONCE):
            files = files_of(results_root, runs[start : start + RUNS_AT_ONCE])
            for build in _OF_RUN_FOLDERS:
                parts.setdefault(build.__name__, []).append(build(files))
            parts.setdefault("missing", []).append(missing(files, train_log))
    # One table after the other gives back its parts: together they are as large as all tables.
    return {name: stacked(parts.pop(name)) for name in list(parts)}


@contextmanager
def _no_cycles() -> Iterator[None]:
    """Within the block Python does not look for cycles of objects: parsed JSON has none, and looking through it again
    and again takes as long as parsing it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def write_table(frame: pd.DataFrame, path: str | Path) -> None:
    """Write `frame` as CSV, whole or not at all; what is missing becomes an empty cell.

    The bytes are those of pandas' own `to_csv`, which takes half as long again: most of the time of a large grid.
    """

    def fill(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(frame.columns)
            for start in range(0, len(frame), ROWS_AT_ONCE):
                part = frame.iloc[start : start + ROWS_AT_ONCE]
                writer.writerows(zip(*(_cells(part[name]) for name in part), strict=True))

    write_through(path, fill)


def _cells(column: pd.Series) -> list:
    if column.hasnans:
        column = column.astype(object).where(column.notna(), None)
    return column.tolist()


def read_table(summary_dir: str | Path, name: str) -> pd.DataFrame:
    """Read a table that `write_all` wrote. FFError names the file where it is missing or damaged."""
    path = Path(summary_dir) / f"{name}.csv"
    try:
        return pd.read_csv(path)
    except OSError as error:
        raise FFError(f"cannot read {path}: {error.strerror}; write the tables first") from error
    except ValueError as error:
        raise FFError(f"{path} is not a table ({error}); delete it and write the tables again") from error
