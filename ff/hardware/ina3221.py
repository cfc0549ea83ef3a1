"""INA3221: the power monitor chips of Jetson boards, read through sysfs, without tegrastats and without root.

Two drivers, two layouts; addresses, bus and device numbers vary, so everything is found by name:

    kernel 4.9   /sys/bus/i2c/drivers/ina3221x/<bus-address>/iio:device*/
                 rail_name_N, in_powerN_input [mW], in_voltageN_input [mV], in_currentN_input [mA], N from 0
    kernel 5+    /sys/bus/i2c/drivers/ina3221/<bus-address>/hwmon/hwmon*/
                 inN_label, inN_input [mV], currN_input [mA], N from 1; there is no power file, P = U I

Thor adds an INA238 at the board's input, whose hwmon directory looks the same but has powerN_input [uW] too. Channels
without a label or named NC are not connected; those, the channel `sum of shunt voltages` and channels that answer with
an error are left out. A reading is quantised to about 40 mW and needs about 0.5 s of steady load.
"""

import os
import re
from pathlib import Path

from ff.hardware import SensorMissing

_LAYOUTS = (
    "sys/bus/i2c/drivers/ina3221x/*/iio:device*",
    "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*",
    "sys/bus/i2c/drivers/ina2xx/*/hwmon/hwmon*",
    "sys/bus/i2c/drivers/ina238/*/hwmon/hwmon*",
)
_MISSING = "no INA3221 power monitor under /sys/bus/i2c/drivers (only Jetson boards have one)"


class Ina3221:
    """All connected channels of all power monitors, one reading {rail: mW} per call."""

    name = "ina3221"
    fd = None
    method = "power monitor chips"
    period_s = 0.5

    def __init__(self, root: str | os.PathLike = "/"):
        self._root = Path(root)
        self._rails: dict[str, list[tuple[Path, float] | tuple[Path, Path]]] = {}

    def is_there(self) -> bool:
        """Whether the kernel has such a chip, readable or not."""
        return any(next(self._root.glob(layout), None) is not None for layout in _LAYOUTS)

    def open(self) -> None:
        """Find the channels. Raises SensorMissing when there is none that can be read."""
        self._rails = {}
        failure = None
        for layout in _LAYOUTS:
            for device in sorted(self._root.glob(layout)):
                for label, ways in _channels(device):
                    error = _failure(ways)
                    if error is None:
                        self._rails[_unused(label, self._rails)] = ways
                    else:
                        failure = error
        if not self._rails:
            raise SensorMissing(f"no INA3221 channel can be read: {failure}" if failure else _MISSING)

    def sample(self) -> list[dict]:
        """The power of each rail in mW; a rail that does not answer is left out.

        Raises OSError when no rail answers.
        """
        power, failure = {}, None
        for rail, ways in self._rails.items():
            try:
                power[rail] = _read(ways)
            except (OSError, ValueError) as error:
                failure = error
        if not power:
            raise OSError(f"no INA3221 channel answers: {failure}")
        return [{"power_mw": power}]

    def close(self) -> None:
        self._rails = {}


def _channels(device: Path) -> list[tuple[str, list]]:
    """(label, ways to read it) of each connected channel: (file, mW per unit) or (mV file, mA file)."""
    channels = []
    for label_file in sorted([*device.glob("rail_name_*"), *device.glob("in*_label")]):
        number = re.search(r"\d+", label_file.name)
        try:
            label = label_file.read_text().strip()
        except (OSError, UnicodeDecodeError):
            continue
        if not number or not label or label.upper().startswith("NC") or label.startswith("sum of"):
            continue
        index = number[0]
        if label_file.name.startswith("rail_name_"):
            ways = [
                (device / f"in_power{index}_input", 1.0),
                (device / f"in_voltage{index}_input", device / f"in_current{index}_input"),
            ]
        else:
            ways = [
                (device / f"power{index}_input", 1e-3),
                (device / f"in{index}_input", device / f"curr{index}_input"),
            ]
        # Which files exist does not change while the driver is bound.
        channels.append((label.replace(" ", "_"), [way for way in ways if way[0].exists()]))
    return channels


def _read(ways: list) -> float:
    """The power in mW of the first way that there is."""
    if not ways:
        raise OSError("the channel has no power and no voltage file")
    first, second = ways[0]
    value = float(first.read_text())
    if isinstance(second, Path):
        return value * float(second.read_text()) / 1000
    return value * second


def _failure(ways: list) -> Exception | None:
    try:
        _read(ways)
    except (OSError, ValueError) as error:
        return error
    return None


def _unused(label: str, taken: dict) -> str:
    name, count = label, 1
    while name in taken:
        count += 1
        name = f"{label}_{count}"
    return name
