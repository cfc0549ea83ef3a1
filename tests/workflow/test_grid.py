"""The grid: expansion, exclusion, settings of each run, and the sentences for what cannot be."""

import copy
import dataclasses
import itertools
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ff.data.registry import DATASETS
from ff.errors import FFError
from ff.layout import RunKey
from ff.learn.recipes import RECIPES
from ff.settings import MeasureConfig, RunConfig, WandbConfig, WorkflowConfig
from ff.workflow.grid import Grid, check_config, check_target

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "workflow/schemas/config.schema.json"
CONFIG = yaml.safe_load((ROOT / "config/config.yaml").read_text())
FILES = ("metrics.json", "variance/cpu.csv")


def block(dataset=("MNIST",), layers=("784,10",), recipe=("ff",), seed=(0,), exclude=()):
    return {
        "dataset": list(dataset),
        "layers": list(layers),
        "recipe": list(recipe),
        "seed": list(seed),
        "exclude": list(exclude),
    }


def names(grid_block, **configuration):
    return [run.name for run in Grid(configuration).expand(grid_block)]


# -- expansion ----


@given(
    datasets=st.lists(st.sampled_from(["MNIST", "FMNIST", "DIGITS"]), min_size=1, unique=True),
    widths=st.lists(st.lists(st.integers(1, 5000), min_size=1, max_size=4), min_size=1, max_size=4, unique_by=tuple),
    recipes=st.lists(st.sampled_from(sorted(RECIPES)), min_size=1, unique=True),
    seeds=st.lists(st.integers(0, 10**9), min_size=1, max_size=4, unique=True),
    separator=st.sampled_from([",", "-"]),
)
@settings(max_examples=50, deadline=None)
def test_a_grid_is_the_product_of_its_lists(datasets, widths, recipes, seeds, separator):
    layers = [separator.join(map(str, [784, *one])) for one in widths]
    expected = [
        f"{dataset}/{shape.replace(',', '-')}/{recipe}/seed{seed}"
        for dataset, shape, recipe, seed in itertools.product(datasets, layers, recipes, seeds)
    ]
    assert names(block(datasets, layers, recipes, seeds)) == expected


def test_each_run_is_there_once():
    twice = block(layers=["784,10", "784-10"], seed=[1, 1])
    assert names(twice) == ["MNIST/784-10/ff/seed1"]


def test_a_colour_data_set_gets_its_input_size_and_a_warning_of_its_own():
    grid = Grid({})
    runs = grid.expand(block(dataset=["MNIST", "SVHN"], layers=["784,10", "784,20"], seed=[0, 1]))
    colour = [run for run in runs if run.dataset == "SVHN"]
    assert {run.layers_name for run in colour} == {"3072-10", "3072-20"}
    text = "SVHN images have 3072 values: the input size 784 of the layers became 3072"
    assert grid.warnings == {run.name: [text] for run in colour}
    # Asking for the same run by its path says nothing new, and forgets nothing.
    grid.run(RunKey("SVHN", "3072-10", "ff", 0))
    assert grid.warnings[colour[0].name] == [text]


def test_other_input_sizes_are_errors():
    with pytest.raises(FFError, match='MNIST images have 784 values; write layers as "784,10"'):
        names(block(layers=["100,10"]))


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ({"seed": 1}, ["784-10/ff/seed0", "784-20/ff/seed0", "784-10/bp/seed0", "784-20/bp/seed0"]),
        ({"recipe": "bp", "layers": "784,20"}, None),
        ({"layers": "784-20"}, ["784-10/ff/seed0", "784-10/ff/seed1", "784-10/bp/seed0", "784-10/bp/seed1"]),
        ({"dataset": "SVHN"}, None),
    ],
)
def test_excluded_cells_are_left_out(exclude, left):
    lists = {"layers": ["784,10", "784,20"], "recipe": ["ff", "bp"], "seed": [0, 1]}
    everything = names(block(**lists))
    without = names(block(**lists, exclude=[exclude]))
    if left is not None:
        assert set(without) == {f"MNIST/{name}" for name in left}
    elif exclude == {"dataset": "SVHN"}:
        assert without == everything
    else:
        assert set(everything) - set(without) == {"MNIST/784-20/bp/seed0", "MNIST/784-20/bp/seed1"}


def test_an_excluded_cell_with_an_unknown_key_is_an_error():
    with pytest.raises(FFError, match=r"grid.exclude names 'width'; a cell has: dataset, layers, recipe, seed"):
        names(block(exclude=[{"width": 10}]))


# -- settings ----


