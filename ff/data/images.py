"""Images as tensors: as they are stored, and standardised, mini-batch by mini-batch, on a device."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ff.data.labels import clear_label_pixels
from ff.data.registry import Facts

# Images that are standardised at once where the sums of squares of all are taken.
BLOCK = 4096


Augment = Callable[[Tensor, Tensor], Tensor]
"""From stored images uint8 [n, D] and a random number of each [n] to images that differ from epoch to epoch."""


class Part(NamedTuple):
    """One official part as stored: images uint8 [N, C, H, W], labels uint8 [N]."""

    images: Tensor
    labels: Tensor


class Block(NamedTuple):
    """Standardised images for S networks, label pixels set to 0."""

    pixels: Tensor  # [S, B, D]
    square: Tensor  # sum of squares of each image's pixels, [S, B]
    labels: Tensor  # int64 [S, B]


class Images(NamedTuple):
    """Images on a device. They stay bytes, a quarter of their standardised size, until a block of them is asked for."""

    values: Tensor  # uint8 [N, D]
    factor: Tensor  # [D] standardised = value * factor - shift; both are 0 for label pixels
    shift: Tensor  # [D]
    square: Tensor  # sum of squares of each image's standardised pixels, [N]
    labels: Tensor  # int64 [N]
    channels: int
    augment: Augment | None = None  # of images in training

    @property
    def device(self) -> torch.device:
        """Where they lie."""
        return self.values.device

    def rows(self, rows: Tensor, keys: Tensor | None = None) -> Block:
        """Images `rows` [S, B], a choice of its own for each network; with the `keys` [S, B] that a step has for them
        as `augment` makes them."""
        flat = rows.flatten()
        values, labels = self.values.index_select(0, flat), self.labels[flat].view(rows.shape)
        if self.augment is None or keys is None:
            pixels = self.standardised(values).view(*rows.shape, -1)
            return Block(pixels, self.square[flat].view(rows.shape), labels)
        pixels = self.standardised(self.augment(values, keys.flatten())).view(*rows.shape, -1)
        return Block(pixels, _square(pixels), labels)

    def block(self, part: slice, seeds: int) -> Block:
        """The images of `part`, the same for all `seeds` networks."""
        return Block(
            self.standardised(self.values[part]).expand(seeds, -1, -1),
            self.square[part].expand(seeds, -1),
            self.labels[part].expand(seeds, -1),
        )

    def standardised(self, values: Tensor) -> Tensor:
        """Pixels of stored `values` [..., D]."""
        return values.to(self.factor.dtype).mul_(self.factor).sub_(self.shift)


def standardise(part: Part, facts: Facts, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Images:
    """Images of `part` on `device`, to be standardised to (value / 255 - mean) / std per channel in `dtype`."""
    channels = facts.shape[0]
    values = part.images.to(device).flatten(1)
    mean, std = (torch.tensor(numbers, device=device, dtype=dtype) for numbers in (facts.mean, facts.std))
    each = values.shape[1] // channels
    factor, shift = (numbers.repeat_interleave(each).unsqueeze(0) for numbers in (1 / (255 * std), mean / std))
    for constants in (factor, shift):
        clear_label_pixels(constants, channels, len(facts.classes))
    images = Images(values, factor[0], shift[0], values.new_empty(0), part.labels.to(device).long(), channels)
    return images._replace(square=torch.cat([_square(images.standardised(part)) for part in values.split(BLOCK)]))


def _square(pixels: Tensor) -> Tensor:
    """Sum of squares of each image, [..., D] -> [...]."""
    return torch.linalg.vector_norm(pixels, dim=-1).square_()
