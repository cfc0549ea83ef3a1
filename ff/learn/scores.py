"""What answers are worth: accuracy, macro-F1 and error of a confusion matrix."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def confusion(predicted: ArrayLike, labels: ArrayLike, classes: int) -> np.ndarray:
    """Counts [C, C] (int64): row = true class, column = predicted class; `predicted` and `labels` [n], arrays or
    tensors on the CPU."""
    pairs = np.asarray(labels).astype(np.int64) * classes + np.asarray(predicted).astype(np.int64)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def scores(counts: np.ndarray) -> dict[str, Any]:
    """n, accuracy, macro-F1 and error of a confusion matrix; None each where n is 0.

    Macro-F1 is the mean of the F1 of the classes that occur, as truth or prediction (as scikit-learn does).
    """
    n = int(counts.sum())
    if n == 0:
        return {"n": 0, "accuracy": None, "macro_f1": None, "error": None}
    right = counts.diagonal().astype(float)
    occurring = (counts.sum(0) + counts.sum(1)).astype(float)
    accuracy = float(right.sum()) / n
    f1 = 2 * right[occurring > 0] / occurring[occurring > 0]
    return {"n": n, "accuracy": accuracy, "macro_f1": float(f1.mean()), "error": 1 - accuracy}
