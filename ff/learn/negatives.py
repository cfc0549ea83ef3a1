"""Negatives: how the wrong label of each training image is chosen among C classes.

A choice has two steps: random numbers are drawn for a whole epoch at once (on the CPU, with the generator of its seed,
so that devices and groups agree), and each mini-batch chooses by them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ff.learn.lazy import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Negatives(Protocol):
    """A way to choose wrong labels."""

    by_goodness: bool
    """Whether `choose` needs the goodness of every label."""

    def draw(self, generator: Generator, count: int) -> Tensor:
        """The random numbers for `count` images, [count, ...]."""

    def choose(self, labels: Tensor, drawn: Tensor, goodness: Tensor | None = None) -> Tensor:
        """A wrong label for each of `labels` [...], by what was drawn for them and the `goodness` [..., C]."""


class Uniform:
    """Evenly among the wrong labels."""

    by_goodness = False

    def __init__(self, classes: int):
        self.classes = classes

    def draw(self, generator: Generator, count: int) -> Tensor:
        """A shift from 1 to C - 1 for each image, so that the true label never comes out."""
        return torch.randint(1, self.classes, (count,), generator=generator)

    def choose(self, labels: Tensor, drawn: Tensor, goodness: Tensor | None = None) -> Tensor:
        """The label `drawn` [...] places after the true one."""
        return (labels + drawn) % self.classes


class Hard:
    """From the softmax of hardness x goodness over the wrong labels: those that the network believes come more often.

    Adding Gumbel noise and taking the largest is a draw from the softmax (Gumbel-max; Maddison et al. 2014,
    arXiv 1411.0030).
    """

    by_goodness = True

    def __init__(self, classes: int, hardness: float):
        self.classes, self.hardness = classes, hardness

    def draw(self, generator: Generator, count: int) -> Tensor:
        """Gumbel noise [count, C]."""
        return torch.empty(count, self.classes).exponential_(generator=generator).log_().neg_()

    def choose(self, labels: Tensor, drawn: Tensor, goodness: Tensor | None = None) -> Tensor:
        """The wrong label with the largest hardness x `goodness` + `drawn`, both [..., C]."""
        if goodness is None:
            raise ValueError("hard negatives are chosen by goodness")
        scores = torch.add(drawn, goodness, alpha=self.hardness).scatter_(-1, labels.unsqueeze(-1), -torch.inf)
        return scores.argmax(-1)


def choice(kind: str, classes: int, hardness: float) -> Negatives:
    """The choice that the setting `negatives` names: `uniform` or `hard`."""
    return Hard(classes, hardness) if kind == "hard" else Uniform(classes)
