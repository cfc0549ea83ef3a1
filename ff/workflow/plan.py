"""What a call of the workflow is about: the configuration with everything decided, its runs, and their files.

`Plan` answers what rules ask about their inputs, params and resources; `wildcards` is what Snakemake hands to such
functions. Collections of runs are named by the folder of their tables and figures: "" is the grid, or the sweep in its
place, "demo/" the demo.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ff import layout
from ff.data.raw_files import data_folder
from ff.errors import FFError
from ff.files import read_yaml
from ff.hardware.sources import is_board
from ff.job_log import cause
from ff.layout import WILDCARDS, RunKey
from ff.learn.recipes import RECIPES
from ff.settings import RunConfig
from ff.summary.figures import FIGURES
from ff.workflow import resources
from ff.workflow.grid import Grid, check_config, check_target
from ff.workflow.jobs import SEVERAL, Jobs, named, run_of, together


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

    @property
    def runtimes(self) -> list[str]:
        """What computes beside torch; where there is any, runs are exported."""
        return [name for name in self.configuration["measure"]["runtimes"] if name != "torch"]

    @property
    def power_modes(self) -> list[int]:
        """The power modes of a board that runs are measured in, beside the one that is on."""
        return self.configuration["measure"]["power_modes"]

    @property
    def bundle(self) -> list[str]:
        """The file of a run that a measurement needs in other runtimes than torch, if it is to be in any."""
        return list(layout.EXPORT_FILES[:1]) if self.runtimes else []

    @cached_property
    def run_files(self) -> list[str]:
        """Every file of a run."""
        return layout.run_files(self.devices, self.runtimes, self.power_modes)

    @property
    def recipe_pattern(self) -> str:
        """Regular expression of the recipes' names, longer ones first, as one may begin like another."""
        names = sorted({*RECIPES, *self.grid.recipes}, key=len, reverse=True)
        return "|".join(map(re.escape, names))

    def check_targets(self, words: Iterable[str]) -> None:
        """Raise FFError for a path among the words of a command line that cannot be made."""
        files = [*dict.fromkeys([*self.run_files, *layout.EXPORT_FILES, *layout.DEPLOYED_FILES])]
        for word in words:
            check_target(word, self.results, self.grid.recipes, files)

    # -- files ----

    def in_run(self, files: Iterable[str], run: RunKey = WILDCARDS) -> list[str]:
        """`files` of a run, by default as patterns."""
        return [f"{self.results}/{run.name}/{file}" for file in files]

    def of_runs(self, files: Iterable[str], collection: str = "") -> list[str]:
        """`files` of every run of a collection."""
        files = list(files)
        return [path for run in self.runs[collection] for path in self.in_run(files, run.key)]

    def asked(self, files: Iterable[str], collection: str = "", missing: bool = False) -> list[str]:
        """Of every run of a collection, one of `files` for each stage that leaves some: the first that is missing,
        or, where all are there, the newest; with `missing` nothing there.

        This is as good as asking for all of them, in a fraction of the time. What is missing has its job run, which
        makes all files of its stage; and of what is there Snakemake wants to know whether it is newer than what comes
        from it.
        """
        wanted = set(files)
        groups = [[file for file in own if file in wanted] for own in self.stages.values()]
        return [
            f"{self.results}/{run.key.name}/{file}"
            for run in self.runs[collection]
            for file in _asked(groups, self._there(run.key), missing)
        ]

    def _there(self, run: RunKey) -> dict[str, int]:
        """The files of a run that are there, and when they were written, as they were when this was first asked."""
        if run not in self._files:
            self._files[run] = layout.files_of(run.folder(self.results), self._folders)
        return self._files[run]

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
        # The tables bring the jobs of all runs with them: of the files it only matters when the last was written.
        written = (
            (there[file], run.key, file)
            for run in self.runs[collection]
            for there in [self._there(run.key)]
            for file in files
            if file in there
        )
        last = max(written, default=None)
        found = self.in_run([last[2]], last[1]) if last else []
        return layout.tables(self.results, collection, tables) + found

    def finished(self, collection: str) -> list[str]:
        """Report and figures of a collection, which bring all jobs with them, and what is missing of its runs: a run
        whose folder was removed is made again."""
        asked = self.asked(self.run_files, collection, missing=True)
        return [layout.report(self.results, collection), *self.figures(collection), *asked]

    # -- jobs ----

    @cached_property
    def _files(self) -> dict[RunKey, dict[str, int]]:
        return {}

    @cached_property
    def _folders(self) -> list[str]:
        """The folders, below a run's, that hold its files: "" is the run's own."""
        return sorted({file[: file.rfind("/") + 1] for files in self.stages.values() for file in files})

    @cached_property
    def stages(self) -> dict[str, list[str]]:
        """What each rule that works on runs leaves in a run's folder."""
        return {
            "train": list(layout.TRAIN_FILES),
            "hardware_of_training": list(layout.HARDWARE_FILES),
            "evaluate": list(layout.EVALUATE_FILES),
            "early_exit": list(layout.EARLY_EXIT_FILES),
            "measure": layout.measure_files(self.devices, self.runtimes, self.power_modes),
            "hardware_of_measurement": list(layout.MEASURE_HARDWARE_FILES),
            "export": list(layout.EXPORT_FILES),
            "deployed": list(layout.DEPLOYED_FILES),
        }

    def jobs(self, stage: str, words: Sequence[str] = (), at_once: int = 1, gpu: bool = False) -> list[Jobs]:
        """The rules of a stage: those whose jobs have several seeds of a cell, and last the one with a job a run.

        `words` are those of the command line: a run that they name has jobs of its own. `at_once`: how many jobs of the
        stage may run at once on this machine; no more share a job than leaves one for each. `gpu`: they run on a GPU.
        """
        alone, setting = Jobs(stage), self.configuration["group_seeds"]
        if of_this_node := named(words, stage):
            return [*of_this_node, alone]
        # Each measurement on a board has a process of its own beside it.
        watched = stage == "measure" and self.configuration["sidecar"] == "service"
        if setting is False or watched:
            return [alone]
        taken, own = set(self._named(words)), set(self.stages[stage])

        def pending(run: RunKey) -> bool:
            # What failed together is tried alone: one may be the reason.
            return not own <= self._there(run).keys() and cause(layout.job_log(self.results, stage, run)) is None

        cells: dict[tuple[int, ...], list[str]] = {}
        # The demo first: a grid may have its runs and others of their cells.
        for runs in reversed(list(self.runs.values())):
            keys = [run.key for run in runs]
            most = len(keys) if setting is True else min(SEVERAL, len(keys) // at_once)
            if stage == "train" and setting == "auto":
                keys = [run.key for run in runs if resources.gains_together(run, gpu)]
            for seeds, cell in together(stage, [key for key in keys if key not in taken], pending, most):
                cells.setdefault(seeds, []).append(cell)
            taken |= {run.key for run in runs}
        several = [Jobs(stage, seeds, tuple(found)) for seeds, found in cells.items()]
        return [*several, alone.without(several)]

    def _named(self, words: Iterable[str]) -> Iterator[RunKey]:
        for word in words:
            with suppress(FFError):
                yield RunKey.parse(word.removeprefix(f"{self.results}/"))

    def run(self, wildcards: Any) -> RunConfig:
        """The settings of the run of a job; of several, but for the seed."""
        return self.grid.run(run_of(wildcards.items()))

    def prepared_set(self, wildcards: Any) -> str:
        """The prepared set of a job's runs."""
        return layout.prepared_set(run_of(wildcards.items()).dataset)

    def names(self, wildcards: Any) -> list[str]:
        """Names of the runs of a collection, for params: tables are made again when the grid changes."""
        return [run.name for run in self.runs[wildcards.collection]]

    def measure_settings(self, wildcards: Any) -> dict[str, Any]:
        """How a run is measured."""
        dataset = run_of(wildcards.items()).dataset
        of_dataset = self.configuration.get("measure_by_dataset", {}).get(dataset, {})
        return {**self.configuration["measure"], **of_dataset}

    def measured_by(self, *names: str) -> Callable[[Any], dict[str, Any]]:
        """Params function: those of a run's measure settings that a job depends on."""
        return lambda wildcards: {name: self.measure_settings(wildcards)[name] for name in names}

    def sidecar(self, job: str, jobs: Jobs) -> Callable[[Any], list[str]]:
        """Input function of a job that is watched: the sidecar's service file where the configuration asks for one. A
        job for several runs is watched as that of the first."""

        def ready(wildcards: Any) -> list[str]:
            service = self.configuration["sidecar"] == "service"
            return self.in_run([f".sidecar-{job}"], run_of(wildcards.items(), *jobs.seeds[:1])) if service else []

        return ready

    def train_memory_mb(self, jobs: Jobs) -> Callable[[Any, int], int]:
        """Resource function: memory for a training of these jobs."""
        return lambda wildcards, attempt: resources.train_memory_mb(self.run(wildcards), jobs.size, attempt)

    def train_minutes(self, jobs: Jobs) -> Callable[[Any, int], int]:
        """Resource function: time for a training of these jobs."""
        return lambda wildcards, attempt: resources.train_minutes(self.run(wildcards), jobs.size, attempt)


def _asked(groups: Iterable[Sequence[str]], there: Mapping[str, int], missing: bool) -> Iterator[str]:
    for files in filter(None, groups):
        lacking = next((file for file in files if file not in there), None)
        if lacking or not missing:
            yield lacking or max(files, key=there.__getitem__)


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
