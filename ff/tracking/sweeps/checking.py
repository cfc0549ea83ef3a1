"""What `ff sweep --check` says: a sweep file against W&B's schema and against what `ff train` takes and logs."""

import contextlib
import dataclasses
import math
import os
import re
from collections.abc import Mapping
from typing import Any

from ff.errors import FFError
from ff.learn.recipes import RecipeSettings, make_run_config, resolve_recipe
from ff.settings import ExecutionConfig, RunConfig, checked, parse_layers, resolve_layers, with_present_names
from ff.tracking.names import GPU_METRICS, conditional_metrics, logged_metrics
from ff.tracking.sweeps.files import kind_of, load, parameters, program_note, schema_problems, without_malformed
from ff.tracking.sweeps.values import (
    EXECUTION_SETTINGS,
    RECIPE_SETTINGS,
    RUN_SETTINGS,
    grid_values,
    quantile,
    unknown_settings,
)

_DRAWS = 64


@dataclasses.dataclass
class Check:
    """What `ff sweep --check` has to say; the file can be run when `problems` is empty."""

    problems: list[str]
    warnings: list[str]
    method: str | None
    runs: int | None
    product: str


def check(
    path: str | os.PathLike, count: int | None = None, recipes: Mapping[str, Mapping[str, Any]] | None = None
) -> Check:
    """Hold a sweep file against W&B's schema and against what `ff train` takes and logs."""
    sweep = load(path)
    problems = schema_problems(sweep)
    warnings: list[str] = []
    sweep = without_malformed(sweep)
    entries: dict[str, dict[str, Any]] = {}
    try:
        entries = parameters(sweep)
    except FFError as error:
        problems.append(str(error))
    problems += unknown_settings(entries)
    entries = {name: entry for name, entry in entries.items() if not unknown_settings({name: 0})}
    problems += _value_problems(entries, recipes, warnings)
    method, product = sweep.get("method"), ""
    runs = limit = min((n for n in (count, sweep.get("run_cap")) if n is not None), default=None)
    if method == "grid":
        try:
            sizes = {name: len(grid_values(name, entry)) for name, entry in entries.items()}
            product = " x ".join(f"{name} {size}" for name, size in sizes.items() if size > 1)
            runs = min(math.prod(sizes.values()), math.prod(sizes.values()) if limit is None else limit)
        except FFError as error:
            problems.append(str(error))
    elif method == "random" and limit is None:
        warnings.append("method random has no end: --count N says how many runs")
    elif method == "bayes":
        warnings.append("method bayes needs W&B's server: it runs with an agent, not with --local")
        if "metric" not in sweep:
            problems.append("method bayes needs a `metric` to optimise")
    problems += _metric_problems(sweep, entries, recipes, warnings)
    warnings += program_note(sweep)
    return Check(list(dict.fromkeys(problems)), list(dict.fromkeys(warnings)), method, runs, product)


def _value_problems(
    entries: Mapping[str, Mapping[str, Any]], recipes: Mapping[str, Any] | None, warnings: list[str]
) -> list[str]:
    """Values that `ff train` would refuse, each tried by itself, and pairs of data set and layers."""
    problems: list[str] = []
    good: dict[str, list[Any]] = {}
    for name, entry in entries.items():
        try:
            values = _candidates(entry)
        except FFError as error:
            problems.append(f"parameter {name!r}: {error}")
            continue
        for value in values:
            try:
                good.setdefault(name, []).append(_accepted(name, value, recipes))
            except FFError as error:
                problems.append(str(error))
    for dataset in good.get("dataset", [RunConfig.dataset]):
        for layers in good.get("layers", [RunConfig.layers]):
            try:
                note = resolve_layers(dataset, layers)[1]
                warnings += [note] if note else []
            except FFError as error:
                problems.append(str(error))
    return problems


def _candidates(entry: Mapping[str, Any]) -> list[Any]:
    kind = kind_of(entry)
    if kind in ("constant", "categorical"):
        return list(entry.get("values", [entry.get("value")]))
    return [quantile(entry, (index + 0.5) / _DRAWS) for index in range(_DRAWS)]


def _accepted(name: str, value: Any, recipes: Mapping[str, Any] | None) -> Any:
    """`value` as `ff train` would take it for setting `name`; FFError otherwise."""
    if name == "layers":
        return parse_layers(value)
    if name == "recipe":
        make_run_config({"recipe": value}, recipes)
        return value
    for kind, names in (
        (RunConfig, RUN_SETTINGS),
        (RecipeSettings, RECIPE_SETTINGS),
        (ExecutionConfig, EXECUTION_SETTINGS),
    ):
        if name in names:
            [accepted] = checked(kind, with_present_names({name: value}), "sweep").values()
            return accepted
    return value


def _metric_problems(
    sweep: Mapping[str, Any], entries: Mapping[str, Any], recipes: Mapping[str, Any] | None, warnings: list[str]
) -> list[str]:
    metric = sweep.get("metric")
    name = metric.get("name") if isinstance(metric, Mapping) else None
    if not isinstance(name, str) or name in logged_metrics():
        return []
    if name in GPU_METRICS:
        warnings.append(f"metric {name!r} is not logged by every run: it is logged on a GPU only")
        return []
    if loggers := conditional_metrics().get(name):
        methods = _methods(entries, recipes)
        if not methods & loggers:
            return [f"metric {name!r} is never logged by runs of method {' or '.join(sorted(methods))}"]
        for other in sorted(methods - loggers):
            warnings.append(f"metric {name!r} is not logged by every run: those of method {other} lack it")
        return []
    if re.search(r"_power_mw$|^energy/|^hardware/|^(ram_|gpu_|cpu_avg_|temperature_)|^goodness/", name):
        warnings.append(f"metric {name!r} is logged only where a sensor for it exists")
        return []
    import difflib

    near = difflib.get_close_matches(name, sorted({*logged_metrics(), *conditional_metrics(), *GPU_METRICS}), 1)
    return [f"metric {name!r} is never logged by `ff train`" + (f"; did you mean {near[0]!r}?" if near else "")]


def _methods(entries: Mapping[str, Any], recipes: Mapping[str, Any] | None) -> set[str]:
    """How the runs of a sweep learn: the setting `method` where it is swept, else what their recipes say."""
    if "method" in entries:
        return {str(value) for value in _candidates(entries["method"])}
    named = _candidates(entries["recipe"]) if "recipe" in entries else [RunConfig.recipe]
    found = set()
    for name in named:
        with contextlib.suppress(FFError):
            found.add(resolve_recipe(str(name), None, recipes).method)
    return found or {resolve_recipe(RunConfig.recipe).method}
