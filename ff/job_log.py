"""The log of a job of the DAG: what it printed, and the error that it ends with, in one sentence."""

import contextlib
import gc
import os
import shutil
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from ff.errors import FFError

# Begins the last line of a failed job's log.
ERROR = "ff: error: "


@contextlib.contextmanager
def job(*log_paths: str | os.PathLike) -> Iterator[None]:
    """Send what the block prints to the first of `log_paths`, which ends with the error if there is one; at the end the
    others, those of further runs that the job is for, say the same.

    An FFError is said on stderr too and ends the process; any other leaves its traceback in both places.
    """
    path, *others = map(Path, log_paths)
    for one in (path, *others):
        one.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", buffering=1) as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            yield
        except FFError as error:
            print(f"{ERROR}{error}", file=log)
            print(f"ff: {error}", file=sys.__stderr__)
            sys.exit(1)
        except Exception as error:
            traceback.print_exc(file=log)
            print(f"{ERROR}{type(error).__name__}: {error}", file=log)
            raise
        finally:
            # The process ends here; looking once more among all that was imported would take up to 0.3 s.
            gc.freeze()
            for other in others:
                shutil.copyfile(path, other)


def cause(log_path: str | os.PathLike) -> str | None:
    """The error that a job's log ends with; None where there is none, as after a kill."""
    try:
        lines = Path(log_path).read_text(errors="replace").splitlines()
    except OSError:
        return None
    begun = [number for number, line in enumerate(lines) if line.startswith(ERROR)]
    return " ".join(" ".join(lines[begun[-1] :]).removeprefix(ERROR).split()) if begun else None