def test_settings_of_data_set_and_recipe_change_those_of_all():
    grid = Grid(
        {
            "train": {"rep_epochs": 5, "softmax_epochs": 6, "train_batch_size": 7},
            "train_by_dataset": {"DIGITS": {"rep_epochs": 50, "softmax_epochs": 60}},
            "train_by_recipe": {"bp": {"rep_epochs": 500}},
        }
    )
    plain = grid.run(RunKey("MNIST", "784-10", "ff", 0))
    assert (plain.rep_epochs, plain.softmax_epochs, plain.train_batch_size) == (5, 6, 7)
    both = grid.run(RunKey("DIGITS", "784-10", "bp", 0))
    assert (both.rep_epochs, both.softmax_epochs, both.train_batch_size) == (500, 60, 7)


def test_a_named_recipe_starts_from_its_base():
    grid = Grid({"recipes": {"slow": {"base": "edgeff", "learning_rate": 0.001}}})
    slow = grid.run(RunKey("MNIST", "784-10", "slow", 0)).settings
    assert slow.learning_rate == 0.001
    assert slow.loss == RECIPES["edgeff"].loss


def test_an_unknown_recipe_is_an_error_that_lists_the_known():
    with pytest.raises(FFError, match=f"unknown recipe 'fff'; known recipes: {', '.join(sorted(RECIPES))}"):
        names(block(recipe=["fff"]))


# -- targets ----


@given(
    dataset=st.sampled_from(list(DATASETS)),
    widths=st.lists(st.integers(1, 9999), min_size=1, max_size=5),
    recipe=st.sampled_from([*RECIPES, "own"]),
    seed=st.integers(0, 10**12),
    file=st.sampled_from(FILES),
)
def test_any_path_that_can_exist_may_be_asked_for(dataset, widths, recipe, seed, file):
    layers = "-".join(map(str, [DATASETS[dataset].input_size, *widths]))
    check_target(f"results/{dataset}/{layers}/{recipe}/seed{seed}/{file}", "results", ["own"], FILES)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("FOO/784-10/ff/seed0/metrics.json", "there is no data set 'FOO'; choose from MNIST, FMNIST, KMNIST"),
        ("mnist/784-10/ff/seed0/metrics.json", "there is no data set 'mnist'"),
        ("MNIST/784,10/ff/seed0/metrics.json", "layers '784,10' must be numbers joined by '-'"),
        ("MNIST/784/ff/seed0/metrics.json", "layers '784' must be numbers joined by '-'"),
        ("MNIST/784-0/ff/seed0/metrics.json", "layers needs an input size and at least one layer"),
        ("MNIST/3072-10/ff/seed0/metrics.json", "MNIST images have 784 values"),
        ("SVHN/784-10/ff/seed0/metrics.json", "its layers begin with 3072: 3072-10"),
        ("MNIST/784-010/ff/seed0/metrics.json", "784-10"),
        (
            "MNIST/784-10/xx/seed0/metrics.json",
            f"there is no recipe 'xx'; choose from {', '.join(sorted([*RECIPES, 'own']))}",
        ),
        ("MNIST/784-10/ff/seedx/metrics.json", "'seedx' must be 'seed' and a number"),
        ("MNIST/784-10/ff/seed01/metrics.json", "'seed01' must be 'seed' and a number"),
        ("MNIST/784-10/ff/seed-1/metrics.json", "'seed-1' must be 'seed' and a number"),
        ("MNIST/784-10/ff/7/metrics.json", "'7' must be 'seed' and a number"),
        ("MNIST/784-10/ff/seed0/metric.json", "a run has no file 'metric.json'; choose from metrics.json"),
        ("MNIST/784-10/ff/seed0", "it is no file of a run, such as results/MNIST/784-200-200/ff/seed42/metrics.json"),
    ],
)
def test_a_path_that_cannot_exist_is_explained_in_one_line(path, sentence):
    with pytest.raises(FFError) as caught:
        check_target(f"results/{path}", "results", ["own"], FILES)
    text = str(caught.value)
    assert sentence in text
    assert f"results/{path}" in text
    assert "\n" not in text


def test_data_of_an_unknown_set_cannot_be_asked_for():
    check_target("data/prepared/MNIST.safetensors", "results", [])
    with pytest.raises(FFError, match="there is no data set 'CIFAR'"):
        check_target("data/prepared/CIFAR.safetensors", "results", [])


@given(st.text())
def test_other_words_of_a_command_line_are_left_alone(word):
    if not word.startswith(("results/", "data/prepared/")):
        check_target(word, "results", [], FILES)


