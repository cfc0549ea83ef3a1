"""RAPL: energy counters of Intel and AMD processors, through the powercap tree of the kernel.

    /sys/class/powercap/intel-rapl:0/          name (package-0), energy_uj, max_energy_range_uj
    /sys/class/powercap/intel-rapl:0:0/        a part of it (core, uncore) or beside it (dram)

The counters are exact and run on while nobody looks, so energy is a difference of two readings; they wrap at
max_energy_range_uj, after some minutes of full load at the earliest. The kernel renews them about every
millisecond. Since 2020 (CVE-2020-8694) only root may read them by default.
"""

import os
import time
from pathlib import Path

from ff.hardware import SensorMissing


class Rapl:
    """All energy counters; readings hold `energy_mj` since open() and mean `power_mw` since the last call.

    Rails are named by their place: package-0, package-0/core, package-0/dram, psys.
    """

    name = "rapl"
    title = "RAPL"
    fd = None
    method = "energy counter"
    period_s = 0.05  # the counters are renewed each millisecond; shorter windows are dominated by that jitter

    def __init__(self, root: str | os.PathLike = "/"):
        self._root = Path(root)
        self._counters: dict[str, _Counter] = {}
        self._last_s: float | None = None

    def open(self) -> None:
        self._counters, self._last_s = {}, None
        base = self._root / "sys/class/powercap"
        zones = sorted(base.glob("*-rapl:*"))
        # The same counters exist a second time through memory-mapped registers.
        zones = [zone for zone in zones if not zone.name.startswith("intel-rapl-mmio")] or zones
        denied = None
        names = {zone.name: _text(zone / "name") for zone in zones}
        for zone in zones:
            parent = zone.name.rpartition(":")[0]
            own = names[zone.name] or zone.name
            rail = f"{names[parent]}/{own}" if names.get(parent) else own
            while rail in self._counters:
                rail += "_2"
            try:
                self._counters[rail] = _Counter(zone)
            except PermissionError:
                denied = zone / "energy_uj"
            except (OSError, ValueError):
                continue
        if not self._counters and denied is not None:
            raise SensorMissing(
                "the energy counters of the processor may be read by root only; allow it with: "
                "sudo chmod a+r /sys/class/powercap/*/energy_uj"
            )
        if not self._counters:
            raise SensorMissing("no RAPL energy counters under /sys/class/powercap")

    def sample(self) -> list[dict]:
        """Energy since open() and mean power since the last call. Raises OSError when no counter answers."""
        now = time.monotonic()
        energy, power, failure = {}, {}, None
        for rail, counter in self._counters.items():
            try:
                step = counter.advance()
            except (OSError, ValueError) as error:
                failure = error
                counter.interrupted = True
                continue
            energy[rail] = counter.energy_mj
            if self._last_s is not None and now > self._last_s and not counter.interrupted:
                power[rail] = step / (now - self._last_s)
            counter.interrupted = False
        self._last_s = now
        if not energy:
            raise OSError(f"no RAPL counter answers: {failure}")
        reading = {"monotonic_s": now, "unix_s": time.time(), "energy_mj": energy}
        if power:
            reading["power_mw"] = power
        return [reading]

    def close(self) -> None:
        self._counters = {}


class _Counter:
    """One counter that wraps, as energy since it was first read."""

    def __init__(self, zone: Path):
        self._file = zone / "energy_uj"
        self._last_uj = int(self._file.read_text())
        self._range_uj = int(_text(zone / "max_energy_range_uj") or 0)
        self.energy_mj = 0.0
        self.interrupted = False

    def advance(self) -> float:
        """The energy in mJ since the last call."""
        value = int(self._file.read_text())
        step = value - self._last_uj
        if step < 0:
            step += self._range_uj
        if step < 0:
            raise ValueError("the counter ran backwards")
        self._last_uj = value
        self.energy_mj += step / 1000
        return step / 1000


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
