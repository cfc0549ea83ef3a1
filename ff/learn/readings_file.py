"""readings.safetensors: what a run's network said of all images when its training ended, so that nothing asks it again.

Arrays of n images of a split, for L layers with widths W_l and C classes:

    {split}/{readout}/labels     uint8 [n]
    {split}/{readout}/answers    uint8 [n, L]       the class that the readout answers at each depth
    {split}/{readout}/largest    float32 [n, L]     by heads: the largest logit,
    {split}/{readout}/sureness   float32 [n, L]     and its softmax probability
    {split}/logits               float [n, L, C]    val and test, by heads
    {split}/active/{l}           int32 [W_l]        val and test: of how many neutral inputs a unit is above 0
    test/{inputs}                float [n, L]       goodness of each layer on neutral, positive and negative inputs
    test/wrong                   uint8 [n]          the labels of the negative ones

The header carries the model's stamp, the images' hash and the arrays' names in the order of splits and readouts. The
file may be deleted: it is made again when something asks for it. Reading it takes no torch.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ff.errors import FFError
from ff.files import read_about, write_arrays
from ff.stamps import COLUMN, model_of

NAME = "readings.safetensors"
FORMAT = 2
"""Raised when the arrays change: what an earlier version kept is then made again."""
INPUTS = ("neutral", "positive", "negative")


class Answers(NamedTuple):
    """What a readout answered for n images of a split."""

    labels: np.ndarray  # uint8 [n]
    classes: np.ndarray  # uint8 [n, L]
    largest: np.ndarray | None  # [n, L], the largest logit; None where scores are no logits
    sureness: np.ndarray | None  # [n, L], its softmax probability


class Kept(NamedTuple):
    """The content of the file."""

    answers: Mapping[tuple[str, str], Answers]  # by split and readout
    logits: Mapping[str, np.ndarray]  # [n, L, C], by split
    goodness: Mapping[str, np.ndarray]  # [n, L] of test images, by INPUTS; without a readout by goodness neutral alone
    wrong: np.ndarray | None  # [n], the labels of the negative inputs
    active: Mapping[str, Sequence[np.ndarray]]  # L x [W_l], by split


def save(folder: str | os.PathLike, kept: Kept, model: str, images: str) -> None:
    """Write the file of the run whose model's stamp is `model`, asked about images with the hash `images`."""
    arrays: dict[str, np.ndarray] = {}
    for (split, name), answers in kept.answers.items():
        arrays[f"{split}/{name}/labels"] = answers.labels
        arrays[f"{split}/{name}/answers"] = answers.classes
        if answers.largest is not None and answers.sureness is not None:
            arrays[f"{split}/{name}/largest"] = answers.largest
            arrays[f"{split}/{name}/sureness"] = answers.sureness
    arrays |= {f"{split}/logits": logits for split, logits in kept.logits.items()}
    arrays |= {f"test/{inputs}": goodness for inputs, goodness in kept.goodness.items()}
    if kept.wrong is not None:
        arrays["test/wrong"] = kept.wrong
    for split, counts in kept.active.items():
        arrays |= {f"{split}/active/{layer}": count for layer, count in enumerate(counts, 1)}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    about = {COLUMN: model, "images": images, "format": FORMAT, "arrays": list(arrays)}
    write_arrays(Path(folder) / NAME, arrays, about)


def load(folder: str | os.PathLike, images: str) -> Kept | None:
    """What `save` wrote of the model in `folder`; None where it is missing, damaged, of another format, model or
    images."""
    from safetensors import SafetensorError, safe_open

    path = Path(folder) / NAME
    answers, logits, goodness = {}, {}, {}
    active: dict[str, list[np.ndarray]] = {}
    try:
        about = read_about(path)
        if (about[COLUMN], about["images"], about["format"]) != (model_of(folder), images, FORMAT):
            return None
        with safe_open(path, framework="numpy") as file:
            # The file itself has them by size and name.
            arrays = {name: file.get_tensor(name) for name in about["arrays"]}
        for name, array in arrays.items():
            match name.split("/"):
                case split, readout, "labels":
                    place = f"{split}/{readout}"
                    found = (arrays.get(f"{place}/{part}") for part in ("largest", "sureness"))
                    answers[split, readout] = Answers(array, arrays[f"{place}/answers"], *found)
                case split, "logits":
                    logits[split] = array
                case "test", inputs if inputs in INPUTS:
                    goodness[inputs] = array
                case split, "active", layer:
                    if int(layer) != len(active.setdefault(split, [])) + 1:
                        return None
                    active[split].append(array)
        layers = goodness["neutral"].shape[1]
        if any(len(counts) != layers for counts in active.values()):
            return None
    except (FFError, SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
    return Kept(answers, logits, goodness, arrays.get("test/wrong"), active)
