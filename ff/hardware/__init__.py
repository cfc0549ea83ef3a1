"""Hardware beside a job: sensors, one recorder, one energy integrator, one description of the machine.

Nothing here imports torch, pandas or Snakemake, so that the recorder starts in milliseconds and can run in a
process of its own. A source of readings is any object with

    name       what the log calls it
    title      what people call it
    method     how it reads power, in words; None where it reads none
    period_s   how often the sensor itself has something new, in seconds
    open()     get ready, or raise SensorMissing with the reason and what would help
    sample()   -> list of readings, each a dict of the fields below; [] when there is nothing new
    fd         a file descriptor that is readable when sample() has something, or None for a polled sensor
    pid        process id of a program that it reads while open; only sources that read one have it
    close()    let go of everything; may be called at any time, more than once

(method and period_s hold once it is open) and a reading holds what was measured and nothing else: `power_mw`
{rail: mW}, `energy_mj` {rail: mJ since open()}, `temperature_c` {sensor: C}, `cpu_percent` [one per core],
`cpu_freq_mhz` [..], `gpu_percent`, `gpu_freq_mhz` [..], `ram_used_mb` and so on; one of a GPU has `gpu`, its number,
and `gpu_processes`, the ids of the processes that compute on it. What was not measured is None or left out, never 0.
`FIELDS` (docs/hardware.md) says of each its unit, and whether it is of now or a mean.

What others need is found here, and loaded when it is asked for:

    from ff.hardware import open_power_source, record, parse_line, describe
"""

from importlib import import_module
from typing import Any

_FOUND_IN = {
    "fields": ("FIELDS", "Field"),
    "sources": ("open_power_source", "PowerSource", "Reading", "choose", "Choice"),
    "tegrastats": ("Tegrastats", "parse_line"),
    "ina3221": ("Ina3221",),
    "nvml": ("Nvml",),
    "rapl": ("Rapl",),
    "host": ("Host",),
    "recorder": ("Recorder", "record"),
    "log": ("read_log",),
    "energy": ("total_power",),
    "machine": ("describe",),
    "power_modes": ("switched",),
}
_NAMES = {name: module for module, names in _FOUND_IN.items() for name in names}


class SensorMissing(Exception):
    """A sensor that this machine does not have or does not let us read; the text says why."""


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_NAMES]
