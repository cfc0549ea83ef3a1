"""From names and plain values to the settings of a run: recipes of all learning rules, and those of a configuration.

Reads the rules' settings without importing torch (`ff.learn.lazy`), so the workflow may ask at each start.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, get_type_hints

from ff.errors import FFError
from ff.layout import RECIPE
from ff.learn.rule import Rule
from ff.learn.rules import RULES
from ff.settings import RunConfig, checked, parse_layers, resolve_layers, setting, shown

RECIPES: dict[str, Any] = {name: settings for rule in RULES.values() for name, settings in rule.RECIPES.items()}
"""The built-in recipes by name, those of controls last."""


def _all_settings() -> type:
    fields: dict[str, tuple[type, Any, dict[str, Any]]] = {}
    for rule in RULES.values():
        types = get_type_hints(rule.Settings)
        for field in dataclasses.fields(rule.Settings):
            kind, default, about = fields.get(field.name, (types[field.name], field.default, {}))
            choices = dict.fromkeys((*about.get("choices", ()), *field.metadata.get("choices", ())))
            about = {**field.metadata, **about} | ({"choices": tuple(choices)} if choices else {})
            fields[field.name] = kind, default, about
    declared = [(name, kind, setting(default, **about)) for name, (kind, default, about) in fields.items()]
    return dataclasses.make_dataclass("RecipeSettings", declared, frozen=True)


RecipeSettings = _all_settings()
"""The settings of all rules: where several have one, its default in the first of them, with the choices of all."""


def rule_of(config: RunConfig) -> Rule:
    """The learning rule of a run."""
    return RULES[config.settings.method]


def resolve_recipe(
    name: str,
    overrides: Mapping[str, Any] | None = None,
    recipes: Mapping[str, Mapping[str, Any]] | None = None,
) -> Any:
    """The settings of recipe `name`: built in, or a block of `recipes` (`base:` names what it starts from).

    Settings that its learning rule does not have, but another rule does, are left out (`make_run_config` warns).
    """
    base, changes = _base_and_changes(name, recipes)
    changes |= overrides or {}
    where = f"recipe {name}"
    settings = RECIPES[base]
    method = checked(RecipeSettings, {"method": changes.pop("method", settings.method)}, where)["method"]
    kind = RULES[method].Settings
    own = {field.name for field in dataclasses.fields(kind)}
    if method != settings.method:
        kept = {key: value for key, value in dataclasses.asdict(settings).items() if key in own - {"method"}}
        settings = kind(**kept)
    for rule in RULES.values():
        # A value must be right for a rule that has the setting, even where it has no effect.
        others = {field.name for field in dataclasses.fields(rule.Settings)} - own
        checked(rule.Settings, {key: value for key, value in changes.items() if key in others}, where)
        changes = {key: value for key, value in changes.items() if key not in others}
    return dataclasses.replace(settings, **checked(kind, changes, where))


def _base_and_changes(name: str, recipes: Mapping[str, Mapping[str, Any]] | None) -> tuple[str, dict[str, Any]]:
    """The built-in recipe that recipe `name` starts from, and what it changes."""
    if not isinstance(recipes or {}, Mapping):
        raise FFError(f"recipes must be named blocks of settings, not {shown(recipes)}")
    block = (recipes or {}).get(name) or {}
    if not isinstance(block, Mapping):
        raise FFError(f"recipe {shown(name)} must be a block of settings, not {shown(block)}")
    changes = dict(block)
    base = changes.pop("base", name if name in RECIPES else RunConfig.recipe)
    if name not in RECIPES and name not in (recipes or {}):
        known = sorted({*RECIPES, *(recipes or {})})
        raise FFError(f"unknown recipe {shown(name)}; known recipes: {', '.join(known)}")
    if not isinstance(base, str) or base not in RECIPES:
        raise FFError(f"recipe {shown(name)} starts from unknown base {shown(base)}; bases are: {', '.join(RECIPES)}")
    return base, changes


def make_run_config(
    values: Mapping[str, Any], recipes: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[RunConfig, list[str]]:
    """A checked RunConfig of plain values (command line, YAML, grid cell), and the warnings that go with it.

    `values` may hold RunConfig settings and recipe settings side by side. Raises FFError naming the setting and
    what is allowed.
    """
    recipe_names = {field.name for field in dataclasses.fields(RecipeSettings)}
    overrides = {key: value for key, value in values.items() if key in recipe_names}
    rest = {key: value for key, value in values.items() if key not in recipe_names}
    if "layers" in rest:
        rest["layers"] = parse_layers(rest["layers"])
    run = checked(RunConfig, rest, "run")
    recipe = run.get("recipe", RunConfig.recipe)
    if not re.fullmatch(RECIPE, recipe):
        raise FFError(f"recipe name {shown(recipe)} must begin with a letter, digit or '_' and go on with these or '.'")
    config = RunConfig(**run, settings=resolve_recipe(recipe, overrides, recipes))
    if config.rep_epochs + config.softmax_epochs == 0:
        raise FFError("rep_epochs and softmax_epochs are both 0: nothing would be trained; give one of them at least 1")
    layers, warning = resolve_layers(config.dataset, config.layers)
    config = dataclasses.replace(config, layers=layers)
    given = {**(_base_and_changes(recipe, recipes)[1]), **overrides}.keys()
    own = {field.name for field in dataclasses.fields(config.settings)}
    unused = [
        f"{name} has no effect on recipe {recipe}: method {config.settings.method} does not use it"
        for name in given
        if name not in own
    ]
    return config, [*([warning] if warning else []), *rule_of(config).remarks(config, given), *unused]


def run_config_of(values: Mapping[str, Any]) -> RunConfig:
    """The RunConfig that `as_dict` gave, as metrics.json, checkpoints and the DAG's params hold it."""
    plain = {key: value for key, value in values.items() if key != "recipe_settings"}
    return make_run_config(plain | dict(values["recipe_settings"]), recipes={values["recipe"]: {}})[0]
