"""The files of a finished run, put in the place of an older result together: all of them or none.

They are written into a hidden folder, which is renamed once it holds all of them: from then on the new result counts.
Its files then move to where they belong; a move that a crash cut short is carried on by the next process that works on
the run. Whoever reads in between sees files of two models, and can tell by their stamps.
"""

import os
import shutil
from pathlib import Path

from ff.errors import FFError
from ff.files import sync_folder

_BEGUN, _COMPLETE = ".new", ".complete"
# The model first: from then on what is left of the old result is known to be another model's.
_FIRST, _LAST = "model.safetensors", "metrics.json"


def begin(folder: Path) -> Path:
    """An empty folder for the new result of `folder`; what a killed writer left of another is removed."""
    staged = folder / _BEGUN
    try:
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
    except OSError as error:
        raise FFError(f"cannot write in {folder}: {error.strerror}; free space or choose another folder") from error
    return staged


def publish(folder: Path) -> None:
    """The new result is complete: it takes the place of the old one."""
    try:
        sync_folder(folder / _BEGUN)
        os.replace(folder / _BEGUN, folder / _COMPLETE)
        sync_folder(folder)
    except OSError as error:
        raise FFError(f"cannot write in {folder}: {error.strerror}; free space or choose another folder") from error
    carry_on(folder)


def carry_on(folder: Path) -> None:
    """Move the files of a result that is complete to where they belong, if there is one."""
    complete = folder / _COMPLETE
    if not complete.is_dir():
        return
    try:
        for path in sorted(complete.iterdir(), key=lambda path: (path.name != _FIRST, path.name == _LAST)):
            os.replace(path, folder / path.name)
        complete.rmdir()
        sync_folder(folder)
    except OSError as error:
        raise FFError(f"cannot write in {folder}: {error.strerror}; free space or choose another folder") from error
