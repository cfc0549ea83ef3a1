"""readings.safetensors: what a run's network said of all images when its training ended, so that nothing asks it again.

Tensors of n images of a split, for L layers with widths W_l and C classes:

    {split}/{readout}/labels     uint8 [n]
    {split}/{readout}/answers    uint8 [n, L]       the class that the readout answers at each depth
    {split}/{readout}/largest    float32 [n, L]     by heads: the largest logit,
    {split}/{readout}/sureness   float32 [n, L]     and its softmax probability
    {split}/{readout}/said       float [n, L, C]    val and test: what each layer or head says of each class
    {split}/neutral              float [n, L]       val and test: goodness of each layer on neutral inputs
    {split}/active/{l}           int32 [W_l]        val and test: of how many neutral inputs a unit is above 0

The header carries the model's stamp, the images' hash and the tensors' names in the order of splits and readouts. The
file may be deleted: it is made again when something asks for it.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ff.errors import FFError
from ff.files import read_about, write_tensors
from ff.learn.readings import Readings
from ff.learn.readouts import Readout
from ff.stamps import COLUMN, model_of

NAME = "readings.safetensors"


class Answers(NamedTuple):
    """What a readout answered for n images of a split."""

    labels: Tensor  # [n]
    classes: Tensor  # [n, L]
    largest: Tensor | None  # [n, L], the largest logit; None where scores are no logits
    sureness: Tensor | None  # [n, L], its softmax probability


class Kept(NamedTuple):
    """The content of the file; by split and readout."""

    answers: dict[tuple[str, str], Answers]
    said: dict[tuple[str, str], Tensor]  # [n, L, C], of val and test
    neutral: dict[str, Tensor]  # [n, L], by split
    active: dict[str, Sequence[Tensor]]  # L x [W_l], by split


def largest_probability(logits: Tensor) -> Tensor:
    """Softmax probability of the most probable class: logits [..., C] -> [...] (float64)."""
    logits = logits.double()
    return (logits.amax(-1) - logits.logsumexp(-1)).exp()


def keep(readings: Mapping[tuple[str, str], Readings], readouts: Sequence[Readout], seed_index: int = 0) -> Kept:
    """What is kept of one seed's network, of all that `ff.learn.readings.read_splits` gave."""
    by_name = {readout.name: readout for readout in readouts}
    kept = Kept({}, {}, {}, {})
    for (split, name), seen in readings.items():
        readout, said = by_name[name], seen.said[name][seed_index]
        scores = readout.scores(said)
        kept.answers[split, name] = Answers(
            seen.labels[seed_index],
            scores.argmax(-1),
            scores.amax(-1).float() if readout.logits else None,
            largest_probability(scores).float() if readout.logits else None,
        )
        if split != "train":
            kept.said[split, name] = said
        if seen.neutral is not None:
            kept.neutral[split] = seen.neutral[seed_index]
            kept.active[split] = [count[seed_index] for count in seen.active]
    return kept


def save(folder: str | os.PathLike, kept: Kept, model: str, images: str) -> None:
    """Write the file of the run whose model's stamp is `model`, asked about images with the hash `images`."""
    tensors: dict[str, Tensor] = {}
    for (split, name), answers in kept.answers.items():
        tensors[f"{split}/{name}/labels"] = answers.labels.to(torch.uint8)
        tensors[f"{split}/{name}/answers"] = answers.classes.to(torch.uint8)
        if answers.largest is not None and answers.sureness is not None:
            tensors[f"{split}/{name}/largest"] = answers.largest
            tensors[f"{split}/{name}/sureness"] = answers.sureness
    for (split, name), said in kept.said.items():
        tensors[f"{split}/{name}/said"] = said
    for split, neutral in kept.neutral.items():
        tensors[f"{split}/neutral"] = neutral
        for layer, count in enumerate(kept.active[split]):
            tensors[f"{split}/active/{layer + 1}"] = count.to(torch.int32)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_tensors(Path(folder) / NAME, tensors, {COLUMN: model, "images": images, "tensors": list(tensors)})


def load(folder: str | os.PathLike, images: str) -> Kept | None:
    """What `save` wrote of the model in `folder`; None where it is missing, damaged, or of another model or images."""
    from safetensors import SafetensorError, safe_open

    path = Path(folder) / NAME
    kept = Kept({}, {}, {}, {})
    try:
        about = read_about(path)
        if (about[COLUMN], about["images"]) != (model_of(folder), images):
            return None
        with safe_open(path, framework="pt") as file:
            # The file itself has them by size and name.
            tensors = {name: file.get_tensor(name) for name in about["tensors"]}
        for name, tensor in tensors.items():
            match name.split("/"):
                case split, readout, "labels":
                    place = f"{split}/{readout}"
                    kept.answers[split, readout] = Answers(
                        tensor.long(),
                        tensors[f"{place}/answers"].long(),
                        tensors.get(f"{place}/largest"),
                        tensors.get(f"{place}/sureness"),
                    )
                case split, readout, "said":
                    kept.said[split, readout] = tensor
                case split, "neutral":
                    kept.neutral[split] = tensor
                    layers = range(1, tensor.shape[1] + 1)
                    kept.active[split] = [tensors[f"{split}/active/{layer}"].long() for layer in layers]
    except (FFError, SafetensorError, OSError, KeyError, TypeError):
        return None
    return kept
