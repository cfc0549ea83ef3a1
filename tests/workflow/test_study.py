"""The configurations of the study: every rule gets the same search, and the published cells are those of the table."""

import csv
from pathlib import Path

import pytest

from ff.files import read_yaml
from ff.learn.recipes import RECIPES, rule_of
from ff.workflow.grid import Grid, check_config

ROOT = Path(__file__).parents[2]
NETWORKS = {
    "mnist_200": ("MNIST", "784-200-200-10", 20),
    "mnist_1000": ("MNIST", "784-1000-1000-1000", 60),
    "fmnist_1000": ("FMNIST", "784-1000-1000", 60),
    "cifar10_2000": ("CIFAR10", "3072-2000-2000-2000", 100),
}


def merged(*files: str) -> dict:
    """config.yaml with others laid over it, key by key, as Snakemake does."""
    configuration: dict = read_yaml(ROOT / "config/config.yaml", "the configuration")
    for file in files:
        for key, value in read_yaml(ROOT / "config" / file, "a configuration").items():
            both = isinstance(value, dict) and isinstance(configuration.get(key), dict)
            configuration[key] = {**configuration[key], **value} if both else value
    check_config(configuration, ROOT / "workflow/schemas/config.schema.json")
    return configuration


def test_there_is_a_file_for_each_network_of_the_study():
    names = {path.stem for path in (ROOT / "config/study").glob("*.yaml")}
    assert {name for name in names if not name.startswith("chosen_")} == {*NETWORKS, "search"}
    assert {name.removeprefix("chosen_") for name in names} - {"search"} == set(NETWORKS)


@pytest.mark.parametrize("path", sorted((ROOT / "config/study").glob("chosen_*.yaml")), ids=lambda path: path.stem)
def test_what_was_chosen_is_what_the_trials_say_and_is_trained_with_other_seeds(path):
    name = path.stem.removeprefix("chosen_")
    with open(ROOT / f"docs/study/{name}.csv", newline="") as file:
        trials = list(csv.DictReader(file))
    configuration = merged("study/search.yaml", f"study/{name}.yaml", f"study/{path.name}")
    runs = Grid(configuration).expand(configuration["grid"])
    assert {run.recipe for run in runs} == {row["recipe"] for row in trials if row["chosen"] == "1"}
    assert len({run.recipe for run in runs}) == len({row["rule"] for row in trials}) == 4
    assert len({run.seed for run in runs}) >= 5
    assert not {str(run.seed) for run in runs} & {row["seed"] for row in trials}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_rule_has_the_same_trials(name):
    """Their number, ranges and budget; each is the rule's own recipe but for them."""
    configuration = merged("study/search.yaml", f"study/{name}.yaml")
    searched = ("learning_rate", "head_learning_rate", "schedule")
    found: dict[str, list[tuple]] = {}
    for run in Grid(configuration).expand(configuration["grid"]):
        assert (run.dataset, run.layers_name) == NETWORKS[name][:2]
        assert run.rep_epochs + run.softmax_epochs == NETWORKS[name][2]
        base = RECIPES[configuration["recipes"][run.recipe]["base"]]
        values = tuple(getattr(run.settings, setting) for setting in searched)
        assert base.__class__(**{**base.__dict__, **dict(zip(searched, values, strict=True))}) == run.settings
        assert run.recipe == "_".join([run.recipe.split("_")[0], *(f"{value}" for value in values)])
        found.setdefault(rule_of(run).NAME, []).append((run.seed, *values))
    assert set(found) == {RECIPES[base].method for base in ("ff", "mono", "predsim", "bp")}
    [trials] = {frozenset(several) for several in found.values()}
    assert all(len(several) == len(trials) == 40 for several in found.values())


def test_the_published_energy_table_has_its_cells():
    """Of its runs that are of learning rules here (arXiv 2509.19063)."""
    configuration = merged("published_energy.yaml")
    runs = Grid(configuration).expand(configuration["grid"])
    found = {(run.dataset, run.layers_name, rule_of(run).NAME) for run in runs}
    bp, ff, mono = "backprop", "forward-forward", "mono-forward"
    assert found == {
        *(("MNIST", "784-1000-1000", rule) for rule in (bp, mono)),
        *(("MNIST", "784-1000-1000-1000", rule) for rule in (bp, ff)),
        *(("FMNIST", "784-1000-1000", rule) for rule in (bp, mono)),
        *(("FMNIST", "784-2000-2000-2000-2000", rule) for rule in (bp, ff)),
        *(("CIFAR10", "3072-2000-2000-2000", rule) for rule in (bp, mono)),
    }
    assert len(runs) == 3 * len(found)
    assert {run.train_batch_size for run in runs} == {128}
    published = {"MNIST": (1.57e-3, 14), "FMNIST": (3.87e-4, 12), "CIFAR10": (3.24e-4, 15)}
    for run in runs:
        if mono == rule_of(run).NAME:
            assert (run.settings.learning_rate, run.rep_epochs + run.softmax_epochs) == published[run.dataset]
