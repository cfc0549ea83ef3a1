"""How the page writes numbers: a minus sign, a dash where nothing was measured, intervals with what they rest on."""

from collections.abc import Callable
from typing import Any

import pandas as pd

DASH = "–"


def decimals(pattern: str, factor: float = 1.0) -> Callable[[float], str]:
    """Writes a value times `factor` as `pattern`, such as `,.1f`."""
    return lambda value: format(factor * float(value), pattern)


def percent(value: float) -> str:
    """A share (0 to 1) in per cent, with a space that does not break."""
    text = f"{100 * value:.2f}".replace("-", "\N{MINUS SIGN}")
    return f"{text}\N{NO-BREAK SPACE}%"


def points(value: float) -> str:
    """A difference in percentage points, with its sign unless it is 0."""
    text = f"{value:+.2f}"
    return text.replace("-0.00", "0.00").replace("+0.00", "0.00").replace("-", "\N{MINUS SIGN}")


def plural(n: Any, unit: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{int(n)} {unit}{'s' * (int(n) != 1)}"


def interval(low: Any, high: Any, show: Callable[[float], str], n: Any, unit: str, method: str) -> str:
    """An interval over `n` of `unit` in words, or why there is none."""
    if pd.isna(low) or pd.isna(high):
        return f"{plural(n, unit)}, no interval"
    if low == high:
        return f"{plural(n, unit)}, all equal"
    return f"95 % interval {show(low)} to {show(high)}, {method}, {plural(n, unit)}"
