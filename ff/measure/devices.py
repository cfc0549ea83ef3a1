"""The devices of a measurement: a network deployed on one, what this machine has, and the state it is in."""

import os
import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ff import __version__
from ff.data.images import Part
from ff.data.registry import Facts
from ff.errors import FFError
from ff.layout import file_stem
from ff.learn.inference import Inference
from ff.learn.network import Network
from ff.memory import peak_host_mb, reset_peak_host

if TYPE_CHECKING:
    from ff.documents.variance import MachineState

ALL = "all"
GPU_THREADS = 1
"""A GPU is fed by one CPU thread, whatever the thread counts of the CPU."""
STAGED = 4
"""How many batches lie ready where work is repeated, so that it is not always the same images."""
MEMORY_SOURCE = {
    "cuda": "highest sum of tensors on the device (torch.cuda.max_memory_allocated), weights included",
    "cpu": "highest resident memory of the process (VmHWM, reset before), with what it uses of libraries",
}
_MAX_SHARE = 0.9


class DeployedNetwork:
    """One network on a torch device, answering images of `part` with `threads` CPU threads.

    A `protocol.Subject`. `process` is where the kernel keeps the facts of this process (proc(5)).
    """

    paths = ("deploy", "end_to_end")

    def __init__(self, name: str, inference: Inference, part: Part, threads: int, process: str = "/proc/self"):
        self.name, self.inference, self.part, self.threads = name, inference, part, threads
        self.device = inference.device
        self._process, self._reset = process, False

    def prepare(self) -> None:
        """Switch to this subject's number of CPU threads."""
        torch.set_num_threads(self.threads)

    def stage(self, path: str, size: int, generator: torch.Generator) -> Tensor:
        """Pixels [B, D] on the device (deploy), or uint8 images [B, C, H, W] in host memory (end_to_end)."""
        rows = torch.randint(len(self.part.labels), (size,), generator=generator)
        images = self.part.images[rows]
        return self.inference.pixels(images) if path == "deploy" else images

    def run(self, path: str, inputs: Tensor) -> Tensor:
        """Classes [B]: on the device (deploy), or in host memory (end_to_end)."""
        if path == "deploy":
            return self.inference.answer(inputs).classes
        return self.inference.answer(self.inference.pixels(inputs)).classes.cpu()

    def synchronise(self) -> None:
        """Wait for the device; the CPU has finished when a call returns."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def events(self) -> tuple[Any, Any] | None:
        """CUDA events on the device's current stream; None on the CPU."""
        if self.device.type != "cuda":
            return None
        return _CudaEvent(self.device), _CudaEvent(self.device)

    def reset_peak_memory(self) -> None:
        """GPU: the allocator's peak. CPU: the kernel's mark of this process's resident memory (proc(5))."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        self._reset = reset_peak_host(self._process)

    def peak_memory_mb(self) -> float | None:
        """GPU: tensors at their highest (weights included). CPU: resident memory of the whole process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return peak_host_mb(self._process) if self._reset else None


class _CudaEvent:
    """An event that is recorded on the current stream of its own device, whichever device is current."""

    def __init__(self, device: torch.device):
        with torch.cuda.device(device):
            self.event, self.stream = torch.cuda.Event(enable_timing=True), torch.cuda.current_stream(device)

    def record(self) -> None:
        self.event.record(self.stream)

    def elapsed_time(self, other: "_CudaEvent") -> float:
        return self.event.elapsed_time(other.event)


def deploy(
    names: Sequence[str], network: Network, part: Part, facts: Facts, threads: Sequence[int]
) -> Iterator[DeployedNetwork]:
    """The network on each device: on the CPU once for each thread count, on a GPU once. One is built as it is taken.

    The CPU comes first: a CUDA context would add to the process's memory.
    """
    for name in sorted(names, key=lambda name: kind_of(name) != "cpu"):
        inference = Inference(network.to(name), facts)
        for count in threads if kind_of(name) == "cpu" else (GPU_THREADS,):
            yield DeployedNetwork(file_stem(name), inference, part, count)


def kind_of(name: str) -> str:
    """`cuda` of `cuda:1`."""
    return name.split(":")[0]


def choose_devices(named: Sequence[str] | None, device: str = "auto", no_cuda: bool = False) -> list[str]:
    """The devices to measure, from what a command line says. `no_cuda` strikes CUDA devices from the rest; `named` goes
    before `device`; with neither (None, auto) it is the CPU and the CUDA device, which need not be there.

    Raises FFError where a device that was named is not there, or none is left.
    """
    wanted = list(named or ([] if device == "auto" else [device]))
    chosen = [name for name in wanted or ("cpu", "cuda") if not (no_cuda and kind_of(name) == "cuda")]
    if not chosen:
        raise FFError(f"--no-cuda leaves no device of {', '.join(wanted)} to measure; drop it or name cpu")
    for name in chosen if wanted else ():
        reason = why_missing(name)
        if reason is not None:
            raise FFError(f"{name} cannot be measured: {reason}; name a device that is there, such as cpu")
    return chosen


