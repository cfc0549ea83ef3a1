"""What a section of the page is made of, as data; the template writes each by its fields. Text is a paragraph."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from ff.summary.report.numbers import DASH


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
    """A table with a note below it."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    note: str


class Absent(NamedTuple):
    """That something is not known, and why."""

    what: str
    reason: str


def table(
    caption: str, columns: Sequence[Column], rows: Iterable[Sequence[Any]], note: str, otherwise: str = "no rows"
) -> Table | Absent:
    """A table of values, each written as its column says; where there are no rows, `otherwise` says why."""
    texts = [[column.text(value) for column, value in zip(columns, row, strict=True)] for row in rows]
    return Table(caption, columns, texts, note) if texts else Absent(caption, otherwise)


class Facts(NamedTuple):
    """Names and values below a title of their own or that of the section."""

    title: str | None
    pairs: Sequence[tuple[str, str]]


Block = str | Table | Absent | Facts
