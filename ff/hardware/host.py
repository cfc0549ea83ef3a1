"""The host's processor, memory and temperatures, through psutil: what every machine has. No power."""

import time
from contextlib import suppress
from typing import Any

from ff.hardware import SensorMissing

# On some machines reading all clocks or temperatures takes tens of milliseconds; there it is done less often.
_SLOW_S = 0.005
_SLOW_EVERY = 10


class Host:
    """Load and clock per core, memory, swap, temperatures; one reading per call."""

    name = "psutil"
    fd = None
    method = None
    period_s = 0.1

    def __init__(self):
        self._psutil: Any = None
        self._calls = 0
        self._slow: set[str] = set()

    def open(self) -> None:
        try:
            import psutil
        except ImportError as error:
            raise SensorMissing("psutil is not installed; install it with: pip install psutil") from error
        self._psutil = psutil
        with suppress(Exception):
            # The load is a mean since the last call; this one begins the first interval.
            psutil.cpu_percent(percpu=True)

    def sample(self) -> list[dict]:
        """Raises OSError when nothing at all can be read."""
        parts = (self._load, self._memory, self._clocks, self._temperatures)
        reading: dict = {}
        for part in parts:
            if part.__name__ in self._slow and self._calls % _SLOW_EVERY:
                continue
            start = time.perf_counter()
            # psutil raises what /proc and /sys raise, and ValueError where their text surprises it.
            with suppress(Exception):
                reading.update(part())
            if time.perf_counter() - start > _SLOW_S:
                self._slow.add(part.__name__)
        self._calls += 1
        if not reading:
            raise OSError("psutil reads nothing here")
        return [reading]

    def _load(self) -> dict:
        return {"cpu_percent": self._psutil.cpu_percent(percpu=True)}

    def _memory(self) -> dict:
        memory, swap = self._psutil.virtual_memory(), self._psutil.swap_memory()
        return {
            "ram_used_mb": round((memory.total - memory.available) / 2**20, 1),
            "ram_total_mb": round(memory.total / 2**20, 1),
            "swap_used_mb": round(swap.used / 2**20, 1),
        }

    def _clocks(self) -> dict:
        clocks = [round(core.current, 1) or None for core in self._psutil.cpu_freq(percpu=True)]
        return {"cpu_freq_mhz": clocks} if any(clocks) else {}

    def _temperatures(self) -> dict:
        found: dict[str, float] = {}
        for chip, sensors in self._psutil.sensors_temperatures().items():
            for number, sensor in enumerate(sensors):
                name = f"{chip}.{sensor.label or number}".replace(" ", "_")
                if sensor.current is not None and sensor.current > -200:
                    found.setdefault(name, round(sensor.current, 2))
        return {"temperature_c": found} if found else {}

    def close(self) -> None:
        self._psutil = None
