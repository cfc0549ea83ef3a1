"""One description of the machine a job ran on, from files; it starts no process and takes a few milliseconds.

Everything that sets the speed or the power of a machine and can differ between two runs is here: board, software
release, power mode, clocks, governor, temperatures. The name of the host is not: it says nothing about speed.
"""

import os
import platform
import re
from pathlib import Path

# The releases of Jetson Linux (L4T) that each JetPack is made of.
_JETPACK_OF_L4T = {21: "2", 23: "2", 24: "2", 27: "3", 28: "3", 31: "4", 32: "4", 34: "5", 35: "5", 36: "6"}
_JETPACK_OF_L4T |= {38: "7", 39: "7"}


def describe(root: str | os.PathLike = "/") -> dict:
    """Describe this machine (or the one whose files lie under `root`). Never raises; what is unknown is None.

    Keys: model, architecture, os, kernel, cpu {model, cores, cores_online, governor, current_mhz, min_mhz,
    max_mhz}, ram_total_mb, swap_total_mb, gpus [{name, driver, governor, current_mhz, min_mhz, max_mhz}],
    driver, l4t, jetpack, nvpmodel {id, mode}, jetson_clocks (whether all clocks are pinned; Jetson only),
    temperature_c {zone: C}.
    """
    root = Path(root)
    l4t = _l4t(root)
    cpu = _cpu(root)
    gpus = _integrated_gpus(root) + _discrete_gpus(root)
    memory = _memory(root)
    jetson = l4t is not None
    return {
        "model": _model(root),
        "architecture": platform.machine() if root == Path("/") else None,
        "os": _os(root),
        "kernel": _text(root / "proc/sys/kernel/osrelease"),
        "cpu": cpu,
        "ram_total_mb": memory.get("MemTotal"),
        "swap_total_mb": memory.get("SwapTotal"),
        "gpus": gpus,
        "driver": next((gpu["driver"] for gpu in gpus if gpu["driver"]), None),
        "l4t": l4t,
        "jetpack": _jetpack(root, l4t),
        "nvpmodel": _power_mode(root),
        "jetson_clocks": _pinned(root) if jetson else None,
        "temperature_c": _temperatures(root),
    }


def _model(root: Path) -> str | None:
    board = _text(root / "proc/device-tree/model") or _text(root / "sys/firmware/devicetree/base/model")
    if board:
        return board
    parts = [_text(root / "sys/class/dmi/id" / name) for name in ("sys_vendor", "product_name")]
    return " ".join(part for part in parts if part) or None


def _os(root: Path) -> str | None:
    release = _text(root / "etc/os-release") or _text(root / "usr/lib/os-release") or ""
    name = re.search(r'^PRETTY_NAME="?([^"\n]*)', release, re.MULTILINE)
    return name[1] if name else None


def _l4t(root: Path) -> str | None:
    """`# R36 (release), REVISION: 4.3, ...` -> 36.4.3"""
    release = re.search(r"R(\d+).*?REVISION:\s*([\d.]+)", _text(root / "etc/nv_tegra_release") or "")
    if release:
        return f"{release[1]}.{release[2]}"
    version = _package_version(root, "nvidia-l4t-core")
    return version.split("-")[0] if version else None


def _jetpack(root: Path, l4t: str | None) -> str | None:
    """The version of the package nvidia-jetpack, else the major version that belongs to the L4T release."""
    version = _package_version(root, "nvidia-jetpack")
    if version:
        return version.split("-")[0].split("+")[0]
    return _JETPACK_OF_L4T.get(int(l4t.split(".")[0])) if l4t else None


def _package_version(root: Path, package: str) -> str | None:
    status = root / "var/lib/dpkg/status"
    if (
        not (root / "etc/nv_tegra_release").exists()
        and not (root / "var/lib/dpkg/info").joinpath(f"{package}.list").exists()
    ):
        return None  # spares other machines reading a file of megabytes
    entry = re.search(rf"^Package: {package}\n(?:.+\n)*?Version: (.+)$", _text(status) or "", re.MULTILINE)
    return entry[1].strip() if entry else None


def _power_mode(root: Path) -> dict | None:
    """The power mode from the files that nvpmodel itself keeps, which need no root, unlike `nvpmodel -q`."""
    status = re.search(r"pmode:\s*0*(\d+)", _text(root / "var/lib/nvpmodel/status") or "")
    table = _text(root / "etc/nvpmodel.conf") or ""
    if not status:
        return None
    mode = re.search(rf"<\s*POWER_MODEL\s+ID={status[1]}\s+NAME=([^\s>]+)", table)
    return {"id": int(status[1]), "mode": mode[1] if mode else None}


