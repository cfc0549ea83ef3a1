"""Some of many, where there is no room for all."""

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def pick(order: Sequence[Item], limit: int) -> list[Item]:
    """At most `limit` of the ordered items, spread evenly, first and last among them; the last where limit is 1."""
    if len(order) <= limit:
        return list(order)
    if limit <= 1:
        return list(order[len(order) - limit :])
    return [order[round(i * (len(order) - 1) / (limit - 1))] for i in range(limit)]
