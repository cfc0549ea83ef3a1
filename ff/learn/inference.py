"""A trained network as it is deployed: one pass on a neutral input, the answer of a softmax head, early exits.

The same code answers with early exits, without, and by a network cut after an earlier layer, so that their times can be
compared: without exits only the last head is computed; with them each consulted head is, and samples that leave are
really dropped from the batch; of a cut network nothing above the cut is.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ff.data.labels import clear_label_pixels
from ff.data.registry import Facts
from ff.errors import FFError
from ff.learn.network import Network
from ff.learn.products import linear


class Exits(NamedTuple):
    """When a sample leaves: at the first layer whose head is surer than the layer's threshold.

    `thresholds` has an entry for layer 1..L-1 (None: nobody leaves there, its head is not even computed); the last
    layer always answers. They hold for the largest logit, or, where `temperatures` (1..L-1) are given, for the largest
    softmax probability of logits / temperature. No label enters.
    """

    thresholds: tuple[float | None, ...]
    temperatures: tuple[float, ...] | None = None

    def leaving(self, layer: int, logits: Tensor, largest: Tensor) -> Tensor:
        """Who leaves at `layer` (from 0): [B] bool, from logits [B, C] and their largest [B]."""
        threshold = self.thresholds[layer]
        if threshold is None:
            return torch.zeros_like(largest, dtype=torch.bool)
        if self.temperatures is None:
            return largest > threshold
        surplus = (logits - largest.unsqueeze(1)) * (1 / self.temperatures[layer])
        return surplus.exp_().sum(1) * threshold < 1


class Answers(NamedTuple):
    """Predicted classes [B] and the layers (from 1) at which the samples left [B]; int64."""

    classes: Tensor
    layers: Tensor


class Inference:
    """One network (S = 1) on its device, with everything prepared that no input changes."""

    def __init__(self, network: Network, facts: Facts):
        if len(network.heads) != 1:
            raise FFError(f"inference takes one network, not {len(network.heads)}; choose one with Network.of_seed")
        self.network, self.depth = network, network.depth
        self.device, self.dtype = network.heads.device, network.heads.dtype
        product = torch.bfloat16 if network.precision == "bfloat16" else self.dtype
        self.weights = [weight[0].to(product) for weight in network.weights]
        self.biases = [bias[0] for bias in network.biases]
        # What the neutral label pixels add to the first layer is the same for every input.
        self.neutral = network.label_columns().sum(1)[0] * network.neutral_value
        # Of each head its parts, by the layers that it sees; the last is always its own.
        self.heads = [
            [part.to(product).contiguous() for part in self._parts(head, span)]
            for head, span in zip(network.heads[0], network.head_spans(), strict=True)
        ]
        self.head_biases = list(network.head_biases[0])
        mean = torch.tensor(facts.mean, device=self.device, dtype=self.dtype)[:, None]
        std = torch.tensor(facts.std, device=self.device, dtype=self.dtype)[:, None]
        self.factor, self.shift = 1 / (255 * std), mean / std

    def _parts(self, head: Tensor, span: slice) -> list[Tensor]:
        return [head[:, part] for part in self.network.layer_spans() if span.start <= part.start < span.stop]

    def pixels(self, images: Tensor) -> Tensor:
        """Standardised pixels [B, D] on the device, label pixels 0, of uint8 images [B, C, H, W] (anywhere)."""
        pixels = images.to(self.device).to(self.dtype).flatten(2)
        flat = pixels.mul_(self.factor).sub_(self.shift).flatten(1)
        return clear_label_pixels(flat, self.network.channels, self.network.classes)

    @torch.inference_mode()
    def answer(self, pixels: Tensor, exits: Exits | None = None, depth: int | None = None) -> Answers:
        """Answer for pixels [B, D] as `pixels` gives them, by the network cut after layer `depth` (None: L).

        Exits None: everybody goes to layer `depth`, and its head is the only one computed.
        """
        depth = self.depth if depth is None else depth
        layers = torch.full((len(pixels),), depth, device=self.device)
        classes = layers  # until the first head has answered
        rows: Tensor | None = None  # of those still here; None: all
        features: list[Tensor] = []
        for layer in range(depth):
            features.append(self.layer(layer, features[-1] if features else pixels))
            last = layer == depth - 1
            if not last and (exits is None or exits.thresholds[layer] is None):
                continue
            logits = self.head(features)
            largest, chosen = logits.max(1)
            if rows is None:
                classes = chosen
            else:
                # Those who stay write their answer again at a later layer.
                classes.index_copy_(0, rows, chosen)
            if last or exits is None:
                break
            leaving = exits.leaving(layer, logits, largest)
            stay = leaving.logical_not().nonzero().squeeze(1)
            if len(stay) == len(chosen):
                continue
            layers[leaving if rows is None else rows[leaving]] = layer + 1
            if len(stay) == 0:
                break
            rows = stay if rows is None else rows[stay]
            features = [feature.index_select(0, stay) for feature in features]
        return Answers(classes, layers)

    @torch.inference_mode()
    def logits(self, pixels: Tensor) -> Tensor:
        """Logits [B, C] of the last head for pixels [B, D]."""
        features: list[Tensor] = []
        for layer in range(self.depth):
            features.append(self.layer(layer, features[-1] if features else pixels))
        return self.head(features)

    def head(self, features: list[Tensor]) -> Tensor:
        """Logits [B, C] of head k from the normalised outputs of layers 1..k, k x [B, W_l]."""
        parts = self.heads[len(features) - 1]
        seen = features[-len(parts) :]
        logits = _affine(seen[0], parts[0], self.head_biases[len(features) - 1], self.network.precision)
        for feature, part in zip(seen[1:], parts[1:], strict=True):
            if part.dtype == logits.dtype:
                logits.addmm_(feature, part.t())
            else:
                logits += linear(feature.to(part.dtype), part, None, self.network.precision)
        return logits

    def layer(self, index: int, x: Tensor) -> Tensor:
        """norm(h) [B, W_l] of layer `index` (from 0), from pixels or from norm(h) of the layer below."""
        network = self.network
        if index == 0:
            square = torch.linalg.vector_norm(x, dim=-1).square_()
            h = _affine(x, self.weights[0], self.neutral, network.precision)
            h = network.rectify(h.mul_(network.neutral_scale(square).unsqueeze(-1)).add_(self.biases[0]))
        else:
            h = network.rectify(_affine(x, self.weights[index], self.biases[index], network.precision))
        if network.normalisation == "none":
            return h
        return h.mul_(network.scale(network.goodness(h), h.shape[-1]).unsqueeze(-1))


def _affine(x: Tensor, weight: Tensor, bias: Tensor, precision: str) -> Tensor:
    """x W^T + bias in x's type; multiplied in the type of `weight`."""
    if weight.dtype == x.dtype:
        return linear(x, weight, bias, precision)
    return linear(x.to(weight.dtype), weight, None, precision).to(x.dtype).add_(bias)
