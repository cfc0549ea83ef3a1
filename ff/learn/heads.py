"""The softmax heads as they learn: cross-entropy on the normalised outputs of the layers, on neutral inputs.

Head k sees the outputs of layers 1..k, and all heads are one masked matrix, so that a mini-batch is one product. Where
the layers are frozen their outputs are computed once and kept, in the number format in which they are multiplied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ff.learn.lazy import torch
from ff.learn.network import Network
from ff.learn.noise import dropout
from ff.learn.objectives import cross_entropy
from ff.learn.optimiser import Flat
from ff.learn.products import cast, matmul
from ff.learn.readouts import HEAD
from ff.learn.rule import Batch, LearningPhase

if TYPE_CHECKING:
    from torch import Tensor

    from ff.data.images import Images
    from ff.settings import RunConfig

# Above this the layers' outputs are computed again for each mini-batch instead of being kept.
FEATURE_CACHE_BYTES = 2 * 2**30


class Heads:
    """Heads of S networks and their gradients; `images` is the training set."""

    def __init__(self, network: Network, images: Images, config: RunConfig):
        self.network, self.images = network, images
        self.settings, self.block_size = config.settings, config.test_batch_size
        flat = Flat([network.heads, network.head_biases])
        network.heads, network.head_biases = flat.tensors
        self.optimiser = flat.optimiser
        self.gradient, self.bias_gradient = flat.gradients
        self.mask = network.head_mask()
        self.kept: Tensor | None = None  # [S x n, sum]
        self.places: Tensor | None = None  # [S, N], of an image's features among those kept

    def phase(self, epochs: int) -> LearningPhase:
        """The phase `softmax`, in which the heads learn on layers that are frozen."""
        return LearningPhase(
            name="softmax",
            epochs=epochs,
            gradients=self._gradients_of_batch,
            optimisers={"head_learning_rate": self.optimiser},
            readout=HEAD,
            said=lambda rows: self.network.all_head_logits(self.features(rows)),
            begin=self.keep,
            end=self.forget,
        )

    def _gradients_of_batch(self, batch: Batch) -> Tensor:
        features = self.features(batch.rows, batch.keys)
        # The layers are asked as at scoring: what they say is dropped for the heads alone.
        if dropped := dropout(self.settings, batch.keys):
            features = features * dropped.factors(0, features)
        return self.gradients(features, self.images.labels[batch.rows])[0].unsqueeze(0)

    def gradients(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Fill the gradients for features [S, B, sum], labels [S, B]: loss [S, L], dL/dlogits [S, B, L, C]."""
        features = cast(features, self.network.precision)
        loss, by_logits = cross_entropy(self.network.all_head_logits(features), labels)
        product = matmul(by_logits.flatten(2).mT, features, self.network.precision).view_as(self.gradient)
        torch.mul(product, self.mask, out=self.gradient)
        if self.network.heads_biased:
            torch.sum(by_logits, 1, out=self.bias_gradient)
        return loss, by_logits

    def keep(self, rows: Tensor) -> None:
        """Compute what the heads see of training images `rows` [S, n], all that the phase will ask for, and keep it
        where memory allows and the images stay what they are."""
        network, precision = self.network, self.network.precision
        seeds, count = rows.shape
        width, dtype = sum(network.widths), cast(network.heads, precision).dtype
        if self.images.augment is not None or rows.numel() * width * dtype.itemsize > FEATURE_CACHE_BYTES:
            return
        kept = network.heads.new_empty(seeds, count, width, dtype=dtype)
        for start in range(0, count, self.block_size):
            block = slice(start, start + self.block_size)
            kept[:, block] = self._seen(rows[:, block])
        places = torch.arange(seeds * count, device=rows.device).view(seeds, count)
        self.places = rows.new_zeros(seeds, len(self.images.labels)).scatter_(1, rows, places)
        self.kept = kept.flatten(0, 1)

    def forget(self) -> None:
        """Drop what was kept."""
        self.kept = self.places = None

    def features(self, rows: Tensor, keys: Tensor | None = None) -> Tensor:
        """What the heads see of training images `rows` [S, B], in a step with its `keys` [S, B]: [S, B, sum]."""
        if self.kept is None or self.places is None:
            return self._seen(rows, keys)
        return self.kept.index_select(0, self.places.gather(1, rows).flatten()).view(*rows.shape, -1)

    def _seen(self, rows: Tensor, keys: Tensor | None = None) -> Tensor:
        network = self.network
        pixels, square, _ = self.images.rows(rows, keys)
        return network.neutral_pass(network.pixel_product(pixels), square).features
