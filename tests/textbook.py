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
from ff.learn.noise import Dropout, Moves, moves
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


def moved(images: Tensor, by: Moves, dataset: str) -> Tensor:
    """Standardised images [B, D], each mirrored or not and then moved down and right; what comes in is black."""
    facts = DATASETS[dataset]
    channels, height, width = facts.shape
    black = torch.tensor([-mean / std for mean, std in zip(facts.mean, facts.std, strict=True)], dtype=images.dtype)
    found = []
    for image, down, right, flipped in zip(images, *(part.tolist() for part in by), strict=True):
        whole = image.view(channels, height, width)
        if flipped:
            whole = whole.flip(2)
        canvas = black.view(-1, 1, 1).expand(channels, height, width).clone()
        for row in range(max(0, down), min(height, height + down)):
            left, end = max(0, right), min(width, width + right)
            canvas[:, row, left:end] = whole[:, row - down, left - right : end - right]
        found.append(canvas.flatten())
    return torch.stack(found)


def normalised(x: Tensor, normalisation: str) -> Tensor:
    """Each row scaled to mean square 1 (rms) or length 1 (unit), or as it is (none)."""
    if normalisation == "none":
        return x
    if normalisation == "rms":
        return x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-8)
    return x / (torch.sqrt((x**2).sum(-1, keepdim=True)) + 1e-4)


def layer(
    x: Tensor, weight: Tensor, bias: Tensor, normalisation: str, kept: Tensor | float = 1.0, slope: float = 0.0
) -> Tensor:
    """ReLU(W norm(x) + b), with a `slope` below 0; `kept` [B, W] are the factors of dropout."""
    z = (normalised(x, normalisation) * kept) @ weight.T + bias
    return torch.where(z > 0, z, slope * z)


def goodness(h: Tensor) -> Tensor:
    """Mean of squares over the units: [B]."""
    return (h * h).mean(-1)


def forward(
    x: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    normalisation: str,
    kept: list[Tensor] | None = None,
    slope: float = 0.0,
) -> list[Tensor]:
    """Outputs of all layers; `kept` are the factors of dropout on what each passes on."""
    outputs = []
    before: list[Tensor | float] = [1.0, *(kept or [1.0] * len(weights))]
    for weight, bias, factors in zip(weights, biases, before[:-1], strict=True):
        x = layer(x, weight, bias, normalisation, factors, slope)
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


def head_logits(
    outputs: list[Tensor],
    heads: Tensor,
    head_biases: Tensor,
    depth: int,
    normalisation: str,
    see: str = "below",
    kept: Tensor | None = None,
) -> Tensor:
    """Logits [B, 10] of head `depth`, which sees the normalised outputs of layers 1..depth, or of that layer alone
    (`see` own); `kept` [B, sum] are the factors of dropout on all that the last head sees."""
    seen = torch.cat([normalised(h, normalisation) for h in outputs[:depth]], -1)
    if kept is not None:
        seen = seen * kept[:, : seen.shape[1]]
    first = 0 if see == "below" else seen.shape[1] - outputs[depth - 1].shape[1]
    return seen[:, first:] @ heads[depth - 1, :, first : seen.shape[1]].T + head_biases[depth - 1]


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


