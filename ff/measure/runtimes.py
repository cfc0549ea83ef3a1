"""Exported networks as subjects of a measurement: other runtimes than torch, on the same devices by the same protocol.

They take images as they are stored and give classes in host memory, so their one path is `end_to_end`; full.onnx is
run whole, with the scores of every layer that it has.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator

from ff.data.images import Part
from ff.layout import runtime_stem
from ff.measure.devices import GPU_THREADS, device_facts, kind_of

TORCH = "torch"
MEMORY_SOURCE = "highest resident memory (VmHWM) of a process that answers one batch and has onnxruntime and numpy only"
# File, number of CPU threads, provider, batch size; the images' shape.
_ALONE = """
import re, sys
import numpy, onnxruntime
file, threads, provider, size, *shape = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = int(threads), 1
session = onnxruntime.InferenceSession(file, options, providers=[provider])
session.run(["answer"], {"image": numpy.zeros((int(size), *map(int, shape)), numpy.uint8)})
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


class Place(NamedTuple):
    """An exported network on a device; `reason`: why it cannot be measured there."""

    device: str
    runtime: str
    reason: str | None
    file: Path

    @property
    def stem(self) -> str:
        """What its rows and files are called."""
        return runtime_stem(self.device, self.runtime)


class ExportedNetwork:
    """One exported network in a runtime, answering images of `part` with `threads` CPU threads.

    A `protocol.Subject`.
    """

    paths = ("end_to_end",)

    def __init__(self, place: Place, network: Any, part: Part, threads: int):
        self.name, self.threads = place.stem, threads
        self._place, self._network, self._part = place, network, part
        self._size = 0

    def prepare(self) -> None:
        """The session has its threads since it was opened."""

    def stage(self, path: str, size: int, generator: Generator) -> np.ndarray:
        """Uint8 images [B, C, H, W] in host memory."""
        return self._part.images[torch.randint(len(self._part.labels), (size,), generator=generator)].numpy()

    def run(self, path: str, inputs: np.ndarray) -> np.ndarray:
        """Classes [B] in host memory."""
        self._size = len(inputs)
        return self._network.answer(inputs)

    def synchronise(self) -> None:
        """A session has finished when its call returns."""

    def events(self) -> None:
        """None: a session has no device events."""

    def reset_peak_memory(self) -> None:
        """Nothing: each look at the memory is at a process of its own."""

    def peak_memory_mb(self) -> float | None:
        """Of a process that answers one batch of the size that was run last; None where the kernel does not say."""
        provider = self._network.providers[0]
        values = [self._place.file, self.threads, provider, self._size, *self._part.images.shape[1:]]
        command = [sys.executable, "-I", "-c", _ALONE, *map(str, values)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        with suppress(ValueError):
            return int(done.stdout) / 1024
        return None


def places(
    run_folder: str | os.PathLike, bundle: Mapping[str, Any], devices: Sequence[str], runtimes: Sequence[str]
) -> list[Place]:
    """Every device with every runtime but torch."""
    from ff.export.files import graph_file
    from ff.export.runtimes import RUNTIMES, why_missing
    from ff.layout import EXPORT_FOLDER

    found = []
    for device in devices:
        for name in (name for name in dict.fromkeys(runtimes) if name != TORCH):
            reason = device_facts(device)["reason"] or why_missing(name, kind_of(device), bundle)
            file = Path(run_folder, EXPORT_FOLDER, graph_file("full", RUNTIMES[name].number_format))
            found.append(Place(device, name, reason, file))
    return found


def deploy_exported(
    there: Sequence[Place],
    run_folder: str | os.PathLike,
    bundle: Mapping[str, Any],
    part: Part,
    threads: Sequence[int],
) -> Iterator[ExportedNetwork]:
    """The networks of the places that can be measured: on the CPU once for each thread count, on a GPU once."""
    for place in (place for place in there if place.reason is None):
        from ff.export.runtimes import opened

        kind = kind_of(place.device)
        for count in threads if kind == "cpu" else (GPU_THREADS,):
            yield ExportedNetwork(place, opened(place.runtime, run_folder, bundle, kind, count), part, count)
