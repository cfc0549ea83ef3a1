"""JSON schemas of the configuration and of every JSON file of a run folder, made from the types that define them.

    python -m ff.schemas

writes workflow/schemas/*.json (draft 2020-12). pydantic, which makes schemas of the types of documents, is needed for
this alone: whoever reads or checks a file needs the schema only.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ff.data.registry import DATASETS
from ff.documents.agreement import Agreement
from ff.documents.bundle import Bundle
from ff.documents.deployed import Deployed
from ff.documents.early_exit import EarlyExit
from ff.documents.evaluation import Evaluation
from ff.documents.hardware import Hardware
from ff.documents.metrics import Metrics
from ff.documents.parity import Parity
from ff.documents.single_stream import SingleStream
from ff.documents.variance import Variance
from ff.files import write_text
from ff.learn.readouts import score_name
from ff.learn.rule import Rule
from ff.learn.rules import PHASES, READOUTS, RULES
from ff.settings import MeasureConfig, RunConfig, SweepConfig, WandbConfig, WorkflowConfig

DOCUMENTS = {
    "metrics": Metrics,
    "evaluation": Evaluation,
    "early_exit": EarlyExit,
    "variance": Variance,
    "agreement": Agreement,
    "hardware": Hardware,
    "bundle": Bundle,
    "parity": Parity,
    "deployed": Deployed,
    "single_stream": SingleStream,
}
"""Result documents by the name of their schema."""
FOLDER = Path(__file__).parents[1] / "workflow" / "schemas"
_DRAFT = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
_NAME = {"type": "string", "pattern": "^[A-Za-z0-9_.]+$"}


def document(kind: Any) -> dict[str, Any]:
    """The schema of a result document, whose type is a TypedDict or one of several."""
    from pydantic import ConfigDict, TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema

    class Generator(GenerateJsonSchema):
        def field_title_should_be_set(self, schema: Any) -> bool:
            return False

        def typed_dict_schema(self, schema: Any) -> dict[str, Any]:
            return {key: value for key, value in super().typed_dict_schema(schema).items() if key != "title"}

    strict = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    # A list of it, since a TypedDict alone takes no configuration.
    listed = TypeAdapter(list[kind], config=strict).json_schema(schema_generator=Generator)
    return _DRAFT | _looked_up(listed["items"] | {"$defs": listed["$defs"]})


# -- what the registries say ----


def _of_each_rule(block: Callable[[Rule], dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for rule in RULES.values():
        if block(rule) not in found:
            found.append(block(rule))
    return found


def _record(properties: dict[str, Any], required: Iterable[str] | None = None) -> dict[str, Any]:
    """An object of exactly these keys, all of them required but where `required` says which."""
    keys = list(properties if required is None else required)
    return {"type": "object", "additionalProperties": False, "required": keys, "properties": properties}


def _values(kind: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return dict.fromkeys(names, kind)


def _run_config() -> dict[str, Any]:
    rules = _of_each_rule(lambda rule: _record(properties(rule.Settings)))
    names = {
        "layers": {
            "type": "string",
            "pattern": "^[1-9][0-9]*(,[1-9][0-9]*)+$",
            "description": "as on the command line",
        },
        "recipe": {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.]*$"},
    }
    return _record(properties(RunConfig) | names | {"recipe_settings": {"anyOf": rules}})


_SHARE = {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}]}
_RATE = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]}
_MACS = {"type": "integer", "minimum": 1}
_REGISTRIES: dict[str, Callable[[], Any]] = {
    "datasets": lambda: list(DATASETS),
    "readouts": lambda: list(READOUTS),
    "fewest classes": lambda: min(len(facts.classes) for facts in DATASETS.values()),
    "most classes": lambda: max(len(facts.classes) for facts in DATASETS.values()),
    "run config": lambda: [_run_config()],
    "final accuracies": lambda: [
        _record(
            _values(_SHARE, (f"{s}_{score_name('accuracy', r)}" for s in ("test", "val", "train") for r in READOUTS))
        )
    ],
    "phase": lambda: {f"^({'|'.join(PHASES)})$": {"type": "number", "minimum": 0}},
    "phases of one rule": lambda: _of_each_rule(
        lambda rule: {
            "required": [*rule.PHASES],
            "properties": dict.fromkeys((p for p in PHASES if p not in rule.PHASES), False),
        }
    ),
    "rates of one rule": lambda: _of_each_rule(lambda rule: _record(_values(_RATE, rule.PHASES))),
    "macs of one rule": lambda: _of_each_rule(
        lambda rule: _record(_values(_MACS, ["train_step", *(f"{one.name}_readout" for one in rule.READOUTS)]))
    ),
}
"""Keywords that `ff.documents.values.Limits` names instead of giving them."""


def _looked_up(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_looked_up(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    named = ("enum", "minItems", "maxItems", "maximum", "allOf", "anyOf", "oneOf", "patternProperties")
    return {
        key: _REGISTRIES[value]() if key in named and isinstance(value, str) else _looked_up(value)
        for key, value in schema.items()
    }


# -- settings ----


def properties(kind: type, with_null: bool = True) -> dict[str, dict[str, Any]]:
    """The settings of a dataclass as properties of an object; without null, None means that a key is left out."""
    types, found = get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        if about := field.metadata:
            kinds = [one for one in _kinds(types[field.name]) if with_null or one is not NoneType]
            found[field.name] = _value(kinds, about) | {"description": about["help"]}
    return found


def _kinds(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) is UnionType else (kind,)


def _value(kinds: Sequence[Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a value of one of `kinds` that keeps to the limits of its setting."""
    if len(kinds) > 1:
        return {"anyOf": [_value([kind], about) for kind in kinds]}
    [kind] = kinds
    choices = list(about.get("choices", ()))
    if get_origin(kind) is tuple:
        items = _value(_kinds(get_args(kind)[0]), about)
        return {"type": "array", "minItems": about.get("fewest", 1), "uniqueItems": True, "items": items}
    if kind is str and choices:
        # YAML reads a bare off as false.
        return {"enum": choices + ([False] if "off" in choices else [])}
    name, limits = _TYPES[kind]
    return {"type": name} | {keyword: about[limit] for limit, keyword in limits.items() if limit in about}


