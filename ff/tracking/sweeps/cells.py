"""A sweep as the DAG sees it: cells (data set, layers, recipe, seed) and the settings that go with them."""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any

from ff.config import RECIPES, ExecutionConfig, RunConfig, checked, make_run_config, resolve_recipe
from ff.tracking.sweeps.files import is_number
from ff.tracking.sweeps.values import EXECUTION_SETTINGS, RECIPE_SETTINGS, RUN_SETTINGS, expand

# A cell of the DAG is the folder that its results lie in.
CELL = ("dataset", "layers", "recipe", "seed")


def grid(
    path: str | os.PathLike,
    count: int | None = None,
    seed: int = 0,
    recipes: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The sweep as the DAG's configuration. `recipes` are the configuration's own recipe blocks.

    Returns
        runs             [{dataset, layers (tuple), recipe, seed}], each once, layers resolved for the data
        set recipes          {name: block} of recipes that only this sweep has, to be merged into the
        configuration's train            settings of RunConfig that all runs share, every one of them,
        defaults included train_by_recipe  {recipe: settings} where they differ between runs execution
        settings of ExecutionConfig that the file fixes warnings         sentences for people

    Runs that differ in nothing but where they run are one training; a run that differs in a setting which is
    not part of a path gets a recipe named after it.
    """
    drawn = expand(path, count, seed)
    known = {**{name: {} for name in RECIPES}, **(recipes or {})}
    warnings: list[str] = []
    default = {f.name: f.default for f in dataclasses.fields(RunConfig) if f.name != "settings"}
    runs = []
    for values in drawn:
        config, notes = make_run_config(
            {name: value for name, value in values.items() if name in RUN_SETTINGS | RECIPE_SETTINGS}, recipes
        )
        warnings += [note for note in notes if note not in warnings]
        execution = checked(
            ExecutionConfig,
            {n: v for n, v in values.items() if n in EXECUTION_SETTINGS},
            f"sweep file {path}",
        )
        runs.append((config, execution))
    shared = {name: getattr(runs[0][0], name) for name in default if name not in CELL} if runs else {}
    varied = {name for name in shared if any(getattr(config, name) != shared[name] for config, _ in runs)}
    result: dict[str, Any] = {"runs": [], "recipes": {}, "train_by_recipe": {}, "warnings": warnings}
    result["train"] = {name: value for name, value in shared.items() if name not in varied}
    names: dict[str, str] = {}
    cells: dict[tuple, str] = {}
    for config, _ in runs:
        block = dict(known[config.recipe])
        plain = dataclasses.asdict(resolve_recipe(config.recipe, None, recipes))
        learning = {n: v for n, v in dataclasses.asdict(config.settings).items() if v != plain[n]}
        training = {name: getattr(config, name) for name in sorted(varied)}
        recipe = _variant_name(config.recipe, learning | training, names)
        if learning or (recipe != config.recipe and training):
            base = block.pop("base", config.recipe if config.recipe in RECIPES else "ff")
            result["recipes"][recipe] = {"base": base} | block | learning
        if training:
            result["train_by_recipe"][recipe] = training
        cells.setdefault((config.dataset, config.layers, recipe, config.seed), config.identity())
    result["runs"] = [dict(zip(CELL, cell, strict=True)) for cell in cells]
    where = {name for _, execution in runs for name in execution}
    result["execution"] = {}
    for name in sorted(where):
        values = {execution.get(name) for _, execution in runs}
        if len(values) == 1:
            result["execution"][name] = values.pop()
        else:
            warnings.append(f"runs that differ only in {name} are one training here; measuring covers every device")
    result["config"] = _workflow_keys(result["execution"])
    return result


def _workflow_keys(execution: Mapping[str, Any]) -> dict[str, Any]:
    same = ("device", "threads", "data_dir", "verify", "hw_interval_ms")
    keys = {name: execution[name] for name in same if name in execution}
    if execution.get("no_cuda"):
        keys["device"] = "cpu"
    if execution.get("enable_hw_monitor") is False:
        keys["sidecar"] = "off"
    return keys


def _variant_name(recipe: str, changes: Mapping[str, Any], names: dict[str, str]) -> str:
    """`ff` at learning_rate 0.003 -> `ff.learning_rate_0.003`; `names` tells different settings apart."""
    if not changes:
        return recipe
    content = json.dumps([recipe, changes], sort_keys=True, default=str)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    pieces = [f"{name}_{value:g}" if is_number(value) else f"{name}_{value}" for name, value in changes.items()]
    name = ".".join([recipe, *pieces])
    name = re.sub(r"[^A-Za-z0-9_.]", "_", name)
    if len(name) > 64 or names.get(name, content) != content:
        name = f"{recipe}.{digest}"
    names[name] = content
    return name
