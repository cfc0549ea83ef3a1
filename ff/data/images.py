"""Images as tensors: as they are stored, and standardised on a device."""

from typing import NamedTuple

import torch
from torch import Tensor

from ff.data.labels import clear_label_pixels
from ff.data.registry import Facts


class Part(NamedTuple):
    """One official part as stored: images uint8 [N, C, H, W], labels uint8 [N]."""

    images: Tensor
    labels: Tensor


class Images(NamedTuple):
    """Standardised images on a device, label pixels set to 0."""

    pixels: Tensor  # [N, D], or [1, B, D] as a block for any number of networks
    square: Tensor  # sum of squares of each image's pixels, [N] or [1, B]
    labels: Tensor  # int64, [N] or [1, B]
    channels: int

    def rows(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels [S, B, D], their sums of squares [S, B] and labels [S, B] of images `rows` [S, B]."""
        flat = rows.flatten()
        pixels = self.pixels.index_select(0, flat).view(*rows.shape, -1)
        return pixels, self.square[flat].view(rows.shape), self.labels[flat].view(rows.shape)

    def block(self, part: slice, seeds: int) -> "Images":
        """The images of `part` as a block [S, B, ...] for `seeds` networks (a view)."""
        return Images(
            self.pixels[part].expand(seeds, -1, -1),
            self.square[part].expand(seeds, -1),
            self.labels[part].expand(seeds, -1),
            self.channels,
        )


def standardise(part: Part, facts: Facts, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Images:
    """(value / 255 - mean) / std per channel, on `device`; the images cross to it as bytes."""
    channels = facts.shape[0]
    images = part.images.to(device).to(dtype).flatten(2)
    mean = torch.tensor(facts.mean, device=device, dtype=dtype)[:, None]
    std = torch.tensor(facts.std, device=device, dtype=dtype)[:, None]
    pixels = images.mul_(1 / (255 * std)).sub_(mean / std).flatten(1)
    clear_label_pixels(pixels, channels, len(facts.classes))
    square = torch.linalg.vector_norm(pixels, dim=-1).square_()
    return Images(pixels, square, part.labels.to(device).long(), channels)
