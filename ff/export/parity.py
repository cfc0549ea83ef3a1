"""Whether an exported network answers as the trained one does, on the whole test split.

The trained network's answers (`Reference`) lie in the bundle as answers.csv, so that a bundle can be checked again
without the checkpoint and without torch's arithmetic. A *margin* says how decided an answer was: by how much the
scores would have had to be others to change it. A float32 graph may differ where the margin is of rounding size, and
nowhere else; an int8 graph differs where it does, and what that costs in accuracy is given with its interval.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ff.data.images import standardise
from ff.data.prepared import Prepared
from ff.errors import FFError
from ff.export.files import ANSWERS, FLOAT32
from ff.export.sessions import Answers, OnnxNetwork
from ff.files import read_csv, write_csv
from ff.learn.inference import Exits, Inference
from ff.learn.network import Network
from ff.learn.readings import read
from ff.learn.readouts import Readout
from ff.statistics import paired_share_difference

TOLERANCE = {"float32": 1e-4, "float64": 1e-4, "tf32": 1e-4, "bfloat16": 0.05}
"""By the precision of the training: the size of rounding, as a share of the largest score. The graphs compute in
float32, so a network that torch multiplies in bfloat16 differs by that format's rounding."""
BATCH_SIZE = 512


class Reference(NamedTuple):
    """What the trained network answers to n images: without exits, and with them (None: no operating point)."""

    labels: np.ndarray  # [n]
    full: Answers
    margins: np.ndarray  # [n]
    left: Answers | None
    left_margins: np.ndarray | None  # [n]


def reference(
    network: Network, readout: Readout, prepared: Prepared, exits: Exits | None
) -> tuple[Reference, np.ndarray]:
    """What the network (S = 1) answers to the test images, and its scores [n, L, C]."""
    inference, part = Inference(network, prepared.facts), prepared.test
    answers: list[list[np.ndarray]] = []
    for images in part.images.split(BATCH_SIZE):
        pixels = inference.pixels(images)
        given = [inference.answer(pixels)] + ([inference.answer(pixels, exits)] if exits else [])
        answers.append([tensor.numpy() for one in given for tensor in one])
    test = standardise(part, prepared.facts, "cpu", network.heads.dtype)
    rows = torch.arange(len(part.labels)).unsqueeze(0)
    whole = readout.scores(read(network, test, rows, [readout], BATCH_SIZE).said[readout.name])[0].float()
    columns = [np.concatenate(parts) for parts in zip(*answers, strict=True)]
    full, left = Answers(*columns[:2]), Answers(*columns[2:]) if exits else None
    margins = torch.stack(list(distances(whole, Exits((None,) * (network.depth - 1)), full.layers)))
    left_margins = torch.stack(list(distances(whole, exits, left.layers))).amin(0).numpy() if exits and left else None
    found = Reference(part.labels.numpy(), full, margins.amin(0).numpy(), left, left_margins)
    return found, whole.numpy()


def distances(scores: torch.Tensor, exits: Exits, layers: np.ndarray) -> Iterator[torch.Tensor]:
    """For scores [n, L, C] of samples that left at `layers` [n]: how far each is from leaving at another layer, for
    each that has a threshold, and from another class; infinite for what was not asked. In units of scores, [n] each."""
    left, never = torch.from_numpy(layers), torch.full((len(scores),), torch.inf)
    two = scores.topk(2, -1).values
    yield (two[:, :, 0] - two[:, :, 1]).gather(1, left.unsqueeze(1) - 1).squeeze(1)
    for layer, threshold in enumerate(exits.thresholds):
        if threshold is None:
            continue
        if exits.temperatures is None:
            distance = (two[:, layer, 0] - threshold).abs()
        else:
            temperature = exits.temperatures[layer]
            log_share = (scores[:, layer] / temperature).log_softmax(-1).amax(-1)
            distance = temperature * (log_share - torch.tensor(threshold).log()).abs()
        yield torch.where(left > layer, distance, never)


# -- answers.csv ----

_COLUMNS = ("model", "row", "label", "answer", "margin", "exit_answer", "exit_layer", "exit_margin")


