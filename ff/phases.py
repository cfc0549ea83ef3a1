"""Phase marks: when each part of a job began and ended, on the clock that the hardware log uses.

A line is appended to phases.csv as each part ends, so the marks of a job that is killed survive up to there. Rows of
one name add up: a training has a row per epoch. CLOCK_MONOTONIC is shared by all processes of one boot; `boot_id` tells
marks of different boots (or machines) apart.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ff.errors import FFError
from ff.files import csv_text, read_csv, write_csv
from ff.stamps import stamp_of_rows

COLUMNS = ("model", "phase", "start_monotonic_s", "end_monotonic_s", "start_unix_s", "end_unix_s", "boot_id")
# The first mark of every process that trains: from its start to the first line of its own work.
START = "import"
# Windows in which the process that measures does nothing, for the idle power (`ff.hardware.idle`).
IDLE_BEFORE, IDLE_AFTER = "idle_before", "idle_after"
IDLE = (IDLE_BEFORE, IDLE_AFTER)


class Phase(NamedTuple):
    """One finished part of a job; times in seconds."""

    name: str
    start_monotonic_s: float
    end_monotonic_s: float
    start_unix_s: float
    end_unix_s: float
    boot_id: str

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.end_monotonic_s - self.start_monotonic_s


def boot_id() -> str:
    """The kernel's random id of this boot (Linux, proc(5)); empty where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def process_start_s() -> float:
    """When this process started, on the monotonic clock; now where the system does not say.

    Linux: field 22 of /proc/self/stat, in clock ticks since boot (proc(5)), which is CLOCK_BOOTTIME.
    """
    now = time.monotonic()
    try:
        # The second field is the program's name in brackets, which may hold anything.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        since_boot_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return min(now, now - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot_s))
    except (OSError, ValueError, IndexError, AttributeError):
        return now


class PhaseLog:
    """Times the parts of a job and appends them to `path` (None: only keeps them in `rows`); `model` is its stamp."""

    def __init__(self, path: str | os.PathLike | None = None, model: str = ""):
        self.path = Path(path) if path is not None else None
        self.rows: list[Phase] = []
        self._model, self._boot_id = model, boot_id()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Mark the enclosed block as part `name`; a block that raises is marked too."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.mark(name, start)

    def mark(self, name: str, start_monotonic_s: float) -> None:
        """Mark the time from `start_monotonic_s` until now as part `name`."""
        end, unix = time.monotonic(), time.time()
        started_unix = unix - (end - start_monotonic_s)
        self.rows.append(Phase(name, start_monotonic_s, end, started_unix, unix, self._boot_id))
        self._append(self.rows[-1])

    def seconds(self, name: str) -> float:
        """Seconds of all rows called `name`, 0 without any."""
        return sum(row.seconds for row in self.rows if row.name == name)

    def stretches(self) -> list[list[Phase]]:
        """The rows of each process that had a part in the job: each begins with the mark `import`."""
        stretches: list[list[Phase]] = []
        for row in self.rows:
            if row.name == START or not stretches:
                stretches.append([])
            stretches[-1].append(row)
        return stretches

    def continue_after(self, earlier: Sequence[Phase]) -> None:
        """Put the marks of earlier stretches before the own ones; whatever else the file held is forgotten."""
        self.rows = [*earlier, *self.rows]
        if self.path is not None:
            self.write(self.path, self._model)

    def write(self, path: str | os.PathLike, model: str) -> None:
        """Write all rows to `path`, whole, as those of `model`."""
        write_csv(path, COLUMNS, [_row(row, model) for row in self.rows])

    def _append(self, phase: Phase) -> None:
        if self.path is None:
            return
        header, line = csv_text(COLUMNS, [_row(phase, self._model)]).splitlines(keepends=True)
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


def _row(phase: Phase, model: str) -> dict[str, object]:
    return dict(zip(COLUMNS, (model, *phase), strict=True))


def read_phases(path: str | os.PathLike) -> list[Phase]:
    """Read phases.csv; a last line cut short by a crash is left out."""
    phases = []
    for row in read_csv(path):
        try:
            start, end, start_unix, end_unix = (float(row[column]) for column in COLUMNS[2:6])
            phases.append(Phase(row["phase"], start, end, start_unix, end_unix, row["boot_id"] or ""))
        except (KeyError, TypeError, ValueError):
            continue
    return phases


def model_of_phases(path: str | os.PathLike) -> str | None:
    """The stamp of the model that the job behind phases.csv made or used; None where the job did not get so far."""
    return stamp_of_rows(read_csv(path)) if Path(path).exists() else None
