"""tegrastats: what its lines say, and the program as a source of readings.

The format is not specified; it differs between boards and releases (L4T 21 to 39 are covered here, the oldest
form being `cpu [0%,off]@72 EMC 1%@408`). A line is a run of fields, each a name and a value:

    RAM 613/3964MB (lfb 634x4MB)      memory; used/total and a unit, remarks in brackets
    CPU [2%@345,off,off]              load@MHz per core, or [2%,off]@345 with one clock for all
    GR3D_FREQ 63%@[621]               0%  0%@114  0%@[0,0]  @[0,off,0]: load, clock, both or neither
    NVDEC off, APE 150, VIC 0%@115    engines: off, MHz, load
    MTS fg 0% bg 0%                   the one field with two named values
    GPU@41C, cpu@47.468C/48C          temperature, or temperature/hottest so far
    VDD_IN 3703mW/4209mW/4832mW       now/mean since start[/highest]; the suffix came with JetPack 5

Fields that no rule here knows are skipped; the raw line in the log still has them.
"""

import os
import re
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ff.hardware import SensorMissing

# At most 12 digits: no sensor needs more, and int() of thousands of digits is an error in Python.
_NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,12})?"
_TIMESTAMP = re.compile(
    r"([0-9]{2}-[0-9]{2}-[0-9]{4}|[0-9]{4}-[0-9]{2}-[0-9]{2})[ T]"
    r"([0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?)"
)
_BRACKETS = re.compile(r"\[[^\[\]]*\]")
_REMARK = re.compile(r"\([^()]*\)")
_MEMORY = re.compile(rf"({_NUMBER})/({_NUMBER})([kKMGT]?)i?B")
_CORE = re.compile(rf"({_NUMBER})%(?:@({_NUMBER})(?:MHz)?)?")
_CORES = re.compile(rf"\[([^\[\]]*)\](?:@({_NUMBER})(?:MHz)?)?")
_TEMPERATURE = re.compile(rf"([^\s@]+)@(-?{_NUMBER})C(?:/-?{_NUMBER}C)*")
_POWER = re.compile(rf"(-?{_NUMBER})(?:(mW|W)(?:/.*)?|(/-?[0-9].*))")
_LOAD = re.compile(rf"(?:(-?{_NUMBER})%)?(?:@(?:({_NUMBER})(?:MHz)?|\[([^\[\]]*)\]))?")
_PLAIN = re.compile(_NUMBER)
_NAME = re.compile(r"[A-Za-z][\w.+\-]*")
# A bare number after one of these is a power reading that was cut short, not a clock.
_RAIL_NAME = re.compile(r"(?:VDD|VIN|POM|SYS|NC|GPU|CPU|SOC|CV)(?![a-z])\w*")
_MEGABYTES = {"": 1 / 2**20, "k": 1 / 2**10, "K": 1 / 2**10, "M": 1, "G": 2**10, "T": 2**20}
# The drivers report a sensor that is absent or powered down as -256 C; nothing real is as cold.
_COLDEST_C = -200
# More lines than that at once are no statistics; logging them would cost the job its processor and its disk.
_MOST_LINES = 100


def parse_line(line: str) -> dict:
    """Read one line of tegrastats. Never raises, whatever the string.

    Returns the keys

        timestamp            as printed, or None
        ram_used_mb, ram_total_mb, swap_used_mb      or None
        cpu_percent          one per core, None where the core is off; None when the line has no cores
        cpu_freq_mhz         likewise
        gpu_percent          or None
        gpu_freq_mhz         one per GPC that the line names, None where that is off; None when it names none
        emc_percent, emc_freq_mhz      memory controller, or None
        temperature_c        {sensor: C}, names as printed; absent sensors (-256C) are left out
        power_mw             {rail: mW now}, names as printed
        engines              {name: value}, names as printed: percent if there is one, else MHz, None when off

    A name that comes twice (the unconnected channels `NC`) is numbered from its second appearance: NC, NC_2. A value
    outside its range (a load above 100 %) is None.
    """
    reading: dict[str, Any] = {
        "timestamp": None,
        "ram_used_mb": None,
        "ram_total_mb": None,
        "swap_used_mb": None,
        "cpu_percent": None,
        "cpu_freq_mhz": None,
        "gpu_percent": None,
        "gpu_freq_mhz": None,
        "emc_percent": None,
        "emc_freq_mhz": None,
        "temperature_c": {},
        "power_mw": {},
        "engines": {},
    }
    line = str(line)
    stamp = _TIMESTAMP.search(line)
    if stamp:
        reading["timestamp"] = f"{stamp[1]} {stamp[2]}"
        line = line[: stamp.start()] + " " + line[stamp.end() :]
    words = _words(line)
    position = 0
    while position < len(words):
        position += _field(words, position, reading)
    return reading


