"""Ways to answer with a network as it is deployed: cut after a layer, or with its exits, in a runtime on a device.

In batches who leaves is dropped; at batch 1 ONNX Runtime takes the graph that decides itself.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ff.data.registry import Facts
from ff.learn.inference import Exits, Inference
from ff.learn.network import Network
from ff.measure.devices import device_facts, kind_of
from ff.measure.runtimes import TORCH


class Way(NamedTuple):
    """A runtime on a device with a path, `cut` after layer `depth` or `exit`; `answer` gives classes and layers [n] for
    uint8 images [n, C, H, W]."""

    device: str
    runtime: str
    path: str
    depth: int | None
    answer: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def runtime_facts(device: str, runtime: str, bundle: Mapping[str, Any]) -> dict[str, Any]:
    """A runtime on a device, with the reason where it cannot answer there."""
    found = device_facts(device)
    reason = found["reason"]
    if reason is None and runtime != TORCH:
        from ff.export.runtimes import why_missing

        reason = why_missing(runtime, kind_of(device), bundle)
    return {"device": device, "name": found["name"], "runtime": runtime, "available": reason is None, "reason": reason}


def ways_on(
    place: Mapping[str, Any],
    run_folder: Path,
    network: Network,
    facts: Facts,
    bundle: Mapping[str, Any],
    threads: int,
) -> list[Way]:
    """All ways of `place` (`runtime_facts`); none where it cannot answer. `bundle` may be {} for torch alone, which
    then has no exits."""
    if not place["available"]:
        return []
    device, runtime = place["device"], place["runtime"]
    if runtime == TORCH:
        return list(_torch_ways(device, Inference(network.to(device), facts), _exits(bundle)))
    return list(_onnx_ways(device, runtime, run_folder, bundle, threads))


def _exits(bundle: Mapping[str, Any]) -> Exits | None:
    if not bundle:
        return None
    from ff.export.files import exits_of

    return exits_of(bundle)


def _torch_ways(device: str, inference: Inference, exits: Exits | None) -> Iterator[Way]:
    def answer(exits: Exits | None, depth: int | None, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = inference.answer(inference.pixels(torch.from_numpy(images)), exits, depth)
        return found.classes.cpu().numpy(), found.layers.cpu().numpy()

    for depth in range(1, inference.depth + 1):
        yield Way(device, TORCH, "cut", depth, partial(answer, None, depth))
    if exits is not None:
        yield Way(device, TORCH, "exit", None, partial(answer, exits, None))


def _onnx_ways(device: str, runtime: str, folder: Path, bundle: Mapping[str, Any], threads: int) -> Iterator[Way]:
    from ff.export.runtimes import RUNTIMES, opened

    network = opened(runtime, folder, bundle, kind_of(device), threads)

    def cut(depth: int, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return network.answer_cut(images, depth), np.full(len(images), depth)

    def leave(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        alone = len(images) == 1 and RUNTIMES[runtime].skips_branches
        return network.answer_one(images) if alone else network.answer_by_stages(images)

    for depth in range(1, network.depth + 1):
        yield Way(device, runtime, "cut", depth, partial(cut, depth))
    if network.exits is not None:
        yield Way(device, runtime, "exit", None, leave)
