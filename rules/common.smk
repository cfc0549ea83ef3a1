"""Grid -> runs, path patterns, wildcard constraints, input functions. Everything here runs at each start of
Snakemake, so nothing heavy is imported."""

import atexit
import functools
import os
import sys
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import IOFile

ROOT = Path(str(workflow.current_basedir)).parent
if (ROOT / "ff").is_dir():
    # ff of this checkout, installed or not, here and in the environments of the jobs.
    sys.path.insert(0, str(ROOT))
    others = [
        path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path
    ]
    if str(ROOT) not in others:
        os.environ.update(PYTHONPATH=os.pathsep.join([str(ROOT), *others]))

from ff import provenance
from ff.learn.recipes import RECIPES, rule_of
from ff.learn.rules import RULES
from ff.data.registry import DATASETS
from ff.settings import WandbConfig
from ff.errors import FFError
from ff.workflow.failures import after_failure, explained
from ff.summary.figures import FAMILIES, FIGURES
from ff.workflow.gpus import usable_gpus
from ff.workflow.grid import Grid, check_config, check_target
from ff.hardware.sources import is_board
from ff.workflow.jobs import hardware_log, logs_folder, train_log
from ff.data.raw_files import data_folder, recorded, wanted_source

# Whether jobs run on this machine, or (--executor slurm) as jobs of a cluster, of which this may be one.
HERE = workflow.resource_settings.nodes is None and not workflow.remote_exec
SAID = set()


def say(warnings):
    """Each warning once, in the call that a person sees."""
    for warning in warnings:
        if workflow.is_main_process and warning not in SAID:
            print(f"ff: {warning}", file=sys.stderr)
        SAID.add(warning)


# -- configuration ----


def load_grids():
    """The Grid of the configuration and the runs of each collection: "" (all) and "demo/"."""
    for key, value in config.items():
        if value in ("true", "false"):
            # --config KEY=false comes as a word.
            config[key] = value == "true"
    check_config(config, ROOT / "workflow/schemas/config.schema.json")
    on_command_line = workflow.config_settings.config.get("data_dir")
    config["data_dir"] = str(data_folder(on_command_line, config["data_dir"]))
    if config["sidecar"] is False:
        # YAML's bare off.
        config["sidecar"] = "off"
    if config["sidecar"] == "auto":
        # One decision for all jobs: nodes of a cluster may differ from this machine.
        config["sidecar"] = "service" if HERE and is_board() else "inline"
    if config.get("sweep"):
        from ff.tracking.sweeps.cells import in_place_of_the_grid

        sweep, keys = in_place_of_the_grid(config)
        config.update(keys)
        grid = Grid(config)
        say(sweep.warnings)
        runs = [
            grid.run(run.dataset, run.layers_name, run.recipe, run.seed)
            for run in sweep.runs
        ]
        return grid, {"": runs, "demo/": []}
    block = config["grid"]
    grid = Grid(config)
    import yaml

    demo_block = yaml.safe_load((ROOT / "config/demo.yaml").read_text())["grid"]
    return grid, {"": grid.expand(block), "demo/": grid.expand(demo_block)}


try:
    GRID, RUNS = load_grids()
except FFError as error:
    raise WorkflowError(str(error)) from None

# -- paths ----

RESULTS = config["results"].rstrip("/")
RUN = f"{RESULTS}/{{dataset}}/{{layers}}/{{recipe}}/seed{{seed}}"
CELL = f"{RESULTS}/{{dataset}}/{{layers}}/{{recipe}}"
NAME = "{dataset}/{layers}/{recipe}/seed{seed}"
# One line for each job, when it begins and in a dry run.
RUN_MESSAGE = "{rule} {wildcards.dataset}/{wildcards.layers}/{wildcards.recipe}/seed{wildcards.seed}"
LOGS = logs_folder(RESULTS)
TRAIN_FILES = ["model.safetensors", "metrics.json", "history.csv", "phases.csv"]
HARDWARE_FILES = ["hardware.csv", "hardware.json"]
EVALUATE_FILES = [
    "evaluation.json",
    "distributions.csv",
    "early_exit.csv",
    "early_exit.json",
]
DEVICES = config["measure"]["devices"]
VARIANCE_FILES = [
    *(f"variance/{device}.{kind}" for device in DEVICES for kind in ("csv", "json")),
    "variance/phases.csv",
    "variance/agreement.json",
    *(f"variance/{name}" for name in HARDWARE_FILES),
]
RUN_FILES = TRAIN_FILES + HARDWARE_FILES + EVALUATE_FILES + VARIANCE_FILES
VARIANCE_SAMPLES = [f"variance/{device}.csv" for device in DEVICES]
TABLES = [
    *(
        "runs",
        "accuracy",
        "accuracy_summary",
        "recipes",
        "training",
        "history",
        "layers",
        "early_exit",
    ),
    *(
        "operating_points",
        "latency",
        "devices",
        "speedup",
        "gpu_wins",
        "agreement",
        "energy",
        "inference_energy",
        "missing",
    ),
]

