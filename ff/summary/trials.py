"""The trials of a search, and which setting of each learning rule it chooses: by validation, never by test.

A trial is a recipe: a setting of its learning rule, trained with some seeds on a data set and network.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ff.errors import FFError
from ff.layout import RunKey
from ff.learn.rules import RULES
from ff.summary.tables.rows import KEYS, typed
from ff.summary.tables.run_files import files_of

CELL = ["dataset", "layers", "rule"]
COLUMNS = (*KEYS, "rule", "readout", "n", "val_accuracy", "chosen")
"""Columns of a trial, before those of the settings in which trials differ."""


class Choice(NamedTuple):
    """What the search of a rule on a data set and network chose."""

    dataset: str
    layers: str
    rule: str
    recipe: str
    val_accuracy: float
    """mean over seeds"""
    seeds: int
    trials: int
    """how many could be chosen: those with all seeds that any trial of the search has"""
    incomplete: tuple[str, ...]
    """recipes that lack some of these seeds"""


def trials(results_root: str | Path, runs: Iterable[RunKey]) -> pd.DataFrame:
    """One row per finished run: its validation accuracy by the readout that its rule names first, and its settings.

    Settings are those of run and recipe in which any two runs of a rule differ, a column each. `chosen` is 1 at the
    runs of the recipe that `choices` names. Raises FFError where no run has a validation accuracy.
    """
    rows: list[dict[str, Any]] = []
    settings: list[dict[str, Any]] = []
    for files in files_of(results_root, runs):
        metrics = files.json("metrics.json") or {}
        config = metrics.get("config") or {}
        rule = (config.get("recipe_settings") or {}).get("method")
        found = _on_validation(metrics, rule) if rule in RULES else None
        if found is None:
            continue
        about = {"rule": rule, "readout": found["readout"], "n": found["n"], "val_accuracy": found["accuracy"]}
        rows.append({**files.run._asdict(), **about, "chosen": 0})
        settings.append(_settings(config))
    if not rows:
        raise FFError(f"no run below {results_root} has a validation accuracy; train the trials of a search first")
    frame, of_trials = pd.DataFrame(rows, columns=list(COLUMNS)), pd.DataFrame(settings).astype("object")
    values_of_rules = of_trials.map(str).groupby(frame["rule"]).nunique()
    frame = pd.concat([frame, of_trials.loc[:, (values_of_rules > 1).any()]], axis=1)
    chosen = {(choice.dataset, choice.layers, choice.recipe) for choice in choices(frame)}
    cells = zip(frame["dataset"], frame["layers"], frame["recipe"], strict=True)
    return typed(frame.assign(chosen=[int(cell in chosen) for cell in cells]))


def choices(frame: pd.DataFrame) -> list[Choice]:
    """Per data set, network and rule the recipe with the largest mean validation accuracy; the first of equals.

    `frame`: the table of `trials`. A seed draws the validation images, so means over other seeds are not compared: a
    recipe that lacks a seed is not chosen.
    """
    found = []
    for (dataset, layers), network in frame.groupby(CELL[:2], sort=False):
        seeds = set(network["seed"])
        for rule, part in network.groupby("rule", sort=False):
            by_recipe = part.groupby("recipe", sort=False)
            complete = by_recipe["seed"].agg(set) == seeds
            if not complete.any():
                continue
            means = by_recipe["val_accuracy"].mean()[complete]
            incomplete = tuple(str(name) for name in complete.index[~complete])
            best = str(means.idxmax())
            found.append(
                Choice(dataset, layers, str(rule), best, float(means.max()), len(seeds), len(means), incomplete)
            )
    return found


def warnings(frame: pd.DataFrame, chosen: Iterable[Choice]) -> list[str]:
    """Sentences on searches that are not the same for all rules of a network, or not finished."""
    said = []
    by_network: dict[tuple[str, str], list[Choice]] = {}
    for choice in chosen:
        by_network.setdefault((choice.dataset, choice.layers), []).append(choice)
        if choice.incomplete:
            said.append(
                f"{choice.dataset}, {choice.layers}: {', '.join(choice.incomplete)} cannot be chosen: a seed is missing"
            )
    for (dataset, layers), several in by_network.items():
        counts = {choice.rule: choice.trials for choice in several}
        if len(set(counts.values())) > 1:
            text = ", ".join(f"{rule} {count}" for rule, count in counts.items())
            said.append(f"{dataset}, {layers}: the rules had different numbers of trials ({text}): no fair comparison")
    for (dataset, layers, rule), _ in frame.groupby(CELL, sort=False):
        if rule not in {choice.rule for choice in by_network.get((dataset, layers), [])}:
            said.append(f"{dataset}, {layers}: nothing is chosen for {rule}: no recipe has all seeds")
    return said


def _on_validation(metrics: Mapping[str, Any], rule: str) -> Mapping[str, Any] | None:
    """The score at full depth on validation of the readout that the rule names first; no other split is looked at."""
    named = RULES[rule].READOUTS[0].name
    scores = [row for row in metrics.get("results", []) if (row["split"], row["readout"]) == ("val", named)]
    return max(scores, key=lambda row: row["depth"], default=None)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of run and recipe but those that the keys and the rule say."""
    of_run = {key: value for key, value in config.items() if key not in (*KEYS, "recipe_settings")}
    of_recipe = {key: value for key, value in config["recipe_settings"].items() if key != "method"}
    return {**of_run, **of_recipe}
