"""Which sensors of this machine are read: decided here, once, for whoever reads them.

The recorder beside a training, a measurement that samples power itself, and `ff doctor` all take `choose`'s sources
by the same rule: the first group, and the second only where the first delivers no power. So energies of training and
of inference come from the same sensor, and the doctor says which one that is.

- A board - a Jetson, or whatever has its tegrastats or its power monitors, as a container on one may, where the
  release file and the device tree are hidden - is read by tegrastats, which has everything; where that is missing,
  silent or (without root on early releases) prints no power, by the power monitors and psutil.
- Any other machine is read by psutil, RAPL and NVML together. These are also the second choice where a tegrastats
  lies on the PATH of a machine that is no Jetson: should it print no power, it changes nothing.
"""

import os
import select
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ff.hardware import SensorMissing
from ff.hardware.host import Host
from ff.hardware.ina3221 import Ina3221
from ff.hardware.nvml import Nvml
from ff.hardware.rapl import Rapl
from ff.hardware.sharing import Presence, Watch
from ff.hardware.tegrastats import Tegrastats

FIRST_LINE_S = 2.0
"""How long a program that prints is waited for; tegrastats prints its first line after one interval."""
_FIRST_LINES = 3
_COUNTING_S = 0.05
_MEASURING_MS = 100


# Every kind of source there is, as `ff doctor` lists them.
SOURCES = (Host, Tegrastats, Ina3221, Nvml, Rapl)


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
    return is_jetson(root) or Tegrastats(root=root).program() is not None or Ina3221(root).is_there()


def choose(interval_ms: int = 500, root: str | os.PathLike = "/") -> Choice:
    """The sources for this machine, not yet opened; the module's text says which and why.

    `root` is where the files of the machine are looked up; NVML and psutil have no such setting and are used only
    with the true root.
    """
    here = Path(root) == Path("/")
    host = [Host()] if here else []
    others = [Rapl(root), *([Nvml()] if here else [])]
    if is_board(root):
        return Choice([Tegrastats(interval_ms, root)], [*host, Ina3221(root), *([] if is_jetson(root) else others)])
    return Choice([*host, *others], [])


def first_readings(source: Any) -> list[dict]:
    """What an opened source says at first, until a reading has power or no more can be hoped for.

    Raises OSError when it cannot be read.
    """
    readings = source.sample()
    if source.fd is not None:
        end = time.monotonic() + FIRST_LINE_S
        while not power_rails(readings) and len(readings) < _FIRST_LINES and (left_s := end - time.monotonic()) > 0:
            select.select([source.fd], [], [], left_s)
            readings += source.sample()
    elif source.method is not None and not any(reading.get("power_mw") for reading in readings):
        # A counter of energy gives power from its second reading on.
        time.sleep(_COUNTING_S)
        readings += source.sample()
    return readings


def power_rails(readings: list[dict]) -> list[str]:
    """The rails of which the readings have power or energy."""
    return list(dict.fromkeys(r for reading in readings for key in _POWER for r in reading.get(key) or {}))


_POWER = ("power_mw", "energy_mj")


class Reading(NamedTuple):
    """What the power sensors say now.

    `energy_mj` is what counters have counted since they were opened: a window's energy is the difference of two
    readings, exact however far apart. A rail without a counter has `power_mw` only. Both are {} where there is
    nothing new. `shared`: what else ran on the devices that were read - other jobs of ff on the machine, other
    processes on its GPUs; [] for nothing, None where that cannot be known.
    """

    power_mw: dict[str, float]
    energy_mj: dict[str, float]
    shared: list[str] | None


class PowerSource:
    """The power of this machine now, for measurements that sample it themselves.

        source = open_power_source()
        if source is not None:
            with source:
                power_mw, energy_mj, shared = source.read()

    `name` and `method` say what it is; `period_s` is how often the slowest of its sensors has something new;
    `energy.total_power(rails)` and `energy.total_rails(rails)` say what makes up the total.
    """

    def __init__(self, sources: list, root: str | os.PathLike = "/"):
        self._sources = sources
        self._watch = Watch(Presence(root), os.getpid(), alone=True)
        self.name = "+".join(source.name for source in sources)
        self.method = "; ".join(f"{source.name}: {source.method}" for source in sources)
        self.period_s = max(source.period_s for source in sources)

    def read(self) -> Reading:
        """Read every sensor once; one that fails is left out."""
        power: dict[str, float] = {}
        energy: dict[str, float] = {}
        shared: list[list[str] | None] = []
        for source in self._sources:
            try:
                readings = source.sample()
            except OSError:
                continue
            for reading in readings:
                power.update(reading.get("power_mw") or {})
                energy.update(reading.get("energy_mj") or {})
                of_gpu = "gpu" in reading
                shared.append(self._watch.gpu(reading.get("gpu_processes")) if of_gpu else self._watch.machine())
        names = list(dict.fromkeys(name for one in shared if one for name in one))
        return Reading(power, energy, None if not names and (None in shared or not shared) else names)

    def sample(self) -> dict[str, float]:
        """The power of read() alone, {rail: mW}."""
        return self.read().power_mw

    def close(self) -> None:
        for source in self._sources:
            source.close()

    def __enter__(self) -> "PowerSource":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def open_power_source(root: str | os.PathLike = "/") -> PowerSource | None:
    """The power sensors of this machine, opened; None when none can be read."""
    for group in choose(_MEASURING_MS, root):
        opened = [source for source in group if _delivers_power(source)]
        if opened:
            return PowerSource(opened, root)
    return None


def _delivers_power(source: Any) -> bool:
    """Open a source; one that has no power is closed again."""
    try:
        source.open()
        if power_rails(first_readings(source)):
            return True
    except (SensorMissing, OSError):
        pass
    with suppress(OSError):
        source.close()
    return False
