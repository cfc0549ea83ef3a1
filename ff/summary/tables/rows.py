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
    """Rows of a table whose first columns are the keys of the run."""

    def __init__(self, names: Sequence[str]):
        self._names = names
        self._rows: list[tuple] = []

    def add(self, run: RunKey, values: Mapping[str, Any]) -> None:
        """Add a row of `run`: of `values` those that are columns, and nothing where one is missing."""
        self._rows.append((*run, *map(values.get, self._names[len(KEYS) :])))

    def frame(self) -> pd.DataFrame:
        """The rows as a data frame."""
        cells = zip(*self._rows, strict=True) if self._rows else ((),) * len(self._names)
        return typed(pd.DataFrame({name: list(column) for name, column in zip(self._names, cells, strict=True)}))


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with columns without a single value as numbers, which they are in every other grid."""
    for column in frame.columns:
        if frame[column].dtype == object and frame[column].isna().all():
            frame[column] = frame[column].astype("float64")
    return frame


def stacked(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Parts of one table below each other: as if all rows had been collected at once."""
    filled = [frame for frame in frames if len(frame)]
    if len(filled) < 2:
        return filled[0] if filled else frames[0]
    return pd.concat(filled, ignore_index=True)


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
