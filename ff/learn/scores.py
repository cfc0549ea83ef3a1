"""What trained networks answer, by every readout at every depth, and what the answers are worth."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ff.data.images import Images
from ff.learn.network import Network
from ff.learn.readouts import Readout


class Predictions(NamedTuple):
    """What S networks say about n images: predicted classes [S, n, L] of each readout by depth, with the labels
    [S, n]."""

    classes: Mapping[str, Tensor]
    labels: Tensor


def blocks(images: Images, rows: Tensor | None, seeds: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Pixels [S, B, D], their squares [S, B] and labels [S, B] of `rows` [S, n] (None: all images), B at
    most the batch size. Images and labels always come from one index."""
    count = len(images.labels) if rows is None else rows.shape[1]
    for start in range(0, count, batch_size):
        part = slice(start, start + batch_size)
        if rows is None:
            block = images.block(part, seeds)
            yield block.pixels, block.square, block.labels
        else:
            yield images.rows(rows[:, part].to(images.pixels.device))


def predict(
    network: Network, images: Images, readouts: Sequence[Readout], rows: Tensor | None = None, batch_size: int = 512
) -> Predictions:
    """Predict `rows` [S, n] of `images` (None: all of them) by each of `readouts`, at every depth."""
    classes: dict[str, list[Tensor]] = {readout.name: [] for readout in readouts}
    labels = []
    for pixels, square, truth in blocks(images, rows, len(network.heads), batch_size):
        for readout in readouts:
            classes[readout.name].append(readout.scores(network, pixels, square).argmax(-1))
        labels.append(truth)
    return Predictions({name: torch.cat(parts, 1) for name, parts in classes.items()}, torch.cat(labels, 1))


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts [C, C] (int64): row = true class, column = predicted class; `predicted` and `labels` [n]."""
    pairs = labels.cpu().long() * classes + predicted.cpu().long()
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def scores(counts: Tensor) -> dict[str, Any]:
    """n, accuracy, macro-F1 and error of a confusion matrix; None each where n is 0.

    Macro-F1 is the mean of the F1 of the classes that occur, as truth or prediction (as scikit-learn does).
    """
    n = int(counts.sum())
    if n == 0:
        return {"n": 0, "accuracy": None, "macro_f1": None, "error": None}
    right = counts.diagonal().double()
    occurring = (counts.sum(0) + counts.sum(1)).double()
    accuracy = float(right.sum()) / n
    f1 = (2 * right / occurring)[occurring > 0]
    return {"n": n, "accuracy": accuracy, "macro_f1": float(f1.mean()), "error": 1 - accuracy}
