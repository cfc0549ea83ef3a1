"""`ff doctor`: what this machine has for ff, what it lacks, and the command that would mend it.

Each check is a function that gives rows and is run by itself: one that fails, or hangs, becomes a row and
does not keep the others from speaking. Training can run when no row is `fail`.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from ff.data.registry import DATASETS
from ff.errors import FFError
from ff.tracking.session import resolve_access, unreachable, within

CHECK_S = 30.0
LOW_DISK_MB, LOW_MEMORY_MB = 2000, 1000
MINIMAL_DISK_MB = 100


class Row(NamedTuple):
    """One finding: `state` is ok, warn or fail; `advice` is a command or a sentence, empty where nothing is to do."""

    name: str
    state: str
    detail: str
    advice: str = ""


# ---------------------------------------------------------------- software


def _installed(package: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def check_python() -> list[Row]:
    """Python's version."""
    text = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info < (3, 11):  # noqa: UP036 - pip can be told to ignore what the package asks for
        return [Row("Python", "fail", text, "ff needs Python 3.11 or newer")]
    return [Row("Python", "ok", text)]


def check_torch() -> list[Row]:
    """torch, what it was built for, and the threads it uses."""
    try:
        import torch
    except ImportError as error:
        return [Row("torch", "fail", f"cannot be imported: {error}", "pip install -c constraints.txt -e .")]
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    if getattr(torch.version, "hip", None):
        build = f"ROCm {torch.version.hip}"
    return [Row("torch", "ok", f"{torch.__version__}, built for {build}, {torch.get_num_threads()} threads")]


def check_packages() -> list[Row]:
    """What training imports beside torch."""
    missing = [package for package in ("numpy", "safetensors") if not _installed(package)]
    if missing:
        advice = "pip install -c constraints.txt -e ."
        return [Row("packages", "fail", f"not installed: {', '.join(missing)}", advice)]
    return [Row("packages", "ok", f"numpy {version('numpy')}, safetensors {version('safetensors')}")]


def check_torchvision() -> list[Row]:
    """Whether `torchvision.datasets` can be imported, and whether its compiled operators fit this torch."""
    from ff.data.torchvision_ops import declare_missing_operators

    try:
        declared = declare_missing_operators()
        import torchvision.datasets  # noqa: F401
    except (FFError, ImportError, RuntimeError) as error:
        advice = "pip install -c constraints.txt torchvision"
        return [Row("torchvision", "warn", f"no data set can be downloaded: {_line(error)}", advice)]
    if declared:
        text = f"{version('torchvision')}, operators {', '.join(declared)} do not fit this torch; ff does not need them"
        return [Row("torchvision", "ok", text)]
    return [Row("torchvision", "ok", f"{version('torchvision')}, with its operators")]


def check_snakemake() -> list[Row]:
    """Snakemake's version against the one that the workflow is written for."""
    found = _installed("snakemake")
    if not found:
        advice = 'pip install "snakemake[reports]>=9.27,<10"'
        return [Row("Snakemake", "warn", "not installed: `ff train` works, the workflow does not", advice)]
    parts = [int(part) if part.isdigit() else 0 for part in found.split(".")[:2]]
    if not (9, 27) <= tuple(parts) < (10, 0):
        advice = 'pip install "snakemake[reports]>=9.27,<10"'
        return [Row("Snakemake", "warn", f"{found}; the workflow is tested with 9.27", advice)]
    return [Row("Snakemake", "ok", found)]


# ---------------------------------------------------------------- devices


def check_cuda() -> list[Row]:
    """The CUDA devices, each with a small product held against the CPU's."""
    try:
        import torch
    except ImportError:
        return []
    if not torch.cuda.is_available():
        if torch.version.cuda is None and _has_nvidia_device():
            advice = "install a torch built for CUDA (on a Jetson NVIDIA's own wheel, see the README)"
            return [Row("CUDA", "warn", "this machine has an NVIDIA GPU, but torch is built for the CPU", advice)]
        return [Row("CUDA", "ok", "no device; ff runs on the CPU")]
    rows = []
    for index in range(torch.cuda.device_count()):
        try:
            rows.append(_cuda_row(index, kernel_difference(f"cuda:{index}")))
        except RuntimeError as error:
            # A torch without code for this GPU's generation sees the device and fails at its first kernel.
            advice = "train with --no-cuda, or install a torch built for this GPU"
            rows.append(Row(f"CUDA {index}", "fail", f"a small kernel does not run: {_line(error)}", advice))
    return rows


def _cuda_row(index: int, difference: float) -> Row:
    import torch

    free, total = torch.cuda.mem_get_info(index)
    text = f"{torch.cuda.get_device_name(index)}, {free / 2**20:.0f} of {total / 2**20:.0f} MB free"
    if not difference < 1e-3:
        advice = "train with --no-cuda, and look at driver and torch build"
        return Row(f"CUDA {index}", "fail", f"{text}; a product differs from the CPU's by {difference:.2g}", advice)
    return Row(f"CUDA {index}", "ok", f"{text}; a product equals the CPU's (difference {difference:.1g})")


