"""Weights & Biases sweep files: checked, counted, run on W&B or run here through the DAG.

A sweep file is read as runs of `ff train`, whatever its `program` says, because that is what the published
files mean by theirs. `expand` gives W&B's runs one by one, `grid` the same as cells of the DAG. Distributions
follow W&B's package `sweeps` 0.3.0 (file params.py): a value is the distribution's quantile of a uniform
random number.
"""

import argparse
import dataclasses
import hashlib
import itertools
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ff.config import (
    RECIPES,
    ExecutionConfig,
    RecipeSettings,
    RunConfig,
    checked,
    make_run_config,
    parse_layers,
    resolve_layers,
    resolve_recipe,
)
from ff.errors import FFError
from ff.files import read_json
from ff.wandb_names import conditional_metrics, logged_metrics, training_summary
from ff.wandb_session import redacted, resolve_access, unreachable, used_environment

RUN_SETTINGS = {f.name for f in dataclasses.fields(RunConfig) if f.name != "settings"}
RECIPE_SETTINGS = {f.name for f in dataclasses.fields(RecipeSettings)}
EXECUTION_SETTINGS = {f.name for f in dataclasses.fields(ExecutionConfig)}
# A cell of the DAG is the folder that its results lie in.
CELL = ("dataset", "layers", "recipe", "seed")
PROGRAMS = ("main.py", "train.py", "ff", "ff train")
_DRAWS = 64

_QUANTISED = {"q_uniform", "q_log_uniform_values", "q_normal", "q_log_normal", "q_beta"}
# W&B refuses these by now: their bounds are logarithms, which people mistook for values.
_WITHDRAWN = {"log_uniform", "inv_log_uniform", "q_log_uniform"}
_GRID_KINDS = ("constant", "categorical", "int_uniform", "q_uniform")


# ---------------------------------------------------------------- reading a file


