"""What surrounds the work of the DAG's jobs: where logs lie, and errors that end in one sentence."""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

# Begins the last line of a failed job's log.
ERROR = "ff: error: "


def logs_folder(results: str) -> str:
    """Where the logs of a results folder lie: `logs` for the usual `results`, otherwise inside of it.

    So two results folders that one directory fills, one after the other, do not share a log.
    """
    return "logs" if results.rstrip("/") == "results" else f"{results.rstrip('/')}/logs"


def hardware_log(results: str, run: str, work: str) -> str:
    """The hardware samples of a run's `train` or `measure` job; `run` is its folder below `results`."""
    return f"{logs_folder(results)}/hardware/{run}/{work}.jsonl"


def train_log(results: str, grouped: bool = False) -> str:
    """Pattern of the training logs, with the fields dataset, layers, recipe and seed."""
    name = "group" if grouped else "seed{seed}"
    return f"{logs_folder(results)}/train/{{dataset}}/{{layers}}/{{recipe}}/{name}.log"


@contextlib.contextmanager
def job(log_path: str | os.PathLike) -> Iterator[None]:
    """Send what the block prints to `log_path`, which ends with the error if there is one.

    An FFError is said on stderr too and ends the process; any other leaves its traceback in both places.
    """
    from ff.errors import FFError

    path = Path(log_path)
    path.parent.mkdir(parents=True, exist_ok=True)
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


def cause(log_path: str | os.PathLike) -> str | None:
    """The error that a job's log ends with; None where there is none, as after a kill."""
    try:
        lines = Path(log_path).read_text(errors="replace").splitlines()
    except OSError:
        return None
    begun = [number for number, line in enumerate(lines) if line.startswith(ERROR)]
    return " ".join(" ".join(lines[begun[-1] :]).removeprefix(ERROR).split()) if begun else None