def kernel_difference(device: str) -> float:
    """Largest relative difference of max(XY, 0), 256 x 256 in float32, between `device` and the CPU in float64."""
    import torch

    generator = torch.Generator().manual_seed(0)
    left, right = (torch.rand(256, 256, generator=generator) - 0.5 for _ in range(2))
    exact = torch.relu(left.double() @ right.double())
    found = torch.relu(left.to(device) @ right.to(device)).cpu().double()
    difference = float((found - exact).abs().max() / exact.abs().max())
    return difference if difference == difference else float("inf")


def _has_nvidia_device(root: str | os.PathLike = "/") -> bool:
    from ff.hardware.sources import is_jetson

    return (Path(root) / "dev/nvidia0").exists() or is_jetson(root)


def check_memory() -> list[Row]:
    """Memory that is free now, and the processors."""
    import psutil

    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    free_mb = memory.available / 2**20
    text = f"{free_mb:.0f} of {memory.total / 2**20:.0f} MB free, {cores} cores"
    if free_mb < LOW_MEMORY_MB:
        return [Row("memory", "warn", text, "close other programs, or use a smaller --train-batch-size")]
    return [Row("memory", "ok", text)]


# ---------------------------------------------------------------- sensors


_SENSORS = {"psutil": "psutil", "tegrastats": "tegrastats", "ina3221": "INA3221", "nvml": "NVML", "rapl": "RAPL"}


def check_sensors(root: str | os.PathLike = "/") -> list[Row]:
    """The sources that a training or a measurement here would read, each read once as this user; and which of them
    gives the power."""
    from ff.hardware.sources import choose, is_board

    rows: dict[str, Row] = {}
    measured: dict[str, list[str]] = {}
    board = is_board(root)
    for group in choose(200, root):
        if measured:
            rows |= {s.name: _unused(s.name, f"{' and '.join(measured)} reads the power") for s in group}
            continue
        for source in group:
            rows[source.name], rails = sensor_row(source)
            if rails:
                measured[source.name] = rails
    why = "tegrastats and power monitors see the whole board" if board else "only Jetson boards have it"
    found = [rows.get(name) or _unused(name, why) for name in _SENSORS]
    if measured:
        by_sensor = "; ".join(f"{name}: {', '.join(rails)}" for name, rails in measured.items())
        found.append(Row("power", "ok", f"measured by {by_sensor}"))
    else:
        found.append(Row("power", "warn", "no sensor for it can be read; energy will be missing, not 0"))
    return found


def _unused(name: str, why: str) -> Row:
    return Row(_SENSORS[name], "ok", f"not used: {why}")


def sensor_row(source: Any) -> tuple[Row, list[str]]:
    """A source opened and sampled: its row, and the power rails it reads."""
    from ff.hardware import SensorMissing
    from ff.hardware.sources import first_readings, power_rails

    name = _SENSORS[source.name]
    try:
        source.open()
        readings = first_readings(source)
    except SensorMissing as error:
        text, _, advice = str(error).partition(" it with: ")
        text = text.removesuffix("; allow").removesuffix("; install")
        denied = bool(advice) or "ermission" in text or "root" in text
        return Row(name, "warn" if denied else "ok", f"not used: {text}", advice), []
    except OSError as error:
        advice = f"sudo chmod a+r {error.filename}" if isinstance(error, PermissionError) and error.filename else ""
        return Row(name, "warn", f"cannot be read: {_line(error)}", advice), []
    finally:
        source.close()
    if not readings:
        return Row(name, "warn", "it starts but gives no reading"), []
    fields = sorted({field for reading in readings for field in reading if field not in ("raw", "timestamp")})
    rails = power_rails(readings)
    return Row(name, "ok", f"reads {', '.join(fields)}" + (f"; {source.method}" if rails else "")), rails


# ---------------------------------------------------------------- data, disk, W&B, profile


def check_dataset(name: str, data_dir: str | None = None) -> list[Row]:
    """Whether the files of a data set are there, and whether a training would take them: its own checks are made."""
    from ff.data.prepared import status

    found = status(name, data_dir)
    if found.refused:
        text, _, advice = found.refused.removeprefix(f"{name}: ").partition("; ")
        return [Row(name, "warn", f"training refuses it: {text}", advice)]
    if found.prepared:
        return [Row(name, "ok", "prepared, verified")]
    if found.missing:
        text = f"{len(found.missing)} of {len(DATASETS[name].files)} files are not in {found.folder}"
        without = ", ".join(other for other, facts in DATASETS.items() if facts.package)
        return [Row(name, "warn", text, f"ff prepare {name} (downloads), or --data-dir; {without} needs no files")]
    package = DATASETS[name].package
    if package:
        if not _installed(package):
            return [Row(name, "warn", f"{package}, which has it, is not installed", f"pip install {package}")]
        return [Row(name, "ok", "bundled")]
    return [Row(name, "ok", f"the official files are in {found.folder}, not prepared")]


