"""What a script of the DAG does around its work: log to a file, explain an error in one sentence."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def job(log_path: str | os.PathLike) -> Iterator[None]:
    """Send what the block prints to `log_path`; an FFError is said there and on stderr, and ends the process."""
    from ff.errors import FFError

    path = Path(log_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", buffering=1) as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            yield
        except FFError as error:
            print(f"ff: {error}", file=log)
            print(f"ff: {error}", file=sys.__stderr__)
            sys.exit(1)
