"""Readouts: how a network answers. Each gives a score for every class at every depth; the largest is the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from ff.learn.network import LayerOutputs, Network, head_macs, layer_macs

if TYPE_CHECKING:
    from torch import Tensor

    from ff.data.images import Block


class Seen:
    """What S networks make of a block of images: computed when a readout asks, and once for all of them."""

    def __init__(self, network: Network, block: Block):
        self.network, self.block = network, block

    @cached_property
    def product(self) -> Tensor:
        """`Network.pixel_product` [S, B, W_1]."""
        return self.network.pixel_product(self.block.pixels)

    @cached_property
    def neutral(self) -> LayerOutputs:
        """What the layers say of the neutral inputs."""
        return self.network.neutral_pass(self.product, self.block.square)

    @cached_property
    def logits(self) -> Tensor:
        """What all heads say of the neutral inputs, [S, B, L, C]."""
        return self.network.all_head_logits(self.neutral.features)


class Readout(NamedTuple):
    """A way to answer, at depth k by what layers 1..k say."""

    name: str
    said: Callable[[Seen], Tensor]
    """What each layer, or its head, says of each class: [S, B, L, C]."""
    scores: Callable[[Tensor], Tensor]
    """From what was said [..., L, C] to the scores at each depth, of the same shape."""
    logits: bool
    """Whether the softmax of the scores is a probability."""
    sampled: bool
    """Whether it takes so many passes that of the training split only a sample is scored."""
    macs: Callable[[Sequence[int], int], int]
    """Layers (D, W_1, ..., W_L) and number of classes -> multiply-accumulates of one sample at full depth."""

    def answers(self, said: Tensor) -> Tensor:
        """The class with the largest score at each depth: [..., L, C] -> [..., L]."""
        return self.scores(said).argmax(-1)


def _head_macs(layers: Sequence[int], classes: int) -> int:
    return sum(layer_macs(layers)) + head_macs(layers, classes)[-1]


def _own_head_macs(layers: Sequence[int], classes: int) -> int:
    return sum(layer_macs(layers)) + head_macs(layers, classes, "own")[-1]


def _summed_macs(layers: Sequence[int], classes: int) -> int:
    return sum(layer_macs(layers)) + sum(head_macs(layers, classes, "own"))


def _goodness_macs(layers: Sequence[int], classes: int) -> int:
    """The first layer's pixels once; its label columns, and all that follows, for each label."""
    first, *rest = layer_macs(layers)
    return first + classes * (sum(rest) + layers[1])


HEAD = Readout(
    name="head",
    said=lambda seen: seen.logits,
    scores=lambda said: said,
    logits=True,
    sampled=False,
    macs=_head_macs,
)
"""One pass on the neutral input: the class with the largest logit of head k."""
GOODNESS = Readout(
    name="goodness",
    said=lambda seen: seen.network.goodness_by_label(seen.product, seen.block.square),
    scores=lambda said: said.cumsum(-2),
    logits=False,
    sampled=True,
    macs=_goodness_macs,
)
"""One pass for each label: the label with the largest goodness, summed over layers 1..k (Hinton 2022, section 3.3)."""


OWN_HEAD = HEAD._replace(macs=_own_head_macs)
"""As HEAD, where head k sees layer k alone."""
SUMMED = OWN_HEAD._replace(name="summed", scores=lambda said: said.log_softmax(-1).cumsum(-2), macs=_summed_macs)
"""The class with the largest log-probability, summed over heads 1..k, each of which sees its own layer
(Mono-Forward, arXiv 2501.09238, section 3.3)."""


def at_full_depth(results: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Of scores by split, readout and depth (`results` of metrics.json) those at full depth, by split and readout."""
    return {(row["split"], row["readout"]): row for row in sorted(results, key=lambda row: row["depth"])}


def score_name(score: str, readout: str) -> str:
    """What a score of a readout is called where one name must do: `accuracy` of the heads, `goodness_accuracy`."""
    return score if readout == HEAD.name else f"{readout}_{score}"
