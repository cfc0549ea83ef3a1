"""What is drawn at random in a training: the validation split and the order of the images, each from its own generator.

Every draw is tied to (seed, purpose, epoch) and to nothing that was drawn before, so that a run that was killed goes on
with the same numbers, and a seed's numbers do not depend on its group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ff.learn.lazy import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Split(NamedTuple):
    """Row numbers of the official training set, for each seed: [S, n] and [S, n_val] (int64, CPU)."""

    train: Tensor
    val: Tensor


def draw_generator(seed: int, purpose: str, epoch: int = 0) -> Generator:
    """A CPU generator for one purpose in one epoch of one seed, so that order and devices do not matter."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def effective_val_size(val_size: int, count: int) -> int:
    """The samples held out of `count`: `val_size`, or a fifth where the training set is not larger than that."""
    return val_size if val_size < count else count // 5


def split_rows(count: int, val_size: int, seeds: Sequence[int]) -> Split:
    """Draw validation samples from `count` training samples, for each seed; both parts in the set's order."""
    val_size = effective_val_size(val_size, count)
    orders = [torch.randperm(count, generator=draw_generator(seed, "split")) for seed in seeds]
    return Split(
        torch.stack([order[val_size:].sort().values for order in orders]),
        torch.stack([order[:val_size].sort().values for order in orders]),
    )


def shuffled(rows: Tensor, phase: str, epoch: int, seeds: Sequence[int]) -> Tensor:
    """The rows [S, n] in the order in which an epoch of `phase` goes through them."""
    count = rows.shape[1]
    orders = [torch.randperm(count, generator=draw_generator(seed, f"{phase}-order", epoch)) for seed in seeds]
    return torch.stack([part[order] for part, order in zip(rows, orders, strict=True)])
