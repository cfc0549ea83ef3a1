"""Forward-Forward: each layer learns by itself to tell images under their own label from images under a wrong one.

Source: Hinton 2022, arXiv 2212.13345. The label lies in the first pixels of the image (section 3.3); a layer h = ReLU(W
norm(x) + b) has the goodness g = mean(h^2). For a positive (true label, g+) and a negative (wrong one, g-):

    symba      L = softplus(-alpha (g+ - g-))                       Lee & Song 2023, arXiv 2303.08418, equation 2
    threshold  L = (softplus(theta - g+) + softplus(g- - theta)) / 2      Hinton 2022, section 2

Phase `representation` trains all layers in one pass over each mini-batch, each on the detached output of the one below.
As dL/dz = (2 dL/dg / W) h, no graph is needed. A positive and its negative differ in the label pixels only, so that in
the first layer both share one product over the pixels, forward and gradient. Phase `softmax` trains the heads on the
frozen layers. Negatives are drawn by `ff.learn.negatives`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ff.learn import negatives, objectives
from ff.learn.heads import Heads
from ff.learn.lazy import torch
from ff.learn.network import Network, layer_macs
from ff.learn.noise import dropout
from ff.learn.optimiser import Layers
from ff.learn.products import affine, cast, matmul
from ff.learn.readouts import GOODNESS, HEAD
from ff.learn.rule import Batch, LearningPhase, SharedSettings
from ff.settings import LARGEST, setting

if TYPE_CHECKING:
    from torch import Tensor

    from ff.data.images import Images
    from ff.settings import RunConfig

NAME = "forward-forward"
IS_CONTROL = False
PHASES = ("representation", "softmax")
READOUTS = (HEAD, GOODNESS)


@dataclass(frozen=True)
class Settings(SharedSettings):
    """The defaults are the recipe `ff`."""

    method: str = setting(NAME, "how layers learn", choices=(NAME,))
    normalisation: str = setting(
        "rms", "scale of each layer's input: mean square 1 (rms) or length 1 (unit)", choices=("rms", "unit")
    )
    loss: str = setting(
        "symba",
        "goodness loss: softplus(-alpha (g+ - g-)) (symba) or softplus(threshold -+ g) (threshold)",
        choices=("symba", "threshold"),
    )
    alpha: float = setting(2.0, "steepness of the symba loss", above=0, maximum=LARGEST)
    threshold: float = setting(2.0, "goodness threshold of the threshold loss", above=0, maximum=LARGEST)
    negatives: str = setting(
        "hard",
        "wrong labels drawn evenly (uniform) or from the softmax of hardness x the first layer's goodness (hard)",
        choices=("uniform", "hard"),
    )
    hardness: float = setting(4.0, "inverse temperature of the draw of hard negatives", above=0, maximum=LARGEST)
    learning_rate: float = setting(0.01, "Adam's learning rate of the layers", above=0, maximum=1e30)
    head_learning_rate: float = setting(0.01, "Adam's learning rate of the heads", above=0, maximum=1e30)
    overlay_value: float = setting(10.0, "value of the label's pixel", above=0, maximum=LARGEST)
    neutral_value: float = setting(0.1, "value of all label pixels of a neutral input", above=0, maximum=LARGEST)


RECIPES = {
    # Chosen on MNIST's validation images: 98.2 % on test, 784,200,200,10, 10 + 10 epochs.
    "ff": Settings(),
    # The settings of the published EdgeFF code.
    "edgeff": Settings(
        normalisation="unit",
        loss="threshold",
        negatives="uniform",
        learning_rate=0.03,
        head_learning_rate=0.03,
        schedule="constant",
    ),
}


def training_macs(config: RunConfig) -> int:
    """The first layer's pixels serve positive and negative: one forward and one weight-gradient product. Every later
    layer does both for both."""
    first, *rest = layer_macs(config.layers)
    return 2 * first + 4 * sum(rest)


def numbers_held(config: RunConfig) -> tuple[int, int]:
    """The first layer's outputs under each label, which stay for the next mini-batch; outputs, what follows from them,
    and gradients."""
    by_label = config.train_batch_size * config.classes * config.layers[1]
    return by_label, config.train_batch_size * (config.layers[0] + 6 * sum(config.layers[1:]))


def remarks(config: RunConfig, given: Collection[str]) -> list[str]:
    """Warnings about a readout that stays untrained and about settings without effect."""
    settings = config.settings
    warnings = []
    if config.softmax_epochs == 0:
        warnings.append("softmax_epochs is 0: the heads stay untrained, so the head readout only guesses")
    elif config.rep_epochs == 0:
        warnings.append("rep_epochs is 0: the layers stay random, so the goodness readout only guesses")
    useless = {
        "alpha": settings.loss != "symba" and f"loss {settings.loss} has no alpha",
        "threshold": settings.loss != "threshold" and f"loss {settings.loss} has no threshold",
        "hardness": settings.negatives != "hard" and f"negatives {settings.negatives} are drawn evenly",
    }
    reasons = {name: why for name, why in useless.items() if why and name in given}
    return warnings + [f"{name} has no effect on recipe {config.recipe}: {why}" for name, why in reasons.items()]


class Learner:
    """Forward-Forward on S networks; `images` is the training set of N images."""

    def __init__(self, network: Network, images: Images, config: RunConfig, seeds: Sequence[int]):
        self.network, self.images, self.settings = network, images, config.settings
        self.layers, self.heads = Layers(network), Heads(network, images, config)
        self.optimisers = {"layers": self.layers.optimiser, "heads": self.heads.optimiser}
        self.negatives = negatives.choice(self.settings.negatives, network.classes, self.settings.hardness)
        self.by_label: Tensor | None = None  # [S, B, C, W_1], the largest tensor, used again in each mini-batch
        representation = LearningPhase(
            name="representation",
            epochs=config.rep_epochs,
            gradients=self.gradients,
            optimisers={"learning_rate": self.layers.optimiser},
            readout=GOODNESS,
            draw=self.negatives.draw,
        )
        self.phases = [representation, self.heads.phase(config.softmax_epochs)]

    def gradients(self, batch: Batch) -> Tensor:
        """Fill the layers' gradients for a mini-batch; returns loss, g+ and g- as [3, S, L]."""
        network, precision = self.network, self.network.precision
        pixels, square, labels = self.images.rows(batch.rows, batch.keys)
        # Of inputs with a label, whichever it is: the factor of norm(x) and the label's pixel after it, [S, B].
        scale = network.label_scale(square)
        strength = scale * self.settings.overlay_value
        pixels = cast(pixels.mul_(scale.unsqueeze(-1)), precision)
        h, goodness, shown = self._first_layer(pixels, strength, labels, batch.drawn)
        # A negative loses the units that its positive loses.
        dropped = dropout(self.settings, None if batch.keys is None else torch.cat([batch.keys, batch.keys], 1))
        inputs, outputs, good = [pixels], [h], [goodness]
        for index in range(1, network.depth):
            x = network.normalise(outputs[-1], good[-1])
            if dropped is not None:
                x.mul_(dropped.factors(index - 1, x))
            inputs.append(cast(x, precision))
            outputs.append(network.forward_layer(index, inputs[-1]))
            good.append(network.goodness(outputs[-1]))
        # Positives come first, then the negatives of the same images: [L, S, 2, B].
        positive, negative = torch.stack(good).unflatten(-1, (2, -1)).unbind(2)
        loss = self._loss(positive, negative)
        by_goodness = torch.cat([loss.by_positive, loss.by_negative], -1)
        for index, (x, h) in enumerate(zip(inputs, outputs, strict=True)):
            gradient = objectives.activation_gradient(h, by_goodness[index])
            torch.sum(gradient, 1, out=self.layers.bias_gradients[index])
            if index == 0:
                self._first_layer_gradient(gradient, x, strength, shown)
            else:
                matmul(gradient.mT, x, precision, out=self.layers.weight_gradients[index])
        return torch.stack([loss.loss, positive.mean(-1), negative.mean(-1)]).transpose(1, 2)

    def _loss(self, positive: Tensor, negative: Tensor) -> objectives.GoodnessLoss:
        if self.settings.loss == "symba":
            return objectives.symba(positive, negative, self.settings.alpha)
        return objectives.threshold(positive, negative, self.settings.threshold)

    def _first_layer(
        self, pixels: Tensor, strength: Tensor, labels: Tensor, drawn: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """For positives and then negatives: outputs [S, 2B, W_1] of the first layer, their goodness [S, 2B], and the
        labels [S, 2B] that they show. `pixels` [S, B, D] are normalised, `strength` [S, B] is the label's pixel."""
        network = self.network
        assert drawn is not None
        activation = affine(pixels, network.weights[0], network.biases[0], network.precision)
        seeds, batch, width = activation.shape
        if self.negatives.by_goodness:
            if self.by_label is None:
                self.by_label = activation.new_empty(seeds, batch, network.classes, width)
            # The last mini-batch may be smaller.
            out = self.by_label.view(-1, network.classes, width)[: seeds * batch]
            outputs = network.all_labels(activation, strength, out.view(seeds, batch, network.classes, width))
            goodness = network.goodness(outputs)
            shown = torch.cat([labels, self.negatives.choose(labels, drawn, goodness)], 1)
            places = self._places(seeds, batch, network.classes) + shown
            picked = outputs.view(-1, width).index_select(0, places.flatten())
            return picked.view(seeds, -1, width), goodness.flatten()[places], shown
        shown = torch.cat([labels, self.negatives.choose(labels, drawn)], 1)
        places = torch.arange(seeds, device=shown.device).unsqueeze(1) * network.classes + shown
        columns = network.label_columns().flatten(0, 1).index_select(0, places.flatten()).view(seeds, 2, batch, width)
        outputs = torch.addcmul(activation.unsqueeze(1), strength[:, None, :, None], columns).flatten(1, 2).relu_()
        return outputs, network.goodness(outputs), shown

    def _places(self, seeds: int, batch: int, classes: int) -> Tensor:
        """Where the rows of positives and of negatives [S, 2B] begin in a table of a row for each image and label."""
        images = torch.arange(seeds * batch, device=self.images.device).view(seeds, batch) * classes
        return torch.cat([images, images], 1)

    def _first_layer_gradient(self, gradient: Tensor, pixels: Tensor, strength: Tensor, shown: Tensor) -> None:
        """Positive and negative share their pixels, so one product serves both; label columns get their own share."""
        network, batch = self.network, strength.shape[1]
        shared = gradient[:, :batch] + gradient[:, batch:]
        target = matmul(shared.mT, pixels, network.precision, out=self.layers.weight_gradients[0])
        carried = gradient.new_zeros(*shown.shape, network.classes)
        carried.scatter_(2, shown.unsqueeze(-1), torch.cat([strength, strength], 1).unsqueeze(-1))
        columns = matmul(carried.mT, gradient, "float32").mT
        for part in network.label_slices():
            target[:, :, part] = columns
