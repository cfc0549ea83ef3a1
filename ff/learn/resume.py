"""The state between two epochs on disk, and the lock that lets one process at a time train a run.

The state is written every few seconds, not after each epoch of a tenth of one: a run that is killed loses that much.

The state lies in the run's folder but is none of its results: a workflow engine that removes the results of a
failed job leaves it. It is keyed by a hash of config, code and data; another key is ignored.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from ff.errors import FFError
from ff.files import remove, write_tensors
from ff.learn.trainer import Epoch, TrainingState
from ff.phases import Phase

STATE_NAME, LOCK_NAME = ".resume.safetensors", ".lock"
# At most this share of the time is spent on writing: the state of a wide network takes a second.
SAVE_SHARE = 0.05


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


class Saver:
    """Writes the state of a run after those epochs that end when it is time again; `every_s` 0: after each."""

    def __init__(
        self,
        folder: Path,
        key: str,
        state: TrainingState,
        every_s: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.folder, self.key, self.state, self.every_s, self.clock = folder, key, state, every_s, clock
        self.due_s = clock() + every_s

    def after_epoch(self, phases: Sequence[Phase]) -> None:
        """Write the state, with the phase marks up to it, if it is due."""
        start_s = self.clock()
        if start_s < self.due_s:
            return
        save_state(self.folder, self.key, self.state, phases)
        end_s = self.clock()
        self.due_s = end_s + (max(self.every_s, (end_s - start_s) / SAVE_SHARE) if self.every_s else 0.0)


def save_state(folder: Path, key: str, state: TrainingState, phases: Sequence[Phase]) -> None:
    """Write the state after an epoch, whole or not at all, with the phase marks up to it."""
    meta = {
        "key": key,
        "steps": {name: adam.steps for name, adam in state.optimisers.items()},
        "history": [epoch._asdict() for epoch in state.history],
        "phases": phases,
    }
    write_tensors(folder / STATE_NAME, _tensors(state), meta)


def _tensors(state: TrainingState) -> dict[str, Tensor]:
    optimisers = {
        f"{name}.{part}": getattr(adam, part)
        for name, adam in state.optimisers.items()
        for part in ("parameters", "mean", "square")
    }
    return optimisers | {f"averages.{name}": tensor for name, tensor in state.averages.items()}


def load_state(
    folder: Path, key: str, state: TrainingState, say: Callable[[str], None] = lambda text: None
) -> list[Phase] | None:
    """Fill `state` from the folder's resume state; returns the phase marks up to it.

    Returns None, with a message where there is something to say, if there is no state of this key.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / STATE_NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads(file.metadata()["ff"])
            if meta["key"] != key:
                say(f"{path} belongs to another config, code or data: starting from the first epoch")
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        steps = {name: int(meta["steps"][name]) for name in state.optimisers}
        history = [Epoch(**epoch) for epoch in meta["history"]]
        phases = [
            Phase(str(name), float(start), float(end), float(start_unix), float(end_unix), str(boot))
            for name, start, end, start_unix, end_unix, boot in meta["phases"]
        ]
        targets = _tensors(state)
        for name, target in targets.items():
            if tensors[name].shape != target.shape or tensors[name].dtype != target.dtype:
                raise ValueError(f"{name} has another shape or type")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        say(f"{path} cannot be read ({error}): starting from the first epoch")
        return None
    # Nothing before this line may change `state`: what starts from the first epoch starts clean.
    for name, target in targets.items():
        target.copy_(tensors[name])
    for name, adam in state.optimisers.items():
        adam.steps = steps[name]
    state.history = history
    return phases


def has_state(folder: Path) -> bool:
    """Whether the folder holds a resume state, of whatever run."""
    return (folder / STATE_NAME).exists()


def discard_state(folder: Path) -> None:
    """Remove the resume state of a run that is done, and what a killed writer may have left of it.

    Other temporary files are not touched: another job may be writing them at this moment.
    """
    remove(folder / STATE_NAME)