def why_missing(name: str) -> str | None:
    """Why device `name` cannot be measured here; None where it can."""
    try:
        device = torch.device(name)
    except RuntimeError:
        return f"{name!r} is no device that torch knows"
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        return f"devices of type {device.type} are not supported"
    if not torch.cuda.is_available():
        built = "" if torch.version.cuda else ": this torch was built without CUDA"
        return f"no CUDA device is usable on this machine{built}"
    if (device.index or 0) >= torch.cuda.device_count():
        return f"this machine has {torch.cuda.device_count()} CUDA device(s), none with number {device.index}"
    return None


def device_facts(name: str, why_not: str | None = None) -> dict[str, Any]:
    """The `device` block of variance/{device}.json; a missing device says why, and one that there is another reason for
    not to measure, that."""
    reason, kind = why_not or why_missing(name), kind_of(name)
    if reason is not None:
        return {"name": None, "kind": kind, "available": False, "reason": reason}
    if kind == "cuda":
        return {"name": torch.cuda.get_device_name(name), "kind": kind, "available": True, "reason": None}
    from ff.hardware.machine import describe

    machine = describe()
    title = machine["cpu"]["model"] or machine["model"] or machine["architecture"]
    return {"name": title, "kind": kind, "available": True, "reason": None}


# -- threads and memory ----


def available_cores(root: str | os.PathLike = "/") -> int:
    """Cores this process may use: its CPU affinity, or the quota of its control group where that is less (cgroups(7):
    cpu.max holds microseconds of CPU time and the period they are for)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = map(int, (Path(root) / "sys/fs/cgroup/cpu.max").read_text().split())
        cores = min(cores, max(1, quota // period))
    return cores


def thread_counts(wanted: Sequence[int | str]) -> list[int]:
    """The CPU thread counts to measure, each once; `all` stands for every core this process may use.

    Raises FFError for anything that is no count.
    """
    counts = []
    for item in wanted:
        text = str(item).strip()
        if text != ALL and not (text.isdecimal() and 1 <= int(text) <= 1024):
            raise FFError(f"CPU threads to measure must be numbers from 1 to 1024 or '{ALL}', not {text!r}")
        counts.append(available_cores() if text == ALL else int(text))
    if not counts:
        raise FFError(f"name at least one number of CPU threads to measure, such as 1 or '{ALL}'")
    return list(dict.fromkeys(counts))


def needed_mb(layers: Sequence[int], size: int) -> float:
    """Host memory that measuring a batch of `size` takes at most, in MB (2^20): STAGED batches of float32 pixels and
    one of uint8 images and of pixels in the making, and of each layer the output and its copy for the head."""
    numbers = (STAGED + 2) * layers[0] + 2 * sum(layers[1:])
    return 4 * numbers * size / 2**20


def check_memory(layers: Sequence[int], batch_sizes: Sequence[int], root: str | os.PathLike = "/") -> None:
    """FFError where the largest batch would not fit into the memory that is free now (MemAvailable, proc(5)): Linux
    grants more than there is, and ends the process when it is used."""
    try:
        text = (Path(root) / "proc/meminfo").read_text()
    except OSError:
        return
    free = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    size, needed = max(batch_sizes), needed_mb(layers, max(batch_sizes))
    if free and needed > _MAX_SHARE * int(free[1]) / 1024:
        raise FFError(
            f"batch size {size} takes about {needed:,.0f} MB to measure and {int(free[1]) // 1024:,} MB are free; "
            "take a smaller batch size"
        )


# -- conditions ----


def machine_state(root: str | os.PathLike = "/") -> "MachineState":
    """What can change the speed between two moments: clocks (MHz), governor, power mode, temperatures (C).

    `root` is where the machine's files are looked up, as in `ff.hardware.machine.describe`.
    """
    from ff.hardware.machine import describe

    machine = describe(root)
    cpu, gpus = machine["cpu"], machine["gpus"]
    governor = {"cpu": cpu["governor"], **{gpu["name"] or "gpu": gpu["governor"] for gpu in gpus}}
    clocks = {"cpu": cpu["current_mhz"], **{gpu["name"] or "gpu": gpu["current_mhz"] for gpu in gpus}}
    temperature = dict(machine["temperature_c"])
    if torch.cuda.is_available():
        # Both need NVML, which not every machine with CUDA has.
        with suppress(Exception):
            temperature["cuda"] = float(torch.cuda.temperature())
        with suppress(Exception):
            clocks["cuda"] = float(torch.cuda.clock_rate())
    mode = machine["nvpmodel"]
    return {
        "clocks_mhz": {name: value for name, value in clocks.items() if value is not None},
        "governor": {name: value for name, value in governor.items() if value is not None},
        "power_mode": None if mode is None else mode["mode"] or str(mode["id"]),
        "jetson_clocks": machine["jetson_clocks"],
        "temperature_c": temperature,
    }


def versions() -> dict[str, str | None]:
    """Versions of what computes."""
    return {
        "ff": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": str(torch.backends.cudnn.version()) if torch.cuda.is_available() else None,
        "onnxruntime": _installed("onnxruntime"),
    }


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
