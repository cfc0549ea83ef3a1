"""What a call of the workflow is about: the configuration with everything decided, its runs, and their files.

`Plan` answers what rules ask about their inputs, params and resources; `wildcards` is what Snakemake hands to such
functions. Collections of runs are named by the folder of their tables and figures: "" is the grid, or the sweep in its
place, "demo/" the demo.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ff import layout
from ff.data.raw_files import data_folder
from ff.files import read_yaml
from ff.hardware.sources import is_board
from ff.layout import WILDCARDS, RunKey
from ff.settings import RunConfig
from ff.summary.figures import FIGURES
from ff.workflow import resources
from ff.workflow.grid import Grid, check_config, check_target


@dataclass(frozen=True)
class Plan:
    """`configuration`: each key as it is to be taken; `runs`: of each collection; `warnings`: sentences for people."""

    configuration: Mapping[str, Any]
    grid: Grid
    runs: Mapping[str, list[RunConfig]]
    warnings: tuple[str, ...] = ()

    @property
    def results(self) -> str:
        """The results folder."""
        return self.configuration["results"].rstrip("/")

    @property
    def devices(self) -> list[str]:
        """The devices that runs are measured on."""
        return self.configuration["measure"]["devices"]

    @cached_property
    def group_seeds(self) -> list[int]:
        """The seeds that are trained together; [] where each run is trained alone."""
        return sorted({run.seed for run in self.runs[""]}) if self.configuration["group_seeds"] else []

    @property
    def runtimes(self) -> list[str]:
        """What computes beside torch; where there is any, runs are exported."""
        return [name for name in self.configuration["measure"]["runtimes"] if name != "torch"]

    @cached_property
    def run_files(self) -> list[str]:
        """Every file of a run."""
        return layout.run_files(self.devices, self.runtimes)

    def check_targets(self, words: Iterable[str]) -> None:
        """Raise FFError for a path among the words of a command line that cannot be made."""
        files = [*dict.fromkeys([*self.run_files, *layout.EXPORT_FILES, *layout.DEPLOYED_FILES])]
        for word in words:
            check_target(word, self.results, self.grid.recipes, files)

    # -- files ----

    def in_run(self, files: Iterable[str], run: RunKey = WILDCARDS) -> list[str]:
        """`files` of a run, by default as patterns."""
        return [f"{self.results}/{run.name}/{file}" for file in files]

    def in_group(self, files: Iterable[str]) -> list[str]:
        """Patterns of `files` of the runs that are trained together."""
        return [path for seed in self.group_seeds for path in self.in_run(files, WILDCARDS._replace(seed=seed))]

    def of_runs(self, files: Iterable[str], collection: str = "") -> list[str]:
        """`files` of every run of a collection."""
        return [path for run in self.runs[collection] for path in self.in_run(files, run.key)]

    def figures(self, collection: str) -> list[str]:
        """PNG and SVG of every figure of a collection."""
        return [layout.figure(self.results, collection, name, kind) for name in FIGURES for kind in ("png", "svg")]

    def figure_inputs(self, collection: str, family: str) -> list[str]:
        """The tables that a family's figures need, and the run files that they read themselves."""
        specs = [spec for spec in FIGURES.values() if spec.family == family]
        tables = dict.fromkeys(table for spec in specs for table in spec.tables)
        read = dict.fromkeys(file for spec in specs for file in spec.run_files)
        measured = layout.sample_files(self.devices)
        files = [name for file in read for name in (measured if file == layout.MEASURE_FOLDER else [file])]
        return layout.tables(self.results, collection, tables) + self.of_runs(files, collection)

    def finished(self, collection: str) -> list[str]:
        """Everything of a collection, not the report alone: a run whose folder was removed is made again."""
        report = layout.report(self.results, collection)
        return [report, *self.figures(collection), *self.of_runs(self.run_files, collection)]

    # -- jobs ----

    def key(self, wildcards: Any) -> RunKey:
        """The run of a job; of a group's, that of its first seed, which its logs are named after."""
        return RunKey.of({"seed": (self.group_seeds or [0])[0], **dict(wildcards.items())})

    def run(self, wildcards: Any) -> RunConfig:
        """The settings of the run of a job."""
        return self.grid.run(self.key(wildcards))

    def names(self, wildcards: Any) -> list[str]:
        """Names of the runs of a collection, for params: tables are made again when the grid changes."""
        return [run.name for run in self.runs[wildcards.collection]]

    def measure_settings(self, wildcards: Any) -> dict[str, Any]:
        """How a run is measured."""
        of_dataset = self.configuration.get("measure_by_dataset", {}).get(wildcards.dataset, {})
        return {**self.configuration["measure"], **of_dataset}

    def measured_by(self, *names: str) -> Callable[[Any], dict[str, Any]]:
        """Params function: those of a run's measure settings that a job depends on."""
        return lambda wildcards: {name: self.measure_settings(wildcards)[name] for name in names}

    def sidecar(self, job: str) -> Callable[[Any], list[str]]:
        """Input function of a job that is watched: the sidecar's service file where the configuration asks for one."""

        def ready(wildcards: Any) -> list[str]:
            service = self.configuration["sidecar"] == "service"
            return self.in_run([f".sidecar-{job}"], self.key(wildcards)) if service else []

        return ready

    def training_samples(self, wildcards: Any) -> str:
        """The hardware log that covers a run's training: its own, or that of the first seed of its group."""
        run = self.key(wildcards)
        if run.seed in self.group_seeds:
            run = run._replace(seed=self.group_seeds[0])
        return layout.hardware_log(self.results, run, "train")

    def train_memory_mb(self, wildcards: Any, attempt: int) -> int:
        """Memory for the training of a run or of a group."""
        return resources.train_memory_mb(self.run(wildcards), self._seeds(wildcards), attempt)

    def train_minutes(self, wildcards: Any, attempt: int) -> int:
        """Time for the training of a run or of a group."""
        return resources.train_minutes(self.run(wildcards), self._seeds(wildcards), attempt)

    def _seeds(self, wildcards: Any) -> int:
        return 1 if "seed" in dict(wildcards.items()) else len(self.group_seeds)


def read_plan(configuration: Mapping[str, Any], project: Path, data_dir: str | None = None, here: bool = True) -> Plan:
    """The plan of a configuration, as it was merged from files and command line.

    `project` holds config/ and workflow/; `data_dir` is what the command line says; `here`: whether jobs run on this
    machine. Raises FFError for a configuration that cannot be.
    """
    # --config KEY=false comes as a word.
    keys = {key: value == "true" if value in ("true", "false") else value for key, value in configuration.items()}
    check_config(keys, project / "workflow/schemas/config.schema.json")
    keys["data_dir"] = str(data_folder(data_dir, keys["data_dir"]))
    if keys["sidecar"] == "auto":
        # One decision for all jobs: nodes of a cluster may differ from this machine.
        keys["sidecar"] = "service" if here and is_board() else "inline"
    if keys.get("sweep"):
        from ff.tracking.sweeps.cells import in_place_of_the_grid

        sweep, changes = in_place_of_the_grid(keys)
        grid = Grid(keys | changes)
        runs = [grid.run(run.key) for run in sweep.runs]
        return Plan(grid.configuration, grid, {"": runs, "demo/": []}, tuple(sweep.warnings))
    grid = Grid(keys)
    demo = read_yaml(project / "config/demo.yaml", "the demo's configuration")
    return Plan(keys, grid, {"": grid.expand(keys["grid"]), "demo/": grid.expand(demo["grid"])})
