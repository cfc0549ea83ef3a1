"""A run mirrored while it trains: the training process's side.

The mirror is a child process of its own (`python -m ff.tracking`, file mirror.py). The training process only puts
lines into a queue; it never imports wandb (0.3 s), never waits for a server, and cannot be ended by it. When the
training process is killed, the child sees the end of its input and closes the run as failed with every epoch that it
was told of - wandb inside a killed process would lose them all. Offline the child starts only after 10 s or at the
end, whichever comes first, and nobody waits for it: a short run is not slowed by a mirror that nobody is looking at.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ff.settings import ExecutionConfig
from ff.tracking import names
from ff.tracking.session import Access, redacted, resolve_access
from ff.tracking.session import environment as child_environment

OFFLINE_DELAY_S = 10.0
ONLINE_WAIT_S = 5.0


class Tracker:
    """Mirrors one run while it trains. No method raises, waits (but `finish`, a few seconds) or returns anything.

    Use `open_tracker`. `mode` is online, offline or disabled, `reason` says why; `warnings` fills up with what went
    wrong on W&B's side, for the caller to print.
    """

    def __init__(self, access: Access, opening: Mapping[str, Any], delay_s: float):
        self.mode, self.reason = access.mode, access.reason
        self.run_id = opening["run_id"]
        self.warnings: list[str] = [access.warning] if access.warning else []
        self._access = access
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._child: subprocess.Popen[bytes] | None = None
        self._answers: list[str] = []
        self._writer: threading.Thread | None = None
        if self.mode != "disabled":
            self._put("open", dict(opening))
            self._writer = threading.Thread(target=self._write, args=(delay_s, opening["directory"]), daemon=True)
            self._writer.start()

    def epoch(self, row: Mapping[str, Any]) -> None:
        """One row of history.csv, as soon as its epoch has ended."""
        self._put("epoch", row)

    def finish(self, folder: str | os.PathLike) -> None:
        """The run is complete and its files lie in `folder`.

        Online this waits up to 5 s for the upload and then leaves it to the child, which goes on by itself.
        """
        if self._writer is None:
            return
        self._put("finish", {"folder": str(Path(folder).resolve())})
        self._lines.put(None)
        deadline = time.monotonic() + ONLINE_WAIT_S
        self._writer.join(ONLINE_WAIT_S)
        if self.mode == "offline" or self._child is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(max(0.0, deadline - time.monotonic()))
        self.warnings += [redacted(line, self._access) for line in self._answers]
        if self._child.poll() is None:
            self.warnings.append(
                "W&B is still uploading in the background; if it is cut off, `ff track` uploads the run again"
            )

    def close(self) -> None:
        """End the mirror without `finish`: the run has failed. Safe to call at any time."""
        self._lines.put(None)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put(self, kind: str, value: Mapping[str, Any]) -> None:
        if self.mode == "disabled":
            return
        try:
            self._lines.put(json.dumps({kind: value}, default=str) + "\n")
        except (TypeError, ValueError) as error:
            self.warnings.append(f"not mirrored to W&B: {error}")

    def _write(self, delay_s: float, directory: str) -> None:
        """The writing thread: waits out the delay, starts the child, hands over the lines as they come."""
        waiting: list[str] = []
        ended = False
        start = time.monotonic() + delay_s
        while not ended and time.monotonic() < start:
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=max(0.0, start - time.monotonic()))
                ended = line is None
                waiting += [] if line is None else [line]
        try:
            self._child = child = subprocess.Popen(
                [sys.executable, "-m", "ff.tracking"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_with_this_package(child_environment(self._access, directory)),
                # Ctrl-C is for the training; the child ends by itself when its input does.
                start_new_session=True,
            )
            # In the online mode its warnings are read; nobody reads them once this process has gone.
            assert child.stdin is not None and child.stdout is not None
            threading.Thread(target=self._read, args=(child.stdout,), daemon=True).start()
            with child.stdin as pipe:
                for line in waiting:
                    pipe.write(line.encode())
                while not ended:
                    pipe.flush()
                    line = self._lines.get()
                    ended = line is None
                    pipe.write(b"" if line is None else line.encode())
        except (OSError, ValueError) as error:
            self.warnings.append(
                redacted(f"the W&B mirror stopped ({error}); `ff track` mirrors the run later", self._access)
            )

    def _read(self, answers: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in answers:
                self._answers.append(line.decode(errors="replace").strip())


def _with_this_package(values: dict[str, str]) -> dict[str, str]:
    """So that `-m ff.tracking` finds this very package, wherever the working directory is."""
    home = str(Path(__file__).resolve().parents[2])
    values["PYTHONPATH"] = os.pathsep.join(filter(None, [home, values.get("PYTHONPATH")]))
    return values


def agent_run() -> tuple[str, str | None] | None:
    """(sweep, run) that a W&B agent has started this process for; None outside of one.

    The agent hands out the run's id, and only under it does the run belong to the sweep.
    """
    sweep = os.environ.get("WANDB_SWEEP_ID")
    return (sweep, os.environ.get("WANDB_RUN_ID")) if sweep else None


def open_tracker(
    mode: str = "auto",
    project: str = ExecutionConfig.project,
    config: Mapping[str, Any] | None = None,
    directory: str | os.PathLike = ".",
    hardware_log: str | os.PathLike | None = None,
) -> Tracker:
    """Begin to mirror a training run; costs this process a few milliseconds at most, whatever the mode.

    `config` is `RunConfig.as_dict()`. `directory` gets the folder `wandb/`. `hardware_log` names the hardware log of
    the run, which is followed from now on while it grows. Raises FFError for an unknown `mode` only.
    """
    access = resolve_access(mode)
    machine: dict[str, Any] = {}
    config = dict(config or {})
    sweep, run_id = agent_run() or (None, None)
    if access.mode != "disabled":
        from ff.hardware.machine import describe

        machine = describe()
    opening = {
        "mode": access.mode,
        "run_id": run_id or names.identifier("train", config, names.machine_parts(machine)),
        "machine": machine,
        "project": (os.environ.get("WANDB_PROJECT") if sweep else None) or project,
        "entity": access.entity,
        "config": config,
        "directory": str(Path(directory).resolve()),
        "hardware_log": str(Path(hardware_log).resolve()) if hardware_log else None,
        "start_monotonic_s": time.monotonic(),
    }
    return Tracker(access, opening, OFFLINE_DELAY_S if access.mode == "offline" else 0.0)
