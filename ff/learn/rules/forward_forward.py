"""Forward-Forward: each layer learns by itself to tell images under their own label from images under a wrong one.

Source: Hinton 2022, arXiv 2212.13345. The label lies in the first pixels of the image (section 3.3); a layer
h = ReLU(W norm(x) + b) has the goodness g = mean(h^2). For a positive (true label, g+) and a negative (wrong one, g-):

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
from ff.learn.network import Network, layer_macs, matmul
from ff.learn.optimiser import Layers
from ff.learn.readouts import GOODNESS, HEAD
from ff.learn.rule import LearningPhase
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
class Settings:
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
    schedule: str = setting(
        "linear",
        "learning rate over each phase: down to 0 (linear) or constant",
        choices=("linear", "constant"),
    )
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


def training_macs(layers: Sequence[int]) -> int:
    """The first layer's pixels serve positive and negative: one forward and one weight-gradient product. Every later
    layer does both for both."""
    first, *rest = layer_macs(layers)
    return 2 * first + 4 * sum(rest)


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
    """Forward-Forward on S networks; `images` is the training set."""

    def __init__(self, network: Network, images: Images, config: RunConfig):
        self.network, self.images, self.settings = network, images, config.settings
        self.layers, self.heads = Layers(network), Heads(network, images, config.test_batch_size)
        self.optimisers = {"layers": self.layers.optimiser, "heads": self.heads.optimiser}
        self.negatives = negatives.choice(self.settings.negatives, network.classes, self.settings.hardness)
        representation = LearningPhase(
            name="representation",
            epochs=config.rep_epochs,
            gradients=self.gradients,
            optimisers={"learning_rate": self.layers.optimiser},
            readout=GOODNESS,
            scores=self._goodness,
            draw=self.negatives.draw,
        )
        self.phases = [representation, self.heads.phase(config.softmax_epochs)]

    def gradients(self, rows: Tensor, drawn: Tensor | None) -> Tensor:
        """Fill the layers' gradients for training images `rows` [S, B]; returns loss, g+ and g- as [3, S, L]."""
        network, settings = self.network, self.settings
        pixels, square, labels = self.images.rows(rows)
        batch = rows.shape[1]
        scale = network.label_scale(square).unsqueeze(-1)
        strength = scale * settings.overlay_value
        activation = matmul(pixels, network.weights[0].mT, network.precision).mul_(scale)
        activation += network.biases[0].unsqueeze(1)
        positive, negative, wrong = self._first_layer(activation, strength, labels, drawn)
        inputs, outputs = pixels, torch.cat([positive, negative], 1)
        measured = []
        for index in range(network.depth):
            if index > 0:
                outputs = network.forward_layer(index, inputs)
            goodness = network.goodness(outputs)
            loss = self._loss(goodness[:, :batch], goodness[:, batch:])
            gradient = objectives.activation_gradient(outputs, torch.cat([loss.by_positive, loss.by_negative], 1))
            if index == 0:
                self._first_layer_gradient(gradient, pixels, scale, strength, labels, wrong)
            else:
                self.layers.weight_gradients[index].copy_(matmul(gradient.mT, inputs, network.precision))
            torch.sum(gradient, 1, out=self.layers.bias_gradients[index])
            inputs = network.normalise(outputs, goodness)
            measured += [loss.loss, goodness[:, :batch].mean(1), goodness[:, batch:].mean(1)]
        return torch.stack(measured, 1).unflatten(1, (network.depth, 3)).permute(2, 0, 1)

    def _loss(self, positive: Tensor, negative: Tensor) -> objectives.GoodnessLoss:
        if self.settings.loss == "symba":
            return objectives.symba(positive, negative, self.settings.alpha)
        return objectives.threshold(positive, negative, self.settings.threshold)

    def _first_layer(
        self, activation: Tensor, strength: Tensor, labels: Tensor, drawn: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs [S, B, W_1] of the first layer for positives and negatives, and the wrong labels [S, B]."""
        network = self.network
        assert drawn is not None
        if self.negatives.by_goodness:
            outputs = network.all_labels(activation, strength.squeeze(-1))
            wrong = self.negatives.choose(labels, drawn, network.goodness(outputs))
            return _pick(outputs, labels), _pick(outputs, wrong), wrong
        wrong = self.negatives.choose(labels, drawn)
        columns = network.label_columns()
        positive, negative = (
            torch.addcmul(activation, strength, torch.gather(columns, 1, chosen.unsqueeze(-1).expand_as(activation)))
            for chosen in (labels, wrong)
        )
        return positive.relu_(), negative.relu_(), wrong

    def _first_layer_gradient(
        self, gradient: Tensor, pixels: Tensor, scale: Tensor, strength: Tensor, labels: Tensor, wrong: Tensor
    ) -> None:
        """Positive and negative share their pixels, so one product serves both; label columns get their own share."""
        network, batch = self.network, labels.shape[1]
        shared = (gradient[:, :batch] + gradient[:, batch:]).mul_(scale)
        target = self.layers.weight_gradients[0]
        target.copy_(matmul(shared.mT, pixels, network.precision))
        carried = gradient.new_zeros(len(labels), 2 * batch, network.classes)
        carried.scatter_(2, torch.cat([labels, wrong], 1).unsqueeze(-1), torch.cat([strength, strength], 1))
        columns = torch.bmm(gradient.mT, carried)
        for part in network.label_slices():
            target[:, :, part] = columns

    def _goodness(self, rows: Tensor) -> Tensor:
        """Goodness of each label, summed over the layers, for training images `rows` [S, B]: [S, B, C]."""
        pixels, square, _ = self.images.rows(rows)
        return self.network.goodness_by_label(pixels, square).sum(2)


def _pick(outputs: Tensor, labels: Tensor) -> Tensor:
    """The rows [S, B, W] of outputs [S, B, C, W] that stand under labels [S, B]."""
    seeds, batch, classes, width = outputs.shape
    rows = torch.arange(seeds * batch, device=labels.device) * classes + labels.flatten()
    return outputs.view(-1, width).index_select(0, rows).view(seeds, batch, width)
