"""Exported graphs at work in ONNX Runtime."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from ff.export.files import graph_file
from ff.learn.inference import Exits

CPU = ("CPUExecutionProvider",)


class Answers(NamedTuple):
    """Classes [n] and the layers (from 1) at which the samples left [n]; int64."""

    classes: np.ndarray
    layers: np.ndarray


class OnnxNetwork:
    """The graphs of one number format in a folder, opened as they are used, with `threads` CPU threads.

    `exits`: when a sample leaves on its way through the stages. Images are uint8 [n, C, H, W].
    """

    def __init__(
        self,
        folder: str | Path,
        depth: int,
        number_format: str = "float32",
        exits: Exits | None = None,
        threads: int = 1,
        providers: Sequence[str] = CPU,
    ):
        self.folder, self.depth, self.number_format, self.exits = Path(folder), depth, number_format, exits
        self._threads, self.providers = threads, list(providers)
        self._cuts: dict[int, Any] = {}

    def _open(self, graph: str) -> Any:
        return open_session(self.folder / graph_file(graph, self.number_format), self._threads, self.providers)

    @cached_property
    def full(self) -> Any:
        """The session of the full graph."""
        return self._open("full")

    def _cut(self, depth: int) -> Any:
        if depth not in self._cuts:
            import onnx
            from onnx.utils import Extractor

            whole = onnx.load(self.folder / graph_file("full", self.number_format))
            cut = Extractor(whole).extract_model(["image"], [f"scores_{depth}"])
            self._cuts[depth] = open_session(cut.SerializeToString(), self._threads, self.providers)
        return self._cuts[depth]

    @cached_property
    def _early_exit(self) -> Any:
        return self._open("early_exit")

    @cached_property
    def _stages(self) -> list[Any]:
        return [self._open(f"stage{layer + 1}") for layer in range(self.depth)]

    def answer(self, images: np.ndarray) -> np.ndarray:
        """Classes [n] at full depth."""
        return self.full.run(["answer"], {"image": images})[0]

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Scores [n, L, C] after each layer."""
        return np.stack(self.full.run([f"scores_{layer + 1}" for layer in range(self.depth)], {"image": images}), 1)

    def answer_cut(self, images: np.ndarray, depth: int) -> np.ndarray:
        """Classes [n] of the network cut after layer `depth`: of the full graph what those scores need, no more."""
        return self._cut(depth).run(None, {"image": images})[0].argmax(1)

    def answer_one(self, image: np.ndarray) -> Answers:
        """Answer to one image [1, C, H, W], by the graph that decides itself."""
        return Answers(*self._early_exit.run(["answer", "layer"], {"image": image}))

    def answer_by_stages(self, images: np.ndarray) -> Answers:
        """Answers of a batch that goes through the network stage by stage; who leaves is dropped from the batch."""
        layers = np.full(len(images), self.depth)
        classes = np.empty(len(images), dtype=np.int64)
        rows: np.ndarray | None = None  # of those still here; None: all
        known = {"image": images}
        for layer, stage in enumerate(self._stages):
            activity, scores = stage.run(None, {one.name: known[one.name] for one in stage.get_inputs()})
            known[stage.get_outputs()[0].name] = activity
            last = layer == self.depth - 1
            if not last and (self.exits is None or self.exits.thresholds[layer] is None):
                continue
            chosen = scores.argmax(1)
            # Those who stay write their answer again at a later layer.
            classes[slice(None) if rows is None else rows] = chosen
            if last or self.exits is None:
                break
            stays = ~leaving(self.exits, layer, scores)
            if stays.all():
                continue
            left = np.flatnonzero(~stays) if rows is None else rows[~stays]
            layers[left] = layer + 1
            rows = np.flatnonzero(stays) if rows is None else rows[stays]
            if len(rows) == 0:
                break
            known = {name: values[stays] for name, values in known.items()}
        return Answers(classes, layers)


def leaving(exits: Exits, layer: int, scores: np.ndarray) -> np.ndarray:
    """Who leaves at `layer` (from 0) by scores [n, C]: [n] bool, what `Exits.leaving` says."""
    threshold, largest = exits.thresholds[layer], scores.max(1)
    if threshold is None:
        return np.zeros(len(scores), dtype=bool)
    if exits.temperatures is None:
        return largest > np.float32(threshold)
    surplus = (scores - largest[:, None]) * np.float32(1 / exits.temperatures[layer])
    return np.exp(surplus).sum(1) * np.float32(threshold) < 1


def open_session(model: str | Path | bytes, threads: int = 1, providers: Sequence[str] = CPU) -> Any:
    """A session for a file, or for the bytes of one, with `threads` CPU threads and no others."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(model, options, providers=list(providers))