def _cpu(root: Path) -> dict:
    info = _text(root / "proc/cpuinfo") or ""
    model = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", info, re.MULTILINE)
    base = root / "sys/devices/system/cpu"
    policies = [path for path in _glob(base, "cpu[0-9]*/cpufreq") if (path / "scaling_governor").exists()]
    governors = {governor for path in policies if (governor := _text(path / "scaling_governor"))}
    present = _count(_text(base / "present"))
    online = _count(_text(base / "online"))
    processors = len(re.findall(r"^processor\s*:", info, re.MULTILINE)) or None
    name = model[1].strip() if model else _arm_part(info)
    return {
        "model": name,
        "cores": present or processors,
        "cores_online": online or processors,
        "governor": "+".join(sorted(governors)) or None,
        # One file per core, and each may take milliseconds: the first core of at most eight clusters is enough.
        "current_mhz": [_mhz(path / "scaling_cur_freq", 1e3) for path in _leaders(policies)] or None,
        "min_mhz": _mhz(policies[0] / "scaling_min_freq", 1e3) if policies else None,
        "max_mhz": _mhz(policies[0] / "scaling_max_freq", 1e3) if policies else None,
    }


def _arm_part(info: str) -> str | None:
    """ARM kernels name the core by numbers (Main ID register): implementer and part."""
    implementer = re.search(r"^CPU implementer\s*:\s*(\S+)", info, re.MULTILINE)
    part = re.search(r"^CPU part\s*:\s*(\S+)", info, re.MULTILINE)
    if not implementer or not part:
        return None
    known = {
        ("0x41", "0xd07"): "Cortex-A57",
        ("0x41", "0xd42"): "Cortex-A78AE",
        ("0x41", "0xd83"): "Neoverse V3AE",
        ("0x4e", "0x003"): "Denver 2",
        ("0x4e", "0x004"): "Carmel",
    }
    return known.get((implementer[1], part[1]), f"ARM implementer {implementer[1]} part {part[1]}")


def _leaders(policies: list[Path]) -> list[Path]:
    """One core per clock domain, at most eight."""
    seen: dict[str, Path] = {}
    for path in policies:
        seen.setdefault(_text(path / "related_cpus") or path.parent.name, path)
        if len(seen) == 8:
            break
    return list(seen.values())


def _devfreq_gpus(root: Path) -> list[Path]:
    """The devfreq nodes of integrated GPUs: 57000000.gpu, 17000000.gv11b, 17000000.gpu, gpu-gpc-0."""
    return [
        path
        for path in _glob(root / "sys/class/devfreq", "*")
        if re.search(r"gpu|gv11b|gp10b|gm20b|ga10b|gb10b", path.name)
    ]


def _integrated_gpus(root: Path) -> list[dict]:
    gpus = []
    for path in _devfreq_gpus(root):
        gpus.append(
            {
                "name": path.name,
                "driver": None,
                "governor": _text(path / "governor"),
                "current_mhz": _mhz(path / "cur_freq", 1e6),
                "min_mhz": _mhz(path / "min_freq", 1e6),
                "max_mhz": _mhz(path / "max_freq", 1e6),
            }
        )
    return gpus


def _discrete_gpus(root: Path) -> list[dict]:
    version = re.search(r"(?:Kernel Module|for \S+)\s+(\d[\d.]+)", _text(root / "proc/driver/nvidia/version") or "")
    gpus = []
    for path in _glob(root / "proc/driver/nvidia/gpus", "*/information"):
        name = re.search(r"^Model:\s*(.+)$", _text(path) or "", re.MULTILINE)
        gpus.append(
            {
                "name": name[1].strip() if name else None,
                "driver": version[1] if version else None,
                "governor": None,
                "current_mhz": None,
                "min_mhz": None,
                "max_mhz": None,
            }
        )
    return gpus


def _pinned(root: Path) -> bool | None:
    """Whether jetson_clocks is in force: it sets the lowest clock of cores and GPU to the highest."""
    ranges = []
    for path in _glob(root / "sys/devices/system/cpu", "cpu[0-9]*/cpufreq"):
        ranges.append((_text(path / "scaling_min_freq"), _text(path / "scaling_max_freq")))
    for path in _devfreq_gpus(root):
        ranges.append((_text(path / "min_freq"), _text(path / "max_freq")))
    ranges = [(low, high) for low, high in ranges if low and high]
    return all(low == high for low, high in ranges) if ranges else None


def _temperatures(root: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for zone in _glob(root / "sys/class/thermal", "thermal_zone*"):
        name, text = _text(zone / "type"), _text(zone / "temp")
        if name and text and re.fullmatch(r"-?\d{1,9}", text):
            celsius = int(text) / 1000
            if celsius > -200:
                found.setdefault(name, celsius)
    return found


def _memory(root: Path) -> dict[str, float]:
    """/proc/meminfo in MB."""
    lines = re.findall(r"^(\w+):\s+(\d+) kB$", _text(root / "proc/meminfo") or "", re.MULTILINE)
    return {name: round(int(kilobytes) / 1024, 1) for name, kilobytes in lines}


def _count(ranges: str | None) -> int | None:
    """How many cores a list such as `0-3,6` names."""
    if not ranges or not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", ranges):
        return None
    total = 0
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        total += int(last or first) - int(first) + 1
    return total


def _mhz(path: Path, per_mhz: float) -> float | None:
    text = _text(path)
    return round(int(text) / per_mhz, 1) if text and re.fullmatch(r"\d{1,15}", text) else None


def _glob(base: Path, pattern: str) -> list[Path]:
    try:
        return sorted(base.glob(pattern), key=lambda path: [int(n) for n in re.findall(r"\d+", str(path))])
    except OSError:
        return []


def _text(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8", "replace").strip("\0 \t\r\n") or None
    except OSError:
        return None
