"""Forward-Forward as a textbook would write it: full images with their labels in them, one network, autograd.

Nothing here uses the engine's shortcuts; it is what they are held against. All tensors are of one network: images
[B, D], labels [B].
"""

from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ff.data.images import Part
from ff.data.registry import DATASETS
from ff.learn.network import Network
from ff.settings import RunConfig


def standardised(part: Part, dataset: str) -> Tensor:
    """(value / 255 - mean) / std of each channel, as flat float64 images [N, D]."""
    facts = DATASETS[dataset]
    images = part.images.double() / 255
    for channel in range(facts.shape[0]):
        images[:, channel] = (images[:, channel] - facts.mean[channel]) / facts.std[channel]
    return images.flatten(1)


def with_label(images: Tensor, labels: Tensor, channels: int, value: float) -> Tensor:
    """Images whose first ten pixels of each channel are 0, but `value` at the label."""
    labelled = images.clone().view(len(images), channels, -1)
    for image, label in zip(labelled, labels.tolist(), strict=True):
        for channel in range(channels):
            for pixel in range(10):
                image[channel, pixel] = value if pixel == label else 0.0
    return labelled.view(len(images), -1)


def neutral(images: Tensor, channels: int, value: float) -> Tensor:
    """Images whose first ten pixels of each channel are `value`."""
    changed = images.clone().view(len(images), channels, -1)
    changed[:, :, :10] = value
    return changed.view(len(images), -1)


def normalised(x: Tensor, normalisation: str) -> Tensor:
    """Each row scaled to mean square 1 (rms) or length 1 (unit)."""
    if normalisation == "rms":
        return x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-8)
    return x / (torch.sqrt((x**2).sum(-1, keepdim=True)) + 1e-4)


def layer(x: Tensor, weight: Tensor, bias: Tensor, normalisation: str) -> Tensor:
    """ReLU(W norm(x) + b)."""
    return torch.relu(normalised(x, normalisation) @ weight.T + bias)


def goodness(h: Tensor) -> Tensor:
    """Mean of squares over the units: [B]."""
    return (h * h).mean(-1)


def forward(x: Tensor, weights: list[Tensor], biases: list[Tensor], normalisation: str) -> list[Tensor]:
    """Outputs of all layers."""
    outputs = []
    for weight, bias in zip(weights, biases, strict=True):
        x = layer(x, weight, bias, normalisation)
        outputs.append(x)
    return outputs


def outputs_of(network: Network, x: Tensor) -> list[Tensor]:
    """Outputs [1, B, W_l] of all layers of a network (S = 1) for images [B, D] with their label in them."""
    weights, biases, _, _ = parameters_of(network, 0)
    return [h.detach()[None] for h in forward(x, weights, biases, network.normalisation)]


def layer_loss(positive: Tensor, negative: Tensor, settings: Any) -> Tensor:
    """The goodness loss of one layer, from its outputs for positives and negatives."""
    good, bad = goodness(positive), goodness(negative)
    if settings.loss == "symba":
        return torch.log1p(torch.exp(-settings.alpha * (good - bad))).mean()
    terms = [torch.log1p(torch.exp(settings.threshold - good)), torch.log1p(torch.exp(bad - settings.threshold))]
    return torch.cat(terms).mean()


def parameters_of(network: Network, seed: int) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    """Copies of one network's weights, biases, heads and head biases, for autograd."""

    def copy(tensor: Tensor) -> Tensor:
        return tensor[seed].detach().clone().requires_grad_()

    return (
        [copy(weight) for weight in network.weights],
        [copy(bias) for bias in network.biases],
        copy(network.heads),
        copy(network.head_biases),
    )


def head_logits(outputs: list[Tensor], heads: Tensor, head_biases: Tensor, depth: int, normalisation: str) -> Tensor:
    """Logits [B, 10] of head `depth`, which sees the normalised outputs of layers 1..depth."""
    seen = torch.cat([normalised(h, normalisation) for h in outputs[:depth]], -1)
    return seen @ heads[depth - 1, :, : seen.shape[1]].T + head_biases[depth - 1]