def check_disk(folder: str | os.PathLike = ".") -> list[Row]:
    """Free space, and whether results can be written here."""
    folder = Path(folder).resolve()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return [
            Row(
                "disk",
                "fail",
                f"{folder} cannot be written ({error.strerror})",
                "work in a folder of your own",
            )
        ]
    free_mb = shutil.disk_usage(folder).free / 2**20
    text = f"{free_mb:.0f} MB free in {folder}"
    if free_mb < MINIMAL_DISK_MB:
        return [Row("disk", "fail", text, f"free at least {LOW_DISK_MB} MB")]
    if free_mb < LOW_DISK_MB:
        return [Row("disk", "warn", text, f"the full reproduction needs about {LOW_DISK_MB} MB")]
    return [Row("disk", "ok", text)]


def check_wandb() -> list[Row]:
    """The W&B mode that a run would have now, and whether the server answers; the key is not shown."""
    found = _installed("wandb")
    if not found:
        return [Row("W&B", "warn", "not installed: runs are not mirrored", "pip install wandb, or use --no-wandb")]
    access = resolve_access("auto")
    text = f"{found}, mode {access.mode} ({access.reason})"
    if access.mode == "online":
        problem = unreachable(access, 3.0)
        if problem:
            return [Row("W&B", "warn", f"{text}, but {problem}", "runs are kept offline; upload later: ff track")]
        return [Row("W&B", "ok", f"{text}, {access.base_url} answers")]
    advice = "put WANDB_API_KEY into .env to mirror runs live" if access.mode == "offline" and not access.key else ""
    return [Row("W&B", "ok", text, advice)]


def check_profile(root: str | os.PathLike = "/") -> list[Row]:
    """Which of the workflow's profiles fits this machine."""
    from ff.hardware.sources import is_jetson

    if is_jetson(root):
        advice = "snakemake --workflow-profile profiles/jetson all"
        return [Row("profile", "ok", "jetson: one job at a time, sensors as a sidecar", advice)]
    if shutil.which("sbatch"):
        install = "" if _installed("snakemake-executor-plugin-slurm") else 'pip install -e ".[slurm]", then '
        advice = f"{install}snakemake --workflow-profile profiles/slurm all"
        return [Row("profile", "ok", "slurm: sbatch is here", advice)]
    return [Row("profile", "ok", "default", "snakemake --cores 1 all")]


# ---------------------------------------------------------------- all of it


def checks(data_dir: str | None = None) -> list[tuple[str, Callable[[], list[Row]]]]:
    """Every check with the name that its row gets when it fails by itself."""
    return [
        ("Python", check_python),
        ("torch", check_torch),
        ("packages", check_packages),
        ("torchvision", check_torchvision),
        ("CUDA", check_cuda),
        ("memory", check_memory),
        ("sensors", check_sensors),
        # Each by itself: holding large files against their checksums takes seconds.
        *((name, partial(check_dataset, name, data_dir)) for name in DATASETS),
        ("disk", check_disk),
        ("Snakemake", check_snakemake),
        ("W&B", check_wandb),
        ("profile", check_profile),
    ]


def examine(todo: Sequence[tuple[str, Callable[[], list[Row]]]]) -> list[Row]:
    """Run the checks; one that raises or takes longer than 30 s becomes a row that says so."""
    rows: list[Row] = []
    for name, check in todo:
        try:
            rows += within(CHECK_S, check)
        except Exception as error:
            rows.append(Row(name, "warn", f"the check itself failed: {type(error).__name__}: {_line(error)}"))
    return rows


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]


def verdict(rows: Sequence[Row]) -> str:
    """One sentence: whether training can run, and if not why."""
    failures = [row for row in rows if row.state == "fail"]
    if failures:
        return "training cannot run: " + "; ".join(f"{row.name}: {row.detail}" for row in failures)
    return "training can run"


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text, each advice on a line below its row."""
    width = max(len(row.name) for row in rows)
    lines = []
    for row in rows:
        lines.append(f"{row.state:<4}  {row.name:<{width}}  {row.detail}")
        if row.advice:
            lines.append(f"{'':<4}  {'':<{width}}  -> {row.advice}")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ff doctor`."""
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.add_argument("--data-dir", help="torchvision-style data root (also FF_DATA_DIR)")


def run(args: argparse.Namespace) -> int:
    """`ff doctor`: 0 when training can run, else 1."""
    rows = examine(checks(args.data_dir))
    ready = all(row.state != "fail" for row in rows)
    if args.json:
        print(json.dumps({"schema": 1, "ready": ready, "verdict": verdict(rows), "rows": [r._asdict() for r in rows]}))
    else:
        print(table(rows))
        print(verdict(rows))
    return 0 if ready else 1
