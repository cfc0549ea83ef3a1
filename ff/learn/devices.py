"""The device that the settings ask for."""

import torch

from ff.errors import FFError
from ff.settings import ExecutionConfig


def choose_device(execution: ExecutionConfig) -> torch.device:
    """The device that the settings ask for; FFError when it is not there, or cannot do what they ask of it."""
    device = _wanted_device(execution)
    if execution.cuda_graph and device.type != "cuda":
        raise FFError(f"cuda_graph needs a CUDA device, and this run is on {device}: leave cuda_graph off")
    return device


def _wanted_device(execution: ExecutionConfig) -> torch.device:
    wanted = "cpu" if execution.no_cuda else execution.device
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise FFError(f"unknown device {wanted!r}; use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise FFError(f"device {wanted!r} is not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise FFError(f"device {wanted!r} is not there: torch {torch.__version__} sees no such CUDA device; use cpu")
    return device
