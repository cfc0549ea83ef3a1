"""Backpropagation: the control. The same network, data order and epochs, but one loss for all layers.

Source: Rumelhart, Hinton & Williams 1986, doi 10.1038/323533a0. The cross-entropy of the last head, on neutral inputs,
reaches every layer by the chain rule; for y = norm(h) (times its factors, with dropout) and h = ReLU(z), z = W x + b:

    dL/dh = (dL/dy - y mean(y dL/dy)) / rms(h)  (rms),  dL/dz = dL/dh [h > 0],  dL/dx = W^T dL/dz,  dL/dW = dL/dz x^T

The shallower heads learn beside it on the layers' outputs as they are, so that every depth has a readout. Its single
phase has as many epochs as both phases of Forward-Forward together.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ff.learn.heads import Heads
from ff.learn.lazy import torch
from ff.learn.network import Network, layer_macs
from ff.learn.noise import dropout
from ff.learn.objectives import normalisation_gradient
from ff.learn.optimiser import Layers
from ff.learn.products import cast, matmul
from ff.learn.readouts import HEAD
from ff.learn.rule import Batch, LearningPhase, SharedSettings
from ff.settings import LARGEST, setting

if TYPE_CHECKING:
    from torch import Tensor

    from ff.data.images import Images
    from ff.settings import RunConfig

NAME = "backprop"
IS_CONTROL = True
PHASES = ("backprop",)
READOUTS = (HEAD,)


@dataclass(frozen=True)
class Settings(SharedSettings):
    """The defaults are the recipe `bp`."""

    method: str = setting(NAME, "how layers learn", choices=(NAME,))
    normalisation: str = setting(
        "rms", "scale of each layer's input: mean square 1 (rms) or length 1 (unit)", choices=("rms", "unit")
    )
    learning_rate: float = setting(0.001, "Adam's learning rate of the layers", above=0, maximum=1e30)
    head_learning_rate: float = setting(0.001, "Adam's learning rate of the heads", above=0, maximum=1e30)
    neutral_value: float = setting(0.1, "value of all label pixels of a neutral input", above=0, maximum=LARGEST)


RECIPES = {"bp": Settings()}


def training_macs(config: RunConfig) -> int:
    """Forward, weight gradient, and the input gradient of all layers but the first."""
    first, *rest = layer_macs(config.layers)
    return 2 * first + 3 * sum(rest)


def numbers_held(config: RunConfig) -> tuple[int, int]:
    """Nothing; outputs, what follows from them, and gradients."""
    return 0, config.train_batch_size * (config.layers[0] + 6 * sum(config.layers[1:]))


def remarks(config: RunConfig, given: Collection[str]) -> list[str]:
    """None: all its settings have an effect, and both numbers of epochs train the same phase."""
    return []


class Learner:
    """Backpropagation on S networks; `images` is the training set."""

    def __init__(self, network: Network, images: Images, config: RunConfig, seeds: Sequence[int]):
        self.network, self.images, self.settings = network, images, config.settings
        self.layers, self.heads = Layers(network), Heads(network, images, config)
        self.optimisers = {"layers": self.layers.optimiser, "heads": self.heads.optimiser}
        phase = LearningPhase(
            name="backprop",
            epochs=config.rep_epochs + config.softmax_epochs,
            gradients=lambda batch: self.gradients(batch).unsqueeze(0),
            optimisers={"learning_rate": self.layers.optimiser, "head_learning_rate": self.heads.optimiser},
            readout=HEAD,
        )
        self.phases = [phase]

    def gradients(self, batch: Batch) -> Tensor:
        """Fill the gradients of layers and heads for a mini-batch; returns the heads' losses [S, L].

        Only the last head's loss reaches the layers.
        """
        network = self.network
        pixels, square, labels = self.images.rows(batch.rows, batch.keys)
        pixels = cast(pixels, network.precision)
        said = network.neutral_pass(network.pixel_product(pixels), square, dropout(self.settings, batch.keys))
        loss, by_logits = self.heads.gradients(said.features, labels)
        by_features = matmul(by_logits[:, :, -1], network.heads[:, -1], network.precision).split(network.widths, -1)
        from_above: Tensor | None = None
        for index in reversed(range(network.depth)):
            by_input = by_features[index] if from_above is None else by_features[index] + from_above
            factors = said.dropped[index]
            if factors is not None:
                by_input = by_input * factors
            scale = network.scale(said.goodness[index], network.widths[index])
            by_output = normalisation_gradient(said.normalised[index], scale, by_input, network.normalisation)
            # What autograd itself calls for a ReLU: one pass, where a mask would take two.
            by_activation = torch.ops.aten.threshold_backward(by_output, said.outputs[index], 0)
            torch.sum(by_activation, 1, out=self.layers.bias_gradients[index])
            target = self.layers.weight_gradients[index]
            if index > 0:
                by_activation = cast(by_activation, network.precision)
                matmul(by_activation.mT, said.passed[index - 1], network.precision, out=target)
                from_above = matmul(by_activation, network.weights[index], network.precision)
            else:
                scaled = by_activation.mul_(network.neutral_scale(square).unsqueeze(-1))
                matmul(scaled.mT, pixels, network.precision, out=target)
                for part in network.label_slices():
                    target[:, :, part] = scaled.sum(1).mul_(network.neutral_value).unsqueeze(-1)
        return loss
