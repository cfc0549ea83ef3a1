"""Local error signals: each layer learns that its outputs predict the label (pred), and are alike where it is (sim).

Source: Nokland & Eidnes 2019, arXiv 1901.06656, and the code beside it. A layer is h = leakyReLU(BN(W x)), with a head
on h; batch norm takes mean and variance of the mini-batch, and at work their running averages. With V [W_l, W_l],
which learns too, for the similarity alone:

    pred   cross-entropy(head(h), label)
    sim    mean (R - Q)^2,  R = cosines [B, B] of the rows of V h, each less its mean,  Q = those of the one-hot labels
    L      = (1 - beta) pred + beta sim

For two of C classes Q is 1 where they are the same, else -1 / (C - 1). With n = centred rows / (their length + 1e-8):

    dL/dn = 4 beta / B^2 (R - Q) n,  then back through the length,  dV = dL/d(V h)^T h,  dL/dh = dL/d(V h) V + ...
    batch norm, y = g z' + b:  dL/dz = g / sigma (dL/dy - mean(dL/dy) - z' mean(z' dL/dy)),  means over the mini-batch

Each layer takes the detached output of the one below; all learn in one pass over each mini-batch. The heads learn from
the cross-entropy whatever beta is, as that does not change Adam's steps. They see their own layer, so that early exit
needs no others; the last answers. (The paper's last answer is by one more, which differs from it where there is
dropout.) W has no bias, which batch norm would take away again. The network that is asked, kept and deployed has
neither batch norm nor V: W and its bias are those of W and batch norm together.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ff.learn.draws import draw_generator
from ff.learn.heads import Heads
from ff.learn.lazy import torch
from ff.learn.network import Network, layer_macs
from ff.learn.noise import dropout
from ff.learn.objectives import normalisation_gradient
from ff.learn.optimiser import Flat
from ff.learn.products import cast, matmul
from ff.learn.readouts import OWN_HEAD, SUMMED
from ff.learn.rule import Batch, LearningPhase, SharedSettings
from ff.settings import setting

if TYPE_CHECKING:
    from torch import Tensor

    from ff.data.images import Images
    from ff.settings import RunConfig

NAME = "local-similarity"
IS_CONTROL = False
PHASES = ("local",)
READOUTS = (OWN_HEAD, SUMMED)

# Of the paper's code: torch.nn.BatchNorm1d's defaults (Ioffe & Szegedy 2015, arXiv 1502.03167), and its cosines.
NORM_EPSILON, MOMENTUM = 1e-5, 0.1
LENGTH_EPSILON = 1e-8


@dataclass(frozen=True)
class Settings(SharedSettings):
    """The defaults are the recipe `predsim`."""

    # Of its networks; not settings, since without them it is another rule.
    normalisation: ClassVar[str] = "none"
    heads_see: ClassVar[str] = "own"
    neutral_value: ClassVar[float] = 0.0
    negative_slope: ClassVar[float] = 0.01

    method: str = setting(NAME, "how layers learn", choices=(NAME,))
    similarity: float = setting(
        0.99, "share of the similarity loss in that of a layer; 0: cross-entropy alone, 1: none", minimum=0, maximum=1
    )
    projection: bool = setting(
        True, "whether a layer's outputs go through a matrix that learns with them before their similarity is taken"
    )
    # Learning rates chosen on MNIST's validation images (docs/study/first_trials.csv); the paper has 0.0005, batches of
    # 128, and five to twenty times as many epochs.
    learning_rate: float = setting(0.002, "Adam's learning rate of the layers", above=0, maximum=1e30)
    head_learning_rate: float = setting(0.002, "Adam's learning rate of the heads", above=0, maximum=1e30)


RECIPES = {"predsim": Settings(), "pred": Settings(similarity=0.0), "sim": Settings(similarity=1.0)}


def _projections(config: RunConfig) -> list[int]:
    """Units of the layers whose outputs are projected for their similarity: of all of them, or none."""
    return list(config.layers[1:]) if config.settings.similarity and config.settings.projection else []


def training_macs(config: RunConfig) -> int:
    """Forward and weight gradient of each layer, the same and the input gradient of each V, and a sample's share of R
    and of its gradient."""
    cosines = 2 * config.train_batch_size * sum(config.layers[1:]) if config.settings.similarity else 0
    return 2 * sum(layer_macs(config.layers)) + 3 * sum(width**2 for width in _projections(config)) + cosines


def numbers_held(config: RunConfig) -> tuple[int, int]:
    """The weights that learn, since the network has folded ones, and each V, its gradient and moments. Of a step the
    images, what lies between the layers, some values for each output of the widest on the way back, and R twice."""
    settings, batch, widths = config.settings, config.train_batch_size, config.layers[1:]
    held = sum(layer_macs(config.layers)) + 4 * sum(width**2 for width in _projections(config))
    between = config.layers[0] + sum(widths) * (4 if settings.dropout else 3)
    back = 3 * max(widths) + 2 * batch if settings.similarity else 2 * max(widths)
    return held, batch * (between + back)


def remarks(config: RunConfig, given: Collection[str]) -> list[str]:
    """Warnings about a projection without similarity, and about dropout where no layer sees another."""
    useless = {
        "projection has no effect on recipe {}: it has no similarity loss": (
            "projection" in given and config.settings.similarity == 0
        ),
        "dropout has no effect on recipe {} with a single layer: its own losses see all outputs": (
            config.settings.dropout and len(config.layers) == 2
        ),
    }
    return [text.format(config.recipe) for text, holds in useless.items() if holds]


class Learner:
    """Local error signals on S networks; `images` is the training set."""

    def __init__(self, network: Network, images: Images, config: RunConfig, seeds: Sequence[int]):
        self.network, self.images, self.settings = network, images, config.settings
        self.share = config.settings.similarity
        drawn = _drawn(_projections(config), seeds, network.heads)
        ones, zeros = map(torch.ones_like, network.biases), map(torch.zeros_like, network.biases)
        flat = Flat([*network.weights, *ones, *zeros, *drawn])
        depth = network.depth
        self.weights, self.scales, self.shifts = (flat.tensors[i * depth : (i + 1) * depth] for i in range(3))
        self.by_weight, self.by_scale, self.by_shift = (flat.gradients[i * depth : (i + 1) * depth] for i in range(3))
        self.projections, self.by_projection = flat.tensors[3 * depth :], flat.gradients[3 * depth :]
        # Of W x, for each unit of all layers side by side, [S, sum].
        self.means = torch.zeros_like(torch.cat(network.biases, -1))
        self.variances = torch.ones_like(self.means)
        self.heads = Heads(network, images, config)
        self.optimisers = {"layers": flat.optimiser, "heads": self.heads.optimiser}
        phase = LearningPhase(
            name="local",
            epochs=config.rep_epochs + config.softmax_epochs,
            gradients=lambda batch: self.gradients(batch).unsqueeze(0),
            optimisers={"learning_rate": flat.optimiser, "head_learning_rate": self.heads.optimiser},
            readout=OWN_HEAD,
            averages={"means": self.means, "variances": self.variances},
            settle=self.fold,
        )
        self.phases = [phase]

    def gradients(self, batch: Batch) -> Tensor:
        """Fill the gradients of layers and heads for a mini-batch; returns the layers' losses [S, L]."""
        network, precision, slope = self.network, self.network.precision, self.network.negative_slope
        pixels, _, labels = self.images.rows(batch.rows, batch.keys)
        dropped = dropout(self.settings, batch.keys)
        inputs, standard, factors, outputs = [cast(pixels, precision)], [], [], []
        for index in range(network.depth):
            z, factor = self._standardised(index, matmul(inputs[-1], self.weights[index].mT, precision))
            h = torch.addcmul(self.shifts[index].unsqueeze(1), z, self.scales[index].unsqueeze(1))
            outputs.append(network.rectify(h))
            passed = h if dropped is None else h * dropped.factors(index, h)
            inputs.append(cast(passed, precision))
            standard.append(z)
            factors.append(factor)
        loss, by_logits = self.heads.gradients(torch.cat(outputs, -1), labels)
        loss, count = loss * (1 - self.share), labels.shape[1]
        for index, span in enumerate(network.head_spans()):
            head = network.heads[:, index, :, span]
            by_output = matmul(by_logits[:, :, index] * (1 - self.share), head, precision)
            if self.share:
                similarity, by_similarity = self._similarity(index, outputs[index], labels)
                loss[:, index] += similarity
                by_output.add_(by_similarity)
            by_y = torch.ops.aten.leaky_relu_backward(by_output, outputs[index], slope, True)
            torch.sum(by_y, 1, out=self.by_shift[index])
            torch.sum(by_y * standard[index], 1, out=self.by_scale[index])
            by_z = by_y.sub_(self.by_shift[index].unsqueeze(1) / count)
            by_z.addcmul_(standard[index], self.by_scale[index].unsqueeze(1), value=-1 / count)
            by_z.mul_((self.scales[index] * factors[index]).unsqueeze(1))
            matmul(by_z.mT, inputs[index], precision, out=self.by_weight[index])
        return loss

    def _standardised(self, index: int, z: Tensor) -> tuple[Tensor, Tensor]:
        """(z - mean) / sigma over the mini-batch of z [S, B, W_l], in its place, and 1 / sigma [S, W_l]; the running
        averages go on."""
        batch, span = z.shape[1], self.network.layer_spans()[index]
        variance, mean = torch.var_mean(z, 1, correction=0)
        self.means[:, span].lerp_(mean, MOMENTUM)
        # As BatchNorm1d keeps it: of the images that the mini-batch is a sample of.
        self.variances[:, span].lerp_(variance * (batch / max(1, batch - 1)), MOMENTUM)
        factor = (variance + NORM_EPSILON).rsqrt_()
        return z.sub_(mean.unsqueeze(1)).mul_(factor.unsqueeze(1)), factor

    def _similarity(self, index: int, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """beta x similarity loss [S] of a layer's outputs [S, B, W_l], and its gradient by them; fills that of V."""
        precision, classes = self.network.precision, self.network.classes
        if not self.projections:
            loss, by_output = similarity(outputs, labels, classes, precision)
            return loss * self.share, by_output.mul_(self.share)
        h, projection = cast(outputs, precision), self.projections[index]
        loss, by_projected = similarity(matmul(h, projection.mT, precision), labels, classes, precision)
        by_projected = cast(by_projected.mul_(self.share), precision)
        matmul(by_projected.mT, h, precision, out=self.by_projection[index])
        return loss * self.share, matmul(by_projected, projection, precision)

    def fold(self) -> None:
        """Give the network the weights and biases that do what W and batch norm do with the running averages."""
        factors = (self.variances + NORM_EPSILON).rsqrt()
        for index, span in enumerate(self.network.layer_spans()):
            factor = self.scales[index] * factors[:, span]
            torch.mul(self.weights[index], factor.unsqueeze(-1), out=self.network.weights[index])
            torch.sub(self.shifts[index], self.means[:, span] * factor, out=self.network.biases[index])


def _drawn(widths: Sequence[int], seeds: Sequence[int], like: Tensor) -> list[Tensor]:
    """A matrix [S, W, W] of numbers uniform in +-1/sqrt(W) for each width W, as torch.nn.Linear draws them."""
    generators = [draw_generator(seed, "projection") for seed in seeds]
    drawn = []
    for width in widths:
        numbers = torch.stack([torch.rand(width, width, generator=g, dtype=like.dtype) for g in generators])
        drawn.append(numbers.mul_(2).sub_(1).div_(math.sqrt(width)).to(like.device))
    return drawn


def similarity(x: Tensor, labels: Tensor, classes: int, precision: str) -> tuple[Tensor, Tensor]:
    """mean (R - Q)^2 [S] of rows x [S, B, W] with `labels` [S, B], and its gradient by x.

    R is held to [-1, 1] as in the paper's code, where it leaves that by rounding alone: the gradient takes no note.
    """
    batch = x.shape[1]
    centred = x - x.mean(-1, keepdim=True)
    scale = 1 / (torch.linalg.vector_norm(centred, dim=-1) + LENGTH_EPSILON)
    rows = centred.mul_(scale.unsqueeze(-1))
    same = labels.unsqueeze(2) == labels.unsqueeze(1)
    difference = matmul(rows, rows.mT, precision).clamp_(-1, 1)
    difference.add_(1 / (classes - 1)).sub_(same.to(x.dtype), alpha=classes / (classes - 1))
    loss = torch.linalg.vector_norm(difference.flatten(1), dim=1).square_().div_(batch**2)
    by_rows = matmul(difference, rows, precision).mul_(4 / batch**2)
    # All rows have mean 0, so what is made of them has too: nothing more comes of the mean on the way back.
    return loss, normalisation_gradient(rows, scale, by_rows, "unit")
