"""Whether two devices say the same: variance/agreement.json."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ff.data.prepared import Prepared
from ff.errors import FFError
from ff.files import write_json
from ff.layout import MEASURE_FOLDER, file_stem
from ff.learn import checkpoint
from ff.learn.inference import Inference
from ff.learn.network import Network
from ff.measure.devices import why_missing
from ff.stamps import identify

SCHEMA = 1


def compare(first: Tensor, second: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Do two devices say the same? Logits [n, C] of both for the same images.

    A margin is the largest logit less the second largest: a sample that differs by a margin of rounding size was
    undecided, one with a large margin shows a fault.
    """
    first, second = first.double(), second.double()
    n = len(first)
    differing = (first.argmax(-1) != second.argmax(-1)).nonzero().squeeze(1)
    margins = [
        values.topk(2, -1).values.diff(dim=-1).neg().squeeze(-1)[differing].tolist() for values in (first, second)
    ]
    return {
        "n": n,
        "same_predictions_share": 1 - len(differing) / n if n else None,
        "max_logit_difference": float((first - second).abs().max()) if n else None,
        "differing": [
            {"index": index, f"margin_{names[0]}": a, f"margin_{names[1]}": b}
            for index, a, b in zip(differing.tolist(), *margins, strict=True)
        ],
    }


def last_head_logits(network: Network, prepared: Prepared, device: str, batch_size: int) -> Tensor:
    """Logits [n, C] of the last head for all test images, computed on `device`."""
    inference = Inference(network.to(device), prepared.facts)
    parts = [inference.logits(inference.pixels(images)).cpu() for images in prepared.test.images.split(batch_size)]
    return torch.cat(parts) if parts else torch.empty(0, network.classes)


def run_agreement(
    run_folder: str | os.PathLike,
    prepared: Prepared,
    devices: Sequence[str] = ("cpu", "cuda"),
    batch_size: int = 512,
) -> None:
    """Write variance/agreement.json of the run in `run_folder`: the first two devices' answers on the test images.

    With one device, or where one is not there, the file says why nothing was compared. Raises FFError for a device
    that is to be compared with itself.
    """
    folder = Path(run_folder)
    network, meta = checkpoint.load(folder / "model.safetensors", "cpu")
    config = checkpoint.config(meta)
    checkpoint.check_data(config, prepared)
    devices = list(devices[:2])
    if len(set(devices)) < len(devices):
        raise FFError(f"{devices[0]} cannot be compared with itself; name two devices")
    reasons = [f"{name}: {reason}" for name in devices if (reason := why_missing(name)) is not None]
    if len(devices) < 2:
        reasons = [f"only {devices[0]} was asked for"]
    if reasons:
        result: dict[str, Any] = {
            "n": None,
            "same_predictions_share": None,
            "max_logit_difference": None,
            "differing": [],
        }
    else:
        first, second = (last_head_logits(network, prepared, name, batch_size) for name in devices)
        result = compare(first, second, [file_stem(name) for name in devices])
    head = {"schema": SCHEMA, "run": identify(config, meta["model"]), "devices": list(devices)}
    head |= {"available": not reasons, "reason": "; ".join(reasons) or None}
    write_json(folder / MEASURE_FOLDER / "agreement.json", head | result)
