"""What a section of the page is made of, as data; the template writes each by its fields. Text is a paragraph."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from ff.summary.report.numbers import DASH
from ff.summary.spread import pick

MOST_ROWS = 360
"""A longer table is not read in a page but searched in its file."""


class Column(NamedTuple):
    """A column of a table: its header (with unit), how a value is written, and whether values are numbers."""

    header: str
    show: Callable[[Any], str] = str
    is_number: bool = True

    def text(self, value: Any) -> str:
        """A cell's text; a dash for what was not measured."""
        return self.show(value) if isinstance(value, tuple) or pd.notna(value) else DASH


def words(*headers: str) -> list[Column]:
    """Columns of text."""
    return [Column(header, is_number=False) for header in headers]


def interval(header: str, show: Callable[[float], str]) -> Column:
    """A column of intervals, each a pair."""

    def show_pair(pair: Sequence[Any]) -> str:
        low, high = pair
        return DASH if pd.isna(low) or pd.isna(high) else f"{show(low)} to {show(high)}"

    return Column(header, show_pair)


class Table(NamedTuple):
    """A table with a note below it; `left_out` says which rows are not shown, and `file` is the summary table that all
    come from."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    note: str
    left_out: str
    file: str


class Absent(NamedTuple):
    """That something is not known, and why."""

    what: str
    reason: str


def table(
    caption: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Any]],
    note: str,
    file: str,
    *,
    otherwise: str = "no rows",
    keys: int = 3,
    best: Collection[tuple] = (),
) -> Table | Absent:
    """A table of values, each written as its column says; where there are no rows, `otherwise` says why.

    The first `keys` values of a row (data set, network, recipe) say what it is about. Where there are more than
    MOST_ROWS rows the page shows those about `best` and of others evenly spread; `file` is the summary table behind.
    """
    rows = list(rows)
    shown = _with_room(rows, keys, best)
    left_out = ""
    if len(shown) < len(rows):
        chosen = "those that are best on validation, and others spread evenly" if best else "spread evenly"
        left_out = f"{len(shown):,} of {len(rows):,} rows are shown: {chosen}."
    texts = [[column.text(value) for column, value in zip(columns, row, strict=True)] for row in shown]
    return Table(caption, columns, texts, note, left_out, file) if texts else Absent(caption, otherwise)


def _with_room(rows: list[Sequence[Any]], keys: int, best: Collection[tuple]) -> list[Sequence[Any]]:
    """The rows that the page has room for; those of one network and recipe stay together."""
    if len(rows) <= MOST_ROWS:
        return rows
    counts = Counter(tuple(row[:keys]) for row in rows)
    others = [key for key in counts if key not in best]
    of_best = sum(count for key, count in counts.items() if key in best)
    each = max((len(rows) - of_best) / max(len(others), 1), 1)
    chosen = {*best, *pick(others, max(int((MOST_ROWS - of_best) / each), 0))}
    return [row for row in rows if tuple(row[:keys]) in chosen]


class Facts(NamedTuple):
    """Names and values below a title of their own or that of the section."""

    title: str | None
    pairs: Sequence[tuple[str, str]]


Block = str | Table | Absent | Facts
