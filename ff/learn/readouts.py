"""Readouts: how a network answers. Each gives a score for every class at every depth; the largest is the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ff.learn.network import Network, head_macs, layer_macs

if TYPE_CHECKING:
    from torch import Tensor


class Readout(NamedTuple):
    """A way to answer, at depth k by what layers 1..k say."""

    name: str
    scores: Callable[[Network, Tensor, Tensor], Tensor]
    """Network, pixels [S, B, D] (label pixels 0) and their sums of squares [S, B] -> scores [S, B, L, C]."""
    macs: Callable[[Sequence[int], int], int]
    """Layers (D, W_1, ..., W_L) and number of classes -> multiply-accumulates of one sample at full depth."""


def _head_scores(network: Network, pixels: Tensor, square: Tensor) -> Tensor:
    return network.all_head_logits(network.features(network.neutral_outputs(pixels, square)))


def _head_macs(layers: Sequence[int], classes: int) -> int:
    return sum(layer_macs(layers)) + head_macs(layers, classes)[-1]


def _goodness_scores(network: Network, pixels: Tensor, square: Tensor) -> Tensor:
    return network.goodness_by_label(pixels, square).cumsum(2)


def _goodness_macs(layers: Sequence[int], classes: int) -> int:
    """The first layer's pixels once; its label columns, and all that follows, for each label."""
    first, *rest = layer_macs(layers)
    return first + classes * (sum(rest) + layers[1])


HEAD = Readout("head", _head_scores, _head_macs)
"""One pass on the neutral input: the class with the largest logit of head k."""
GOODNESS = Readout("goodness", _goodness_scores, _goodness_macs)
"""One pass for each label: the label with the largest goodness, summed over layers 1..k (Hinton 2022, section 3.3)."""


def at_full_depth(results: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Of scores by split, readout and depth (`results` of metrics.json) those at full depth, by split and readout."""
    return {(row["split"], row["readout"]): row for row in sorted(results, key=lambda row: row["depth"])}


def score_name(score: str, readout: str) -> str:
    """What a score of a readout is called where one name must do: `accuracy` of the heads, `goodness_accuracy`."""
    return score if readout == HEAD.name else f"{readout}_{score}"
