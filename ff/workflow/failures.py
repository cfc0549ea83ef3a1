"""After a call of the workflow in which jobs failed: what they say, and tables of what is there."""

import atexit
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ff.job_log import cause
from ff.layout import RunKey, logs_folder, train_log
from ff.workflow import snakemake_internals
from ff.workflow.plan import Plan

SHOWN = 10


def after_an_error(workflow: Any, plan: Plan) -> None:
    """Hardware summaries and tables of what is there, for the collections that the failed call worked on; and, as the
    last lines of the call, why jobs failed. Never raises: it must not be in the way of the error that it follows."""
    if not snakemake_internals.is_main(workflow):
        return
    try:
        failed = snakemake_internals.failed_jobs(workflow)
        lines = explained((message, log) for rule, message, log in failed if rule != "sidecar")
        atexit.register(lambda: print(*(f"ff: {line}" for line in lines), sep="\n", file=sys.stderr))
        affected = worked_on(plan, snakemake_internals.planned_jobs(workflow))
        for path in after_failure(plan.results, affected):
            # No job made this table, so the next call must make it: nothing may say that it is up to date.
            snakemake_internals.forget(workflow, path)
    except Exception as error:
        print(f"ff: after the failure: {type(error).__name__}: {error}", file=sys.stderr)


def worked_on(plan: Plan, jobs: Sequence[snakemake_internals.Job]) -> dict[str, list[RunKey]]:
    """The collections whose tables were to be made; where none were, those with runs that were to be trained."""
    asked = {job.collection for job in jobs if job.rule == "tables"}
    files = {file for job in jobs for file in job.outputs}
    if not asked:
        asked = {name for name in plan.runs if files.intersection(plan.of_runs(["metrics.json"], name))}
    return {name: [run.key for run in runs] for name, runs in plan.runs.items() if name in asked}


def explained(failed: Iterable[tuple[str, str]]) -> list[str]:
    """A line for each cause that made jobs fail, of (job, path of its log), with the first job that it made fail."""
    jobs: dict[str, list[tuple[str, str]]] = {}
    for name, log in sorted(failed):
        why = cause(log) or "it left no error in its log: killed, for lack of memory perhaps, or crashed; see above"
        jobs.setdefault(why, []).append((name, log))
    lines = []
    for why, [(name, log), *others] in jobs.items():
        more = f" and {len(others)} more" if others else ""
        lines.append(f"failed: {name}{more}: {why} ({log})")
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f"failed: {sum(len(same) for same in list(jobs.values())[SHOWN:])} more, for other reasons"]
    return lines


def after_failure(results: str, collections: Mapping[str, Sequence[RunKey]]) -> list[str]:
    """Write what can be written after jobs failed: hardware summaries of their logs, and the summary tables.

    `collections` maps the start of a summary folder ("" or "demo/") to its runs; `missing.csv` says which of them are
    not there and why. Collections of which no run has a folder get no tables. Gives the paths of the tables; they count
    as older than anything, since the workflow did not make them and its next call shall. Never raises: the error that
    matters is the one that the workflow has just reported.
    """
    written = []
    try:
        from ff.hardware.summary import summarise_pending
        from ff.summary.tables import write_all

        summarise_pending(f"{logs_folder(results)}/hardware", results)
        for collection, runs in collections.items():
            if not any(run.folder(results).is_dir() for run in runs):
                continue
            summary = Path(results) / f"{collection}summary"
            for table in write_all(results, runs, summary, train_log=train_log(results)):
                path = summary / f"{table}.csv"
                os.utime(path, (1, 1))
                written.append(str(path))
            print(f"ff: {summary}/missing.csv says which runs are missing and why", file=sys.stderr)
    except Exception as error:
        print(f"ff: no tables of what is there: {type(error).__name__}: {error}", file=sys.stderr)
    return written