_NUMBER = {"minimum": "minimum", "maximum": "maximum", "above": "exclusiveMinimum"}
_TYPES: dict[Any, tuple[str, dict[str, str]]] = {
    bool: ("boolean", {}),
    int: ("integer", _NUMBER),
    float: ("number", _NUMBER),
    str: ("string", {"pattern": "pattern", "shortest": "minLength"}),
    NoneType: ("null", {}),
}


def configuration() -> dict[str, Any]:
    """The schema of config.yaml."""
    run = properties(RunConfig)
    axes = {
        "dataset": run["dataset"],
        "layers": {
            "type": "string",
            "pattern": "^[0-9]+([,-][0-9]+)+$",
            "description": 'input size and widths, such as "784,200,200,10"',
        },
        "recipe": _NAME,
        "seed": run["seed"],
    }
    grid = {axis: {"type": "array", "minItems": 1, "items": value} for axis, value in axes.items()}
    grid["exclude"] = {"type": "array", "items": {"type": "object", "minProperties": 1}}
    measure, workflow = properties(MeasureConfig), properties(WorkflowConfig)
    train = {"$ref": "#/$defs/train"}
    blocks = {
        "grid": _record(grid, axes),
        "train": train,
        "train_by_dataset": _record(_values(train, DATASETS), ()),
        "train_by_recipe": {"type": "object", "additionalProperties": train},
        "recipes": {"type": "object", "propertyNames": _NAME, "additionalProperties": {"type": "object"}},
        **workflow,
        **properties(SweepConfig, with_null=False),
        "measure": {"$ref": "#/$defs/measure", "required": list(measure)},
        "measure_by_dataset": _record(_values({"$ref": "#/$defs/measure"}, DATASETS), ()),
        "wandb": _record(properties(WandbConfig), ()),
    }
    definitions = {
        "train": _record({name: value for name, value in run.items() if name not in axes}, ()),
        "measure": _record(measure, ()),
    }
    required = ["grid", "train", "measure", *workflow]
    return _DRAFT | {"title": "ff configuration"} | _record(blocks, required) | {"$defs": definitions}


def schemas() -> dict[str, dict[str, Any]]:
    """Every schema by its name."""
    return {"config": configuration()} | {name: document(kind) for name, kind in DOCUMENTS.items()}


def main() -> int:
    """Write workflow/schemas; returns the exit status."""
    for name, schema in schemas().items():
        write_text(FOLDER / f"{name}.schema.json", text_of(schema) + "\n")
    return 0


def text_of(schema: Any, indent: int = 0) -> str:
    """A schema as its file holds it: JSON, what fits on one line on one line."""
    whole = json.dumps(schema, ensure_ascii=False)
    if len(whole) + indent <= 110 or not isinstance(schema, dict | list):
        return whole
    if isinstance(schema, dict):
        parts = [f"{json.dumps(key)}: {text_of(value, indent + 1)}" for key, value in schema.items()]
    else:
        parts = [text_of(value, indent + 1) for value in schema]
    start, end = "{}" if isinstance(schema, dict) else "[]"
    inner = ",\n".join(" " * (indent + 1) + part for part in parts)
    return f"{start}\n{inner}\n{' ' * indent}{end}"


if __name__ == "__main__":
    sys.exit(main())
