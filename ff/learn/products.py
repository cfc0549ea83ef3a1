"""Matrix products of S networks: in which number format, and by which library of PyTorch's, they are multiplied.

On a CPU, PyTorch multiplies float32 by MKL or OpenBLAS, which leaves half of some processors' speed unused. oneDNN,
which is also in it, takes over where `torch.backends.mkldnn.matmul.fp32_precision` is "bf16". That allows it to round
to bfloat16, which it does only on processors with matrix units for that (AMX); on others it multiplies in float32.
So `choose_library` tries it: it is used where its error is float32's and it is faster.

On a GPU, float32 is float32 whatever the environment allows (NVIDIA's containers set TORCH_ALLOW_TF32_CUBLAS_OVERRIDE),
and only the precision tf32 lets cuBLAS round the factors to TF32, 10 bits for the 23 of float32. On a CPU, a network
that was trained in tf32 is multiplied in float32.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ff.errors import FFError
from ff.files import read_json, write_json
from ff.learn.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT, ONEDNN = "default", "onednn"
# Of the largest number of the product; float32 has 24 bits, so 1e-6 is usual, and bfloat16's 8 bits give 3e-3.
LARGEST_ERROR = 1e-5
# Below this many multiply-accumulates, or rows, the call of oneDNN, some 15 us, costs more than it saves.
ONEDNN_FROM_MACS = 2_000_000
ONEDNN_FROM_ROWS = 8
# A library must be faster by more than what two measurements of the same one differ.
LEAST_GAIN = 1.1

_library = DEFAULT


class Check(NamedTuple):
    """What a trial of oneDNN's float32 products found, on one thread."""

    error: float
    """Largest error of a product as a share of its largest number."""
    gain: float
    """Time of the default library's products over that of oneDNN's."""

    @property
    def better(self) -> str:
        """The library to use."""
        return ONEDNN if self.error < LARGEST_ERROR and self.gain > LEAST_GAIN else DEFAULT


def library() -> str:
    """The library that multiplies large float32 matrices on the CPU: `default` or `onednn`."""
    return _library


def choose_library() -> str:
    """From now on multiply by the better library; returns `library()`.

    The error is looked at in each process. The speed is measured once on a machine with one version of PyTorch and
    kept in the user's cache folder.
    """
    global _library
    _allow_tf32(False)
    _library = Check(onednn_error(), _kept("onednn", onednn_gain)).better
    return _library


def bfloat16_gain() -> float:
    """Time of float32 products, by the library chosen, over that of bfloat16 products; measured and kept as the speed
    of the libraries is."""

    def measure() -> float:
        a, b = torch.ones(1, 256, 512), torch.ones(1, 512, 512)
        return _gain(lambda: matmul(a, b, "float32"), lambda: matmul(a, b, "bfloat16"))

    return _kept(f"bfloat16-{_library}", measure)


@cache
def onednn_error() -> float:
    """Largest error of a float32 product of oneDNN's against float64, as a share of its largest number."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(64, 64, generator=generator).sub_(0.5) for _ in range(2))
    exact = a.double() @ b.double()
    _allow_onednn(True)
    found = a @ b
    _allow_onednn(False)
    return float((found.double() - exact).abs().max() / exact.abs().max())


def onednn_gain() -> float:
    """Time of the default library's float32 products over that of oneDNN's."""
    a, b = torch.ones(256, 512), torch.ones(512, 512)

    def by_onednn() -> None:
        with _ONEDNN_ALLOWED:
            torch.mm(a, b)

    return _gain(lambda: torch.mm(a, b), by_onednn)


def _gain(before: Callable[[], object], after: Callable[[], object], repeats: int = 8) -> float:
    """Time of `before` over that of `after`: the fastest of `repeats` each, in turns, as the first makes kernels."""
    fastest = {before: float("inf"), after: float("inf")}
    for _ in range(repeats):
        for call in fastest:
            start = time.perf_counter()
            call()
            fastest[call] = min(fastest[call], time.perf_counter() - start)
    return fastest[before] / fastest[after]


def _kept(name: str, measure: Callable[[], float]) -> float:
    """A gain as the first process found it that asked on such a processor, with this PyTorch and as many threads."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ff"
    path = folder / f"{name}-{_processor()}-torch{torch.__version__}-{torch.get_num_threads()}.json"
    try:
        return float(read_json(path)["gain"])
    except (FFError, ValueError, KeyError, TypeError):
        gain = measure()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"gain": gain})
    except (FFError, OSError):
        # A home folder that cannot be written: the next process measures again.
        pass
    return gain


