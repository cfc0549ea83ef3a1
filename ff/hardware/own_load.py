"""What looking at the hardware costs: the processor time of the process that looks, and of programs it reads."""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path


class OwnLoad:
    """Processor time of this process and its programs since the last look, as a share of one core.

    `clock` and `processor_time` give seconds; `processes` is where the kernel keeps the facts of processes (proc(5)).
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        processor_time: Callable[[], float] = time.process_time,
        processes: str | os.PathLike = "/proc",
    ):
        self._clock, self._processor_time, self._processes = clock, processor_time, Path(processes)
        self._last_s = clock()
        self._own_s = processor_time()
        self._programs_s: dict[int, float] = {}

    def percent(self, programs: Iterable[int] = ()) -> float | None:
        """Percent of one core since the last call, or since the object was made; `programs`: process ids of programs
        that belong to it, which count from when they are first seen. None where no time has passed."""
        now, own_s, used = self._clock(), self._processor_time(), 0.0
        seen = {number: seconds for number in programs if (seconds := self._program_s(number)) is not None}
        for number, seconds in seen.items():
            used += max(seconds - self._programs_s.get(number, 0.0), 0.0)
        used += own_s - self._own_s
        passed = now - self._last_s
        self._last_s, self._own_s, self._programs_s = now, own_s, seen
        return round(100 * used / passed, 2) if passed > 0 else None

    def _program_s(self, number: int) -> float | None:
        """User and system time of a process: fields 14 and 15 of its stat, in clock ticks; its name, the second, may
        hold blanks and brackets."""
        with suppress(OSError, ValueError, IndexError):
            fields = (self._processes / str(number) / "stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return None