def forward_forward_gradients(
    images: Tensor, labels: Tensor, wrong: Tensor, channels: int, network: Network, seed: int, settings: Any
) -> tuple[list[float], list[Tensor]]:
    """Losses of the layers and the gradient of each weight and bias, every layer on detached inputs."""
    weights, biases, _, _ = parameters_of(network, seed)
    positive = with_label(images, labels, channels, settings.overlay_value)
    negative = with_label(images, wrong, channels, settings.overlay_value)
    losses = []
    for weight, bias in zip(weights, biases, strict=True):
        positive = layer(positive.detach(), weight, bias, settings.normalisation)
        negative = layer(negative.detach(), weight, bias, settings.normalisation)
        losses.append(layer_loss(positive, negative, settings))
    sum(losses).backward()
    return [loss.item() for loss in losses], [p.grad for p in (*weights, *biases)]


def head_gradients(
    images: Tensor, labels: Tensor, channels: int, network: Network, seed: int, settings: Any
) -> tuple[list[float], list[Tensor]]:
    """Losses of all heads on frozen layers, and the gradients of heads and head biases."""
    weights, biases, heads, head_biases = parameters_of(network, seed)
    with torch.no_grad():
        outputs = forward(neutral(images, channels, settings.neutral_value), weights, biases, settings.normalisation)
    losses = [
        cross_entropy(head_logits(outputs, heads, head_biases, depth, settings.normalisation), labels)
        for depth in range(1, len(weights) + 1)
    ]
    sum(losses).backward()
    return [loss.item() for loss in losses], [heads.grad, head_biases.grad]


