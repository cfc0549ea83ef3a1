"""Which sources to read on this machine."""

import os
from pathlib import Path
from typing import NamedTuple

from ff.hardware import SensorMissing
from ff.hardware.host import Host
from ff.hardware.ina3221 import Ina3221
from ff.hardware.nvml import Nvml
from ff.hardware.rapl import Rapl
from ff.hardware.tegrastats import Tegrastats


class Choice(NamedTuple):
    """`first` are tried from the start; `instead` only while no source of `first` delivers power."""

    first: list
    instead: list


def is_jetson(root: str | os.PathLike = "/") -> bool:
    """Whether this is a Jetson board (or anything else that runs NVIDIA's Jetson Linux)."""
    root = Path(root)
    if (root / "etc/nv_tegra_release").exists():
        return True
    for place in ("proc/device-tree/compatible", "sys/firmware/devicetree/base/compatible"):
        try:
            # Tegra chips name themselves nvidia,tegra210 .. nvidia,tegra264.
            return b"nvidia,tegra" in (root / place).read_bytes()
        except OSError:
            continue
    return False


def is_board(root: str | os.PathLike = "/") -> bool:
    """Whether tegrastats or power monitors are found here, whose readings are those of a whole board."""
    if is_jetson(root) or Tegrastats(root=root).program() is not None:
        return True
    try:
        Ina3221(root).open()
    except SensorMissing:
        return False
    return True


def choose(interval_ms: int = 500, root: str | os.PathLike = "/") -> Choice:
    """The sources for this machine, not yet opened.

    A Jetson is read by tegrastats alone, which has everything; where that is missing, silent or (without
    root on early releases) prints no power, by the power monitors and psutil. Other machines are read by
    psutil, RAPL and NVML together. `root` is where the files of the machine are looked up; NVML and psutil
    have no such setting and are used only with the true root.
    """
    here = Path(root) == Path("/")
    tegrastats = Tegrastats(interval_ms, root)
    host = [Host()] if here else []
    if is_jetson(root) or tegrastats.program() is not None:
        return Choice([tegrastats], [Ina3221(root), *host])
    return Choice([*host, Rapl(root), *([Nvml()] if here else [])], [])


class PowerSource:
    """The power of this machine now, for measurements that sample it themselves.

        source = open_power_source()
        if source is not None:
            with source:
                rails = source.sample()      # {rail: mW}; {} where there is nothing new

    `period_s` is how often the slowest of its sensors has something new; `energy.total_power(rails)` adds up.
    """

    def __init__(self, sources: list):
        self._sources = sources
        self.name = "+".join(source.name for source in sources)
        self.period_s = max(source.period_s for source in sources)

    def sample(self) -> dict[str, float]:
        rails: dict[str, float] = {}
        for source in self._sources:
            try:
                for reading in source.sample():
                    rails.update(reading.get("power_mw") or {})
            except OSError:
                continue
        return rails

    def close(self) -> None:
        for source in self._sources:
            source.close()

    def __enter__(self) -> "PowerSource":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def open_power_source(root: str | os.PathLike = "/") -> PowerSource | None:
    """The best power sensors of this machine, opened; None when there is none.

    On a Jetson the power monitors read directly, else tegrastats; elsewhere RAPL and NVML together.
    """
    here = Path(root) == Path("/")
    groups = [[Ina3221(root)], [Tegrastats(100, root)]] if is_jetson(root) else []
    groups.append([Rapl(root), *([Nvml()] if here else [])])
    for group in groups:
        opened = []
        for source in group:
            try:
                source.open()
                opened.append(source)
            except SensorMissing:
                continue
        if opened:
            return PowerSource(opened)
    return None
