"""Labels inside images: overlay of a label, the neutral overlay, and the choice of wrong labels.

The first ten pixels of each channel carry the label (Hinton 2022, arXiv 2212.13345, section 3.3): all are set to 0
and the label's own to `overlay_value`. A neutral input has all ten at `neutral_value`.
"""

import torch
from torch import Tensor

from ff.settings import CLASS_COUNT


def label_offsets(input_size: int, channels: int) -> list[int]:
    """Index of the first label pixel of each channel: [0], or [0, 1024, 2048] for 3 x 32 x 32."""
    return [channel * (input_size // channels) for channel in range(channels)]


def clear_label_pixels(pixels: Tensor, channels: int) -> Tensor:
    """Set the label pixels of `pixels` [..., D] to 0, in place."""
    for offset in label_offsets(pixels.shape[-1], channels):
        pixels[..., offset : offset + CLASS_COUNT] = 0
    return pixels


def overlay(pixels: Tensor, labels: Tensor, channels: int, value: float) -> Tensor:
    """A copy of `pixels` [..., D] that carries `labels` [...] (int64)."""
    labelled = clear_label_pixels(pixels.clone(), channels)
    for offset in label_offsets(pixels.shape[-1], channels):
        labelled.scatter_(-1, (labels + offset).unsqueeze(-1), value)
    return labelled


def neutral_overlay(pixels: Tensor, channels: int, value: float) -> Tensor:
    """A copy of `pixels` [..., D] whose label pixels are all `value`."""
    neutral = pixels.clone()
    for offset in label_offsets(pixels.shape[-1], channels):
        neutral[..., offset : offset + CLASS_COUNT] = value
    return neutral


def uniform_wrong_labels(labels: Tensor, shift: Tensor) -> Tensor:
    """A wrong label for each of `labels`: `shift` is drawn evenly from 1..9, so the true label never comes out."""
    return (labels + shift) % CLASS_COUNT


def hard_wrong_labels(goodness: Tensor, labels: Tensor, gumbel: Tensor, hardness: float = 1.0) -> Tensor:
    """A wrong label drawn from the softmax of hardness x `goodness` [..., 10], over the wrong ones of `labels` [...].

    Adding Gumbel noise and taking the largest is a draw from the softmax (Gumbel-max); `gumbel` [..., 10].
    """
    scores = (goodness * hardness + gumbel).scatter_(-1, labels.unsqueeze(-1), -torch.inf)
    return scores.argmax(-1)