def backprop_gradients(
    images: Tensor, labels: Tensor, channels: int, network: Network, seed: int, settings: Any
) -> tuple[float, list[Tensor]]:
    """Loss of the last head and its gradients through all layers, of weights, biases, last head and its bias."""
    weights, biases, heads, head_biases = parameters_of(network, seed)
    outputs = forward(neutral(images, channels, settings.neutral_value), weights, biases, settings.normalisation)
    loss = cross_entropy(head_logits(outputs, heads, head_biases, len(weights), settings.normalisation), labels)
    loss.backward()
    return loss.item(), [*(p.grad for p in (*weights, *biases)), heads.grad[-1], head_biases.grad[-1]]


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected|."""
    return ((found - expected).norm() / expected.norm().clamp_min(1e-300)).item()


class PlainRun(NamedTuple):
    """What a plain training gives: a row of history for each epoch, and the parameters at the end."""

    history: list[dict]
    weights: list[Tensor]
    biases: list[Tensor]
    heads: Tensor
    head_biases: Tensor


class PlainTraining:
    """One seed's training, mini-batch by mini-batch, with autograd and torch's Adam.

    `images` [N, D] and `labels` [N] are the whole official training set; `held_out` are its validation rows. Which
    rows stand in which mini-batch, and which wrong labels they get, is given: {(phase, epoch): [(rows, wrong)]}.
    """

    def __init__(
        self, config: RunConfig, network: Network, seed: int, images: Tensor, labels: Tensor, held_out: Tensor
    ):
        self.config, self.settings, self.channels = config, config.settings, network.channels
        self.weights, self.biases, self.heads, self.head_biases = parameters_of(network, seed)
        self.images, self.labels, self.held_out = images, labels, held_out
        self.history: list[dict] = []

    def run(self, batches: dict[tuple[str, int], list[tuple[Tensor, Tensor | None]]]) -> PlainRun:
        """Train all epochs of `batches`, in their order."""
        layers = torch.optim.Adam([*self.weights, *self.biases], lr=1)
        heads = torch.optim.Adam([self.heads, self.head_biases], lr=1)
        step = {"representation": self._layers_step, "softmax": self._heads_step, "backprop": self._whole_step}
        steps = Counter()
        total = Counter()
        for (phase, _), epoch in batches.items():
            total[phase] += len(epoch)
        for (phase, number), epoch in batches.items():
            measured = []
            for rows, wrong in epoch:
                share = 1 - steps[phase] / total[phase] if self.settings.schedule == "linear" else 1
                steps[phase] += 1
                rates = self.settings.learning_rate * share, self.settings.head_learning_rate * share
                for optimiser, rate in zip((layers, heads), rates, strict=True):
                    optimiser.zero_grad()
                    optimiser.param_groups[0]["lr"] = rate
                measured.append(step[phase](self.images[rows], self.labels[rows], wrong))
                if phase != "softmax":
                    layers.step()
                if phase != "representation":
                    heads.step()
            mean = torch.tensor(measured, dtype=torch.float64).mean(0)
            self.history.append(
                {
                    "phase": phase,
                    "epoch": number,
                    "loss": mean[0].mean().item(),
                    "goodness_positive": mean[1].tolist() if phase == "representation" else [],
                    "goodness_negative": mean[2].tolist() if phase == "representation" else [],
                    "validation_accuracy": self.accuracy("goodness" if phase == "representation" else "head"),
                    "learning_rate": rates[phase == "softmax"],
                }
            )
        return PlainRun(self.history, self.weights, self.biases, self.heads, self.head_biases)

    def _forward(self, x: Tensor) -> list[Tensor]:
        return forward(x, self.weights, self.biases, self.settings.normalisation)

    def _layers_step(self, images: Tensor, labels: Tensor, wrong: Tensor) -> list[list[float]]:
        positive = with_label(images, labels, self.channels, self.settings.overlay_value)
        negative = with_label(images, wrong, self.channels, self.settings.overlay_value)
        measured = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            positive = layer(positive.detach(), weight, bias, self.settings.normalisation)
            negative = layer(negative.detach(), weight, bias, self.settings.normalisation)
            loss = layer_loss(positive, negative, self.settings)
            loss.backward()
            measured.append([loss.item(), goodness(positive).mean().item(), goodness(negative).mean().item()])
        return list(zip(*measured, strict=True))

    def _heads_step(self, images: Tensor, labels: Tensor, _: None) -> list[list[float]]:
        with torch.no_grad():
            outputs = self._forward(neutral(images, self.channels, self.settings.neutral_value))
        losses = [cross_entropy(self._logits(outputs, depth), labels) for depth in range(1, len(outputs) + 1)]
        sum(losses).backward()
        return [[loss.item() for loss in losses]]

    def _whole_step(self, images: Tensor, labels: Tensor, _: None) -> list[list[float]]:
        outputs = self._forward(neutral(images, self.channels, self.settings.neutral_value))
        frozen = [h.detach() for h in outputs]
        depth = len(outputs)
        losses = [cross_entropy(self._logits(frozen, k), labels) for k in range(1, depth)]
        losses.append(cross_entropy(self._logits(outputs, depth), labels))
        sum(losses).backward()
        return [[loss.item() for loss in losses]]

    def _logits(self, outputs: list[Tensor], depth: int) -> Tensor:
        return head_logits(outputs, self.heads, self.head_biases, depth, self.settings.normalisation)

    @torch.no_grad()
    def accuracy(self, readout: str) -> float:
        """Share of the held-out images that the whole network gets right by a readout."""
        images, labels = self.images[self.held_out], self.labels[self.held_out]
        if readout == "head":
            outputs = self._forward(neutral(images, self.channels, self.settings.neutral_value))
            scores = self._logits(outputs, len(outputs))
        else:
            columns = []
            for label in range(10):
                under = torch.full_like(labels, label)
                outputs = self._forward(with_label(images, under, self.channels, self.settings.overlay_value))
                columns.append(sum(goodness(h) for h in outputs))
            scores = torch.stack(columns, 1)
        return (scores.argmax(1) == labels).double().mean().item()
