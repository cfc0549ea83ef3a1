"""Rows of a table, collected run by run."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ff.layout import RunKey

KEYS = RunKey._fields


def columns(names: str) -> tuple[str, ...]:
    """Column names from words."""
    return tuple(names.split())


class Rows:
    """Rows collected by column, so that hundreds of thousands of rows cost a list cell each and no dict."""

    def __init__(self, names: Sequence[str]):
        self._cells: dict[str, list] = {name: [] for name in names}

    def add(self, run: RunKey, values: Mapping[str, Any]) -> None:
        """Add a row of `run`: of `values` those that are columns, and nothing where one is missing."""
        keys = run._asdict()
        for name, cells in self._cells.items():
            cells.append(keys[name] if name in keys else values.get(name))

    def frame(self) -> pd.DataFrame:
        """The rows as a data frame."""
        return typed(pd.DataFrame(self._cells))


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with columns without a single value as numbers, which they are in every other grid."""
    for column in frame.columns:
        if frame[column].dtype == object and frame[column].isna().all():
            frame[column] = frame[column].astype("float64")
    return frame


def flagged(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """The frame with true, false and not known in `column` as 1, 0 and nothing."""
    return frame.assign(**{column: frame[column].map({True: 1, False: 0}).astype("Int64")})


def one_text(value: Any) -> str | None:
    """A value, list or mapping's values as one text; None where there is nothing."""
    if isinstance(value, Mapping):
        value = sorted({str(part) for part in value.values()})
    if isinstance(value, (list, tuple)):
        value = ", ".join(str(part) for part in value)
    return None if value in (None, "") else str(value)
