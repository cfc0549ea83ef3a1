"""Runtimes that an exported network can be answered by, on which devices, and why one cannot be used here.

TensorRT is used through ONNX Runtime, whose builds for Jetson have it as a provider: engines are built on the target
when a session is opened and are never shipped. It computes both branches of an `If`, so its exits go by stages.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ff.export.files import FLOAT32, INT8, exits_of
from ff.export.packages import missing_packages
from ff.layout import EXPORT_FOLDER

if TYPE_CHECKING:
    from ff.export.sessions import OnnxNetwork


class Runtime(NamedTuple):
    """Which graphs it takes, its ONNX Runtime provider by kind of device, and whether it skips branches of `If`."""

    number_format: str
    providers: Mapping[str, str]
    skips_branches: bool = True


_ONNXRUNTIME = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
RUNTIMES = {
    "onnxruntime": Runtime(FLOAT32, _ONNXRUNTIME),
    "onnxruntime-int8": Runtime(INT8, _ONNXRUNTIME),
    "tensorrt": Runtime(FLOAT32, {"cuda": "TensorrtExecutionProvider"}, skips_branches=False),
}


def why_missing(name: str, kind: str, bundle: Mapping[str, Any]) -> str | None:
    """Why runtime `name` cannot answer on a device of `kind` (cpu, cuda) by this bundle; None where it can."""
    runtime = RUNTIMES[name]
    if kind not in runtime.providers:
        return f"{name} computes on {' and '.join(runtime.providers)} only"
    if missing := missing_packages():
        return missing
    if runtime.number_format == INT8 and not bundle["int8"]["available"]:
        return f"the bundle has no int8 graphs: {bundle['int8']['reason']}"
    from onnxruntime import get_available_providers

    if runtime.providers[kind] not in get_available_providers():
        return f"this onnxruntime was built without {runtime.providers[kind]}"
    return None


def opened(
    name: str, run_folder: str | os.PathLike, bundle: Mapping[str, Any], kind: str = "cpu", threads: int = 1
) -> "OnnxNetwork":
    """The graphs of a bundle (`open_bundle`) in a runtime, which must be there (`why_missing`)."""
    from ff.export.sessions import OnnxNetwork

    runtime, depth = RUNTIMES[name], len(bundle["macs"]["layers"])
    providers = list(dict.fromkeys((runtime.providers[kind], _ONNXRUNTIME["cpu"])))
    folder = Path(run_folder, EXPORT_FOLDER)
    return OnnxNetwork(folder, depth, runtime.number_format, exits_of(bundle), threads, providers)
