"""From configuration to runs and back from paths: the grid, each run's settings, and what a path may say.

Everything that a run's numbers depend on follows from the configuration and the four parts of its path
(`ff.layout.RunKey`); so any run can be asked for by path, inside the grid or not.
"""

import functools
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ff.data.registry import DATASETS
from ff.errors import FFError
from ff.files import read_json
from ff.layout import RunKey, prepared_set
from ff.learn.recipes import RECIPES, make_run_config, resolve_recipe
from ff.settings import RunConfig, parse_layers, resolve_layers

AXES = ("dataset", "layers", "recipe", "seed")


class Grid:
    """The runs that a configuration describes.

    `configuration` holds `train` (RunConfig settings of all runs), `train_by_dataset` and `train_by_recipe`
    (changes to them, in this order) and `recipes` (blocks of a learning rule's settings, with `base`).
    """

    def __init__(self, configuration: Mapping[str, Any]):
        self.configuration = configuration
        self.recipes: dict[str, Any] = dict(configuration.get("recipes") or {})
        # Of each run that has some, by its name.
        self.warnings: dict[str, list[str]] = {}
        self._resolved = functools.cache(self._resolve)

    def run(self, key: RunKey) -> RunConfig:
        """The settings of one run. Raises FFError when there can be no such run."""
        return self._resolved(key)

    def _resolve(self, key: RunKey) -> RunConfig:
        values = dict(self.configuration.get("train") or {})
        values |= (self.configuration.get("train_by_dataset") or {}).get(key.dataset) or {}
        values |= (self.configuration.get("train_by_recipe") or {}).get(key.recipe) or {}
        config, warnings = make_run_config(values | key._asdict(), self.recipes)
        if warnings:
            self.warnings[config.name] = warnings
        return config

    def expand(self, block: Mapping[str, Any]) -> list[RunConfig]:
        """The runs of a grid block {dataset, layers, recipe, seed: lists; exclude: [partial cells]}, each once."""
        cells = itertools.product(*(_listed(block[axis]) for axis in AXES))
        runs: dict[str, RunConfig] = {}
        excluded = [_comparable(cell) for cell in block.get("exclude") or []]
        for dataset, layers, recipe, seed in cells:
            cell = {"dataset": dataset, "layers": parse_layers(layers), "recipe": recipe, "seed": int(seed)}
            if any(all(cell[axis] == value for axis, value in out.items()) for out in excluded):
                continue
            config = self.run(RunKey.of(cell))
            runs[config.name] = config
        return list(runs.values())


def _listed(values: Any) -> Sequence[Any]:
    return values if isinstance(values, list | tuple) else [values]


def _comparable(cell: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(cell) - set(AXES))
    if unknown:
        raise FFError(f"grid.exclude names {unknown[0]!r}; a cell has: {', '.join(AXES)}")
    converted = dict(cell)
    if "layers" in converted:
        converted["layers"] = parse_layers(converted["layers"])
    if "seed" in converted:
        converted["seed"] = int(converted["seed"])
    return converted


def check_target(path: str, results: str, recipes: Iterable[str], files: Sequence[str] = ()) -> None:
    """Raise FFError, in one sentence, for a run path below `results` or prepared data that cannot exist.

    `files` are those of a run folder; without any, file names are not looked at. Other paths, such as
    results/summary/accuracy.csv, are left to the workflow.
    """
    before, after = prepared_set("*").split("*")
    if path.startswith(before) and path.endswith(after):
        _check_dataset(path, path.removeprefix(before).removesuffix(after))
    prefix = f"{results}/"
    parts = path.removeprefix(prefix).rstrip("/").split("/")
    if path.startswith(prefix) and parts[0] == "sweeps":
        raise FFError(f"{path} cannot be made: it is of a sweep; name its file too: --config sweep=FILE")
    if not path.startswith(prefix) or (len(parts) < 5 and parts[0] not in DATASETS):
        return
    _check_dataset(path, parts[0])
    if len(parts) < 5:
        example = RunKey(parts[0], f"{DATASETS[parts[0]].input_size}-200-200", "ff", 42).name
        raise FFError(f"{path} cannot be made: it is no file of a run, such as {results}/{example}/metrics.json")
    try:
        key = RunKey.parse(path.removeprefix(prefix))
        resolved = key._replace(layers="-".join(map(str, resolve_layers(key.dataset, parse_layers(key.layers))[0])))
    except FFError as error:
        raise FFError(f"{path} cannot be made: {error}") from None
    if resolved != key:
        size = DATASETS[key.dataset].input_size
        raise FFError(
            f"{path} cannot be made: {key.dataset} images have {size} values, so its layers begin with {size}: "
            f"{resolved.layers}"
        )
    if key.recipe not in {*RECIPES, *recipes}:
        known = ", ".join(sorted({*RECIPES, *recipes}))
        raise FFError(f"{path} cannot be made: there is no recipe {key.recipe!r}; choose from {known}")
    file = "/".join(parts[4:])
    if files and file not in files and not file.startswith(".sidecar-"):
        raise FFError(f"{path} cannot be made: a run has no file {file!r}; choose from {', '.join(files)}")


def _check_dataset(path: str, name: str) -> None:
    if name not in DATASETS:
        raise FFError(f"{path} cannot be made: there is no data set {name!r}; choose from {', '.join(DATASETS)}")


def check_config(configuration: Mapping[str, Any], schema_path: str | os.PathLike) -> None:
    """Hold the configuration against its schema, and its settings against their ranges.

    Raises FFError with one sentence that names the key and says what is allowed.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(read_json(schema_path)).iter_errors(configuration))
    if error is not None:
        raise FFError(f"config: {_explained(error)}")
    recipes = configuration.get("recipes") or {}
    for name in recipes:
        resolve_recipe(name, None, recipes)


def _explained(error: Any) -> str:
    """A JSON schema error as a sentence: where, what stands there, what may."""
    where = ".".join(str(part) for part in error.absolute_path) or "the top level"
    rule, allowed = error.validator, error.validator_value
    if rule == "enum":
        # YAML reads a bare off as false, which the schema therefore takes too.
        words = [str(value) for value in allowed if not isinstance(value, bool)]
        return f"{where} is {error.instance!r}; allowed: {', '.join(words)}"
    if rule == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = sorted(set(error.instance) - set(known))
        return f"{where} has the unknown key {unknown[0]!r}; allowed: {', '.join(known)}"
    if rule == "required":
        missing = [key for key in allowed if key not in error.instance]
        return f"{where} lacks {missing[0]!r}"
    if rule == "type":
        return f"{where} is {error.instance!r}; it must be of type {allowed}"
    expected = error.schema.get("description")
    return f"{where}: {error.message}" + (f" ({expected})" if expected else "")