def is_reading(reading: dict) -> bool:
    """Whether what parse_line returned came from a line of tegrastats.

    Every release prints memory, cores, power or temperatures; a name and a number alone may stand in any text.
    """
    return any(reading[name] for name in ("ram_total_mb", "cpu_percent", "power_mw", "temperature_c"))


def _words(line: str) -> list[str]:
    """Split a line so that each value is one word: no blanks in brackets, around '/' or before a unit."""
    line = " ".join(_REMARK.sub(" ", line).split())
    line = _BRACKETS.sub(lambda match: match[0].replace(" ", ""), line)
    line = line.replace(" / ", "/").replace(" mW", "mW")
    # `CPU[..]` and `IRAM 0/252kB(lfb` occur without the blank.
    return re.sub(r"(?<=[A-Za-z])\[", " [", line).split()


def _field(words: list[str], position: int, reading: dict) -> int:
    """Read the field that starts at `position` into `reading`; returns how many words it took."""
    word = words[position]
    value = words[position + 1] if position + 1 < len(words) else ""

    temperature = _TEMPERATURE.fullmatch(word)
    if temperature:
        celsius = _value(temperature[2])
        if celsius > _COLDEST_C:
            _put(reading["temperature_c"], temperature[1], celsius)
        return 1
    if not _NAME.fullmatch(word) or not value:
        return 1

    upper = word.upper()
    memory = _MEMORY.fullmatch(value)
    if memory:
        if upper in ("RAM", "SWAP"):
            used, total = (_megabytes(memory[part], memory[3]) for part in (1, 2))
            reading[f"{word.lower()}_used_mb"] = used
            if upper == "RAM":
                reading["ram_total_mb"] = total
        return 2
    if upper in ("RAM", "SWAP", "IRAM", "GART", "CARVEOUT"):
        return 1
    if upper == "CPU" and value.startswith("["):
        _read_cores(value, reading)
        return 2
    if upper == "MTS":
        return 1 + _read_mts(words, position + 1, reading["engines"])
    power = _POWER.fullmatch(value)
    if power:
        milliwatts = _value(power[1])
        _put(reading["power_mw"], word, milliwatts * 1000 if power[2] == "W" else milliwatts)
        return 2
    return _read_load(word, value, reading)


def _read_load(name: str, value: str, reading: dict) -> int:
    """A GPU, memory controller or engine field; returns how many words it took."""
    upper = name.upper()
    load = _LOAD.fullmatch(value)
    if load:
        percent = _percent(load[1])
        clocks = None
        if load[2] is not None:
            clocks = [_number(load[2])]
        elif load[3] is not None:
            clocks = [_number(item) for item in load[3].split(",")]
    elif value.lower() in ("off", "n/a"):
        percent, clocks = None, None
    elif _PLAIN.fullmatch(value) and not _RAIL_NAME.fullmatch(name):
        percent, clocks = None, [_number(value)]
    else:
        return 1
    if upper in ("GR3D_FREQ", "GR3D"):
        # A bare number could be either; releases that print one for the GPU are not known.
        if load:
            reading["gpu_percent"], reading["gpu_freq_mhz"] = percent, clocks
    elif upper in ("EMC_FREQ", "EMC"):
        if load:
            reading["emc_percent"] = percent
            reading["emc_freq_mhz"] = clocks[0] if clocks else None
    elif load and load[1] is not None:
        _put(reading["engines"], name, percent)
    else:
        _put(reading["engines"], name, clocks[0] if clocks else None)
    return 2


def _read_cores(value: str, reading: dict) -> None:
    cores = _CORES.fullmatch(value)
    if not cores:
        return
    loads, clocks = [], []
    for item in cores[1].split(","):
        core = _CORE.fullmatch(item)
        loads.append(_percent(core[1]) if core else None)
        clocks.append(_number(core[2] or cores[2]) if core else None)
    reading["cpu_percent"], reading["cpu_freq_mhz"] = loads, clocks