def mono_gradients(
    images: Tensor, labels: Tensor, channels: int, network: Network, seed: int, settings: Any
) -> tuple[list[float], list[Tensor]]:
    """Losses of the layers as classifiers, and the gradients of weights, biases and matrices, each layer on detached
    inputs."""
    weights, biases, heads, _ = parameters_of(network, seed)
    x, start, losses = neutral(images, channels, 0.0), 0, []
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = torch.relu(x.detach() @ weight.T + bias)
        losses.append(cross_entropy(x @ heads[index, :, start : start + len(bias)].T, labels))
        start += len(bias)
    sum(losses).backward()
    return [loss.item() for loss in losses], [*(p.grad for p in (*weights, *biases)), heads.grad]


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
    rows stand in which mini-batch, which wrong labels they get and which key is each one's, is given: {(phase, epoch):
    [(rows, wrong, keys)]}.
    """

    def __init__(
        self, config: RunConfig, network: Network, seed: int, images: Tensor, labels: Tensor, held_out: Tensor
    ):
        self.config, self.settings, self.channels = config, config.settings, network.channels
        self.weights, self.biases, self.heads, self.head_biases = parameters_of(network, seed)
        self.images, self.labels, self.held_out = images, labels, held_out
        self.history: list[dict] = []

    def run(self, batches: dict[tuple[str, int], list[tuple[Tensor, Tensor | None, Tensor | None]]]) -> PlainRun:
        """Train all epochs of `batches`, in their order."""
        decay = self.settings.weight_decay
        layers = torch.optim.AdamW([*self.weights, *self.biases], lr=1, weight_decay=decay)
        heads = torch.optim.AdamW([self.heads, self.head_biases], lr=1, weight_decay=decay)
        step = {"representation": self._layers_step, "softmax": self._heads_step, "backprop": self._whole_step}
        step["mono"] = self._mono_step
        steps = Counter()
        total = Counter()
        for (phase, _), epoch in batches.items():
            total[phase] += len(epoch)
        for (phase, number), epoch in batches.items():
            measured = []
            for rows, wrong, keys in epoch:
                done = steps[phase] / total[phase]
                quarters = sum(done >= share for share in (0.5, 0.75, 0.89, 0.94))
                share = {"linear": 1 - done, "constant": 1, "step": 0.25**quarters}[self.settings.schedule]
                steps[phase] += 1
                rates = self.settings.learning_rate * share, self.settings.head_learning_rate * share
                for optimiser, rate in zip((layers, heads), rates, strict=True):
                    optimiser.zero_grad()
                    optimiser.param_groups[0]["lr"] = rate
                images = self.images[rows]
                if self.settings.shift or self.settings.flip:
                    images = moved(images, moves(keys, self.settings.shift, self.settings.flip), self.config.dataset)
                measured.append(step[phase](images, self.labels[rows], wrong, keys))
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

    def _forward(self, x: Tensor, kept: list[Tensor] | None = None) -> list[Tensor]:
        return forward(x, self.weights, self.biases, self.settings.normalisation, kept)

    def _kept(self, keys: Tensor | None, widths: list[int]) -> list[Tensor] | None:
        """The factors of dropout of images with `keys`, for layers of `widths`."""
        if not self.settings.dropout:
            return None
        dropout = Dropout(self.settings.dropout, keys[None])
        return [dropout.factors(i, self.heads.new_empty(1, len(keys), width))[0] for i, width in enumerate(widths)]

    @property
    def _widths(self) -> list[int]:
        return [len(bias) for bias in self.biases]

    def _layers_step(self, images: Tensor, labels: Tensor, wrong: Tensor, keys: Tensor | None) -> list[list[float]]:
        positive = with_label(images, labels, self.channels, self.settings.overlay_value)
        negative = with_label(images, wrong, self.channels, self.settings.overlay_value)
        measured, before = [], [1.0, *(self._kept(keys, self._widths) or [1.0] * len(self.weights))]
        for weight, bias, kept in zip(self.weights, self.biases, before[:-1], strict=True):
            positive = layer(positive.detach(), weight, bias, self.settings.normalisation, kept)
            negative = layer(negative.detach(), weight, bias, self.settings.normalisation, kept)
            loss = layer_loss(positive, negative, self.settings)
            loss.backward()
            measured.append([loss.item(), goodness(positive).mean().item(), goodness(negative).mean().item()])
        return list(zip(*measured, strict=True))

    def _heads_step(self, images: Tensor, labels: Tensor, _: None, keys: Tensor | None) -> list[list[float]]:
        with torch.no_grad():
            outputs = self._forward(neutral(images, self.channels, self.settings.neutral_value))
        [kept] = self._kept(keys, [sum(self._widths)]) or [None]
        losses = [cross_entropy(self._logits(outputs, depth, kept), labels) for depth in range(1, len(outputs) + 1)]
        sum(losses).backward()
        return [[loss.item() for loss in losses]]

    def _whole_step(self, images: Tensor, labels: Tensor, _: None, keys: Tensor | None) -> list[list[float]]:
        kept = self._kept(keys, self._widths)
        outputs = self._forward(neutral(images, self.channels, self.settings.neutral_value), kept)
        frozen = [h.detach() for h in outputs]
        depth, seen = len(outputs), None if kept is None else torch.cat(kept, 1)
        losses = [cross_entropy(self._logits(frozen, k, seen), labels) for k in range(1, depth)]
        losses.append(cross_entropy(self._logits(outputs, depth, seen), labels))
        sum(losses).backward()
        return [[loss.item() for loss in losses]]

    def _mono_step(self, images: Tensor, labels: Tensor, _: None, keys: Tensor | None) -> list[list[float]]:
        x, start, losses = neutral(images, self.channels, 0.0), 0, []
        before = [1.0, *(self._kept(keys, self._widths) or [1.0] * len(self.weights))]
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.relu((x.detach() * before[index]) @ weight.T + bias)
            losses.append(cross_entropy(x @ self.heads[index, :, start : start + len(bias)].T, labels))
            start += len(bias)
        sum(losses).backward()
        return [[loss.item() for loss in losses]]

    def _logits(self, outputs: list[Tensor], depth: int, kept: Tensor | None = None) -> Tensor:
        see = getattr(self.settings, "heads_see", "below")
        return head_logits(outputs, self.heads, self.head_biases, depth, self.settings.normalisation, see, kept)

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
