"""A sweep as the DAG sees it: cells (data set, layers, recipe, seed) and the settings that go with them."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ff.learn.recipes import RECIPES, make_run_config, resolve_recipe
from ff.settings import ExecutionConfig, RunConfig, WorkflowConfig, checked
from ff.tracking.sweeps.files import is_number, load, program_note
from ff.tracking.sweeps.values import EXECUTION_SETTINGS, RECIPE_SETTINGS, RUN_SETTINGS, expand

# A cell of the DAG is the folder that its results lie in.
CELL = ("dataset", "layers", "recipe", "seed")


@dataclass
class Sweep:
    """A sweep file as trainings of the DAG.

    runs             the trainings, each once, under the recipe's name that the DAG has for them
    recipes          {name: block} of recipes that only this sweep has
    train            settings of RunConfig that all runs share, every one of them, defaults included
    train_by_recipe  {recipe: settings} where they differ between runs
    execution        settings of ExecutionConfig that the file fixes
    warnings         sentences for people; what there is to say of single runs, Grid says
    """

    runs: list[RunConfig]
    recipes: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    train_by_recipe: dict[str, Any] = field(default_factory=dict)
    execution: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def digest(self) -> str:
        """A short hash of what is trained and where, whatever the file looks like."""
        runs = sorted(json.dumps(run.as_dict(), sort_keys=True) for run in self.runs)
        text = json.dumps([runs, self.execution], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def read_sweep(
    path: str | os.PathLike,
    count: int | None = None,
    seed: int = 0,
    recipes: Mapping[str, Mapping[str, Any]] | None = None,
) -> Sweep:
    """The sweep file as trainings of the DAG. `recipes` are the configuration's own recipe blocks.

    Runs that differ in nothing but where they run are one training; a run that differs in a setting which is
    not part of a path gets a recipe named after it.
    """
    configs: list[RunConfig] = []
    places: list[dict[str, Any]] = []
    for values in expand(path, count, seed):
        learning = {name: value for name, value in values.items() if name in RUN_SETTINGS | RECIPE_SETTINGS}
        configs.append(make_run_config(learning, recipes)[0])
        place = {name: value for name, value in values.items() if name in EXECUTION_SETTINGS}
        places.append(checked(ExecutionConfig, place, f"sweep file {path}"))
    sweep = _named(configs, recipes or {})
    sweep.execution, warnings = _shared_places(places)
    sweep.warnings = [*program_note(load(path)), *warnings]
    return sweep


def _named(configs: Sequence[RunConfig], recipes: Mapping[str, Mapping[str, Any]]) -> Sweep:
    """The runs under recipes of the DAG: what no path tells apart gets a recipe of its own."""
    names = [f.name for f in fields(RunConfig) if f.name not in (*CELL, "settings")]
    varied = {name for name in names if len({getattr(config, name) for config in configs}) > 1}
    sweep = Sweep([])
    sweep.train = {name: getattr(configs[0], name) for name in names if name not in varied} if configs else {}
    known = {**{name: {} for name in RECIPES}, **recipes}
    taken: dict[str, str] = dict.fromkeys(known, "a recipe of the configuration")
    runs: dict[str, RunConfig] = {}
    for config in configs:
        plain = asdict(resolve_recipe(config.recipe, None, recipes))
        learning = {name: value for name, value in asdict(config.settings).items() if value != plain.get(name)}
        training = {name: getattr(config, name) for name in sorted(varied)}
        recipe = _variant_name(config.recipe, learning | training, taken)
        if recipe != config.recipe:
            block = dict(known[config.recipe])
            base = block.pop("base", config.recipe if config.recipe in RECIPES else RunConfig.recipe)
            sweep.recipes[recipe] = {"base": base} | block | learning
        if training:
            sweep.train_by_recipe[recipe] = training
        run = replace(config, recipe=recipe)
        runs.setdefault(run.name, run)
    sweep.runs = list(runs.values())
    return sweep


def _variant_name(recipe: str, changes: Mapping[str, Any], taken: dict[str, str]) -> str:
    """`ff` at learning_rate 0.003 -> `ff.learning_rate_0.003`; `taken` tells different settings apart."""
    if not changes:
        return recipe
    content = json.dumps([recipe, changes], sort_keys=True, default=str)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    pieces = [f"{name}_{value:g}" if is_number(value) else f"{name}_{value}" for name, value in changes.items()]
    name = ".".join([recipe, *pieces])
    name = re.sub(r"[^A-Za-z0-9_.]", "_", name)
    if len(name) > 64 or taken.get(name, content) != content:
        name = f"{recipe}.{digest}"
    taken[name] = content
    return name


# What the DAG has a key of its own for.
_WORKFLOW_KEYS = [f.name for f in fields(ExecutionConfig) if hasattr(WorkflowConfig, f.name)]


def _shared_places(places: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """The settings of where runs are carried out that all of them share, and sentences on the others."""
    shared, warnings = {}, []
    for name in sorted({name for place in places for name in place}):
        values = {place.get(name) for place in places}
        if name not in (*_WORKFLOW_KEYS, "no_cuda"):
            warnings.append(f"setting {name!r} of the sweep has no effect here: the workflow decides it")
        elif len(values) == 1:
            shared[name] = values.pop()
        else:
            warnings.append(f"runs that differ only in {name} are one training here; measuring covers every device")
    if shared.get("threads") == 0:
        del shared["threads"]
        warnings.append("threads 0 (all) has no effect here: the workflow's `threads` decides it")
    return shared, warnings


def workflow_keys(execution: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the DAG's configuration that say the same as `execution`."""
    keys = {name: execution[name] for name in _WORKFLOW_KEYS if name in execution}
    if keys.get("sidecar") == "inline":
        # That the hardware is recorded; who does it is for the configuration to say.
        del keys["sidecar"]
    if execution.get("no_cuda"):
        keys["device"] = "cpu"
    return keys


def in_place_of_the_grid(configuration: Mapping[str, Any]) -> tuple[Sweep, dict[str, Any]]:
    """The sweep that `configuration` names (`sweep`, `sweep_count`, `sweep_seed`), and the keys that it changes.

    Its trainings have exactly the settings that the file says, those that it leaves out are those of `ff train`; and
    its results lie in a folder of its own, `sweep_out` or one below the results folder that is named after the file
    and its content. So they never mix with results of the grid, whose path may be the same.
    """
    own = configuration.get("recipes") or {}
    sweep = read_sweep(
        configuration["sweep"], configuration.get("sweep_count"), configuration.get("sweep_seed", 0), own
    )
    keys: dict[str, Any] = {"train": sweep.train, "train_by_dataset": {}, "train_by_recipe": sweep.train_by_recipe}
    keys |= {"recipes": {**own, **sweep.recipes}, **workflow_keys(sweep.execution)}
    default = Path(str(configuration["results"]), "sweeps", folder_name(configuration["sweep"], sweep))
    keys["results"] = os.path.normpath(configuration.get("sweep_out") or default)
    return sweep, keys


def folder_name(path: str | os.PathLike, sweep: Sweep) -> str:
    """The sweep's folder below `sweeps/`: the name of its file and a hash of its content."""
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', Path(path).stem) or 'sweep'}-{sweep.digest()}"
