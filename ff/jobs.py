"""What surrounds the work of the DAG's jobs: where logs lie, errors in one sentence, what failed jobs leave."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path


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


def after_failure(results: str, collections: Mapping[str, Sequence[str]], grouped: bool = False) -> list[str]:
    """Write what can be written after jobs failed: hardware summaries of their logs, and the summary tables.

    `collections` maps the start of a summary folder ("" or "demo/") to the names of its runs; `missing.csv` says
    which of them are not there and why. Collections of which no run has a folder get no tables. Gives the paths of
    the tables; they count as older than anything, since the workflow did not make them and its next call shall.
    Never raises: the error that matters is the one that the workflow has just reported.
    """
    written = []
    try:
        from ff.hardware.summary import summarise_pending
        from ff.tables import Run, write_all

        summarise_pending(f"{logs_folder(results)}/hardware", results)
        for collection, names in collections.items():
            if not any((Path(results) / name).is_dir() for name in names):
                continue
            parts = [name.split("/") for name in names]
            runs = [Run(dataset, layers, recipe, int(seed[4:])) for dataset, layers, recipe, seed in parts]
            summary = Path(results) / f"{collection}summary"
            pattern = train_log(results, grouped and not collection)
            for table in write_all(results, runs, summary, train_log=pattern):
                path = summary / f"{table}.csv"
                os.utime(path, (1, 1))
                written.append(str(path))
            print(f"ff: {summary}/missing.csv says which runs are missing and why", file=sys.stderr)
    except Exception as error:
        print(f"ff: no tables of what is there: {type(error).__name__}: {error}", file=sys.stderr)
    return written
