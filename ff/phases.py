"""Phase marks: when each part of a job began and ended, on the clock that the hardware log uses.

A line is appended to phases.csv as each phase ends, so the marks of a job that is killed survive up to there, and
a resumed run adds lines for the part it repeats. CLOCK_MONOTONIC is shared by all processes of one boot; `boot_id`
tells marks of different boots (or machines) apart.
"""

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ff.errors import FFError
from ff.files import csv_text, read_csv, write_csv

COLUMNS = ("phase", "start_monotonic_s", "end_monotonic_s", "start_unix_s", "end_unix_s", "boot_id")


class Phase(NamedTuple):
    """One finished phase; times in seconds."""

    name: str
    start_monotonic_s: float
    end_monotonic_s: float
    start_unix_s: float
    end_unix_s: float
    boot_id: str


def boot_id() -> str:
    """The kernel's random id of this boot (Linux, proc(5)); empty where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class PhaseLog:
    """Times phases and appends them to `path` (None: only keeps the sums in `seconds`)."""

    def __init__(self, path: str | os.PathLike | None = None):
        self.path = Path(path) if path is not None else None
        self.seconds: dict[str, float] = defaultdict(float)
        self._own: list[dict[str, object]] = []
        self._boot_id = boot_id()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Mark the enclosed block as phase `name`; a block that raises is marked too."""
        start, start_unix = time.monotonic(), time.time()
        try:
            yield
        finally:
            end = time.monotonic()
            self.seconds[name] += end - start
            self._append(Phase(name, start, end, start_unix, time.time(), self._boot_id))

    def _append(self, phase: Phase) -> None:
        if self.path is None:
            return
        row = dict(zip(COLUMNS, phase, strict=True))
        self._own.append(row)
        header, line = csv_text(COLUMNS, [row]).splitlines(keepends=True)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab+") as file:
                size = file.seek(0, os.SEEK_END)
                if size == 0:
                    line = header + line
                else:
                    # A line that a crash cut short stays a line of its own.
                    file.seek(size - 1)
                    line = line if file.read(1) == b"\n" else "\n" + line
                file.write(line.encode())
        except OSError as error:
            raise FFError(f"cannot write {self.path}: {error.strerror}; free space or choose another folder") from error

    def forget_earlier(self) -> None:
        """Leave only what this process marked: the marks before it belong to a run that is not continued."""
        if self.path is not None:
            write_csv(self.path, COLUMNS, self._own)


def read_phases(path: str | os.PathLike) -> list[Phase]:
    """Read phases.csv; a last line cut short by a crash is left out."""
    phases = []
    for row in read_csv(path):
        try:
            times = [float(row[column]) for column in COLUMNS[1:5]]
            phases.append(Phase(row["phase"], *times, row["boot_id"] or ""))
        except (KeyError, TypeError, ValueError):
            continue
    return phases
