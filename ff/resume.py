"""The state between two epochs on disk, and the lock that lets one process at a time train a run.

The state lies in the run's folder but is none of its results: a workflow engine that removes the results of a
failed job leaves it. It is keyed by a hash of config, code and data; another key is ignored.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ff.errors import FFError
from ff.files import write_through
from ff.trainer import Epoch, TrainingState

STATE_NAME, LOCK_NAME = ".resume.safetensors", ".lock"


@contextmanager
def run_lock(folder: Path, say: Callable[[str], None]) -> Iterator[bool]:
    """Hold the run's lock; waits for a process that still trains it, and gives True if it had to.

    The kernel releases the lock with the process, so a killed one leaves nothing to clean up.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise FFError(f"cannot write in {folder}: {error.strerror}; choose another folder with --out") from error
    waited = False
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            say(f"another process is training {folder}: waiting for it to end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            # Some network file systems have no locks; a run without one is better than no run.
            say(f"{folder} is on a file system without locks: make sure that one process at a time trains it")
        yield waited
    finally:
        os.close(handle)


def save_state(folder: Path, key: str, state: TrainingState) -> None:
    """Write the state after an epoch, whole or not at all."""
    from safetensors.torch import save_file

    tensors = {}
    for name, adam in (("layers", state.layers), ("heads", state.heads)):
        tensors |= {
            f"{name}.parameters": adam.parameters,
            f"{name}.mean": adam.mean,
            f"{name}.square": adam.square,
        }
    meta = {
        "key": key,
        "steps": {"layers": state.layers.steps, "heads": state.heads.steps},
        "history": [epoch._asdict() for epoch in state.history],
    }
    write_through(
        folder / STATE_NAME,
        lambda temporary: save_file(tensors, temporary, metadata={"ff": json.dumps(meta)}),
    )


def load_state(folder: Path, key: str, state: TrainingState, say: Callable[[str], None]) -> bool:
    """Fill `state` from the folder's resume state; False, with a message, where there is none of this key."""
    from safetensors import SafetensorError, safe_open

    path = folder / STATE_NAME
    if not path.exists():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads(file.metadata()["ff"])
            if meta["key"] != key:
                say(f"{path} belongs to another config, code or data: starting from the first epoch")
                return False
            for name, adam in (("layers", state.layers), ("heads", state.heads)):
                for part in ("parameters", "mean", "square"):
                    getattr(adam, part).copy_(file.get_tensor(f"{name}.{part}"))
                adam.steps = meta["steps"][name]
            state.history = [Epoch(**epoch) for epoch in meta["history"]]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        say(f"{path} cannot be read ({error}): starting from the first epoch")
        return False
    return True


def discard_state(folder: Path) -> None:
    """Remove the resume state of a run that is done, and what a killed writer may have left of it."""
    (folder / STATE_NAME).unlink(missing_ok=True)
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
