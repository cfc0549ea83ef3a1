"""A CUDA graph for machines without CUDA, and tensors without numbers: what tests of the device path run on.

As a graph, a recording holds the operations of one call with the tensors that they read and write and every number that
the host put into them. Running it goes through the same operations on the same tensors and asks no Python code.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "unique_dim"}
"""Operations whose result the host needs before it can go on."""


def tensors_in(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


class Recording(TorchDispatchMode):
    """Keeps each operation with what went in and what came out."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Callable, tuple, dict, list[Tensor | None], str]] = []

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        result = operation(*arguments, **(options or {}))
        known = {tensor.untyped_storage().data_ptr() for tensor in tensors_in((arguments, options))}
        # Views, and tensors that were written in place, are there already when it runs again.
        new = [None if t.untyped_storage().data_ptr() in known else t for t in tensors_in(result)]
        # Which library multiplies is settled when a graph is recorded.
        library = torch.backends.mkldnn.matmul.fp32_precision
        self.operations.append((operation, arguments, options or {}, new, library))
        return result

    def run(self) -> None:
        """Go through the operations again."""
        before = torch.backends.mkldnn.matmul.fp32_precision
        for operation, arguments, options, new, library in self.operations:
            torch.backends.mkldnn.matmul.fp32_precision = library
            for kept, value in zip(new, tensors_in(operation(*arguments, **options)), strict=True):
                if kept is not None:
                    kept.copy_(value)
        torch.backends.mkldnn.matmul.fp32_precision = before


class Graphs:
    """In the place of `ff.learn.step.captured`; `runs` has the number of runs of each graph."""

    def __init__(self) -> None:
        self.runs: list[int] = []

    def __call__(self, function: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], None], Tensor]:
        from ff.learn.step import WARM_UPS

        for _ in range(WARM_UPS):
            function()
        with Recording() as recording:
            result = function()
        # Recording a graph computes nothing.
        result.fill_(torch.nan)
        number = len(self.runs)
        self.runs.append(0)

        def run() -> None:
            self.runs[number] += 1
            recording.run()

        return run, result


class Waits(TorchDispatchMode):
    """Lists the operations for which the host would have to wait for a device, and the updates between them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        name = operation.overloadpacket.__name__
        by_mask = name.startswith("index") and any(t.dtype == torch.bool for t in tensors_in(arguments[1:2]))
        if name in WAITING or by_mask or name.startswith("_fused_adam"):
            self.found.append(name)
        return operation(*arguments, **(options or {}))


class DeviceMemory(TorchDispatchMode):
    """Peak of the bytes of all tensors on torch's device `meta`, which have shapes but no numbers: a large network
    costs nothing there, and whatever asks for a number fails."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        if operation is torch.ops.aten._fused_adamw_.tensor_lr:
            # It works in place, and torch has no shapes for it.
            return None
        result = operation(*arguments, **(options or {}))
        for tensor in tensors_in(result):
            if tensor.is_meta:
                self._seen(tensor.untyped_storage())
        return result

    def _seen(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.live:
            self.live[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self.live.pop(key)
