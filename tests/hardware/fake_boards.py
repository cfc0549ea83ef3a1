"""Boards that are not there: a power curve, sysfs trees of six boards that follow it, a fake tegrastats."""

import math
import os
import stat
import sys
import threading
import time
from pathlib import Path

SAMPLES = Path(__file__).with_name("tegrastats_samples.txt")

# Rails of the chips of each board as (address, label, share of the board's power); the layout is the
# kernel's.
BOARDS = {
    "Nano": (
        "4.9",
        [("6-0040", "POM_5V_IN", 1.0), ("6-0040", "POM_5V_GPU", 0.3), ("6-0040", "POM_5V_CPU", 0.2)],
    ),
    "TX2": (
        "4.9",
        [
            ("0-0040", "VDD_SYS_GPU", 0.2),
            ("0-0040", "VDD_SYS_SOC", 0.15),
            ("0-0040", "VDD_4V0_WIFI", 0.01),
            ("0-0041", "VDD_IN", 1.0),
            ("0-0041", "VDD_SYS_CPU", 0.2),
            ("0-0041", "VDD_SYS_DDR", 0.1),
        ],
    ),
    "Xavier NX": (
        "4.9",
        [("7-0040", "VDD_IN", 1.0), ("7-0040", "VDD_CPU_GPU_CV", 0.5), ("7-0040", "VDD_SOC", 0.2)],
    ),
    "AGX Xavier": (
        "4.9",
        [
            ("1-0040", "GPU", 0.3),
            ("1-0040", "CPU", 0.2),
            ("1-0040", "SOC", 0.2),
            ("1-0041", "CV", 0.05),
            ("1-0041", "VDDRQ", 0.1),
            ("1-0041", "SYS5V", 0.15),
        ],
    ),
    "Orin Nano": (
        "5",
        [("1-0040", "VDD_IN", 1.0), ("1-0040", "VDD_CPU_GPU_CV", 0.5), ("1-0040", "VDD_SOC", 0.2)],
    ),
    "AGX Orin": (
        "5",
        [
            ("1-0040", "VDD_GPU_SOC", 0.4),
            ("1-0040", "VDD_CPU_CV", 0.2),
            ("1-0040", "VIN_SYS_5V0", 0.4),
            ("1-0041", "NC", 0.0),
            ("1-0041", "VDDQ_VDD2_1V8AO", 0.1),
            ("1-0041", "NC", 0.0),
        ],
    ),
}
BOARD_MW = 8000.0
MILLIVOLTS = 5000


def curve_mw(now_s: float) -> float:
    """The power of the whole board: a triangle of 0.8 s between 80 and 120 % of BOARD_MW."""
    position = (now_s / 0.8) % 1.0
    return BOARD_MW * (0.8 + 0.8 * min(position, 1 - position))


def curve_mj(start_s: float, end_s: float) -> float:
    """The energy of curve_mw between two instants, summed in steps that are short against the curve."""
    steps = max(int((end_s - start_s) / 1e-4), 1)
    width = (end_s - start_s) / steps
    return math.fsum(curve_mw(start_s + (i + 0.5) * width) for i in range(steps)) * width


def total_share(board: str) -> float:
    """What share of the curve the board's total is (AGX Orin's memory rail is part of VIN_SYS_5V0)."""
    shares = {label: share for _, label, share in BOARDS[board][1]}
    for label in ("VDD_IN", "POM_5V_IN"):
        if label in shares:
            return shares[label]
    return sum(share for label, share in shares.items() if label != "VDDQ_VDD2_1V8AO")


def total_name(board: str) -> str:
    labels = [label for _, label, _ in BOARDS[board][1]]
    return next((label for label in ("VDD_IN", "POM_5V_IN") if label in labels), "sum of rails")


def _replace(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new text, as with sysfs."""
    temporary = path.with_name("." + path.name)
    temporary.write_text(text)
    os.replace(temporary, path)


class FakeTree:
    """The sysfs tree of a board under `root`, whose readings follow the curve once update() is called."""

    def __init__(self, root: Path, board: str):
        self.root = root
        self.layout, rails = BOARDS[board]
        self._inputs: list[tuple[Path, float]] = []
        (root / "etc").mkdir(parents=True)
        (root / "etc/nv_tegra_release").write_text("# R32 (release), REVISION: 7.1, GCID: 1, BOARD: t186ref\n")
        channels: dict[str, int] = {}
        chips = list(dict.fromkeys(address for address, _, _ in rails))
        for address, label, share in rails:
            number = channels[address] = channels.get(address, -1) + 1
            if self.layout == "4.9":
                folder = root / f"sys/bus/i2c/drivers/ina3221x/{address}/iio:device{chips.index(address) + 1}"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"rail_name_{number}").write_text(label + "\n")
                (folder / f"in_voltage{number}_input").write_text(f"{MILLIVOLTS}\n")
                self._inputs.append((folder / f"in_power{number}_input", share))
            else:
                folder = root / f"sys/bus/i2c/drivers/ina3221/{address}/hwmon/hwmon{chips.index(address) + 3}"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"in{number + 1}_label").write_text(label + "\n")
                (folder / "in7_label").write_text("sum of shunt voltages\n")
                (folder / "in7_input").write_text("123\n")
                if label == "NC":
                    # Reading a process's memory at address 0 fails as the driver does there: with EIO.
                    (folder / f"in{number + 1}_input").symlink_to("/proc/self/mem")
                    continue
                (folder / f"in{number + 1}_input").write_text(f"{MILLIVOLTS}\n")
                self._inputs.append((folder / f"curr{number + 1}_input", share))
        self.update()

    def update(self) -> None:
        power = curve_mw(time.monotonic())
        for path, share in self._inputs:
            milliwatts = power * share
            value = milliwatts if self.layout == "4.9" else milliwatts * 1000 / MILLIVOLTS
            _replace(path, f"{round(value)}\n")


class Following:
    """A thread that keeps trees on the curve while the block runs."""

    def __init__(self, trees: list[FakeTree]):
        self._trees = trees
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(0.004):
            for tree in self._trees:
                tree.update()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()


def tegrastats_line(board: str, power_mw: float) -> str:
    """A line as that board prints it, at a power of the whole board."""
    layout, rails = BOARDS[board]
    suffix = "" if layout == "4.9" else "mW"
    power = " ".join(f"{label} {share * power_mw:.0f}{suffix}/1{suffix}" for _, label, share in rails)
    return (
        "RAM 613/3964MB (lfb 634x4MB) SWAP 0/1982MB (cached 0MB) CPU [2%@102,off] EMC_FREQ 0% "
        f"GR3D_FREQ 12%@76 CPU@40.5C GPU@-256C {power}"
    )


def install_fake_tegrastats(folder: Path, body: str) -> Path:
    """An executable `tegrastats` in `folder`: a Python program with these helpers; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "tegrastats"
    program.write_text(
        f"#!{sys.executable} -S\nimport os, sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from fake_boards import curve_mw, tegrastats_line\n"
        "def say(text):\n    os.write(1, (text + '\\n').encode())\n" + body
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def follow_curve(board: str, step_s: float = 0.01) -> str:
    """The body of a fake tegrastats that prints the curve for ever."""
    line = f"tegrastats_line({board!r}, curve_mw(time.monotonic()))"
    return f"while True:\n    say({line})\n    time.sleep({step_s})\n"


def wait_until(condition, seconds: float = 20.0):
    """Wait for something that happens elsewhere; returns its truth, or fails when it never comes."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError("what the test waits for did not come")
