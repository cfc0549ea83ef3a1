"""A sweep file: read, held against W&B's schema, and its parameters by the setting that they mean."""

import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from ff.errors import FFError
from ff.files import read_json, read_yaml

# What a file may call its program without a word: ours, and the entry point of the published code.
PROGRAMS = ("ff", "ff train", "Main.py")
# W&B refuses these by now: their bounds are logarithms, which people mistook for values.
_WITHDRAWN = {"log_uniform", "inv_log_uniform", "q_log_uniform"}


def load(path: str | os.PathLike) -> dict[str, Any]:
    """The sweep file as a dict, all its keys text; FFError when it is missing, is no YAML or no mapping."""
    content = _with_text_keys(read_yaml(path, "sweep file"))
    if not isinstance(content, dict):
        raise FFError(f"sweep file {path} must hold `method:` and `parameters:`, not {type(content).__name__}")
    return content


def _with_text_keys(value: Any) -> Any:
    # YAML has other keys too: a bare `no:` is false.
    if isinstance(value, dict):
        return {str(key): _with_text_keys(entry) for key, entry in value.items()}
    return [_with_text_keys(entry) for entry in value] if isinstance(value, list) else value


def schema_problems(sweep: Mapping[str, Any]) -> list[str]:
    """What W&B would refuse: violations of its JSON schema, and of the rules that a schema cannot state.

    The rules are those of `sweeps.config.cfg.schema_violations_from_proposed_config`.
    """
    problems = [problem for _, problem in _violations(sweep)]
    parameters = sweep.get("parameters")
    scheduler = sweep.get("scheduler")
    if not parameters and not (isinstance(scheduler, Mapping) and scheduler.get("search_space")):
        problems.append("`parameters` is missing: there is nothing to sweep over")
    if "metric" in sweep and "metrics" in sweep:
        problems.append("`metric` and `metrics` cannot both be set")
    for name, entry in _leaves(parameters):
        low, high = entry.get("min"), entry.get("max")
        if is_number(low) and is_number(high) and low >= high:
            problems.append(f"parameter {name!r}: min {low} is not less than max {high}")
        if kind_of(entry) in _WITHDRAWN:
            kind = kind_of(entry)
            problems.append(f"parameter {name!r}: W&B has withdrawn {kind}; use {kind}_values bounded by values")
        shares = entry.get("probabilities")
        if isinstance(shares, list) and all(map(is_number, shares)) and isinstance(entry.get("values"), list):
            if len(shares) != len(entry["values"]):
                problems.append(f"parameter {name!r}: {len(entry['values'])} values but {len(shares)} probabilities")
            elif not math.isclose(sum(shares), 1.0, rel_tol=1e-5, abs_tol=1e-8):
                problems.append(f"parameter {name!r}: the probabilities add up to {sum(shares):g}, not to 1")
    return problems


def _violations(sweep: Mapping[str, Any]) -> Iterator[tuple[list[Any], str]]:
    """(where, sentence) of each violation of W&B's JSON schema; `where` is the way there, key by key."""
    import jsonschema

    checker = jsonschema.FormatChecker(formats=())
    checker.checks("float")(lambda value: isinstance(value, float))
    checker.checks("integer")(lambda value: isinstance(value, int))
    schema = read_json(Path(__file__).parent / "schema/wandb_sweep.json")
    for error in jsonschema.Draft7Validator(schema, format_checker=checker).iter_errors(dict(sweep)):
        where = list(error.absolute_path)
        if where[:1] == ["parameters"] and len(where) > 1 and error.validator == "anyOf":
            shape = json.dumps(error.instance, default=str)
            yield (
                where,
                f"parameter {'.'.join(map(str, where[1:]))!r}: {shape} is none of W&B's forms "
                "(value, values, min and max, or a distribution with its own keys)",
            )
        else:
            yield where, f"{'.'.join(map(str, where)) or 'file'}: {error.message}"


def without_malformed(sweep: Mapping[str, Any]) -> dict[str, Any]:
    """The sweep without the keys and parameters that violate W&B's schema, for what there is to say of the others."""
    kept = dict(sweep)
    for where, _ in _violations(sweep):
        if where[:1] == ["parameters"] and len(where) > 1:
            kept["parameters"] = {name: e for name, e in kept.get("parameters", {}).items() if name != where[1]}
        elif where:
            kept.pop(where[0], None)
    return kept


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _leaves(parameters: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, entry) of every parameter, those of nested blocks under their own name; in W&B's order, by name."""
    for name, entry in sorted(parameters.items()) if isinstance(parameters, Mapping) else ():
        if not isinstance(entry, Mapping):
            continue
        if "parameters" in entry and isinstance(entry["parameters"], Mapping):
            yield from _leaves(entry["parameters"])
        else:
            yield name, dict(entry)


def setting_name(parameter: str) -> str:
    """`rep-epochs`, `rep_epochs` -> `rep_epochs`."""
    return parameter.replace("-", "_")


def parameters(sweep: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Setting -> entry of every parameter; flags written into `command` count as parameters of one value.

    Raises FFError when two parameters mean the same setting.
    """
    found: dict[str, dict[str, Any]] = {}
    command = [str(word) for word in sweep.get("command") or ()]
    for word, after in itertools.zip_longest(command, command[1:], fillvalue=""):
        if word.startswith("--"):
            name, equals, text = word[2:].partition("=")
            follows = after and not after.startswith(("--", "${"))
            found[setting_name(name)] = {"value": text if equals else after if follows else True}
    seen: set[str] = set()
    for name, entry in _leaves(sweep.get("parameters")):
        setting = setting_name(name)
        if setting in seen:
            raise FFError(f"two parameters of the sweep mean the setting {setting!r}; keep one of them")
        seen.add(setting)
        found[setting] = entry
    return found


def program_note(sweep: Mapping[str, Any]) -> list[str]:
    """A sentence where the file names a program that is neither ff nor the published entry point."""
    program = sweep.get("program")
    if not program or str(program) in PROGRAMS:
        return []
    return [f"program {str(program)!r} is not run: each run of the sweep is one of `ff train`"]


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
