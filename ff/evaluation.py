"""Scores of a trained network: predictions of both readouts at every depth, and what they are worth."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ff.config import CLASS_COUNT
from ff.datasets import Images
from ff.network import Network


class Predictions(NamedTuple):
    """What S networks say about n images: predicted classes [S, n, L] by depth, with the labels [S, n]."""

    head: Tensor
    goodness: Tensor | None
    labels: Tensor


def blocks(images: Images, rows: Tensor | None, seeds: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Pixels [S, B, D], their squares [S, B] and labels [S, B] of `rows` [S, n] (None: all images), B at most the
    batch size. Images and labels always come from one index."""
    count = len(images.labels) if rows is None else rows.shape[1]
    for start in range(0, count, batch_size):
        part = slice(start, start + batch_size)
        if rows is None:
            block = images.block(part, seeds)
            yield block.pixels, block.square, block.labels
        else:
            yield images.rows(rows[:, part].to(images.pixels.device))


def predict(
    network: Network, images: Images, rows: Tensor | None = None, batch_size: int = 512, goodness: bool = True
) -> Predictions:
    """Predict `rows` [S, n] of `images` (None: all of them) by the head readout and, if asked, by goodness.

    Head: one pass on neutral inputs, the class with the largest logit of head k. Goodness: one pass for each of
    ten labels, the label whose goodness summed over layers 1..k is largest.
    """
    heads, by_goodness, labels = [], [], []
    for pixels, square, truth in blocks(images, rows, len(network.heads), batch_size):
        features = network.features(network.neutral_outputs(pixels, square))
        heads.append(network.all_head_logits(features).argmax(-1))
        if goodness:
            by_goodness.append(network.goodness_by_label(pixels, square).cumsum(2).argmax(-1))
        labels.append(truth)
    return Predictions(torch.cat(heads, 1), torch.cat(by_goodness, 1) if goodness else None, torch.cat(labels, 1))


def confusion(predicted: Tensor, labels: Tensor) -> Tensor:
    """Counts [10, 10] (int64): row = true class, column = predicted class; `predicted` and `labels` [n]."""
    pairs = labels.cpu().long() * CLASS_COUNT + predicted.cpu().long()
    return torch.bincount(pairs, minlength=CLASS_COUNT**2).view(CLASS_COUNT, CLASS_COUNT)


def scores(counts: Tensor) -> dict[str, Any]:
    """n, accuracy, macro-F1 and error of a confusion matrix; None each where n is 0.

    Macro-F1 is the mean of the F1 of the classes that occur, as a truth or as a prediction (as scikit-learn does).
    """
    n = int(counts.sum())
    if n == 0:
        return {"n": 0, "accuracy": None, "macro_f1": None, "error": None}
    right = counts.diagonal().double()
    occurring = (counts.sum(0) + counts.sum(1)).double()
    accuracy = float(right.sum()) / n
    f1 = (2 * right / occurring)[occurring > 0]
    return {"n": n, "accuracy": accuracy, "macro_f1": float(f1.mean()), "error": 1 - accuracy}
