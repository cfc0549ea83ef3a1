"""Settings: defaults as published, what is refused and how, layers, recipes, identity of a run."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ff.errors import FFError
from ff.learn.recipes import RECIPES, RecipeSettings, make_run_config, run_config_of
from ff.learn.rules import forward_forward
from ff.settings import ExecutionConfig, RunConfig, checked, parse_layers, resolve_layers

SENTENCE_LIMIT = 700
# What may stand in a config file or come from a sweep, sensible or not.
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**18, max_value=10**400),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=20),
    st.lists(st.integers(-1, 3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from(["784,10", "784-10", "nan", "inf", "1e999", "0", "-1", "true", "ff", "MNIST", "1" * 5000]),
)
FIELDS = [field for kind in (RunConfig, RecipeSettings) for field in dataclasses.fields(kind) if field.metadata]


def test_the_colour_sets_take_layers_that_begin_with_784_and_say_so_once():
    config, warnings = make_run_config({"dataset": "CIFAR10", "layers": "784,100,10"})
    assert config.layers == (3072, 100, 10)
    assert config.layers_name == "3072-100-10"
    assert config.name == "CIFAR10/3072-100-10/ff/seed0"
    assert len(warnings) == 1
    assert "784" in warnings[0]
    assert "3072" in warnings[0]
    assert make_run_config({"dataset": "CIFAR10", "layers": "3072,100,10"})[1] == []


@pytest.mark.parametrize(
    ("dataset", "layers", "right"),
    [("MNIST", "3072,10", "784,10"), ("SVHN", "1024,10", "3072,10"), ("DIGITS", "64,7,8", "784,7,8")],
)
def test_any_other_input_size_is_refused_with_the_layers_that_would_fit(dataset, layers, right):
    with pytest.raises(FFError, match=right):
        resolve_layers(dataset, parse_layers(layers))


@pytest.mark.parametrize("value", ["784,200,10", "784-200-10", "784, 200, 10", [784, 200, 10], (784, 200, 10)])
def test_layers_may_be_written_in_several_ways(value):
    assert parse_layers(value) == (784, 200, 10)


@pytest.mark.parametrize(
    "value", ["", "784", "784,", "784,x", "784,0", "784,-5", 784, None, [784], [784, 10.5], [784, True], "784,1.5", {}]
)
def test_layers_that_are_none_are_refused(value):
    with pytest.raises(FFError, match="layers"):
        parse_layers(value)


def has(recipe, field: dataclasses.Field) -> bool:
    return field.name in {own.name for own in dataclasses.fields(recipe)}


@given(st.sampled_from(FIELDS), ANYTHING)
@settings(max_examples=400, deadline=None)
def test_any_value_of_any_setting_gives_a_config_or_one_sentence(field, value):
    # A recipe that has the setting.
    recipe = {} if field.name == "recipe" else {"recipe": next((n for n, s in RECIPES.items() if has(s, field)), "ff")}
    try:
        config, warnings = make_run_config({**recipe, field.name: value})
    except FFError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < SENTENCE_LIMIT
        assert field.name in str(error)
        return
    assert isinstance(warnings, list)
    found = getattr(config if hasattr(config, field.name) else config.settings, field.name)
    assert type(found) is (tuple if field.name == "layers" else field.type)
    assert run_config_of(config.as_dict()) == config


def test_a_recipe_name_of_any_length_is_one_short_sentence():
    with pytest.raises(FFError, match="unknown recipe") as caught:
        make_run_config({"recipe": "1" * 5000})
    assert len(str(caught.value)) < SENTENCE_LIMIT


@given(st.sampled_from([f for f in dataclasses.fields(ExecutionConfig) if f.metadata]), ANYTHING)
@settings(max_examples=200, deadline=None)
def test_execution_settings_are_checked_too(field, value):
    try:
        found = checked(ExecutionConfig, {field.name: value}, "run")[field.name]
    except FFError as error:
        assert field.name in str(error)
        return
    assert type(found) is field.type


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1),
        ("seed", 2**64),
        ("rep_epochs", -1),
        ("train_batch_size", 0),
        ("test_batch_size", 0),
        ("val_size", -1),
        ("rep_epochs", 1.5),
        ("rep_epochs", True),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("learning_rate", "fast"),
        ("learning_rate", 10**400),
        ("overlay_value", 1e200),
        ("neutral_value", 1e200),
        ("dataset", "mnist"),
        ("precision", "float16"),
        ("schedule", "cosine"),
    ],
)
def test_values_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(FFError, match=name):
        make_run_config({name: value})


def test_whole_numbers_may_come_as_floats_or_text():
    config, _ = make_run_config({"rep_epochs": 3.0, "seed": "7", "alpha": "2.5"})
    assert (config.rep_epochs, config.seed, config.settings.alpha) == (3, 7, 2.5)


def test_an_unknown_setting_is_named_with_what_is_known():
    with pytest.raises(FFError, match=r"'rep_epoch'.*rep_epochs"):
        make_run_config({"rep_epoch": 3})


def test_recipes_of_a_config_file_start_from_a_base_and_can_be_overridden():
    recipes = {"slow": {"base": "edgeff", "learning_rate": 0.001, "threshold": 1.5}}
    # The command line wins, also over what the block says.
    config, _ = make_run_config({"recipe": "slow", "alpha": 3, "threshold": 1}, recipes)
    expected = dataclasses.replace(RECIPES["edgeff"], learning_rate=0.001, alpha=3.0, threshold=1.0)
    assert config.settings == expected
    assert run_config_of(config.as_dict()) == config


@pytest.mark.parametrize(
    ("recipe", "recipes"),
    [
        ("unknown", {}),
        ("own", {"own": {"base": "none"}}),
        ("own", {"own": {"rate": 1}}),
        ("own", {"own": {"rate": 1, 2: 3}}),
        ("own", {"own": 3}),
        ("own", {"own": ["a"]}),
        ("own", ["own"]),
        ("..", {"..": {}}),
        (".", {".": {}}),
        ("a/b", {"a/b": {}}),
        ("", {"": {}}),
    ],
)
def test_recipes_that_cannot_be_are_refused(recipe, recipes):
    with pytest.raises(FFError, match="recipe"):
        make_run_config({"recipe": recipe}, recipes)


def test_identity_changes_with_what_the_weights_depend_on_and_with_nothing_else():
    base = make_run_config({})[0]
    # What the default recipe does not have, of one that has.
    elsewhere = {"similarity": 0.5, "projection": False, "matrices": "fixed", "temperature": 0.3}
    for name, value in elsewhere.items():
        recipe = next(recipe for recipe, settings in RECIPES.items() if hasattr(settings, name))
        plain, other = ({"recipe": recipe}, {"recipe": recipe, name: value})
        assert make_run_config(other)[0].identity() != make_run_config(plain)[0].identity()
    changed = {
        "dataset": "FMNIST",
        "layers": "784,100",
        "recipe": "edgeff",
        "seed": 1,
        "rep_epochs": 9,
        "softmax_epochs": 9,
        "train_batch_size": 128,
        "val_size": 100,
        "precision": "float64",
        "method": "backprop",
        "normalisation": "unit",
        "loss": "threshold",
        "alpha": 3,
        "threshold": 3,
        "negatives": "uniform",
        "hardness": 3,
        "learning_rate": 0.5,
        "head_learning_rate": 0.5,
        "schedule": "constant",
        "weight_decay": 0.1,
        "dropout": 0.1,
        "shift": 1,
        "flip": True,
        "overlay_value": 1,
        "neutral_value": 1,
    }
    assert set(changed) | set(elsewhere) | {"test_batch_size"} == {field.name for field in FIELDS}
    identities = {make_run_config({name: value})[0].identity() for name, value in changed.items()}
    assert len(identities | {base.identity()}) == len(changed) + 1
    assert make_run_config({"test_batch_size": 7})[0].identity() == base.identity()


def test_the_recipe_edgeff_is_the_published_one():
    # Settings of the published EdgeFF code, as DESIGN gives them.
    assert RECIPES["edgeff"] == forward_forward.Settings(
        method="forward-forward",
        normalisation="unit",
        loss="threshold",
        threshold=2.0,
        negatives="uniform",
        learning_rate=0.03,
        head_learning_rate=0.03,
        schedule="constant",
        overlay_value=10.0,
        neutral_value=0.1,
    )


def test_the_recipes_ff_and_bp_are_those_that_the_readme_describes():
    assert RECIPES["ff"] == forward_forward.Settings(
        method="forward-forward",
        normalisation="rms",
        loss="symba",
        alpha=2.0,
        negatives="hard",
        hardness=4.0,
        learning_rate=0.01,
        head_learning_rate=0.01,
        schedule="linear",
        overlay_value=10.0,
        neutral_value=0.1,
    )
    # The control: the same network, taught otherwise, at the learning rate that validation chose for it.
    shared = {field.name: getattr(RECIPES["ff"], field.name) for field in dataclasses.fields(RECIPES["bp"])}
    changed = {"method": "backprop", "learning_rate": 0.001, "head_learning_rate": 0.001}
    assert dataclasses.asdict(RECIPES["bp"]) == shared | changed


@pytest.mark.parametrize(
    ("values", "warned"),
    [
        ({}, []),
        ({"alpha": 3}, []),
        ({"recipe": "bp"}, []),
        ({"recipe": "bp", "learning_rate": 0.01, "normalisation": "unit"}, []),
        ({"recipe": "bp", "alpha": 4, "negatives": "uniform"}, ["alpha", "negatives"]),
        ({"recipe": "edgeff", "alpha": 4, "threshold": 3, "hardness": 2}, ["alpha", "hardness"]),
        ({"threshold": 3}, ["threshold"]),
        ({"loss": "threshold", "threshold": 3}, []),
        ({"softmax_epochs": 0}, ["softmax_epochs"]),
        ({"rep_epochs": 0}, ["rep_epochs"]),
        ({"recipe": "bp", "rep_epochs": 0}, []),
    ],
)
def test_settings_that_change_nothing_and_readouts_that_only_guess_are_said(values, warned):
    warnings = make_run_config(values)[1]
    assert [warning.split()[0] for warning in warnings] == warned


def test_a_recipe_of_the_configuration_is_told_of_settings_without_effect_too():
    recipes = {"control": {"base": "bp", "alpha": 3, "learning_rate": 0.01}}
    [warning] = make_run_config({"recipe": "control"}, recipes)[1]
    assert warning == "alpha has no effect on recipe control: method backprop does not use it"


def test_no_epochs_at_all_are_refused():
    with pytest.raises(FFError, match="nothing would be trained"):
        make_run_config({"rep_epochs": 0, "softmax_epochs": 0})