def write_reference(folder: str | os.PathLike, found: Reference, model: str) -> None:
    """Write answers.csv: a row for each test image."""
    columns = [found.labels, found.full.classes, found.margins]
    if found.left is not None and found.left_margins is not None:
        columns += [found.left.classes, found.left.layers, found.left_margins]
    rows = [
        dict(zip(_COLUMNS, (model, row, *values), strict=False))
        for row, values in enumerate(zip(*(column.tolist() for column in columns), strict=True))
    ]
    write_csv(Path(folder, ANSWERS), _COLUMNS, rows)


def read_reference(folder: str | os.PathLike, depth: int) -> Reference:
    """What answers.csv holds."""
    rows = read_csv(Path(folder, ANSWERS))

    def column(name: str, kind: type = np.int64) -> np.ndarray:
        return np.array([row[name] for row in rows]).astype(kind)

    full = Answers(column("answer"), np.full(len(rows), depth))
    if not rows or rows[0]["exit_answer"] == "":
        return Reference(column("label"), full, column("margin", np.float64), None, None)
    left = Answers(column("exit_answer"), column("exit_layer"))
    return Reference(column("label"), full, column("margin", np.float64), left, column("exit_margin", np.float64))


# -- the comparison ----


def compare(expected: Reference, network: OnnxNetwork, images: np.ndarray, tolerance: float) -> list[dict[str, Any]]:
    """What the graphs of one number format answer to the test images, against what is expected: full graph, stages,
    and where there are exits the graph that decides itself. `tolerance` in units of scores.

    Raises FFError where a float32 graph differs by more than rounding.
    """
    batches = [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)]
    classes = np.concatenate([network.answer(batch) for batch in batches])
    paths = {"full": (expected.full, expected.margins, Answers(classes, expected.full.layers))}
    by_stages = [network.answer_by_stages(batch) for batch in batches]
    aim = (expected.full, expected.margins)
    if expected.left is not None and expected.left_margins is not None:
        aim = (expected.left, expected.left_margins)
        one_by_one = [network.answer_one(images[row : row + 1]) for row in range(len(images))]
        paths["early_exit"] = (*aim, _together(one_by_one))
    paths["stages"] = (*aim, _together(by_stages))
    found = [
        {"path": path, "number_format": network.number_format} | _difference(expected.labels, *compared)
        for path, compared in paths.items()
    ]
    if network.number_format == FLOAT32:
        _check(found, tolerance)
    return found


def _together(parts: Sequence[Answers]) -> Answers:
    return Answers(*map(np.concatenate, zip(*parts, strict=True)))


def _difference(labels: np.ndarray, trained: Answers, margins: np.ndarray, given: Answers) -> dict[str, Any]:
    differ = np.flatnonzero((trained.classes != given.classes) | (trained.layers != given.layers))
    before, after = trained.classes == labels, given.classes == labels
    loss = paired_share_difference(int((before & ~after).sum()), int((after & ~before).sum()), len(labels))
    return {
        "n": len(labels),
        "accuracy_torch": float(before.mean()),
        "accuracy": float(after.mean()),
        "accuracy_loss": {"estimate": loss.estimate, "low": loss.low, "high": loss.high, "method": loss.method},
        "different": [
            {
                "row": int(row),
                "label": int(labels[row]),
                "answer_torch": int(trained.classes[row]),
                "answer": int(given.classes[row]),
                "layer_torch": int(trained.layers[row]),
                "layer": int(given.layers[row]),
                "margin": float(margins[row]),
            }
            for row in differ
        ],
    }


def _check(found: Sequence[dict[str, Any]], tolerance: float) -> None:
    for path in found:
        wrong = [one for one in path["different"] if one["margin"] > tolerance]
        if wrong:
            worst = max(wrong, key=lambda one: one["margin"])
            raise FFError(
                f"the exported network ({path['path']}) answers {len(wrong)} of {path['n']} test images otherwise than "
                f"the trained one, image {worst['row']} by a margin of {worst['margin']:.3g} where {tolerance:.3g} is "
                "rounding; do not use this bundle, and report it with the versions of onnx and onnxruntime"
            )