@pytest.mark.parametrize("path", ["results/summary/accuracy.csv", "results/demo/figures/accuracy.png"])
def test_tables_and_figures_are_left_to_the_workflow(path):
    check_target(path, "results", [], FILES)


# -- configuration ----


def refused(change, where=()):
    """The sentence about config.yaml with `change` merged in at `where`."""
    configuration = copy.deepcopy(CONFIG)
    place = configuration
    for key in where:
        place = place[key]
    place.update(change)
    with pytest.raises(FFError) as caught:
        check_config(configuration, SCHEMA)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_published_configuration_is_valid():
    check_config(CONFIG, SCHEMA)


def test_a_bare_off_is_false_in_yaml_and_allowed():
    check_config(CONFIG | {"sidecar": yaml.safe_load("off")}, SCHEMA)
    assert "sidecar is True; allowed: auto, service, inline, off" in refused({"sidecar": yaml.safe_load("on")})


@pytest.mark.parametrize(
    ("kind", "block"),
    [(WorkflowConfig, CONFIG), (MeasureConfig, CONFIG["measure"]), (WandbConfig, CONFIG["wandb"])],
)
def test_the_published_configuration_states_the_defaults(kind, block):
    for field in dataclasses.fields(kind):
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        assert block.get(field.name) == default, field.name


def test_its_trainings_have_the_defaults_of_ff_train():
    assert {name: getattr(RunConfig, name) for name in CONFIG["train"]} == CONFIG["train"]


@pytest.mark.parametrize(
    ("change", "where", "words"),
    [
        ({"sidecar": "sometimes"}, (), ["sidecar", "'sometimes'", "auto, service, inline, off"]),
        (
            {"dataset": ["EMNIST"]},
            ("grid",),
            ["grid.dataset.0", "'EMNIST'", "MNIST, FMNIST, KMNIST, SVHN, CIFAR10, CIFAR100, DIGITS"],
        ),
        ({"layers": ["784;10"]}, ("grid",), ["grid.layers.0", "784,200,200,10"]),
        ({"seed": ["one"]}, ("grid",), ["grid.seed.0", "'one'", "integer"]),
        ({"epochs": 3}, ("train",), ["train", "'epochs'", "rep_epochs, softmax_epochs"]),
        ({"colour": "red"}, (), ["top level", "'colour'", "grid, train"]),
        ({"devices": ["tpu"]}, ("measure",), ["measure.devices.0", "'tpu'", "cpu, cuda"]),
        ({"threads": 0}, (), ["threads", "0", "minimum of 1"]),
        ({"device": "gpu"}, (), ["device", "'gpu'", "auto, cpu, cuda or cuda:N"]),
        ({"recipes": {"new": {"base": "gg"}}}, (), ["'new'", "'gg'", ", ".join(RECIPES)]),
        ({"recipes": {"new": {"learning_rate": -1}}}, (), ["'learning_rate'", "new", "above 0"]),
        ({"recipes": {"new": {"lr": 1}}}, (), ["'lr'", "new", "learning_rate"]),
        ({"train_by_recipe": {"ff": {"rep_epochs": -1}}}, (), ["train_by_recipe.ff.rep_epochs", "-1", "0"]),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(change, where, words):
    sentence = refused(change, where)
    for word in words:
        assert word in sentence


def test_a_missing_key_is_named():
    configuration = copy.deepcopy(CONFIG)
    del configuration["grid"]["seed"]
    with pytest.raises(FFError, match="grid lacks 'seed'"):
        check_config(configuration, SCHEMA)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(key=st.sampled_from(sorted(CONFIG)), value=json_values)
@settings(max_examples=200, deadline=None)
def test_no_value_of_a_key_gives_anything_but_a_sentence(key, value):
    configuration = copy.deepcopy(CONFIG) | {key: value}
    try:
        check_config(configuration, SCHEMA)
    except FFError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_every_grid_in_config_expands(path):
    configuration = CONFIG | yaml.safe_load(path.read_text())
    assert Grid(configuration).expand(configuration["grid"])


@pytest.mark.parametrize(("name", "count"), [("published_full", 84), ("published_width", 18)])
def test_the_published_sweeps_have_their_size(name, count):
    configuration = CONFIG | yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())
    check_config(configuration, SCHEMA)
    runs = Grid(configuration).expand(configuration["grid"])
    assert len(runs) == count
    assert {(run.rep_epochs, run.softmax_epochs, run.train_batch_size) for run in runs} == {(20, 20, 512)}
    assert {run.seed for run in runs} == {42, 123, 456}