try:
    # Snakemake itself knows its targets only after this file was read.
    for word in sys.argv[1:]:
        check_target(word, RESULTS, GRID.recipes, RUN_FILES)
except FFError as error:
    raise WorkflowError(str(error)) from None


wildcard_constraints:
    dataset="|".join(DATASETS),
    layers=r"\d+(-\d+)+",
    recipe="|".join(sorted({*RECIPES, *GRID.recipes}, key=len, reverse=True)).replace(
        ".", r"\."
    ),
    seed=r"0|[1-9]\d*",
    collection=r"(demo/)?",
    job="train|measure",
    family="|".join(FAMILIES),


def of_runs(files, collection=""):
    """`files` of every run of a collection."""
    return [
        f"{RESULTS}/{run.name}/{file}" for run in RUNS[collection] for file in files
    ]


def figure_files(collection, family=None):
    """PNG and SVG of the figures (of one family) of a collection."""
    names = [name for name, spec in FIGURES.items() if family in (None, spec.family)]
    return [
        f"{RESULTS}/{collection}figures/{name}.{kind}"
        for name in names
        for kind in ("png", "svg")
    ]


def figure_outputs(family):
    """Output files of a family's rule, the PNGs marked for Snakemake's own report."""
    outputs = []
    for name, spec in FIGURES.items():
        if spec.family == family:
            base = f"{RESULTS}/{{collection}}figures/{name}"
            caption = f"../workflow/report/{name}.rst"
            png = report(
                f"{base}.png", caption=caption, category="Figures", subcategory=family
            )
            outputs += [png, f"{base}.svg"]
    return outputs


def figure_inputs(collection, family):
    """The tables that a family's figures need, and the run files that they read themselves."""
    specs = [spec for spec in FIGURES.values() if spec.family == family]
    tables = dict.fromkeys(table for spec in specs for table in spec.tables)
    files = dict.fromkeys(file for spec in specs for file in spec.run_files)
    files = [
        name
        for file in files
        for name in (VARIANCE_SAMPLES if file == "variance" else [file])
    ]
    return [f"{RESULTS}/{collection}summary/{table}.csv" for table in tables] + of_runs(
        files, collection
    )


def finished(collection):
    """Everything of a collection, not the report alone: a run whose folder was removed is made again."""
    report_page = f"{RESULTS}/{collection}report.html"
    return [report_page, *figure_files(collection), *of_runs(RUN_FILES, collection)]


# -- params and resources ----


def other_raw_data(wildcards):
    """Input function: a new file where the prepared set was made from other raw files than there are now, or nothing.

    Params would not do: Snakemake knows none of a set that `ff` has prepared.
    """
    path = Path("data/prepared") / f"{wildcards.dataset}.safetensors"
    if not path.exists() or not workflow.is_main_process:
        # A node of a cluster need not see the raw files.
        return []
    known = recorded(path) or {}
    if known.get("source") == wanted_source(
        wildcards.dataset, Path(config["data_dir"]), path
    ):
        return []
    marker = path.with_name(f".{wildcards.dataset}.made-from-other-files")
    try:
        # Snakemake takes a small file with the same content for the same file.
        marker.write_text(f"{time.time_ns()}\n")
    except OSError as error:
        raise WorkflowError(
            f"{path} was made from other files than those in {config['data_dir']}, and cannot be replaced "
            f"({error.strerror}); give the data_dir that it was made from, or another working folder"
        ) from None
    return [str(marker)]


@functools.cache
def code(*entries, without=()):
    """Hash of the code behind a job - its script and whatever that imports - so that changed code is rerun."""
    return provenance.code_hash(*entries, without=without)


def code_of_run(script, without=()):
    """Params function: `code` of a job on one run, the learning rule of the run with it and no other."""

    def found(wildcards):
        rule = rule_of(run_of(wildcards, with_seed(wildcards)["seed"]))
        return code(script, rule.__name__, without=without)

    return found


TRAINING_CODE = code_of_run(
    "workflow/scripts/train.py", without=provenance.NOT_TRAINING
)


# Tables and figures are of all learning rules.
RULE_MODULES = [rule.__name__ for rule in RULES.values()]


def drawing_modules(family):
    """Modules that draw the figures of a family; ff.summary.figures finds them by name."""
    return sorted(
        {
            f"ff.summary.figures.{spec.function.partition(':')[0]}"
            for spec in FIGURES.values()
            if spec.family == family
        }
    )


def run_of(wildcards, seed=None):
    """The RunConfig of a job."""
    seed = wildcards.seed if seed is None else seed
    return GRID.run(wildcards.dataset, wildcards.layers, wildcards.recipe, seed)


def run_settings(wildcards):
    """The resolved settings of a run, for params: what a training is rerun for when it changes."""
    run = run_of(wildcards, with_seed(wildcards)["seed"])
    say(GRID.warnings.get(run.name, []))
    return run.as_dict()


def run_list(wildcards):
    """Names of the runs of a collection, for params: tables are made again when the grid changes."""
    return [run.name for run in RUNS[wildcards.collection]]


