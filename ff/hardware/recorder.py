"""The recorder: samples the sources of this machine into a log of JSON lines.

It runs as a thread inside a job (`record`) or as the process of the sidecar, and must never harm the job: it raises
nothing, imports nothing heavy, and keeps going without sensors, with sensors that fail, and on a full disk.
"""

import math
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ff.hardware import SensorMissing
from ff.hardware.log import Log, complain, stamps
from ff.hardware.machine import describe
from ff.hardware.own_load import OwnLoad
from ff.hardware.sharing import Job, Presence, Watch
from ff.hardware.sources import Choice, choose
from ff.phases import boot_id

_NOTES_PER_SOURCE = 50
_RAW_CHARACTERS = 4096
RETRY_S = (1.0, 2.0, 5.0, 15.0, 60.0)


class Recorder:
    """Samples until stop(): by `run()` in the calling thread, or between `start()` and `finish()` in its own.

    interval_ms     between two samples of the polled sources
    mode            "inline" in the job's own process, "service" in a process beside it (whose parent is the workflow
                    that started both), "monitor" for no job at all: then a sample of the source `monitor` says
                    after each interval what the recording itself takes of a processor
    choice          the sources; by default what `sources.choose` finds for the machine under `root`
    silent_after_s  a source that prints nothing for so long is restarted; 10 intervals, at least 5 s
    alive           asked twice a second; False ends the recording
    listener        called with every record, besides the log (log_path may be None then)
    """

    def __init__(
        self,
        log_path: str | os.PathLike | None,
        interval_ms: int = 500,
        root: str | os.PathLike = "/",
        mode: str = "inline",
        choice: Choice | None = None,
        silent_after_s: float | None = None,
        alive: Callable[[], bool] | None = None,
        listener: Callable[[dict], None] | None = None,
    ):
        self.interval_ms = max(int(interval_ms), 1)
        self.mode = mode
        self._root = root
        self._choice = choice
        self._alive = alive or (lambda: True)
        interval_s = self.interval_ms / 1000
        self._silent_after_s = silent_after_s if silent_after_s is not None else max(5.0, 10 * interval_s)
        self._own = OwnLoad() if mode == "monitor" else None
        self._log = Log(Path(log_path)) if log_path is not None else None
        self._listener = listener
        self._presence = Presence(root)
        self._watch: Watch | None = None
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._stopping = False
        self._why = "stopped"
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------ control

    def start(self) -> None:
        """Record in a thread of this process."""
        self._thread = threading.Thread(target=self._run_quietly, name="ff-hardware", daemon=True)
        self._thread.start()

    def finish(self, timeout_s: float = 3.0) -> None:
        """End the thread; a sensor that hangs is left behind rather than waited for."""
        self.stop("the job ended")
        if self._thread is not None:
            self._thread.join(timeout_s)
            if not self._thread.is_alive():
                for descriptor in (self._wake_read, self._wake_write):
                    with suppress(OSError):
                        os.close(descriptor)
                self._wake_write = -1

    def stop(self, why: str = "stopped") -> None:
        """End the recording soon; may be called from a signal handler."""
        self._why = why
        self._stopping = True
        with suppress(OSError):
            os.write(self._wake_write, b"x")

    def note(self, event: str, text: str, source: str | None = None) -> None:
        """Write a note into the log."""
        text = text[:_RAW_CHARACTERS]
        self._write({"kind": "note", **stamps(), "source": source, "event": event, "text": text})

    def _write(self, record: dict) -> None:
        if self._log is not None:
            self._log.write(record)
        if self._listener is not None:
            self._listener(record)

    def _run_quietly(self) -> None:
        try:
            self.run()
        except BaseException as error:
            complain(f"the hardware log ends: {type(error).__name__}: {error}")

    # ------------------------------------------------------------------ recording

    def run(self) -> None:
        """Record until stop() or until `alive` says no."""
        choice = self._choice if self._choice is not None else choose(self.interval_ms, self._root)
        first = [_Watched(source) for source in choice.first]
        instead = [_Watched(source) for source in choice.instead]
        try:
            self._appear()
            self._open_all(first, instead)
            self._loop(first, instead)
        finally:
            for watched in first + instead:
                with suppress(Exception):
                    watched.source.close()
            self._presence.leave()
            self.note("end", self._why)
            if self._log is not None:
                self._log.close()

    def _appear(self) -> None:
        """Let other recorders see this one, and begin to look at them."""
        if self.mode not in ("inline", "service"):
            return
        pid, workflow = os.getpid(), os.getppid() if self.mode == "service" else None
        # The run and the work, as in MNIST/784-200-200-10/ff/seed1/train.jsonl.
        name = "/".join(self._log.path.parts[-5:]) if self._log is not None else f"process {pid}"
        try:
            self._presence.enter(Job(name, pid, workflow))
        except OSError:
            return
        self._watch = Watch(self._presence, workflow or pid, alone=workflow is None)

    def _open_all(self, first: list["_Watched"], instead: list["_Watched"]) -> None:
        header = {"kind": "header", "schema": 1, **stamps(), "boot_id": boot_id(), "pid": os.getpid()}
        missing = []
        for watched in first:
            reason = watched.open()
            if reason is not None:
                missing.append({"source": watched.source.name, "reason": reason})
        if not any(watched.is_open for watched in first):
            for watched in instead:
                reason = watched.open()
                if reason is not None:
                    missing.append({"source": watched.source.name, "reason": reason})
        try:
            machine = describe(self._root)
        except Exception as error:
            machine = {"error": f"{type(error).__name__}: {error}"}
        used = [watched.source.name for watched in first + instead if watched.is_open]
        header |= {"mode": self.mode, "interval_ms": self.interval_ms, "machine": machine}
        header["sources"] = {"used": used, "missing": missing}
        self._write(header)
        for watched in first + instead:
            if watched.is_open:
                self._introduce(watched.source)

    def _introduce(self, source) -> None:
        if source.method is not None:
            about = {"source": source.name, "method": source.method, "period_s": source.period_s}
            self._write({"kind": "source", **stamps(), **about})

    def _loop(self, first: list["_Watched"], instead: list["_Watched"]) -> None:
        interval_s = self.interval_ms / 1000
        stale_s = max(2.0, 4 * interval_s)
        next_tick = time.monotonic()
        last_power = next_tick
        while not self._stopping:
            now = time.monotonic()
            wait_s = min(max(next_tick - now, 0.0), 0.5)
            ready = self._wait(wait_s, first + instead)
            if self._stopping:
                break
            if not self._alive():
                self._why = "the parent process is gone"
                break
            for watched in first + instead:
                if watched.is_open and watched.source.fd in ready and self._sample(watched) and watched in first:
                    last_power = time.monotonic()
            now = time.monotonic()
            if now < next_tick:
                continue
            # A late tick is not made up for: that would crowd samples together.
            next_tick = max(next_tick + interval_s, now)
            for watched in first:
                self._revive(watched, now)
                if watched.is_open and watched.source.fd is None and self._sample(watched):
                    last_power = now
            lacking = not any(watched.is_open for watched in first) or now - last_power > stale_s
            for watched in instead if lacking else ():
                self._revive(watched, now)
                if watched.is_open and watched.source.fd is None:
                    self._sample(watched)
            self._look_at_itself(first + instead)

    def _look_at_itself(self, watched: list["_Watched"]) -> None:
        if self._own is None:
            return
        programs = [getattr(one.source, "pid", None) for one in watched if one.is_open]
        load = self._own.percent(number for number in programs if number is not None)
        if load is not None:
            self._write({"kind": "sample", **stamps(), "source": "monitor", "monitor_cpu_percent": load})

    def _wait(self, seconds: float, watched: list["_Watched"]) -> set[int]:
        """Sleep until a source prints, stop() is called or the time is over; returns readable descriptors."""
        poll = select.poll()  # not select(): a job may have thousands of open files
        poll.register(self._wake_read, select.POLLIN)
        for item in watched:
            if item.is_open and item.source.fd is not None:
                poll.register(item.source.fd, select.POLLIN)
        return {descriptor for descriptor, _ in poll.poll(max(0, math.ceil(seconds * 1000)))}

    def _sample(self, watched: "_Watched") -> bool:
        """Log what a source has; returns whether there was power in it."""
        try:
            readings = watched.source.sample()
        except Exception as error:
            self._lose(watched, "lost", f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
            return False
        power = False
        now = time.monotonic()
        for reading in readings:
            record = {"kind": "sample", **stamps(), "source": watched.source.name, **reading}
            processes = record.pop("gpu_processes", None)
            if self._watch is not None:
                others = self._watch.gpu(processes) if "gpu" in record else self._watch.machine()
                record |= {} if others is None else {"shared_with": others}
            if "raw" in record:
                record["raw"] = record["raw"][:_RAW_CHARACTERS]
                watched.judge(reading, self)
            self._write(record)
            watched.last_s = now
            power = power or bool(reading.get("power_mw") or reading.get("energy_mj"))
        if readings and watched.lost:
            watched.lost = False
            self._note(watched, "recovered", "readings again")
        return power

    def _revive(self, watched: "_Watched", now: float) -> None:
        """Restart a source that has gone silent, and try again to open one that was lost."""
        if watched.is_open:
            if watched.source.fd is not None and now - watched.last_s > self._silent_after_s:
                self._lose(watched, "silent", f"nothing for {now - watched.last_s:.1f} s")
            return
        if now < watched.retry_s or (watched.missing and not watched.fresh):
            return
        reason = watched.open()
        if reason is None:
            self._introduce(watched.source)
        elif not watched.lost:
            self._note(watched, "missing", reason)

    def _lose(self, watched: "_Watched", event: str, text: str) -> None:
        watched.lose()
        self._note(watched, event, text)

    def _note(self, watched: "_Watched", event: str, text: str) -> None:
        watched.notes += 1
        if watched.notes <= _NOTES_PER_SOURCE:
            self.note(event, text, watched.source.name)


class _Watched:
    """A source and how it is doing."""

    def __init__(self, source):
        self.source = source
        self.is_open = False
        self.missing = False  # it was never there, so there is no sense in trying again
        self.lost = False
        self.fresh = True  # not tried yet
        self.last_s = 0.0
        self.retry_s = 0.0
        self.failures = 0
        self.notes = 0
        self.unreadable = False

    def open(self) -> str | None:
        """Open the source; returns why not, or None."""
        self.fresh = False
        try:
            self.source.open()
        except SensorMissing as error:
            self.missing = not self.lost
            self._back_off()
            return str(error)
        except Exception as error:
            self._back_off()
            self.lost = True
            return f"{type(error).__name__}: {error}"
        self.is_open = True
        self.last_s = time.monotonic()
        return None

    def lose(self) -> None:
        self.is_open = False
        self.lost = True
        self._back_off()
        with suppress(Exception):
            self.source.close()

    def _back_off(self) -> None:
        self.retry_s = time.monotonic() + RETRY_S[min(self.failures, len(RETRY_S) - 1)]
        self.failures += 1

    def judge(self, reading: dict, recorder: Recorder) -> None:
        """Say once when printed lines stop or begin to make sense."""
        empty = not any(value for name, value in reading.items() if name not in ("raw", "monotonic_s", "unix_s"))
        if empty and not self.unreadable:
            recorder._note(self, "garbage", f"a line that cannot be read: {reading['raw'][:200]!r}")
        self.unreadable = empty


@contextmanager
def record(
    log_path: str | os.PathLike,
    interval_ms: int = 500,
    root: str | os.PathLike = "/",
    choice: Choice | None = None,
) -> Iterator[Recorder | None]:
    """Record the hardware into `log_path` while the block runs. Raises nothing but what the block raises.

    Yields the recorder, or None when it could not be started.
    """
    try:
        recorder = Recorder(log_path, interval_ms, root, "inline", choice)
        recorder.start()
    except Exception as error:
        complain(f"no hardware log: {type(error).__name__}: {error}")
        recorder = None
    try:
        yield recorder
    finally:
        if recorder is not None:
            with suppress(Exception):
                recorder.finish()
