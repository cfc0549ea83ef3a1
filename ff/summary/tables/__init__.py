"""Run folders in, tidy data frames out: one function per table, called as its file, and `write_all`.

Every function takes the results folder and an explicit list of runs, or tables made before. A run that is missing,
failed or unreadable gives no rows and never stops the others; `missing` lists each file that is not there, with the
reason. Files that a run need not have (measurements, hardware log, early exit) are read where they exist. What was not
measured is an empty cell, never 0. docs/tables.md describes every column.

Each run's files are read once per table and only rows are kept, so memory grows with the tables, not the folders. A
file that belongs to another model than the run now holds (`ff.stamps`) is left out like one that is missing.
"""

from collections.abc import Callable, Iterable
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
from ff.summary.tables.runs import runs
from ff.summary.tables.runtimes import runtimes
from ff.summary.tables.training import history, layers, training

_OF_RUN_FOLDERS: tuple[Callable[[str | Path, list[RunKey]], pd.DataFrame], ...] = (
    *(runs, accuracy, training, history, layers, early_exit, operating_points),
    *(latency, devices, agreement, energy, inference_energy, deployed, runtimes),
)


def write_all(
    results_root: str | Path, runs: Iterable[RunKey], out_dir: str | Path, train_log: str | None = None
) -> dict[str, pd.DataFrame]:
    """Build every table and write it as `out_dir/NAME.csv`; returns them by name. Never fails for a missing run.

    `train_log`: path pattern of the training logs, for `missing`.
    """
    runs = list(runs)
    tables = {build.__name__: build(results_root, runs) for build in _OF_RUN_FOLDERS}
    tables["accuracy_summary"] = accuracy_summary(tables["accuracy"])
    with controls_of(tables["runs"]):
        tables["recipes"] = recipes(tables["accuracy"])
    tables["speedup"] = speedup(results_root, tables["latency"])
    tables["gpu_wins"] = gpu_wins(tables["speedup"], tables["latency"])
    tables["missing"] = missing(results_root, runs, train_log)
    assert tables.keys() == set(TABLES), "ff.layout.TABLES names other tables than are made"
    for name in TABLES:
        write_table(tables[name], Path(out_dir) / f"{name}.csv")
    return tables


def write_table(frame: pd.DataFrame, path: str | Path) -> None:
    """Write `frame` as CSV, whole or not at all; what is missing becomes an empty cell."""
    write_through(path, lambda temporary: frame.to_csv(temporary, index=False, lineterminator="\n"))


def read_table(summary_dir: str | Path, name: str) -> pd.DataFrame:
    """Read a table that `write_all` wrote. FFError names the file where it is missing or damaged."""
    path = Path(summary_dir) / f"{name}.csv"
    try:
        return pd.read_csv(path)
    except OSError as error:
        raise FFError(f"cannot read {path}: {error.strerror}; write the tables first") from error
    except ValueError as error:
        raise FFError(f"{path} is not a table ({error}); delete it and write the tables again") from error
