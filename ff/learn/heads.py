"""The softmax heads as they learn: cross-entropy on the normalised outputs of the layers, on neutral inputs.

Head k sees the outputs of layers 1..k, and all heads are one masked matrix, so that a mini-batch is one product. Where
the layers are frozen their outputs are computed once and kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ff.learn.lazy import torch
from ff.learn.network import Network, matmul
from ff.learn.objectives import cross_entropy
from ff.learn.optimiser import Flat
from ff.learn.readouts import HEAD
from ff.learn.rule import LearningPhase

if TYPE_CHECKING:
    from torch import Tensor

    from ff.data.images import Images

# Above this the layers' outputs are computed again for each mini-batch instead of being kept.
FEATURE_CACHE_BYTES = 2 * 2**30


class Heads:
    """Heads of S networks and their gradients; `images` is the training set."""

    def __init__(self, network: Network, images: Images, block_size: int):
        self.network, self.images, self.block_size = network, images, block_size
        flat = Flat([network.heads, network.head_biases])
        network.heads, network.head_biases = flat.tensors
        self.optimiser = flat.optimiser
        self.gradient, self.bias_gradient = flat.gradients
        self.mask = network.head_mask()
        self.kept: Tensor | None = None  # [S, N, sum]

    def phase(self, epochs: int) -> LearningPhase:
        """The phase `softmax`, in which the heads learn on layers that are frozen."""
        return LearningPhase(
            name="softmax",
            epochs=epochs,
            gradients=self._gradients_of_rows,
            optimisers={"head_learning_rate": self.optimiser},
            readout=HEAD,
            scores=lambda rows: self.network.head_logits(self.features(rows), self.network.depth),
            begin=self.forget,
        )

    def forget(self) -> None:
        """Drop the layers' outputs that were kept: the layers may have changed."""
        self.kept = None

    def _gradients_of_rows(self, rows: Tensor, drawn: Tensor | None) -> Tensor:
        return self.gradients(self.features(rows), self.images.labels[rows])[0].unsqueeze(0)

    def gradients(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Fill the gradients for features [S, B, sum], labels [S, B]: loss [S, L], dL/dlogits [S, B, L, C]."""
        loss, by_logits = cross_entropy(self.network.all_head_logits(features), labels)
        product = matmul(by_logits.flatten(2).mT, features, self.network.precision).view_as(self.gradient)
        torch.mul(product, self.mask, out=self.gradient)
        torch.sum(by_logits, 1, out=self.bias_gradient)
        return loss, by_logits

    def features(self, rows: Tensor) -> Tensor:
        """What the heads see of training images `rows` [S, B]: [S, B, sum]. Kept for all images where memory allows."""
        network = self.network
        if self.kept is None:
            size = len(rows) * len(self.images.labels) * sum(network.widths) * self.images.pixels.element_size()
            if size > FEATURE_CACHE_BYTES:
                pixels, square, _ = self.images.rows(rows)
                return network.features(network.neutral_outputs(pixels, square))
            self.kept = torch.cat(list(self._all_features(len(rows))), 1)
        seeds = torch.arange(len(rows), device=rows.device).unsqueeze(1)
        return self.kept.flatten(0, 1)[rows + seeds * self.kept.shape[1]]

    def _all_features(self, seeds: int) -> Iterator[Tensor]:
        """Features of the whole training set, in blocks [S, B, sum]."""
        for start in range(0, len(self.images.labels), self.block_size):
            block = self.images.block(slice(start, start + self.block_size), seeds)
            yield self.network.features(self.network.neutral_outputs(block.pixels, block.square))
