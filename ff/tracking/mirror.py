"""The child process of a live run: JSON lines in, a W&B run out."""

import contextlib
import json
import os
import queue
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ff.files import write_json
from ff.tracking import log, names
from ff.tracking.parts import Part, note_of
from ff.tracking.session import open_run, redacted, resolve_access

CHILD_LIMIT_S = 600.0


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
            name=opening["name"],
            group=opening["group"],
            job_type=opening["job_type"],
            tags=opening["tags"],
            config=config,
            directory=opening["directory"],
        )
        if warning:
            say(warning)
        log.define_steps(self.run)
        self.epochs: set[tuple] = set()
        self.hardware_start_s: float | None = None
        self.hardware_last_s = float("-inf")
        self.defined: set[str] = set()

    def epoch(self, row: Mapping[str, Any]) -> None:
        row = names.epoch_row(row)
        self.epochs.add((row.get("phase"), row.get("epoch")))
        self.run.log(row)

    def hardware(self, sample: Mapping[str, Any]) -> None:
        time_s = names.number(sample.get("monotonic_s"))
        if not isinstance(time_s, (int, float)) or time_s <= self.hardware_last_s:
            return
        if self.hardware_start_s is None:
            self.hardware_start_s = time_s
        self.hardware_last_s = time_s
        log.hardware(self.run, names.hardware_row(sample, self.hardware_start_s), self.defined)

    def finish(self, metrics: Mapping[str, Any], folder: Path) -> None:
        if not self.run.resumed:
            # What an earlier, killed process of this run had trained is known from the file only.
            for row in log.rows_of(folder / "history.csv"):
                if (row.get("phase"), names.number(row.get("epoch"))) not in self.epochs:
                    self.run.log(names.epoch_row(row))
        # What the log holds beyond the last sample that was followed; the whole of it when none was.
        for row in log.rows_of(folder / "hardware.csv"):
            self.hardware(row)
        log.training(self.run, metrics, folder)
        log.finish(self.run)
        part = Part("train", folder)
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
        if opening.get("hardware_log"):
            follow = threading.Thread(target=_follow, args=(Path(opening["hardware_log"]), lines), daemon=True)
            follow.start()
        while (line := lines.get()) is not None:
            ((kind, value),) = json.loads(line).items()
            if kind == "epoch":
                session.epoch(value)
            elif kind == "hardware":
                session.hardware(value)
            elif kind == "finish":
                _limit_life()
                session.finish(value["metrics"], Path(value["folder"]))
                return 0
        _limit_life()
        session.run.finish(exit_code=1)
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


def _limit_life() -> None:
    timer = threading.Timer(CHILD_LIMIT_S, os._exit, args=(1,))
    timer.daemon = True
    timer.start()


def _follow(path: Path, lines: "queue.SimpleQueue[str | None]", start_s: float) -> None:
    """Turn complete new lines of the sidecar's log into hardware samples, once a second.

    Samples from before `start_s` on the monotonic clock are of earlier attempts.
    """
    position, rest = 0, b""
    while True:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            file.seek(position)
            data = file.read()
            position += len(data)
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                sample = hardware_sample(line)
                if sample and sample.get("monotonic_s", 0) >= start_s:
                    lines.put(json.dumps({"hardware": sample}))
        time.sleep(1.0)


def hardware_sample(line: bytes) -> dict[str, Any] | None:
    """The sample in a line of the sidecar's log; None for its other lines and for a line cut short."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and value.get("kind") == "sample" else None
