"""What answers are worth: accuracy, macro-F1 and error of a confusion matrix."""

from typing import Any

import torch
from torch import Tensor


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