GROUP_SEEDS = sorted({run.seed for run in RUNS[""]}) if config["group_seeds"] else []
# A GPU is for one job at a time, so that its times and its energy are that job's own. Unless --resources says
# otherwise, as many such jobs run at once as there are GPUs; a cluster has its own ways to hand them out.
LOCAL_GPUS = len(usable_gpus()) if HERE else 0
TRAINING_GPUS = int(
    config["device"].startswith("cuda")
    or (config["device"] == "auto" and LOCAL_GPUS > 0)
)
MEASURING_GPUS = int(TRAINING_GPUS or ("cuda" in DEVICES and LOCAL_GPUS > 0))
if HERE and MEASURING_GPUS and "gpu" not in workflow.global_resources:
    only_one = config["device"].startswith("cuda:")
    workflow.register_resource("gpu", 1 if only_one else max(1, LOCAL_GPUS))
SAMPLES = {
    "MNIST": 60000,
    "FMNIST": 60000,
    "SVHN": 73257,
    "CIFAR10": 50000,
    "DIGITS": 1437,
}


def train_memory_mb(wildcards, attempt):
    """Images in float32 and their gathered copies, the layers' outputs kept for the heads, 600 MB for torch; twice as
    much for every retry."""
    run = run_of(wildcards, with_seed(wildcards)["seed"])
    seeds = 1 if hasattr(wildcards, "seed") else max(1, len(GROUP_SEEDS))
    numbers = SAMPLES[run.dataset] * (
        2 * run.layers[0]
        + min(seeds * sum(run.layers[1:]), 2**29 // SAMPLES[run.dataset])
    )
    weights = 4 * seeds * sum(a * b for a, b in zip(run.layers, run.layers[1:]))
    return (600 + int((numbers + weights) * 4 / 2**20)) * 2 ** (attempt - 1)


def train_minutes(wildcards, attempt):
    """At 20 GMAC/s, a tenth of one desktop core in float32, plus five minutes; twice as long for every retry."""
    run = run_of(wildcards, with_seed(wildcards)["seed"])
    seeds = 1 if hasattr(wildcards, "seed") else max(1, len(GROUP_SEEDS))
    macs = 4 * sum(a * b for a, b in zip(run.layers, run.layers[1:]))
    epochs = run.rep_epochs + run.softmax_epochs
    minutes = 5 + int(seeds * SAMPLES[run.dataset] * epochs * macs / 20e9 / 60)
    return minutes * 2 ** (attempt - 1)


def measure_settings(wildcards):
    """How a run is measured, for params."""
    return {
        **config["measure"],
        **config.get("measure_by_dataset", {}).get(wildcards.dataset, {}),
    }


def measuring_threads(wildcards):
    """All cores of this machine's Snakemake: a job that measures time has them to itself."""
    # workflow.cores would refuse every call without --cores, such as --rulegraph. On a cluster's node it is all of
    # the node, of which the job was given one.
    return 1 if workflow.remote_exec else workflow.resource_settings.cores or 1


def sidecar_of(job):
    """Input function: the sidecar's service file where the configuration asks for the service."""

    def ready(wildcards):
        if config["sidecar"] != "service":
            return []
        return f"{RUN}/.sidecar-{job}".format(**with_seed(wildcards))

    return ready


def with_seed(wildcards):
    """The wildcards of a job; those of a group with its first seed, which its logs are named after."""
    return {"seed": (GROUP_SEEDS or [0])[0], **dict(wildcards.items())}


def training_samples(wildcards):
    """The hardware log that covers a run's training: its own, or that of the first seed of its group."""
    parts = dict(wildcards.items())
    if int(parts["seed"]) in GROUP_SEEDS:
        parts["seed"] = GROUP_SEEDS[0]
    return hardware_log(RESULTS, NAME.format(**parts), "train")


def after_an_error():
    """Hardware summaries and tables of what is there, for the collections that the failed call worked on; and, as the
    last lines of the call, why jobs failed."""
    if not workflow.is_main_process:
        return
    try:
        failed = [
            job
            for jobs in workflow.scheduler.failed
            for job in (jobs if jobs.is_group() else [jobs])
        ]
        lines = explained(
            (job.message, job.log[0]) for job in failed if job.rule.name != "sidecar"
        )
        atexit.register(
            lambda: print(*(f"ff: {line}" for line in lines), sep="\n", file=sys.stderr)
        )
        planned = set(workflow.dag.needrun_jobs(exclude_finished=False))
        asked = {
            job.wildcards.collection for job in planned if job.rule.name == "tables"
        }
        files = {str(file) for job in planned for file in job.output}
        names = {
            collection: [run.name for run in runs]
            for collection, runs in RUNS.items()
            if collection in asked
            or not asked
            and any(f"{RESULTS}/{run.name}/metrics.json" in files for run in runs)
        }
        for path in after_failure(RESULTS, names, grouped=bool(GROUP_SEEDS)):
            # No job made this table, so the next call must make it: nothing may say that it is up to date.
            workflow.persistence.cleanup_metadata(IOFile(path))
    except Exception as error:
        # Never in the way of the error that it follows.
        print(
            f"ff: after the failure: {type(error).__name__}: {error}", file=sys.stderr
        )
