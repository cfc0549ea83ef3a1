"""The hardware log: JSON lines that a recorder appends and that a summary reads.

Each line is written by one system call, so that whatever kills the process leaves whole lines, but for the
last:

    {"kind": "header", "monotonic_s", "unix_s", "boot_id", "pid", "mode", "interval_ms", "machine", "sources"}
    {"kind": "source", "monotonic_s", "unix_s", "source", "method", "period_s"}
    {"kind": "sample", "monotonic_s", "unix_s", "source", ...fields, "shared_with", "raw" (as printed)}
    {"kind": "note",   "monotonic_s", "unix_s", "source" or null, "event", "text"}

`source` is written each time one is opened that reads power, and says how. `shared_with` names the other jobs of ff on
this machine, in a sample of a GPU the other processes on it: [] for none, left out where that cannot be known
(`ff.hardware.sharing`).

A log that is there already is continued with a new header, so that a retry keeps what the attempt before it
left.
"""

import json
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

DISK_RETRY_S = 30.0


def stamps() -> dict:
    """Now on the clock that all processes of a boot share, and on the wall."""
    return {"monotonic_s": round(time.monotonic(), 6), "unix_s": round(time.time(), 6)}


def complain(text: str) -> None:
    """Say something on stderr, if there still is one."""
    with suppress(Exception):
        print(f"ff hardware: {text}", file=sys.stderr, flush=True)


class Log:
    """An append-only file of JSON lines that gives up on a full disk and not on anything else."""

    def __init__(self, path: Path):
        self.path = path
        self._file: int | None = None
        self._full_since: float | None = None
        self._lock = threading.Lock()
        self._closed = False

    def write(self, record: dict) -> None:
        """Append one record. Never raises; says on stderr when writing stops."""
        try:
            line = json.dumps(record, allow_nan=False, separators=(",", ":"), default=str)
        except ValueError:
            line = json.dumps(_finite(record), allow_nan=False, separators=(",", ":"), default=str)
        with self._lock:
            if not self._closed:
                self._append(line.encode() + b"\n")

    def _append(self, data: bytes) -> None:
        now = time.monotonic()
        if self._full_since is not None and now - self._full_since < DISK_RETRY_S:
            return
        try:
            file = self._open() if self._file is None else self._file
            if self._full_since is not None:
                data = b"\n" + data  # whatever was cut off stays a line of its own
            while data:
                # One call writes it all, but for a full disk: the next call then says so.
                data = data[os.write(file, data) :]
            if self._full_since is not None:
                self._full_since = None
                complain(f"{self.path} is written again")
        except OSError as error:
            if self._full_since is None:
                complain(f"{self.path} cannot be written ({error.strerror or error}); the job goes on without")
            self._full_since = now

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            os.write(file, b"\n")  # a kill cut the last line of the attempt before
        return file

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._file is not None:
                with suppress(OSError):
                    os.close(self._file)
                self._file = None


def _finite(value):
    """The same with None for numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not -1e308 < value < 1e308:
        return None
    return value


class Attempt:
    """What one recorder left: its header, sources, samples and notes, in the order written."""

    def __init__(self, header: dict):
        self.header = header
        self.sources: list[dict] = []
        self.samples: list[dict] = []
        self.notes: list[dict] = []

    @property
    def boot_id(self) -> str:
        return str(self.header.get("boot_id") or "")

    @property
    def interval_s(self) -> float:
        interval_ms = number(self.header.get("interval_ms"))
        return interval_ms / 1000 if interval_ms and interval_ms > 0 else 0.5

    @property
    def end_s(self) -> float | None:
        """When the last was heard of it, on its boot's monotonic clock."""
        records = [self.header, *self.sources, *self.samples, *self.notes]
        return max((time for one in records if (time := number(one.get("monotonic_s"))) is not None), default=None)


def read_log(path: str | os.PathLike) -> list[Attempt]:
    """Read a log; lines that are cut short or make no sense are left out. A missing log is an empty one."""
    attempts: list[Attempt] = []
    try:
        lines = Path(path).read_bytes().decode("utf-8", "replace").split("\n")
    except OSError:
        return []
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(record, dict):
            continue
        if record.get("kind") == "header":
            attempts.append(Attempt(record))
            continue
        if not attempts:
            attempts.append(Attempt({}))
        if record.get("kind") == "sample" and number(record.get("monotonic_s")) is not None:
            attempts[-1].samples.append(record)
        elif record.get("kind") == "note":
            attempts[-1].notes.append(record)
        elif record.get("kind") == "source":
            attempts[-1].sources.append(record)
    return attempts


def number(value) -> float | None:
    """The value as a finite float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    value = float(value)
    return value if -1e300 < value < 1e300 else None
