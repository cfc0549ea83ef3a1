"""What a parameter's value is: distributions and their quantiles, grids, and W&B's runs one by one.

Distributions follow W&B's package `sweeps` 0.3.0 (file params.py): a value is the distribution's quantile of a
uniform random number.
"""

import dataclasses
import itertools
import json
import math
import os
import random
import statistics
from collections.abc import Mapping
from typing import Any

from ff.errors import FFError
from ff.learn.recipes import RecipeSettings
from ff.settings import ExecutionConfig, RunConfig, with_present_names
from ff.tracking.sweeps.files import kind_of, load, parameters, schema_problems

RUN_SETTINGS = {f.name for f in dataclasses.fields(RunConfig) if f.name != "settings"}
RECIPE_SETTINGS = {f.name for f in dataclasses.fields(RecipeSettings)}
# With the published name of `sidecar`.
EXECUTION_SETTINGS = {f.name for f in dataclasses.fields(ExecutionConfig)} | {"enable_hw_monitor"}
_QUANTISED = {"q_uniform", "q_log_uniform_values", "q_normal", "q_log_normal", "q_beta"}
# More values of one parameter than anybody waits for; W&B's server has a limit too.
_MOST_VALUES = 100_000
_GRID_KINDS = ("constant", "categorical", "int_uniform", "q_uniform")


def quantile(entry: Mapping[str, Any], u: float) -> Any:
    """The value of a parameter at quantile `u` in (0, 1) of its distribution; FFError where that is no number."""
    try:
        value = _quantile(entry, u)
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise FFError(f"{_shown(entry)} has no value at quantile {u:g} ({error})") from error
    if isinstance(value, float) and not math.isfinite(value) and kind_of(entry) not in ("constant", "categorical"):
        raise FFError(f"{_shown(entry)} has no finite value at quantile {u:g}")
    return value


def _shown(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, default=str)


def _quantile(entry: Mapping[str, Any], u: float) -> Any:
    kind = kind_of(entry)
    if kind == "constant":
        return entry["value"]
    if kind == "categorical":
        values, shares = entry["values"], entry.get("probabilities")
        if not shares:
            return values[max(math.ceil(u * len(values)) - 1, 0)]
        for value, reached in zip(values, itertools.accumulate(shares), strict=True):
            if u < reached:
                return value
        return values[-1]
    if kind == "int_uniform":
        return entry["min"] + max(math.ceil(u * (entry["max"] - entry["min"] + 1)) - 1, 0)
    value = _continuous(kind.removeprefix("q_"), entry, u)
    if kind in _QUANTISED:
        q = entry.get("q", 1.0)
        value = round(value / q) * q
        return int(value) if isinstance(q, int) else value
    return value


def _continuous(kind: str, entry: Mapping[str, Any], u: float) -> float:
    if kind == "uniform":
        return entry["min"] + u * (entry["max"] - entry["min"])
    if kind == "log_uniform_values":
        low, high = math.log(entry["min"]), math.log(entry["max"])
        return math.exp(low + u * (high - low))
    if kind == "inv_log_uniform_values":
        low, high = -math.log(entry["max"]), -math.log(entry["min"])
        return math.exp(-(low + (1 - u) * (high - low)))
    if kind in ("normal", "log_normal"):
        mu, sigma = entry.get("mu", 0.0), entry.get("sigma", 1.0)
        value = mu + sigma * statistics.NormalDist().inv_cdf(min(max(u, 1e-12), 1 - 1e-12))
        return math.exp(value) if kind == "log_normal" else value
    if kind == "beta":
        from scipy import stats

        return float(stats.beta.ppf(u, a=entry.get("a", 1), b=entry.get("b", 1)))
    raise FFError(f"distribution {kind!r} is not one of W&B's; see docs/wandb.md")


def grid_values(name: str, entry: Mapping[str, Any]) -> list[Any]:
    """The values that method `grid` goes through, each once; FFError when there is no end of them."""
    kind = kind_of(entry)
    if kind not in _GRID_KINDS or "probabilities" in entry:
        raise FFError(
            f"parameter {name!r} has distribution {kind!r}: method grid needs value, values, whole-numbered "
            "min and max, or q_uniform; use method random"
        )
    if kind == "constant":
        return [entry["value"]]
    if kind == "categorical":
        unique = {json.dumps(value, sort_keys=True, default=str): value for value in entry["values"]}
        return list(unique.values())
    try:
        q = 1 if kind == "int_uniform" else entry.get("q", 1.0)
        steps = (entry["max"] - entry["min"]) / q
        count = int(steps) + 1 if kind == "int_uniform" else math.ceil(steps - 1e-9)
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise FFError(f"parameter {name!r}: {_shown(entry)} has no steps ({error})") from error
    if not 0 < count <= _MOST_VALUES:
        raise FFError(f"parameter {name!r} has {count} values, which must be 1 to {_MOST_VALUES}; use method random")
    return [entry["min"] + index * q for index in range(count)]


def expand(path: str | os.PathLike, count: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """W&B's runs of the sweep file, each as {setting of `ff train`: value}; settings not named keep their default.

    Grid: the whole product in W&B's order, or the first `count` of it. Random: `count` draws, which `seed`
    fixes. Raises FFError for what W&B would refuse, for settings unknown to `ff train`, and for method bayes,
    which only W&B's server can run.
    """
    sweep = load(path)
    problems = schema_problems(sweep)
    if problems:
        raise FFError(f"sweep file {path}: {problems[0]}; `ff sweep --check {path}` lists everything")
    entries = parameters(sweep)
    unknown = unknown_settings(entries)
    if unknown:
        raise FFError(f"sweep file {path}: {unknown[0]}")
    method = sweep["method"]
    limit = min((n for n in (count, sweep.get("run_cap")) if n is not None), default=None)
    if method == "grid":
        axes = [grid_values(name, entry) for name, entry in entries.items()]
        product = (dict(zip(entries, values, strict=True)) for values in itertools.product(*axes))
        return [with_present_names(values) for values in itertools.islice(product, limit)]
    if method == "random":
        if limit is None:
            raise FFError(f"sweep file {path} has method random, which has no end; say how many runs with --count N")
        source = random.Random(seed)
        draws = ({name: quantile(entry, source.random()) for name, entry in entries.items()} for _ in range(limit))
        return [with_present_names(values) for values in draws]
    raise FFError(
        f"method {method} of {path} is steered by W&B's server; run it with `ff sweep {path} --run-agent`, "
        "or locally with method random"
    )


def unknown_settings(entries: Mapping[str, Any]) -> list[str]:
    """A sentence for each parameter that is no setting of `ff train`."""
    known = RUN_SETTINGS | RECIPE_SETTINGS | EXECUTION_SETTINGS
    sentences = []
    for name in entries:
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, sorted(known), 1)
            hint = f"; did you mean {near[0].replace('_', '-')!r}?" if near else ""
            sentences.append(f"parameter {name!r} is not a setting of `ff train`{hint}")
    return sentences
