"""The GPUs that jobs may use: how many there are, found without importing torch, and which of them a job takes."""

import fcntl
import importlib.util
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ff.hardware.nvml import visible
from ff.hardware.sources import is_jetson


def usable_gpus() -> list[str]:
    """Names of the GPUs that a process started here could use, as CUDA_VISIBLE_DEVICES takes them.

    There is none where torch is built without CUDA. A Jetson has one, which NVML does not list on early releases.
    """
    if not torch_has_cuda():
        return []
    there = ["0"] if is_jetson() else _nvml_uuids()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if there and chosen and chosen.startswith("MIG-"):
        # Parts of a GPU, which NVML does not list among the GPUs.
        return chosen.split(",")
    return [there[index] for index in visible(there, chosen)]


def torch_has_cuda() -> bool:
    """Whether the installed torch is built for CUDA; True where none is installed, as on a login node."""
    spec = importlib.util.find_spec("torch")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        try:
            text = (Path(folder) / "version.py").read_text()
        except OSError:
            continue
        return re.search(r"^cuda\b.*= *None", text, re.MULTILINE) is None
    return True


def _nvml_uuids() -> list[str]:
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        try:
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            uuids = [pynvml.nvmlDeviceGetUUID(handle) for handle in handles]
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        # No driver, no permission: no GPU that a job could use.
        return []
    return [uuid.decode() if isinstance(uuid, bytes) else uuid for uuid in uuids]


def may_use_gpu(device: str, gpus: Sequence[str]) -> bool:
    """Whether a job with this setting of `device` may use one of the machine's `gpus`."""
    return device.startswith("cuda") or (device == "auto" and bool(gpus))


def jobs_at_once(device: str, gpus: Sequence[str]) -> int:
    """How many jobs with this setting of `device` may use a GPU at once: one for each, so that a job's times and its
    energy are its own."""
    return 1 if device.startswith("cuda:") else max(1, len(gpus))


@contextmanager
def one_gpu(device: str) -> Iterator[None]:
    """While the block runs, this process sees one GPU of several, and no other job of this user takes the same.

    Must come before CUDA is first used. Changes nothing with a `device` that says which (`cuda:1`, `cpu`), where there
    are not several, or where each is taken: then the first is shared.
    """
    gpus = usable_gpus() if device in ("auto", "cuda") else []
    if len(gpus) < 2:
        yield
        return
    for gpu in gpus:
        place = Path(tempfile.gettempdir()) / f"ff-{os.getuid()}-{gpu}.lock"
        handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            continue
        before = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        try:
            yield
        finally:
            os.close(handle)
            if before is None:
                del os.environ["CUDA_VISIBLE_DEVICES"]
            else:
                os.environ["CUDA_VISIBLE_DEVICES"] = before
        return
    yield
