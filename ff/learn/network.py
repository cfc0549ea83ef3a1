"""S Forward-Forward networks at once: parameters, forward pass, goodness, heads, MAC counts.

FF layers share no graph, so S networks (one for each seed) are one batched problem: every tensor has a leading
dimension S, and a single network is S = 1. A layer is h = ReLU(W norm(x) + b), its goodness g = mean(h^2)
(Hinton 2022, arXiv 2212.13345, section 2); some rules have a leaky ReLU. Head k is a softmax layer on the normalised
outputs of layers 1..k.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ff.data.labels import label_slices
from ff.learn.lazy import torch
from ff.learn.products import affine, matmul

if TYPE_CHECKING:
    from torch import Tensor

    from ff.learn.noise import Dropout
    from ff.settings import RunConfig

RMS_EPSILON = 1e-8
# Of the published EdgeFF code: x / (|x| + 1e-4).
UNIT_EPSILON = 1e-4


class LayerOutputs(NamedTuple):
    """Of each layer, L x [S, B, ...]: outputs h [S, B, W_l], their goodness [S, B], norm(h), what of it the next layer
    and the heads see, and the factors by which dropout has made the latter of the former (None without)."""

    outputs: list[Tensor]
    goodness: list[Tensor]
    normalised: list[Tensor]
    passed: list[Tensor]
    dropped: list[Tensor | None]

    @property
    def features(self) -> Tensor:
        """What the heads see: what the layers pass on side by side, [S, B, sum of their widths]."""
        return torch.cat(self.passed, -1)


@dataclass
class Network:
    """Parameters of S networks of L layers with widths W_1..W_L (D inputs, C classes; sum is W_1 + ... + W_L).

    `heads` holds all L heads as one matrix; the entries of head k for layers that it does not see are 0 and stay 0: it
    sees layers 1..k (`heads_see` below) or layer k alone (own). Heads that are not biased have biases of 0.
    """

    weights: list[Tensor]  # L x [S, W_l, W_(l-1)], W_0 = D
    biases: list[Tensor]  # L x [S, W_l]
    heads: Tensor  # [S, L, C, sum]
    head_biases: Tensor  # [S, L, C]
    channels: int
    normalisation: str = "rms"
    overlay_value: float = 10.0
    neutral_value: float = 0.1
    heads_see: str = "below"
    heads_biased: bool = True
    negative_slope: float = 0.0  # of the ReLU, below 0
    precision: str = "float32"

    @property
    def widths(self) -> list[int]:
        """Units of each layer."""
        return [weight.shape[1] for weight in self.weights]

    @property
    def input_size(self) -> int:
        """Values of one input, D."""
        return self.weights[0].shape[2]

    @property
    def depth(self) -> int:
        """Number of layers, L."""
        return len(self.weights)

    @property
    def classes(self) -> int:
        """Number of classes, C."""
        return self.heads.shape[2]

    def parameter_count(self) -> int:
        """Trainable numbers of one network: layers and heads."""
        layers = sum(
            weight[0].numel() + bias[0].numel() for weight, bias in zip(self.weights, self.biases, strict=True)
        )
        return layers + sum(self.classes * (span.stop - span.start + self.heads_biased) for span in self.head_spans())

    def head_spans(self) -> list[slice]:
        """Which of the layers' outputs, side by side, head 1..L sees."""
        return head_spans(self.widths, self.heads_see)

    def layer_spans(self) -> list[slice]:
        """Where layer 1..L stands among the layers' outputs, side by side."""
        return head_spans(self.widths, "own")

    def head_mask(self) -> Tensor:
        """[L, 1, sum]: 1 where a head may look (its own layer and those below)."""
        mask = torch.zeros(self.depth, 1, sum(self.widths), device=self.heads.device, dtype=self.heads.dtype)
        for k, span in enumerate(self.head_spans()):
            mask[k, :, span] = 1
        return mask

    def of_seed(self, index: int) -> Network:
        """The network of one seed as a Network with S = 1 (views, no copy)."""
        return self.with_tensors(lambda tensor: tensor[index : index + 1])

    def to(self, device: torch.device | str) -> Network:
        """The same networks on another device."""
        return self.with_tensors(lambda tensor: tensor.to(device))

    def with_tensors(self, change: Callable[[Tensor], Tensor]) -> Network:
        """A Network of `change(tensor)` for each parameter tensor."""
        return replace(
            self,
            weights=[change(weight) for weight in self.weights],
            biases=[change(bias) for bias in self.biases],
            heads=change(self.heads),
            head_biases=change(self.head_biases),
        )

    # -- forward ----

    def normalise(self, x: Tensor, goodness: Tensor | None = None) -> Tensor:
        """norm(x) of x [..., W]; `goodness` [...] = mean(x^2) saves computing it again."""
        if self.normalisation == "none":
            return x
        if goodness is None:
            goodness = self.goodness(x)
        return x * self.scale(goodness, x.shape[-1]).unsqueeze(-1)

    def scale(self, mean_square: Tensor, width: int) -> Tensor:
        """The factor of norm(x), from mean(x^2) of x with `width` values: 1 / rms, 1 / (length + 1e-4), or 1."""
        if self.normalisation == "none":
            return torch.ones_like(mean_square)
        if self.normalisation == "rms":
            return (mean_square + RMS_EPSILON).rsqrt()
        return 1 / ((mean_square * width).sqrt() + UNIT_EPSILON)

    def forward_layer(self, index: int, x: Tensor) -> Tensor:
        """h = ReLU(W x + b) of layer `index` (from 0) for normalised input x [S, B, W_(l-1)] -> [S, B, W_l]."""
        return self.rectify(affine(x, self.weights[index], self.biases[index], self.precision))

    def rectify(self, z: Tensor) -> Tensor:
        """ReLU(z), leaky where the network's is; in the place of z."""
        return torch.nn.functional.leaky_relu_(z, self.negative_slope) if self.negative_slope else z.relu_()

    @staticmethod
    def goodness(h: Tensor) -> Tensor:
        """g = mean(h^2) over the units: [..., W] -> [...]."""
        return torch.linalg.vector_norm(h, dim=-1).square_().div_(h.shape[-1])

    # -- first layer: what the label adds ----
    # Inputs that differ in the label only share W x over the pixels: the label adds a multiple of one column of W.

    def label_scale(self, pixel_square: Tensor) -> Tensor:
        """Factor of norm(x) for inputs that carry a label; `pixel_square` [...] = sum of squares of their pixels."""
        return self.scale((pixel_square + self.channels * self.overlay_value**2) / self.input_size, self.input_size)

    def neutral_scale(self, pixel_square: Tensor) -> Tensor:
        """Factor of norm(x) for neutral inputs; `pixel_square` as in `label_scale`."""
        neutral_square = self.channels * self.classes * self.neutral_value**2
        return self.scale((pixel_square + neutral_square) / self.input_size, self.input_size)

    def label_columns(self) -> Tensor:
        """[S, C, W_1]: what label c with value 1 adds to the first layer's W x (summed over the channels)."""
        first, *others = (self.weights[0][:, :, part] for part in self.label_slices())
        columns = first.clone()
        for part in others:
            columns += part
        # Sums with broadcast columns are vectorised where these are contiguous.
        return columns.mT.contiguous()

    def label_slices(self) -> list[slice]:
        """Where the label pixels of each channel stand in an input."""
        return label_slices(self.input_size, self.channels, self.classes)

    def all_labels(self, activation: Tensor, strength: Tensor, out: Tensor | None = None) -> Tensor:
        """First layer outputs under each of the C labels: [S, B, W_1] -> [S, B, C, W_1], into `out` where it is given.

        `strength` [S, B] is the value of the label pixel after normalisation.
        """
        columns = self.label_columns().unsqueeze(1)
        # Without `out` the result takes over the strides of the broadcast inputs and later views are copies.
        outputs = activation.new_empty(*activation.shape[:2], self.classes, activation.shape[2]) if out is None else out
        return self.rectify(torch.addcmul(activation.unsqueeze(2), strength[..., None, None], columns, out=outputs))

    # -- readouts ----

    def pixel_product(self, pixels: Tensor) -> Tensor:
        """W_1 x of pixels [S, B, D] (label pixels 0) not yet normalised, [S, B, W_1]: all readouts share it."""
        return matmul(pixels, self.weights[0].mT, self.precision)

    def neutral_pass(self, product: Tensor, pixel_square: Tensor, dropout: Dropout | None = None) -> LayerOutputs:
        """What all layers say of neutral inputs; `product` [S, B, W_1] of `pixel_product`, `pixel_square` [S, B]."""
        scale = self.neutral_scale(pixel_square).unsqueeze(-1)
        neutral_column = self.label_columns().sum(1, keepdim=True) * self.neutral_value
        h = self.rectify((product + neutral_column).mul_(scale).add_(self.biases[0].unsqueeze(1)))
        said = LayerOutputs([], [], [], [], [])
        for index in range(self.depth):
            if index > 0:
                h = self.forward_layer(index, said.passed[-1])
            said.outputs.append(h)
            said.goodness.append(self.goodness(h))
            y = self.normalise(h, said.goodness[-1])
            factors = None if dropout is None else dropout.factors(index, y)
            said.normalised.append(y)
            said.dropped.append(factors)
            said.passed.append(y if factors is None else y * factors)
        return said

    def all_head_logits(self, features: Tensor) -> Tensor:
        """Logits of all heads from the features of all layers [S, B, sum] -> [S, B, L, C], in one product."""
        seeds, depth, classes, width = self.heads.shape
        heads = self.heads.reshape(seeds, depth * classes, width)
        logits = affine(features, heads, self.head_biases.reshape(seeds, -1), self.precision)
        return logits.unflatten(-1, (depth, classes))

    def goodness_by_label(self, product: Tensor, pixel_square: Tensor) -> Tensor:
        """Goodness of each layer under each label, [S, B, L, C]; `product` and `pixel_square` as in `neutral_pass`."""
        scale = self.label_scale(pixel_square)
        activation = (product * scale.unsqueeze(-1)).add_(self.biases[0].unsqueeze(1))
        h = self.all_labels(activation, scale * self.overlay_value).flatten(1, 2)
        goodness = [self.goodness(h)]
        for index in range(1, self.depth):
            h = self.forward_layer(index, h.mul_(self.scale(goodness[-1], h.shape[-1]).unsqueeze(-1)))
            goodness.append(self.goodness(h))
        return torch.stack(goodness, 2).unflatten(1, (-1, self.classes)).transpose(2, 3)


