"""A training step: the gradients of one mini-batch, and then the update of every optimiser of the phase.

`eager` launches its kernels one after the other. On a GPU that takes longer than the arithmetic of a small network;
`GraphedStep` records them once as a CUDA graph, and each step then launches the whole graph. Recording follows
PyTorch's notes on CUDA graphs (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs): a few calls on
another stream first, and inputs and outputs in tensors that stay where they are.

A graph has never been run on a device yet: only what surrounds it was tested, with a graph replaced by calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ff.learn.lazy import torch
from ff.learn.rule import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from ff.learn.rule import LearningPhase

Step = Callable[[Batch], "Tensor"]
"""From a mini-batch to what `LearningPhase.gradients` returns. The optimisers' `begin_step` comes before; what is
returned holds until the next call."""

# Calls before the recording, in which libraries make their handles and workspaces; the notes make three.
WARM_UPS = 3


def eager(phase: LearningPhase) -> Step:
    """The step of a phase, kernel by kernel."""

    def step(batch: Batch) -> Tensor:
        measured = phase.gradients(batch)
        for optimiser in phase.optimisers.values():
            optimiser.update()
        return measured

    return step


class _Graph(NamedTuple):
    """A recorded step: the tensors that it reads, what runs it, and the tensor that it fills."""

    batch: Batch
    replay: Callable[[], object]
    measured: Tensor


class GraphedStep:
    """The step of a phase as a CUDA graph, recorded at the first mini-batch, after the phase has begun.

    A mini-batch of another size, the last of an epoch, goes kernel by kernel. One of these serves until the phase is
    begun again, as that may put what it has kept somewhere else.
    """

    def __init__(self, phase: LearningPhase):
        self._phase, self._eager = phase, eager(phase)
        self._graph: _Graph | None = None

    def __call__(self, batch: Batch) -> Tensor:
        graph = self._graph = self._graph or self._record(batch)
        if batch.rows.shape != graph.batch.rows.shape:
            return self._eager(batch)
        for read, given in zip(graph.batch, batch, strict=True):
            if read is not None and given is not None:
                read.copy_(given)
        graph.replay()
        return graph.measured

    def _record(self, batch: Batch) -> _Graph:
        """The graph of mini-batches of this size; the step has not been taken afterwards."""
        batch = Batch._make(None if part is None else part.clone() for part in batch)
        # The calls before the recording train.
        trained = [t for adam in self._phase.optimisers.values() for t in (adam.parameters, adam.mean, adam.square)]
        trained += self._phase.averages.values()
        before = [tensor.clone() for tensor in trained]
        graph = _Graph(batch, *captured(lambda: self._eager(batch), batch.rows.device))
        for tensor, value in zip(trained, before, strict=True):
            tensor.copy_(value)
        return graph


def captured(function: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], object], Tensor]:
    """A CUDA graph of `function`, which has been called a few times: what runs it, and the tensor that it fills."""
    with torch.cuda.device(device):
        stream, other = torch.cuda.current_stream(), torch.cuda.Stream()
        other.wait_stream(stream)
        with torch.cuda.stream(other):
            for _ in range(WARM_UPS):
                function()
        stream.wait_stream(other)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = function()
    return graph.replay, result