def _processor() -> str:
    """A hash of what /proc/cpuinfo says of the first processor's kind: a home folder may serve machines of many."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    names = ("vendor_id", "cpu family", "model", "model name", "flags", "CPU implementer", "CPU part", "Features")
    kind = [line for line in lines if line.split(":")[0].strip() in names]
    return hashlib.sha256("\n".join([platform.machine(), *kind]).encode()).hexdigest()[:12]


def _allow_onednn(allowed: bool) -> None:
    torch.backends.mkldnn.matmul.fp32_precision = "bf16" if allowed else "none"  # type: ignore[attr-defined]


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32" if allowed else "ieee"


# -- products ----


def matmul(a: Tensor, b: Tensor, precision: str, out: Tensor | None = None) -> Tensor:
    """a @ b: [S, n, k], [S, k, m] -> [S, n, m], float32 also where `precision` is bfloat16 and both are multiplied in
    it. Both may be given in bfloat16 already (`cast`), so that what takes part in two products is cast once."""
    if precision == "bfloat16":
        product = _multiply(a.bfloat16(), b.bfloat16(), precision)
        return product.float() if out is None else out.copy_(product)
    return _multiply(a, b, precision, out=out)


def affine(x: Tensor, weight: Tensor, bias: Tensor, precision: str) -> Tensor:
    """x W^T + b: [S, B, in], [S, out, in], [S, out] -> [S, B, out]; `x` and `weight` as in `matmul`."""
    if precision == "bfloat16":
        return matmul(x, weight.mT, precision).add_(bias.unsqueeze(1))
    return _multiply(x, weight.mT, precision, plus=bias)


def cast(x: Tensor, precision: str) -> Tensor:
    """x as `matmul` multiplies it."""
    return x.bfloat16() if precision == "bfloat16" else x


def _multiply(a: Tensor, b: Tensor, precision: str, plus: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    with _best_library(a, b.shape[-1], precision):
        if len(a) > 1:
            return torch.bmm(a, b, out=out) if plus is None else torch.baddbmm(plus.unsqueeze(1), a, b, out=out)
        # One network: products of matrices are up to a quarter faster than those of batches of one matrix.
        flat = None if out is None else out[0]
        product = torch.mm(a[0], b[0], out=flat) if plus is None else torch.addmm(plus[0], a[0], b[0], out=flat)
        return product.unsqueeze(0) if out is None else out


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, precision: str) -> Tensor:
    """x W^T + b of one network in the format of its tensors: [B, in], [out, in], [out] -> [B, out]."""
    with _best_library(x, len(weight), precision):
        return torch.nn.functional.linear(x, weight, bias)


class _Allowed:
    """Within it a library may do what `allow` switches."""

    def __init__(self, allow: Callable[[bool], None]):
        self.allow = allow

    def __enter__(self) -> None:
        self.allow(True)

    def __exit__(self, *about: object) -> None:
        self.allow(False)


_ONEDNN_ALLOWED, _TF32_ALLOWED, _AS_ALWAYS = _Allowed(_allow_onednn), _Allowed(_allow_tf32), nullcontext()


def _best_library(a: Tensor, columns: int, precision: str) -> AbstractContextManager[None]:
    """What a product of `a` [..., n, k] with a matrix of so many columns is to be computed in."""
    if precision == "tf32" and not a.is_cpu:
        return _TF32_ALLOWED
    large = a.numel() * columns >= ONEDNN_FROM_MACS and a.shape[-2] >= ONEDNN_FROM_ROWS
    return _ONEDNN_ALLOWED if large and _library == ONEDNN and a.is_cpu else _AS_ALWAYS