def initial_network(config: RunConfig, seeds: Sequence[int], channels: int) -> Network:
    """Fresh networks on the CPU, one for each of `seeds`.

    Weights and biases are uniform in +-gain/sqrt(inputs), with gain 1, as torch.nn.Linear draws them, unless the rule's
    settings have an `initial_gain`; heads start at 0. A seed's numbers do not depend on its group.
    """
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    weights, biases = [], []
    for inputs, width in itertools.pairwise(config.layers):
        limit = getattr(config.settings, "initial_gain", 1.0) / math.sqrt(inputs)
        drawn = [
            torch.rand(width, inputs + 1, generator=g, dtype=dtype).mul_(2).sub_(1).mul_(limit) for g in generators
        ]
        stacked = torch.stack(drawn)
        weights.append(stacked[:, :, :-1].contiguous())
        biases.append(stacked[:, :, -1].contiguous())
    depth, features = len(weights), sum(config.layers[1:])
    return Network(
        weights=weights,
        biases=biases,
        heads=torch.zeros(len(seeds), depth, config.classes, features, dtype=dtype),
        head_biases=torch.zeros(len(seeds), depth, config.classes, dtype=dtype),
        channels=channels,
        **network_settings(config),
    )


def network_settings(config: RunConfig) -> dict[str, Any]:
    """What a network takes over from its run: the precision, and the recipe's settings that bear a field's name."""
    names = [field.name for field in fields(Network) if hasattr(config.settings, field.name)]
    return {"precision": config.precision} | {name: getattr(config.settings, name) for name in names}


def layer_macs(layers: Sequence[int]) -> list[int]:
    """Multiply-accumulates of each layer's forward pass for one sample; layers = (D, W_1, ..., W_L)."""
    return [inputs * width for inputs, width in itertools.pairwise(layers)]


def head_spans(widths: Sequence[int], see: str) -> list[slice]:
    """Which values of layers with `widths`, side by side, head 1..L sees: of layers 1..k (`below`) or of k (`own`)."""
    ends = list(itertools.accumulate(widths))
    return [slice(end - width if see == "own" else 0, end) for end, width in zip(ends, widths, strict=True)]


def head_macs(layers: Sequence[int], classes: int, see: str = "below") -> list[int]:
    """Multiply-accumulates of head 1..L for one sample."""
    return [classes * (span.stop - span.start) for span in head_spans(layers[1:], see)]