def load(path: str | os.PathLike) -> dict[str, Any]:
    """The sweep file as a dict; FFError when it is missing, is no YAML or no mapping."""
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise FFError(f"cannot read sweep file {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        raise FFError(f"sweep file {path} is not valid YAML{line}") from error
    if not isinstance(content, dict):
        raise FFError(f"sweep file {path} must hold `method:` and `parameters:`, not {type(content).__name__}")
    return content


def schema_problems(sweep: Mapping[str, Any]) -> list[str]:
    """What W&B would refuse: violations of its JSON schema, and of the rules that a schema cannot state.

    The rules are those of `sweeps.config.cfg.schema_violations_from_proposed_config`.
    """
    import jsonschema

    checker = jsonschema.FormatChecker(formats=())
    checker.checks("float")(lambda value: isinstance(value, float))
    checker.checks("integer")(lambda value: isinstance(value, int))
    schema = read_json(Path(__file__).parent / "schemas/wandb_sweep.json")
    problems = []
    for error in jsonschema.Draft7Validator(schema, format_checker=checker).iter_errors(dict(sweep)):
        where = list(error.absolute_path)
        if where[:1] == ["parameters"] and len(where) > 1 and error.validator == "anyOf":
            shape = json.dumps(error.instance, default=str)
            problems.append(
                f"parameter {'.'.join(map(str, where[1:]))!r}: {shape} is none of W&B's forms "
                "(value, values, min and max, or a distribution with its own keys)"
            )
        else:
            problems.append(f"{'.'.join(map(str, where)) or 'file'}: {error.message}")
    parameters = sweep.get("parameters")
    if not parameters and not (sweep.get("scheduler") or {}).get("search_space"):
        problems.append("`parameters` is missing: there is nothing to sweep over")
    if "metric" in sweep and "metrics" in sweep:
        problems.append("`metric` and `metrics` cannot both be set")
    for name, entry in _leaves(parameters) if isinstance(parameters, Mapping) else ():
        low, high = entry.get("min"), entry.get("max")
        if _is_number(low) and _is_number(high) and low >= high:
            problems.append(f"parameter {name!r}: min {low} is not less than max {high}")
        if kind_of(entry) in _WITHDRAWN:
            kind = kind_of(entry)
            problems.append(f"parameter {name!r}: W&B has withdrawn {kind}; use {kind}_values bounded by values")
        shares = entry.get("probabilities")
        if isinstance(shares, list) and all(map(_is_number, shares)) and isinstance(entry.get("values"), list):
            if len(shares) != len(entry["values"]):
                problems.append(f"parameter {name!r}: {len(entry['values'])} values but {len(shares)} probabilities")
            elif not math.isclose(sum(shares), 1.0, rel_tol=1e-5, abs_tol=1e-8):
                problems.append(f"parameter {name!r}: the probabilities add up to {sum(shares):g}, not to 1")
    return problems


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _leaves(parameters: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, entry) of every parameter, those of nested blocks under their own name; in W&B's order, by name."""
    for name, entry in sorted(parameters.items()):
        if not isinstance(entry, Mapping):
            continue
        if "parameters" in entry and isinstance(entry["parameters"], Mapping):
            yield from _leaves(entry["parameters"])
        else:
            yield str(name), dict(entry)


def setting_name(parameter: str) -> str:
    """`rep-epochs`, `rep_epochs` -> `rep_epochs`."""
    return parameter.replace("-", "_")


def parameters(sweep: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Setting -> entry of every parameter; flags written into `command` count as parameters of one value.

    Raises FFError when two parameters mean the same setting.
    """
    found: dict[str, dict[str, Any]] = {}
    command = [str(word) for word in sweep.get("command") or []]
    for word, after in itertools.zip_longest(command, command[1:], fillvalue=""):
        if word.startswith("--"):
            name, equals, text = word[2:].partition("=")
            follows = after and not after.startswith(("--", "${"))
            found[setting_name(name)] = {"value": text if equals else after if follows else True}
    seen: set[str] = set()
    for name, entry in _leaves(sweep.get("parameters") or {}):
        setting = setting_name(name)
        if setting in seen:
            raise FFError(f"two parameters of the sweep mean the setting {setting!r}; keep one of them")
        seen.add(setting)
        found[setting] = entry
    return found


def kind_of(entry: Mapping[str, Any]) -> str:
    """The distribution of a parameter, as W&B resolves it where the file does not say."""
    if "value" in entry:
        return "constant"
    if "values" in entry:
        return "categorical"
    if "distribution" in entry:
        return str(entry["distribution"])
    whole = all(isinstance(entry.get(bound), int) for bound in ("min", "max"))
    return "int_uniform" if whole else "uniform"


# ---------------------------------------------------------------- values


def quantile(entry: Mapping[str, Any], u: float) -> Any:
    """The value of a parameter at quantile `u` in (0, 1) of its distribution."""
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
    if kind == "int_uniform":
        return list(range(entry["min"], entry["max"] + 1))
    if kind == "q_uniform":
        q = entry.get("q", 1.0)
        steps = math.ceil((entry["max"] - entry["min"]) / q - 1e-9)
        return [entry["min"] + index * q for index in range(steps)]
    unique = {json.dumps(value, sort_keys=True, default=str): value for value in entry["values"]}
    return list(unique.values())


def expand(path: str | os.PathLike, count: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """W&B's runs of the sweep file, each as {setting of `ff train`: value}; settings not named keep their
    default.

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
        return list(itertools.islice(product, limit))
    if method == "random":
        if limit is None:
            raise FFError(f"sweep file {path} has method random, which has no end; say how many runs with --count N")
        source = random.Random(seed)
        return [{name: quantile(entry, source.random()) for name, entry in entries.items()} for _ in range(limit)]
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


# ---------------------------------------------------------------- the same as cells of the DAG


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
    pieces = [f"{name}_{value:g}" if _is_number(value) else f"{name}_{value}" for name, value in changes.items()]
    name = ".".join([recipe, *pieces])
    name = re.sub(r"[^A-Za-z0-9_.]", "_", name)
    if len(name) > 64 or names.get(name, content) != content:
        name = f"{recipe}.{digest}"
    names[name] = content
    return name


# ---------------------------------------------------------------- checking


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
    problems, warnings = schema_problems(sweep), []
    entries: dict[str, dict[str, Any]] = {}
    try:
        entries = parameters(sweep)
    except FFError as error:
        problems.append(str(error))
    problems += unknown_settings(entries)
    method = sweep.get("method")
    usable = {name: entry for name, entry in entries.items() if not unknown_settings({name: 0})}
    if not problems or usable:
        problems += _value_problems(usable, recipes, warnings)
    runs, product = None, ""
    limit = min((n for n in (count, sweep.get("run_cap")) if isinstance(n, int)), default=None)
    if method == "grid":
        try:
            sizes = {name: len(grid_values(name, entry)) for name, entry in entries.items()}
            runs = math.prod(sizes.values())
            product = " x ".join(f"{name} {size}" for name, size in sizes.items() if size > 1)
            runs = runs if limit is None else min(runs, limit)
        except (FFError, KeyError, TypeError, ZeroDivisionError) as error:
            if isinstance(error, FFError):
                problems.append(str(error))
    elif method == "random":
        runs = limit
        if limit is None:
            warnings.append("method random has no end: --count N says how many runs")
    elif method == "bayes":
        warnings.append("method bayes needs W&B's server: it runs with an agent, not with --local")
        if "metric" not in sweep:
            problems.append("method bayes needs a `metric` to optimise")
        runs = limit
    problems += _metric_problems(sweep, entries, warnings)
    program = sweep.get("program")
    if program and Path(str(program)).name.lower() not in PROGRAMS:
        warnings.append(f"program {program!r} is taken to mean `ff train`")
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
        except (KeyError, TypeError, ValueError, FFError):
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
            return checked(kind, {name: value}, "sweep")[name]
    return value


def _metric_problems(sweep: Mapping[str, Any], entries: Mapping[str, Any], warnings: list[str]) -> list[str]:
    metric = sweep.get("metric")
    name = metric.get("name") if isinstance(metric, Mapping) else None
    if not isinstance(name, str) or name in logged_metrics():
        return []
    if name in conditional_metrics():
        goodness = "goodness" in name
        recipes = _candidates(entries["recipe"]) if "recipe" in entries else []
        if goodness and "bp" not in recipes:
            return []
        why = "recipe bp has no goodness readout" if goodness else "it is logged on a GPU only"
        warnings.append(f"metric {name!r} is not logged by every run: {why}")
        return []
    if re.search(r"_power_mw$|^energy/|^hardware/|^(ram_|gpu_|cpu_avg_|temperature_)|^goodness/", name):
        warnings.append(f"metric {name!r} is logged only where a sensor for it exists")
        return []
    import difflib

    near = difflib.get_close_matches(name, sorted(logged_metrics() | conditional_metrics()), 1)
    return [f"metric {name!r} is never logged by `ff train`" + (f"; did you mean {near[0]!r}?" if near else "")]


# ---------------------------------------------------------------- running


def uploadable(path: str | os.PathLike) -> dict[str, Any]:
    """The sweep for W&B's server: `ff train` in place of the file's program, flags in its spelling."""
    sweep = load(path)
    upload = {name: value for name, value in sweep.items() if name not in ("program", "command", "parameters")}
    upload["program"] = "ff"
    upload["command"] = ["${env}", "ff", "train", "${args}"]
    upload["parameters"] = {name.replace("_", "-"): entry for name, entry in parameters(sweep).items()}
    return upload


def create(
    path: str | os.PathLike, project: str | None = None, entity: str | None = None, client: Any = None
) -> tuple[str, str]:
    """Create the sweep on W&B: (its id, the path PROJECT/ID or ENTITY/PROJECT/ID that an agent takes).

    `client` stands for the module wandb. Raises FFError when the file is wrong, when there is no key, and
    when W&B cannot be reached, each within seconds.
    """
    found = check(path)
    if found.problems:
        raise FFError(f"sweep file {path}: {found.problems[0]}; `ff sweep --check {path}` lists everything")
    sweep = load(path)
    access = resolve_access("auto")
    project = project or sweep.get("project") or access.project or "edgeff"
    entity = entity or sweep.get("entity") or access.entity
    if client is None:
        if not access.key:
            raise FFError(
                "a sweep on W&B needs WANDB_API_KEY in the environment or in .env; without an account run it "
                f"with `ff sweep {path} --local`"
            )
        problem = unreachable(access)
        if problem:
            raise FFError(f"{problem}; try again later, or run the sweep with `ff sweep {path} --local`")
        import wandb as client
    try:
        with used_environment(dataclasses.replace(access, mode="online"), "."):
            sweep_id = client.sweep(uploadable(path), entity=entity, project=project)
    except Exception as error:
        reason = redacted(error, access).strip().splitlines() or [type(error).__name__]
        raise FFError(f"W&B did not take the sweep {path}: {reason[0]}") from None
    return sweep_id, "/".join(filter(None, [entity, project, sweep_id]))


def agent_command(sweep_path: str, count: int | None = None) -> list[str]:
    """The command that runs an agent of a sweep in this Python."""
    limit = ["--count", str(count)] if count else []
    return [sys.executable, "-m", "wandb", "agent", *limit, sweep_path]


def agent_environment() -> dict[str, str]:
    """This environment, with the folder of this Python's `ff` first in the search path."""
    return os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}


def local_command(
    path: str | os.PathLike,
    runs: Sequence[Mapping[str, Any]],
    configfile: str,
    count: int | None,
    seed: int,
    cores: str,
    results: str = "results",
    dry_run: bool = False,
) -> list[str]:
    """The Snakemake command that trains `runs` (of `grid`): their metrics.json as explicit targets.

    Snakemake takes what follows `--config` for settings, so the targets come first.
    """
    targets = [f"{results}/{run_name(run)}/metrics.json" for run in runs]
    settings = [f"sweep={path}", f"sweep_seed={seed}", *([f"sweep_count={count}"] if count else [])]
    words = [sys.executable, "-m", "snakemake", *targets, "--cores", cores, "--configfile", configfile]
    return [*words, *(["--dry-run"] if dry_run else []), "--config", *settings]


def run_name(run: Mapping[str, Any]) -> str:
    """The folder of a run of `grid` below the results folder."""
    return f"{run['dataset']}/{'-'.join(map(str, run['layers']))}/{run['recipe']}/seed{run['seed']}"


def best(
    runs: Sequence[Mapping[str, Any]],
    metric: Mapping[str, Any] | None,
    results: str = "results",
    top: int = 5,
) -> list[tuple[float, str]]:
    """(value, run) of the best finished runs by the sweep's metric, best first; [] without a metric."""
    if not metric:
        return []
    found = []
    for run in runs:
        name = run_name(run)
        path = Path(results) / name / "metrics.json"
        value = training_summary(read_json(path)).get(metric["name"]) if path.is_file() else None
        if _is_number(value):
            found.append((value, name))
    return sorted(found, reverse=metric.get("goal") == "maximize")[:top]


# ---------------------------------------------------------------- `ff sweep`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ff sweep`."""
    parser.add_argument("file", help="W&B sweep file (YAML)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="check and count only")
    what.add_argument("--local", action="store_true", help="run it here through the DAG, without W&B")
    what.add_argument("--run-agent", action="store_true", help="create it on W&B and run an agent here")
    parser.add_argument("--count", type=int, help="at most so many runs (method random needs it)")
    parser.add_argument("--project", help="W&B project (default: the file's, else edgeff)")
    parser.add_argument("--entity", help="W&B user or team")
    parser.add_argument("--seed", type=int, default=0, help="fixes the draws of method random with --local")
    parser.add_argument("--cores", default="all", help="cores for --local (default: all)")
    parser.add_argument("--configfile", default="config/config.yaml", help="configuration for --local")
    parser.add_argument("--dry-run", action="store_true", help="with --local: only show what would be run")


def run(args: argparse.Namespace) -> int:
    """`ff sweep`: 0 when it was done, 1 when the check found problems, else the exit status of what was started."""
    if args.count is not None and args.count < 1:
        raise FFError(f"--count is {args.count}; it must be at least 1")
    if args.check:
        return _run_check(args)
    if args.local:
        return _run_local(args)
    sweep_id, sweep_path = create(args.file, args.project, args.entity)
    print(f"sweep {sweep_id}; agents anywhere: wandb agent {sweep_path}")
    if not args.run_agent:
        return 0
    return subprocess.run(agent_command(sweep_path, args.count), env=agent_environment(), check=False).returncode


def _configuration(path: str) -> dict[str, Any]:
    return load(path) if Path(path).is_file() else {}


def _run_check(args: argparse.Namespace) -> int:
    recipes = _configuration(args.configfile).get("recipes")
    found = check(args.file, args.count, recipes)
    for text in found.problems:
        print(f"problem: {text}")
    for text in found.warnings:
        print(f"note: {text}")
    size = "no fixed number of runs" if found.runs is None else f"{found.runs} runs"
    print(f"{args.file}: method {found.method}, {size}" + (f" ({found.product})" if found.product else ""))
    if not found.problems and found.runs is not None and found.method in ("grid", "random"):
        cells = grid(args.file, args.count, args.seed, recipes)["runs"]
        print(f"locally {len(cells)} trainings")
    return 1 if found.problems else 0


def _run_local(args: argparse.Namespace) -> int:
    if not Path("Snakefile").is_file():
        raise FFError("there is no Snakefile here; run `ff sweep --local` in the project's folder")
    configuration = _configuration(args.configfile)
    cells = grid(args.file, args.count, args.seed, configuration.get("recipes"))
    for text in cells["warnings"]:
        print(f"note: {text}", file=sys.stderr)
    results = str(configuration.get("results", "results"))
    command = local_command(
        args.file, cells["runs"], args.configfile, args.count, args.seed, args.cores, results, args.dry_run
    )
    print(f"{len(cells['runs'])} trainings", flush=True)
    status = subprocess.run(command, check=False).returncode
    metric = load(args.file).get("metric")
    for value, name in best(cells["runs"], metric, results):
        print(f"{metric['name']} {value:.4f}  {name}")
    return status
