"""The child process of a live run: JSON lines in, a W&B run out.

It follows the hardware log by itself, so that the training process has nothing to do with samples.
"""

import contextlib
import json
import os
import queue
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ff.files import write_json
from ff.phases import boot_id
from ff.tracking import log, names
from ff.tracking.parts import Part, note_of
from ff.tracking.session import open_run, redacted, resolve_access

CHILD_LIMIT_S = 600.0
FOLLOW_S = 1.0


class HardwareLog:
    """The samples that another process appends to a hardware log, as they come (`tail -F`).

    Only those of this boot from `start_s` (seconds) on its monotonic clock: others are of earlier attempts. The file
    may not be there yet, and may be replaced by a new one.
    """

    def __init__(self, path: str | os.PathLike, start_s: float):
        self._path, self._start_s = Path(path), start_s
        self._file: Any = None
        self._rest, self._boot, self._this_boot = b"", boot_id(), False

    def new_samples(self) -> Iterator[dict[str, Any]]:
        """The samples whose lines have been completed since the last call."""
        with contextlib.suppress(OSError):
            yield from self._read()
            if self._replaced():
                self._file, self._rest = open(self._path, "rb"), b""  # noqa: SIM115 - open between calls
                yield from self._read()

    def _replaced(self) -> bool:
        # The old file is kept open until then: its number cannot be given to the new one.
        now = self._path.stat()
        if self._file is None:
            return True
        before = os.fstat(self._file.fileno())
        if (before.st_dev, before.st_ino) == (now.st_dev, now.st_ino):
            return False
        self._file.close()
        return True

    def _read(self) -> Iterator[dict[str, Any]]:
        if self._file is None:
            return
        *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in whole:
            record = _record(line)
            if record.get("kind") == "header":
                self._this_boot = record.get("boot_id") == self._boot
            elif record.get("kind") == "sample" and self._this_boot:
                time_s = names.number(record.get("monotonic_s"))
                if isinstance(time_s, (int, float)) and time_s >= self._start_s:
                    yield record


def _record(line: bytes) -> dict[str, Any]:
    """A line of the log; {} for one that was cut short by a kill."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


class _Mirror:
    """The child's open W&B run."""

    def __init__(self, opening: Mapping[str, Any], say):
        self.opening = opening
        access = resolve_access(opening["mode"])
        config = names.run_config({"config": opening["config"]}) | {"machine": opening["machine"]}
        self.run, self.access, warning = open_run(
            access,
            run_id=opening["run_id"],
            project=opening["project"],
            job_type="train",
            **names.labels(opening["config"]),
            config=config,
            directory=opening["directory"],
        )
        if warning:
            say(warning)
        log.define_steps(self.run)
        self.epochs: set[tuple] = set()
        path = opening.get("hardware_log")
        self.hardware_log = HardwareLog(path, opening["start_monotonic_s"]) if path else None
        self.hardware = log.Hardware(self.run)

    def epoch(self, row: Mapping[str, Any]) -> None:
        row = names.epoch_row(row)
        self.epochs.add((row.get("phase"), row.get("epoch")))
        self.run.log(row)

    def follow(self) -> None:
        """Log the hardware samples that have come since the last call."""
        for sample in self.hardware_log.new_samples() if self.hardware_log else ():
            self.hardware.log(sample)

    def finish(self, folder: Path) -> None:
        """Log the files of the finished run and end it."""
        part = Part("train", folder)
        if not self.run.resumed:
            # What an earlier, killed process of this run had trained is known from the file only.
            for row in part.rows("history.csv"):
                if (row.get("phase"), names.number(row.get("epoch"))) not in self.epochs:
                    self.run.log(names.epoch_row(row))
        if self.hardware.empty:
            log.hardware_file(self.run, part)
        log.training(self.run, part)
        log.finish(self.run)
        write_json(part.marker, note_of(part, self.opening["run_id"], self.access, self.opening, self.run))


def mirror(stdin: Any, stdout: Any) -> int:
    """The child process: JSON lines in, warnings out. The run is closed as failed when the input ends early."""
    with contextlib.suppress(OSError):
        # The training has the first claim on the processor.
        os.nice(10)
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def receive() -> None:
        for line in stdin:
            lines.put(line)
        lines.put(None)

    def say(text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(text, file=stdout, flush=True)

    # Read from the start: the training process must not find the pipe full while wandb is being imported.
    threading.Thread(target=receive, daemon=True).start()
    first = lines.get()
    if first is None:
        return 0
    opening = json.loads(first)["open"]
    session: _Mirror | None = None
    try:
        session = _Mirror(opening, say)
        _serve(session, lines)
    except Exception as error:
        access = session.access if session else resolve_access(opening["mode"])
        say(
            redacted(
                f"the W&B mirror stopped ({type(error).__name__}: {error}); `ff track` mirrors the run later",
                access,
            )
        )
        return 1
    return 0


def _serve(session: _Mirror, lines: "queue.SimpleQueue[str | None]") -> None:
    """Log what comes until the run is finished, or closed as failed because nothing more comes."""
    while True:
        kind, value = _next(lines)
        if kind in ("finish", "closed"):
            _limit_life()
        session.follow()
        if kind == "epoch":
            session.epoch(value)
        elif kind == "finish":
            return session.finish(Path(value["folder"]))
        elif kind == "closed":
            return session.run.finish(exit_code=1)


def _next(lines: "queue.SimpleQueue[str | None]") -> tuple[str, Any]:
    """(kind, value) of the next line; `nothing` when none came for a while, `closed` at the end of the input."""
    try:
        line = lines.get(timeout=FOLLOW_S)
    except queue.Empty:
        return "nothing", None
    if line is None:
        return "closed", None
    ((kind, value),) = json.loads(line).items()
    return kind, value


def _limit_life() -> None:
    timer = threading.Timer(CHILD_LIMIT_S, os._exit, args=(1,))
    timer.daemon = True
    timer.start()
