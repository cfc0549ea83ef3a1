"""The power modes of a Jetson: a block of work in another mode than the one that is on, which is put back afterwards.

nvpmodel (Jetson Linux Developer Guide, "Platform Power and Performance") says with -q the name of the mode that is on
and, a line below, its number; with -m it switches, which takes root: here by `sudo -n`, which asks nobody. Some modes
need a restart of the board. nvpmodel asks for leave on its standard input, finds that empty, and changes nothing.

A mode outlives a restart, so it is put back whatever ends the block: its end, an exception, SIGINT, SIGTERM or SIGHUP;
after SIGKILL or a loss of power the next measurement of the same user does it, from a file that says which mode was on.
"""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ff.errors import FFError
from ff.files import read_json, remove, write_json
from ff.hardware.machine import describe

TIMEOUT_S = 120.0
"""For one call of nvpmodel; a switch takes seconds."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def switched(mode: int | None, root: str | os.PathLike = "/") -> Iterator[str | None]:
    """The block runs in power mode number `mode` (None: in the one that is on). Gives why it does not, where nothing
    was changed, or None. `root`: where the machine's files are looked up.

    Where the mode cannot be put back afterwards, stderr says so, and the next call of `put_back` tries again.
    """
    with ExitStack() as stack:
        yield None if mode is None else _switch(mode, root, stack)


def put_back() -> None:
    """Put back the power mode that a measurement has left which was killed, if one was; costs a look at a file."""
    if not _state().exists():
        return
    with ExitStack() as stack, suppress(OSError):
        _lock(stack)
        _restore()
        if not _state().exists():
            print("ff: the power mode is again what it was before a measurement that was killed", file=sys.stderr)


def _switch(mode: int, root: str | os.PathLike, stack: ExitStack) -> str | None:
    """Switch, and leave on `stack` what puts the mode back; why not, with nothing changed."""
    if _command() is None:
        return "this machine has no nvpmodel, which switches the power modes of a Jetson"
    if describe(root)["jetson_clocks"]:
        return "jetson_clocks has pinned the clocks, which another power mode undoes; run: sudo jetson_clocks --restore"
    try:
        _lock(stack)
    except BlockingIOError:
        return "another process measures in other power modes at this time"
    except OSError as error:
        return f"{_state()}, which says after a kill what to put back, cannot be written: {error.strerror}"
    _restore()
    if _state().exists():
        return f"the mode that {_state()} names, which was on before a measurement that was killed, is not on again"
    current, said = _current()
    if current is None:
        return f"nvpmodel does not say which power mode is on: {said}"
    if current == mode:
        return None
    try:
        write_json(_state(), {"mode": current})
    except FFError as error:
        return f"what says after a kill what to put back cannot be written: {error}"
    stack.enter_context(_signals_raise())
    stack.callback(_restore)
    said = _nvpmodel("-m", str(mode))
    return None if _current()[0] == mode else f"power mode {mode} cannot be switched on: {_reason(said)}"


def _restore() -> None:
    """Switch to the mode that the state file names, if there is one, and remove the file once that is done. Signals
    wait meanwhile."""
    with suppress(FFError, KeyError, TypeError, ValueError):
        mode = int(read_json(_state())["mode"])
        with _signals_wait():
            said = ""
            if _current()[0] != mode:
                said = _nvpmodel("-m", str(mode))
            if _current()[0] == mode:
                remove(_state())
            else:
                print(
                    f"ff: power mode {mode}, which was on before, cannot be put back: {_reason(said)}; "
                    f"run: sudo nvpmodel -m {mode}",
                    file=sys.stderr,
                )


# -- nvpmodel ----


def _command() -> list[str] | None:
    """What runs nvpmodel with the rights that it takes; None where there is none. /usr/sbin is not on every PATH."""
    program = shutil.which("nvpmodel", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
    if program is None:
        return None
    return [program] if os.geteuid() == 0 or not shutil.which("sudo") else ["sudo", "-n", program]


def _nvpmodel(*options: str) -> str:
    """What nvpmodel prints. It reads nothing, and signals of the terminal do not reach it."""
    command = _command()
    if command is None:
        return "there is no nvpmodel"
    try:
        done = subprocess.run(
            [*command, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"nvpmodel did not finish within {TIMEOUT_S:.0f} s"
    except OSError as error:
        return str(error)
    return done.stdout.decode("utf-8", "replace")


def _current() -> tuple[int | None, str]:
    """Number of the mode that is on; None and what nvpmodel said where it does not say that."""
    said = _nvpmodel("-q")
    found = re.search(r"^NV Power Mode:.*\n\s*(\d+)\s*$", said, re.MULTILINE)
    return (int(found[1]) if found else None), _reason(said)


def _reason(said: str) -> str:
    """What nvpmodel or sudo complained of, in a line; first of all that it asked for a restart."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    wanted = [line for line in lines if "eboot required" in line]
    return (wanted or lines or ["it says nothing"])[-1]


# -- the state file and signals ----


def _state() -> Path:
    folder = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(folder, "ff", "power_mode.json")


def _lock(stack: ExitStack) -> None:
    """Hold the lock beside the state file until `stack` ends; the kernel lets go of it when the process is killed.

    Raises BlockingIOError where another process has it.
    """
    path = _state().with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    number = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    stack.callback(os.close, number)
    fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP end the process as an exception does, past what is to be done at the end."""

    def end(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = {}
    with suppress(ValueError):  # not the main thread: the state file remains
        before = {number: signal.signal(number, end) for number in _SIGNALS[1:]}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Signals that end the process take effect after the block. (Blocking them would not do: Python runs a handler in
    the main thread whichever thread got the signal.)"""
    came: list[int] = []
    before = {}
    with suppress(ValueError):
        before = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)
