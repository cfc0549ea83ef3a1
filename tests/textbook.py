"""Forward-Forward as a textbook would write it: full images with their labels in them, one network, autograd.

Nothing here uses the engine's shortcuts; it is what they are held against. All tensors are of one network: images
[B, D], labels [B].
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ff.config import RecipeSettings
from ff.datasets import FACTS, Part
from ff.network import Network


def standardised(part: Part, dataset: str) -> Tensor:
    """(value / 255 - mean) / std of each channel, as flat float64 images [N, D]."""
    facts = FACTS[dataset]
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


def layer_loss(positive: Tensor, negative: Tensor, settings: RecipeSettings) -> Tensor:
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
    images: Tensor, labels: Tensor, wrong: Tensor, channels: int, network: Network, seed: int, settings: RecipeSettings
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
    images: Tensor, labels: Tensor, channels: int, network: Network, seed: int, settings: RecipeSettings
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
    images: Tensor, labels: Tensor, channels: int, network: Network, seed: int, settings: RecipeSettings
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