def _read_mts(words: list[str], position: int, engines: dict) -> int:
    """`fg 0% bg 0%`: the loads of the two kinds of work of Denver's code translator."""
    taken = 0
    while position + taken + 1 < len(words) and words[position + taken] in ("fg", "bg", "bgnd"):
        load = re.fullmatch(rf"({_NUMBER})%", words[position + taken + 1])
        if not load:
            break
        _put(engines, f"MTS {words[position + taken]}", _percent(load[1]))
        taken += 2
    return taken


def _put(target: dict, name: str, value: float | None) -> None:
    key, count = name, 1
    while key in target:
        count += 1
        key = f"{name}_{count}"
    target[key] = value


def _number(text: str | None) -> float | None:
    if text is None or not re.fullmatch(rf"-?{_NUMBER}", text):
        return None
    return _value(text)


def _value(text: str) -> float:
    """The number that `_NUMBER` has found."""
    return float(text) if "." in text else int(text)


def _percent(text: str | None) -> float | None:
    value = _number(text)
    return value if value is not None and 0 <= value <= 100 else None


def _megabytes(text: str, prefix: str) -> float:
    value = _value(text) * _MEGABYTES[prefix]
    return int(value) if float(value).is_integer() else value


class Tegrastats:
    """The program tegrastats as a child of this process, one reading per line it prints.

    It reads the whole board, so only one job at a time can be told apart. The child is stopped by close();
    should this process be killed instead, the child ends by itself at its next line, when its pipe has no
    reader.
    """

    name = "tegrastats"
    title = "tegrastats"
    method = "power as printed"

    def __init__(self, interval_ms: int = 500, root: str | os.PathLike = "/"):
        self.interval_ms = interval_ms
        self.period_s = max(interval_ms / 1000, 0.5)  # the sensors behind it settle in about half a second
        self._root = Path(root)
        self._child: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self.fd: int | None = None

    def open(self) -> None:
        program = self.program()
        if program is None:
            raise SensorMissing("tegrastats is not on this machine (it comes with NVIDIA's Jetson Linux)")
        try:
            child = subprocess.Popen(
                [program, "--interval", str(self.interval_ms)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise SensorMissing(f"{program} does not start: {error.strerror or error}") from error
        assert child.stdout is not None
        self._child, self.fd, self._rest = child, child.stdout.fileno(), b""
        os.set_blocking(self.fd, False)

    @property
    def pid(self) -> int | None:
        """Of the program, while it runs."""
        return None if self._child is None else self._child.pid

    def program(self) -> str | None:
        """Where tegrastats is, or None."""
        if self._root == Path("/"):
            found = shutil.which("tegrastats")
            if found:
                return found
        # Before L4T 32 it lay in the home of the first user.
        for place in ("usr/bin", "home/nvidia", "home/ubuntu"):
            path = self._root / place / "tegrastats"
            if os.access(path, os.X_OK) and path.is_file():
                return str(path)
        return None

    def sample(self) -> list[dict]:
        """The lines that came since the last call, each with its raw text and the time of its arrival.

        Raises OSError when the program has ended.
        """
        if self._child is None or self.fd is None:
            raise OSError("tegrastats is not running")
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return []
        monotonic, unix = time.monotonic(), time.time()
        if not data:
            status = self._child.poll()
            self.close()
            raise OSError(f"tegrastats ended{'' if status is None else f' with status {status}'}")
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > 65536:  # no line is as long: it prints something else
            self._rest = b""
        if len(lines) > _MOST_LINES:
            self.close()
            raise OSError("tegrastats prints far more than a line per interval")
        readings = []
        for line in lines:
            raw = line.decode("utf-8", "replace").strip("\r")
            if raw.strip():
                readings.append({"monotonic_s": monotonic, "unix_s": unix, **parse_line(raw), "raw": raw})
        return readings

    def close(self) -> None:
        child, self._child, self.fd = self._child, None, None
        if child is None:
            return
        with suppress(OSError):
            child.terminate()
        try:
            child.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            with suppress(OSError):
                child.kill()
            with suppress(subprocess.TimeoutExpired):
                child.wait(timeout=0.5)
        assert child.stdout is not None
        with suppress(OSError):
            child.stdout.close()
