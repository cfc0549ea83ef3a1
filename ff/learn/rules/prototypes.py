"""Class prototypes: each layer learns that its outputs point to the prototype of their class.

Source: arXiv 2605.00082 ("HFF"), of which the formula is known and no code. A layer h = ReLU(W norm(x) + b) has a
prototype p_k of length 1 for each of C classes, and a temperature tau:

    s_k = cos(h, p_k) / tau,  L = cross-entropy(softmax(s), label)
    with y = norm(h), of mean square 1:  s_k = y . p_k / (tau sqrt(W_l)),  so that s = y M^T,  M = p / (tau sqrt(W_l))
    q = dL/ds = (softmax(s) - e) / B,  dM = q^T y less what of it lies along M,  dy = q M
    dz = (dy back through norm) [z > 0],  dW = dz^T norm(x),  db = sum dz

M is the network's head, which sees its own layer and has no bias. Its rows are brought back to their length before each
step and before they are asked. There are no negatives and no labels in the images; each layer takes the normalised
output of the one below, detached, and all learn in one pass over each mini-batch.
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
from ff.learn.objectives import normalisation_gradient
from ff.learn.optimiser import Layers
from ff.learn.products import cast, matmul
from ff.learn.readouts import OWN_HEAD, SUMMED
from ff.learn.rule import Batch, LearningPhase, SharedSettings
from ff.settings import setting

if TYPE_CHECKING:
    from torch import Tensor

    from ff.data.images import Images
    from ff.settings import RunConfig

NAME = "class-prototypes"
IS_CONTROL = False
PHASES = ("prototypes",)
READOUTS = (OWN_HEAD, SUMMED)


@dataclass(frozen=True)
class Settings(SharedSettings):
    """The defaults are the recipe `hff`."""

    # Of its networks; not settings, since without them it is another rule.
    normalisation: ClassVar[str] = "rms"
    heads_see: ClassVar[str] = "own"
    heads_biased: ClassVar[bool] = False
    neutral_value: ClassVar[float] = 0.0

    method: str = setting(NAME, "how layers learn", choices=(NAME,))
    temperature: float = setting(0.1, "of the cosines, by which they are divided", above=0, maximum=1e3)
    learning_rate: float = setting(0.002, "Adam's learning rate of the layers", above=0, maximum=1e30)
    head_learning_rate: float = setting(0.002, "Adam's learning rate of the heads", above=0, maximum=1e30)


RECIPES = {"hff": Settings()}


def training_macs(config: RunConfig) -> int:
    """Forward and weight gradient of each layer."""
    return 2 * sum(layer_macs(config.layers))


def numbers_held(config: RunConfig) -> tuple[int, int]:
    """Nothing; images, outputs, normalised and side by side, what dropout makes of them, and what comes back to the
    widest layer."""
    between = config.layers[0] + sum(config.layers[1:]) * (5 if config.settings.dropout else 3)
    return 0, config.train_batch_size * (between + 2 * max(config.layers[1:]))


def remarks(config: RunConfig, given: Collection[str]) -> list[str]:
    """A warning about dropout where no layer sees another."""
    if not config.settings.dropout or len(config.layers) > 2:
        return []
    return [f"dropout has no effect on recipe {config.recipe} with a single layer: its own scores see all outputs"]


class Learner:
    """Class prototypes on S networks; `images` is the training set."""

    def __init__(self, network: Network, images: Images, config: RunConfig, seeds: Sequence[int]):
        self.network, self.images, self.settings = network, images, config.settings
        self.layers, self.heads = Layers(network), Heads(network, images, config)
        self.optimisers = {"layers": self.layers.optimiser, "heads": self.heads.optimiser}
        for index, span in enumerate(network.head_spans()):
            network.heads[:, index, :, span] = _directions(network, network.widths[index], seeds, index)
        self.to_length()
        phase = LearningPhase(
            name="prototypes",
            epochs=config.rep_epochs + config.softmax_epochs,
            gradients=lambda batch: self.gradients(batch).unsqueeze(0),
            optimisers={"learning_rate": self.layers.optimiser, "head_learning_rate": self.heads.optimiser},
            readout=OWN_HEAD,
            settle=self.to_length,
        )
        self.phases = [phase]

    def to_length(self) -> None:
        """Give each row of a head the length 1 / (tau sqrt(W_l)); what a head does not see is 0 and stays so."""
        for index, width in enumerate(self.network.widths):
            head = self.network.heads[:, index]
            length = torch.linalg.vector_norm(head, dim=-1, keepdim=True).mul_(self.settings.temperature * width**0.5)
            head.div_(length.clamp_min_(torch.finfo(head.dtype).tiny))

    def gradients(self, batch: Batch) -> Tensor:
        """Fill the gradients of layers and heads for a mini-batch; returns the losses [S, L]."""
        network, precision = self.network, self.network.precision
        self.to_length()
        pixels, square, labels = self.images.rows(batch.rows, batch.keys)
        scale = network.neutral_scale(square).unsqueeze(-1)
        product = network.pixel_product(cast(pixels, precision))
        said = network.neutral_pass(product, square, dropout(self.settings, batch.keys))
        loss, by_logits = self.heads.gradients(torch.cat(said.normalised, -1), labels)
        self._along_sphere()
        for index, span in enumerate(network.head_spans()):
            by_normalised = matmul(by_logits[:, :, index], network.heads[:, index, :, span], precision)
            factor = network.scale(said.goodness[index], network.widths[index])
            by_output = normalisation_gradient(said.normalised[index], factor, by_normalised, network.normalisation)
            by_activation = torch.ops.aten.threshold_backward(by_output, said.outputs[index], 0)
            torch.sum(by_activation, 1, out=self.layers.bias_gradients[index])
            x = pixels * scale if index == 0 else said.passed[index - 1]
            matmul(by_activation.mT, x, precision, out=self.layers.weight_gradients[index])
        return loss

    def _along_sphere(self) -> None:
        """Take away from the gradient of each row what would change its length alone."""
        heads, gradient = self.network.heads, self.heads.gradient
        along = (heads * gradient).sum(-1, keepdim=True).div_((heads * heads).sum(-1, keepdim=True))
        gradient.addcmul_(heads, along, value=-1)


def _directions(network: Network, width: int, seeds: Sequence[int], index: int) -> Tensor:
    """Normal numbers [S, C, W] for layer `index`: rows of any direction alike."""
    shape, kind = (network.classes, width), network.heads.dtype
    generators = [draw_generator(seed, f"prototypes of layer {index}") for seed in seeds]
    return torch.stack([torch.randn(shape, generator=g, dtype=kind) for g in generators]).to(network.heads.device)
