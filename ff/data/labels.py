"""Labels inside images: which pixels carry them.

The first pixels of each channel, one for each of C classes, carry the label (Hinton 2022, arXiv 2212.13345, section
3.3): all are set to 0 and the label's own to `overlay_value`. A neutral input has all of them at `neutral_value`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def label_slices(input_size: int, channels: int, classes: int) -> list[slice]:
    """The label pixels of each channel: [0:10], or [0:10, 1024:1034, 2048:2058] for 3 x 32 x 32 and ten classes."""
    size = input_size // channels
    return [slice(channel * size, channel * size + classes) for channel in range(channels)]


def clear_label_pixels(pixels: Tensor, channels: int, classes: int) -> Tensor:
    """Set the label pixels of `pixels` [..., D] to 0, in place."""
    for part in label_slices(pixels.shape[-1], channels, classes):
        pixels[..., part] = 0
    return pixels
