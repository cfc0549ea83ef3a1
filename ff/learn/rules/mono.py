"""Mono-Forward: each layer is a classifier of its own, and learns from its own cross-entropy alone.

Source: arXiv 2501.09238; without its matrix's name the same as the local loss "pred" of Nokland & Eidnes 2019
(arXiv 1901.06656), less batch norm and dropout. A layer a = ReLU(W x + b) has a matrix M [C, W_l] without bias, which
gives each class a score:

    G = a M^T,  L = cross-entropy(softmax(G), label)
    p = dL/dG = (softmax(G) - y) / B,  dM = p^T a,  dz = (p M) [z > 0],  dW = dz^T x,  db = sum dz

With fixed matrices (the recipe `tinyfoa`; TinyFoA, AAAI 2025) these are drawn and stay, and the layers alone learn.
There are no negatives and no labels in the images. Each layer takes the output of the one below as it is; all learn in
one pass over each mini-batch. What dropout takes away is missing to the next layer, not to the layer's own scores
(Nokland & Eidnes). The matrices M are the network's heads, each of which sees its own layer, so that early exit needs
no others. Answers: the last layer's, or the sum of the layers' log-probabilities.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ff.learn.draws import draw_generator
from ff.learn.heads import Heads
from ff.learn.lazy import torch
from ff.learn.network import Network, layer_macs
from ff.learn.noise import dropout
from ff.learn.objectives import cross_entropy
from ff.learn.optimiser import Layers
from ff.learn.products import cast, matmul
from ff.learn.readouts import OWN_HEAD, SUMMED
from ff.learn.rule import Batch, LearningPhase, SharedSettings
from ff.settings import setting

if TYPE_CHECKING:
    from torch import Tensor

    from ff.data.images import Images
    from ff.settings import RunConfig

NAME = "mono-forward"
IS_CONTROL = False
PHASES = ("mono",)
READOUTS = (OWN_HEAD, SUMMED)


@dataclass(frozen=True)
class Settings(SharedSettings):
    """The defaults are the recipe `mono`."""

    # Of its networks; not settings, since without them it is another rule.
    normalisation: ClassVar[str] = "none"
    heads_see: ClassVar[str] = "own"
    heads_biased: ClassVar[bool] = False
    neutral_value: ClassVar[float] = 0.0
    # He et al. 2015 (arXiv 1502.01852): without norm between layers their outputs keep their size.
    initial_gain: ClassVar[float] = 6**0.5

    method: str = setting(NAME, "how layers learn", choices=(NAME,))
    learning_rate: float = setting(0.005, "Adam's learning rate of the layers", above=0, maximum=1e30)
    head_learning_rate: float = setting(0.002, "Adam's learning rate of the heads", above=0, maximum=1e30)
    matrices: str = setting("learnt", "whether each layer's scores learn or stay as drawn", choices=("learnt", "fixed"))


RECIPES = {"mono": Settings(), "tinyfoa": Settings(matrices="fixed")}


def training_macs(config: RunConfig) -> int:
    """Forward and weight gradient of each layer."""
    return 2 * sum(layer_macs(config.layers))


def numbers_held(config: RunConfig) -> tuple[int, int]:
    """Nothing; images, outputs twice, what dropout makes of them, and what comes back to the widest layer."""
    between = config.layers[0] + sum(config.layers[1:]) * (4 if config.settings.dropout else 2)
    return 0, config.train_batch_size * (between + max(config.layers[1:]))


def remarks(config: RunConfig, given: Collection[str]) -> list[str]:
    """Warnings about dropout where no layer sees another, and the learning rate of matrices that do not learn; both
    numbers of epochs train the same phase."""
    warnings = []
    if config.settings.dropout and len(config.layers) == 2:
        warnings.append(
            f"dropout has no effect on recipe {config.recipe} with a single layer: its own scores see all outputs"
        )
    if config.settings.matrices == "fixed" and "head_learning_rate" in given:
        warnings.append(f"head_learning_rate has no effect on recipe {config.recipe}: its matrices stay as drawn")
    return warnings


class Learner:
    """Mono-Forward on S networks; `images` is the training set."""

    def __init__(self, network: Network, images: Images, config: RunConfig, seeds: Sequence[int]):
        self.network, self.images, self.settings = network, images, config.settings
        self.layers, self.heads = Layers(network), Heads(network, images, config)
        self.optimisers = {"layers": self.layers.optimiser}
        learning = {"learning_rate": self.layers.optimiser}
        if self.settings.matrices == "learnt":
            self.optimisers["heads"] = learning["head_learning_rate"] = self.heads.optimiser
        else:
            _draw_matrices(network, seeds)
        phase = LearningPhase(
            name="mono",
            epochs=config.rep_epochs + config.softmax_epochs,
            gradients=lambda batch: self.gradients(batch).unsqueeze(0),
            optimisers=learning,
            readout=OWN_HEAD,
        )
        self.phases = [phase]

    def gradients(self, batch: Batch) -> Tensor:
        """Fill the gradients of layers and their matrices for a mini-batch; returns the losses [S, L]."""
        network, precision = self.network, self.network.precision
        pixels, square, labels = self.images.rows(batch.rows, batch.keys)
        pixels = cast(pixels, precision)
        said = network.neutral_pass(network.pixel_product(pixels), square, dropout(self.settings, batch.keys))
        features = torch.cat(said.normalised, -1)
        if self.settings.matrices == "learnt":
            loss, by_logits = self.heads.gradients(features, labels)
        else:
            loss, by_logits = cross_entropy(network.all_head_logits(cast(features, precision)), labels)
        for index, span in enumerate(network.head_spans()):
            by_output = matmul(by_logits[:, :, index], network.heads[:, index, :, span], precision)
            by_activation = torch.ops.aten.threshold_backward(by_output, said.outputs[index], 0)
            torch.sum(by_activation, 1, out=self.layers.bias_gradients[index])
            x = pixels if index == 0 else said.passed[index - 1]
            matmul(by_activation.mT, x, precision, out=self.layers.weight_gradients[index])
        return loss


def _draw_matrices(network: Network, seeds: Sequence[int]) -> None:
    """Give the heads normal numbers of variance 2 / W_l (He et al. 2015, as torch.nn.init.kaiming_normal_ draws)."""
    generators = [draw_generator(seed, "matrices") for seed in seeds]
    for index, span in enumerate(network.head_spans()):
        shape = (network.classes, network.widths[index])
        drawn = torch.stack([torch.randn(shape, generator=g, dtype=network.heads.dtype) for g in generators])
        network.heads[:, index, :, span] = drawn.mul_((2 / shape[1]) ** 0.5).to(network.heads.device)
