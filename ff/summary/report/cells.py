"""What the page's tables share: the cells of the grid, in their order, and which of them are always shown."""

from collections.abc import Iterable, Mapping

import pandas as pd

from ff.layout import sizes
from ff.summary.recipe_order import place
from ff.summary.report.sentences import best_on_validation

CELL = ["dataset", "layers", "recipe"]

Tables = Mapping[str, pd.DataFrame]


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows by dataset as they came, then by network size, then in the order of recipes."""
    if frame.empty:
        return frame
    datasets, networks = frame["dataset"].unique(), sorted(frame["layers"].unique(), key=sizes)
    keys = {"_d": frame["dataset"].map(_places(datasets)), "_l": frame["layers"].map(_places(networks))}
    by = ["_d", "_l"]
    if "recipe" in frame:
        keys["_r"] = frame["recipe"].map(_places(sorted(frame["recipe"].unique(), key=place)))
        by.append("_r")
    return frame.assign(**keys).sort_values(by, kind="stable").drop(columns=by)


def _places(names: Iterable[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def best_cells(tables: Tables) -> set[tuple]:
    """Data set, network and recipe of what the sentences of the page are about: those that a table always shows."""
    summary = tables["accuracy_summary"]
    best = [best_on_validation(summary, dataset) for dataset in summary["dataset"].drop_duplicates()]
    return {tuple(row[CELL]) for row in best if row is not None}
