"""The plan of this call, path patterns, wildcard constraints. Everything here runs at each start of Snakemake, so
nothing heavy is imported; what decides anything is in ff/workflow/."""

import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(str(workflow.current_basedir)).parent
if (ROOT / "ff").is_dir():
    # ff of this checkout, installed or not, here and in the environments of the jobs.
    sys.path.insert(0, str(ROOT))
    others = [
        path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path
    ]
    if str(ROOT) not in others:
        os.environ.update(PYTHONPATH=os.pathsep.join([str(ROOT), *others]))

from ff import layout
from ff.data.registry import DATASETS
from ff.settings import WandbConfig
from ff.errors import FFError
from ff.summary.figures import FAMILIES, FIGURES
from ff.workflow import snakemake_internals
from ff.workflow.code import code, code_of_all_runs, code_of_run, training_code
from ff.workflow.failures import after_an_error
from ff.workflow.gpus import jobs_at_once, may_use_gpu, usable_gpus
from ff.workflow.plan import read_plan
from ff.workflow.raw_data import other_raw_data

snakemake_internals.spare_time()
HERE, SAID = snakemake_internals.jobs_run_here(workflow), set()


def say(warnings):
    """Each warning once, in the call that a person sees."""
    for warning in warnings:
        if snakemake_internals.is_main(workflow) and warning not in SAID:
            print(f"ff: {warning}", file=sys.stderr)
        SAID.add(warning)


try:
    data_dir = snakemake_internals.said_on_command_line(workflow, "data_dir")
    PLAN = read_plan(config, ROOT, data_dir, HERE)
    # Snakemake itself knows its targets only after this file was read.
    PLAN.check_targets(sys.argv[1:])
except FFError as error:
    raise WorkflowError(str(error)) from None
say(PLAN.warnings)
config.update(PLAN.configuration)

RESULTS = PLAN.results
NAME = layout.WILDCARDS.name
RUN = f"{RESULTS}/{NAME}"
LOGS = layout.logs_folder(RESULTS)
# Unless --resources says otherwise; a cluster has its own ways to hand GPUs out.
LOCAL_GPUS = usable_gpus() if HERE else []
TRAINING_GPUS = int(may_use_gpu(config["device"], LOCAL_GPUS))
MEASURING_GPUS = int(TRAINING_GPUS or ("cuda" in PLAN.devices and bool(LOCAL_GPUS)))
if HERE and MEASURING_GPUS:
    at_once = jobs_at_once(config["device"], LOCAL_GPUS)
    snakemake_internals.limit(workflow, "gpu", at_once)
# Jobs that take times have all cores to themselves: nothing else of this workflow may run beside them.
ALL_CORES = snakemake_internals.all_cores(workflow)


wildcard_constraints:
    dataset="|".join(DATASETS),
    layers=layout.LAYERS,
    recipe=PLAN.recipe_pattern,
    seed=layout.SEED,
    collection=r"(demo/)?",
    job="|".join(layout.WATCHED),


def jobs_of(stage, at_once=1, gpus=0):
    """The rules of a stage, for several seeds and for one run, of which Snakemake is to take the first that fits."""
    at_once = min(at_once, max(1, len(LOCAL_GPUS))) if gpus else at_once
    rules = PLAN.jobs(stage, sys.argv[1:], at_once, bool(gpus))
    snakemake_internals.prefer(workflow, [jobs.rule for jobs in rules])
    return rules


def run_settings(wildcards):
    """A run's settings but its seed, for params: the same in a job for one run as in one for several."""
    run = PLAN.run(wildcards)
    say(PLAN.grid.warnings.get(run.name, []))
    return {name: value for name, value in run.as_dict().items() if name != "seed"}


def code_with_rule(script):
    """Params function: the code of a job on one run."""
    return lambda wildcards: code_of_run(script, PLAN.run(wildcards))


def raw_data_that_is_other(wildcards):
    """Input function: a new file where the prepared set is to be made again, or nothing."""
    if not snakemake_internals.is_main(workflow):
        # A node of a cluster need not see the raw files.
        return []
    try:
        return other_raw_data(wildcards.dataset, config["data_dir"])
    except FFError as error:
        raise WorkflowError(str(error)) from None


def marked(family):
    """PNG and SVG of a family's figures, the PNGs marked for Snakemake's own report."""
    for name, spec in FIGURES.items():
        if spec.family == family:
            png, svg = (
                layout.figure(RESULTS, "{collection}", name, kind)
                for kind in ("png", "svg")
            )
            caption = f"../ff/summary/figures/captions/{name}.rst"
            yield report(png, caption=caption, category="Figures", subcategory=family)
            yield svg
