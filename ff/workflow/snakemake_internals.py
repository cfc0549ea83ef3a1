"""What the rules use of Snakemake beyond its documented interface, all of it here.

Written for the version in `WRITTEN_FOR`; tests/workflow/test_snakemake_internals.py says what another one lacks.
Functions take the global `workflow` of a Snakefile.
"""

import gc
from collections.abc import Sequence
from typing import Any, NamedTuple

WRITTEN_FOR = "9.27"


class Job(NamedTuple):
    """A job: the name of its rule, the collection of tables and figures that it is for (None: of runs), its outputs."""

    rule: str
    collection: str | None
    outputs: frozenset[str]


def is_main(workflow: Any) -> bool:
    """Whether this is the call that a person sees, not one of a job."""
    return workflow.is_main_process


def jobs_run_here(workflow: Any) -> bool:
    """Whether jobs run on this machine, or (--executor slurm) as jobs of a cluster, of which this may be one."""
    return workflow.resource_settings.nodes is None and not workflow.remote_exec


def all_cores(workflow: Any) -> int:
    """The cores that this call of Snakemake has; 1 on a cluster's node, which may have more than the job was given."""
    # workflow.cores would refuse every call without --cores, such as --rulegraph.
    return 1 if workflow.remote_exec else workflow.resource_settings.cores or 1


def said_on_command_line(workflow: Any, key: str) -> Any:
    """What `--config` says of a key; None where it says nothing."""
    return workflow.config_settings.config.get(key)


def limit(workflow: Any, resource: str, count: int) -> None:
    """Let jobs that run at once take `count` of a resource, unless --resources says otherwise."""
    if resource not in workflow.global_resources:
        workflow.register_resource(resource, count)


def prefer(workflow: Any, rules: Sequence[str]) -> None:
    """Of several rules that make a file, the first of `rules` does (the directive `ruleorder`, for names in a list)."""
    workflow.ruleorder(*rules)


def failed_jobs(workflow: Any) -> list[tuple[str, str, str]]:
    """(rule, message, log) of the jobs that failed."""
    jobs = [job for found in workflow.scheduler.failed for job in (found if found.is_group() else [found])]
    return [(job.rule.name, job.message, job.log[0]) for job in jobs]


def planned_jobs(workflow: Any) -> list[Job]:
    """The jobs that this call was to run, finished or not."""
    jobs = workflow.dag.needrun_jobs(exclude_finished=False)
    return [Job(job.rule.name, job.wildcards.get("collection"), frozenset(map(str, job.output))) for job in jobs]


def forget(workflow: Any, path: str) -> None:
    """Remove what is recorded of a file, so that no call takes it for one that a job has made."""
    from snakemake.io import IOFile

    workflow.persistence.cleanup_metadata(IOFile(path))


def spare_time() -> None:
    """Let Snakemake plan and schedule without what costs most of its time where there are many jobs."""
    # The objects of a plan all stay: looking for garbage among millions of them takes a third of the time of planning.
    gc.set_threshold(1_000_000)
    find_rules_by_suffix()
    look_again_only_where_starts_wait()


def find_rules_by_suffix() -> None:
    """Let Snakemake look up the rules that may make a file by how its path ends, and see then how it begins.

    It does so the other way round, and all files of runs begin alike: with jobs for several seeds it compared each with
    a thousand endings, which took a third of the time of planning.
    """
    from snakemake import dag
    from snakemake.common.prefix_lookup import PrefixLookup
    from snakemake.output_index import OutputIndex

    class BySuffix(OutputIndex):
        def __init__(self, rules: Sequence[Any]):
            products = [(rule, product) for rule in rules for product in rule.products()]
            entries = [(str(p.constant_suffix())[::-1], (rule, str(p.constant_prefix()))) for rule, p in products]
            self._lookup = PrefixLookup(entries=entries)

        def match(self, targetfile: str) -> set[Any]:
            found = self._lookup.match_iter(targetfile[::-1])
            return {rule for _, (rule, prefix) in found if targetfile.startswith(prefix)}

    dag.OutputIndex = BySuffix


def look_again_only_where_starts_wait() -> None:
    """Let Snakemake look at its open jobs again after a second only where --max-jobs-per-timespan holds one back.

    It does so whenever it has looked, also after the end of a job. So each job that ends begins another series of
    looks, one a second to the end: in a call of 160 jobs a fifth of a core went there.
    """
    from snakemake.scheduling.job_scheduler import JobScheduler

    again = JobScheduler._schedule_reevalutation

    def where_starts_wait(scheduler: Any, delay: int) -> None:
        limit = scheduler.job_rate_limiter
        if limit is None or delay != limit.timespan or not limit.get_free_jobs():
            again(scheduler, delay)

    if again.__module__ != __name__:
        JobScheduler._schedule_reevalutation = where_starts_wait
