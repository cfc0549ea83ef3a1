"""Sweep files: W&B's schema, what `ff train` takes, the grid they mean, and how they are run."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ff.cli import main
from ff.errors import FFError
from ff.files import read_json, write_text
from ff.learn.recipes import RECIPES, resolve_recipe
from ff.settings import RunConfig
from ff.tracking.sweeps import command
from ff.tracking.sweeps.cells import read_sweep, workflow_keys
from ff.tracking.sweeps.checking import check
from ff.tracking.sweeps.files import load, schema_problems
from ff.tracking.sweeps.remote import create
from ff.tracking.sweeps.values import expand, quantile

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "config/sweeps"
KEY = "0123456789abcdef0123456789abcdef01234567"

# The later published shape: underscores, a project of its own, another program.
REFACTORED = """
project: edgeff-refactor
program: scripts/train.py
command: ["${env}", python, "${program}", "${args}"]
method: grid
metric: {name: final/test_accuracy, goal: maximize}
parameters:
  dataset: {values: [MNIST]}
  layers: {values: ["784,100,10", "784,80000,10"]}
  no_cuda: {values: [false]}
  seed: {values: [42]}
  rep_epochs: {value: 20}
  softmax_epochs: {value: 20}
  train_batch_size: {value: 512}
"""


def sweep_file(content, name="sweep.yaml"):
    write_text(name, content if isinstance(content, str) else yaml.safe_dump(content))
    return name


def of(method="grid", **parameters):
    names = {name.replace("_", "-"): entry for name, entry in parameters.items()}
    return sweep_file({"method": method, "parameters": names})


# ---------------------------------------------------------------- the published files


def test_the_published_grid_is_168_runs_and_84_trainings():
    path = EXAMPLES / "datasets.yaml"
    found = check(path)
    assert (found.problems, found.method, found.runs) == ([], "grid", 168)
    assert any("3072" in text for text in found.warnings)
    drawn = expand(path)
    assert len(drawn) == len({json.dumps(run, sort_keys=True) for run in drawn}) == 168
    assert {run["no_cuda"] for run in drawn} == {True, False}
    sweep = read_sweep(path)
    assert len(sweep.runs) == 84
    assert {run.layers[0] for run in sweep.runs if run.dataset in ("SVHN", "CIFAR10")} == {3072}
    assert {run.layers[0] for run in sweep.runs if run.dataset in ("MNIST", "FMNIST")} == {784}
    assert {run.recipe for run in sweep.runs} == {"ff"}
    assert (sweep.recipes, sweep.train_by_recipe) == ({}, {})
    assert (sweep.train["rep_epochs"], sweep.train["train_batch_size"]) == (20, 512)
    assert sweep.train["val_size"] == RunConfig.val_size
    assert any("no_cuda" in text for text in sweep.warnings)


def test_the_other_published_shape_means_the_same_settings():
    path = sweep_file(REFACTORED)
    assert check(path).problems == []
    assert expand(path)[1] == {
        "dataset": "MNIST",
        "layers": "784,80000,10",
        "no_cuda": False,
        "rep_epochs": 20,
        "seed": 42,
        "softmax_epochs": 20,
        "train_batch_size": 512,
    }
    assert read_sweep(path).execution == {"no_cuda": False}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_examples_are_sound(path):
    assert check(path, count=4).problems == []
    assert read_sweep(path, count=4).runs


def test_enable_hw_monitor_is_passed_on():
    sweep = read_sweep(of(enable_hw_monitor={"value": False}, no_cuda={"value": True}, hw_interval_ms={"value": 100}))
    assert sweep.execution == {"sidecar": "off", "hw_interval_ms": 100, "no_cuda": True}
    assert workflow_keys(sweep.execution) == {"device": "cpu", "sidecar": "off", "hw_interval_ms": 100}
    assert read_sweep(of(sidecar={"value": "off"})).execution == {"sidecar": "off"}
    recorded = read_sweep(of(enable_hw_monitor={"value": True}))
    assert recorded.execution == {"sidecar": "inline"}
    assert workflow_keys(recorded.execution) == {}, "who records is for the configuration to say"


def test_a_value_that_is_no_switch_is_a_problem():
    assert "'enable_hw_monitor' must be true or false" in check(of(enable_hw_monitor={"value": 3})).problems[0]


# ---------------------------------------------------------------- values


# Computed with W&B's package `sweeps` 0.3.0: HyperParameter(name, entry).ppf(u) at u = 0.1, 0.37, 0.81.
REFERENCE = [
    ({"min": 0.5, "max": 2.0}, [0.65, 1.055, 1.715]),
    ({"min": 1, "max": 10}, [1, 4, 9]),
    (
        {"distribution": "log_uniform_values", "min": 0.001, "max": 0.1},
        [0.0015848931924611136, 0.005495408738576247, 0.04168693834703357],
    ),
    (
        {"distribution": "inv_log_uniform_values", "min": 0.5, "max": 20.0},
        [0.7230627747959623, 1.9576371640495442, 9.92289960297008],
    ),
    ({"distribution": "q_uniform", "min": 0, "max": 100, "q": 5}, [10, 35, 80]),
    ({"distribution": "q_log_uniform_values", "min": 1, "max": 1000, "q": 2}, [2, 12, 270]),
    (
        {"distribution": "normal", "mu": 2, "sigma": 3},
        [-1.844654696633801, 1.0044399606895502, 4.633688885153687],
    ),
    ({"distribution": "q_normal", "mu": 10, "sigma": 3, "q": 0.5}, [6.0, 9.0, 12.5]),
    (
        {"distribution": "log_normal", "mu": 0.5, "sigma": 0.25},
        [1.196753062874161, 1.517458147076273, 2.053353014392523],
    ),
    ({"distribution": "q_log_normal", "mu": 3, "sigma": 0.5}, [11.0, 17.0, 31.0]),
    ({"distribution": "beta", "a": 2, "b": 3}, [0.14255931671003072, 0.31227030910146886, 0.590766529358719]),
    ({"distribution": "q_beta", "a": 2, "b": 3, "q": 0.1}, [0.1, 0.30000000000000004, 0.6000000000000001]),
    ({"values": ["a", "b", "c"], "probabilities": [0.2, 0.5, 0.3]}, ["a", "b", "c"]),
    ({"values": [1, 2, 3, 4]}, [1, 2, 4]),
    ({"value": "x"}, ["x", "x", "x"]),
]


@pytest.mark.parametrize(("entry", "values"), REFERENCE, ids=lambda case: str(case)[:40])
def test_quantiles_are_those_of_wandb(entry, values):
    found = [quantile(entry, u) for u in (0.1, 0.37, 0.81)]
    assert found == (pytest.approx(values) if isinstance(values[0], float) else values)
    assert [type(value) for value in found] == [type(value) for value in values]


@given(st.integers(-50, 50), st.integers(1, 50), st.floats(0, 1, exclude_max=True))
def test_whole_numbers_stay_within_their_bounds(low, width, u):
    value = quantile({"min": low, "max": low + width}, u)
    assert isinstance(value, int)
    assert low <= value <= low + width


def test_grid_takes_whole_ranges_and_steps():
    path = of(seed={"min": 1, "max": 3}, alpha={"distribution": "q_uniform", "min": 1, "max": 3, "q": 0.5})
    assert [run["alpha"] for run in expand(path)[::3]] == [1, 1.5, 2, 2.5]
    assert check(path).runs == 12


def test_repeated_values_count_once():
    assert len(expand(of(seed={"values": [1, 1, 2]}))) == 2


@pytest.mark.parametrize("entry", [{"min": 0.1, "max": 0.5}, {"values": [1.0], "probabilities": [1.0]}])
def test_grid_refuses_what_has_no_end(entry):
    path = of(alpha=entry)
    with pytest.raises(FFError, match="use method random"):
        expand(path)
    assert any("use method random" in text for text in check(path).problems)


def test_random_draws_are_fixed_by_the_seed():
    path = EXAMPLES / "learning_rate.yaml"
    first = expand(path, count=20, seed=1)
    assert first == expand(path, count=20, seed=1)
    assert first != expand(path, count=20, seed=2)
    assert first[:5] == expand(path, count=5, seed=1)
    assert all(0.001 <= run["learning_rate"] <= 0.05 for run in first)
    with pytest.raises(FFError, match="--count"):
        expand(path)


def test_count_and_run_cap_limit_a_grid():
    path = sweep_file({"method": "grid", "run_cap": 3, "parameters": {"seed": {"values": [1, 2, 3, 4]}}})
    assert [run["seed"] for run in expand(path)] == [1, 2, 3]
    assert [run["seed"] for run in expand(path, count=2)] == [1, 2]
    assert check(path).runs == 3


def test_nested_parameters_and_flags_of_the_command_are_settings():
    path = sweep_file(
        {
            "method": "grid",
            "command": ["${env}", "python", "${program}", "--rep-epochs=3", "--dataset", "DIGITS", "${args}"],
            "parameters": {
                "recipe_settings": {"parameters": {"alpha": {"values": [61.0, 62.0]}}},
                "seed": {"value": 1},
            },
        }
    )
    assert check(path).problems == []
    assert expand(path)[0] == {"rep_epochs": "3", "dataset": "DIGITS", "alpha": 61.0, "seed": 1}
    sweep = read_sweep(path)
    assert sweep.train["rep_epochs"] == 3
    assert {run.recipe for run in sweep.runs} == {"ff.alpha_61", "ff.alpha_62"}


# ---------------------------------------------------------------- cells of the DAG


def test_settings_that_are_no_part_of_a_path_become_recipes():
    path = of(
        rep_epochs={"values": [3, 5]},
        learning_rate={"values": [RECIPES["ff"].learning_rate, 0.00321]},
        recipe={"values": ["ff", "edgeff"]},
    )
    sweep = read_sweep(path)
    assert len(sweep.runs) == 8
    names = {run.recipe for run in sweep.runs}
    assert "ff.rep_epochs_3" in names
    assert "ff.learning_rate_0.00321.rep_epochs_5" in names
    assert sweep.train_by_recipe["ff.learning_rate_0.00321.rep_epochs_5"] == {"rep_epochs": 5}
    assert "rep_epochs" not in sweep.train
    settings = resolve_recipe("edgeff.learning_rate_0.00321.rep_epochs_5", None, sweep.recipes)
    assert settings == dataclasses.replace(RECIPES["edgeff"], learning_rate=0.00321)
    assert resolve_recipe("ff.rep_epochs_3", None, sweep.recipes) == RECIPES["ff"]


def test_recipes_of_the_configuration_can_be_swept():
    own = {"mine": {"base": "edgeff", "alpha": 3.0}}
    sweep = read_sweep(of(recipe={"value": "mine"}, schedule={"values": ["linear", "constant"]}), recipes=own)
    assert {run.recipe for run in sweep.runs} == {"mine", "mine.schedule_linear"}
    wanted = dataclasses.replace(RECIPES["edgeff"], alpha=3.0, schedule="linear")
    assert resolve_recipe("mine.schedule_linear", None, own | sweep.recipes) == wanted


def test_long_and_close_variants_keep_names_of_their_own():
    rates = [0.0012345671, 0.0012345672]
    path = of(
        learning_rate={"values": rates},
        head_learning_rate={"values": [0.002, 0.003]},
        threshold={"value": 1.25},
    )
    sweep = read_sweep(path)
    names = [run.recipe for run in sweep.runs]
    assert len(set(names)) == 4
    assert max(map(len, names)) <= 64
    assert sorted({sweep.recipes[name]["learning_rate"] for name in names}) == rates


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "seed": st.lists(st.integers(0, 3), min_size=1, max_size=3),
            "layers": st.lists(st.sampled_from(["784,20,10", "784,30,10"]), min_size=1, max_size=2),
            "rep-epochs": st.lists(st.integers(0, 2), min_size=1, max_size=2),
            "alpha": st.lists(st.sampled_from([61.0, 62.0]), min_size=1, max_size=2),
            "no-cuda": st.lists(st.booleans(), min_size=1, max_size=2),
        },
    ).filter(bool)
)
def test_every_training_has_one_cell(axes):
    path = sweep_file({"method": "grid", "parameters": {name: {"values": values} for name, values in axes.items()}})
    sweep = read_sweep(path)
    cells = [run.name for run in sweep.runs]
    assert len(set(cells)) == len(cells)
    wanted = 1
    for name, values in axes.items():
        wanted *= 1 if name == "no-cuda" else len(set(values))
    assert len(cells) == wanted


# ---------------------------------------------------------------- checking


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"parameters": {"seed": {"value": 1}}}, "'method' is a required property"),
        ({"method": "grid"}, "`parameters` is missing"),
        ({"method": "swarm", "parameters": {"seed": {"value": 1}}}, "'swarm' is not one of"),
        ({"method": "grid", "parameters": {"seed": {"vales": [1]}}}, "none of W&B's forms"),
        ({"method": "grid", "parameters": {"seed": [1, 2]}}, "none of W&B's forms"),
        ({"method": "grid", "speed": 1, "parameters": {"seed": {"value": 1}}}, "'speed' was unexpected"),
        (
            {"method": "random", "parameters": {"alpha": {"min": 2.0, "max": 1.0}}},
            "min 2.0 is not less than max 1.0",
        ),
        (
            {"method": "random", "parameters": {"seed": {"values": [1, 2], "probabilities": [0.5, 0.4]}}},
            "add up to 0.9",
        ),
        (
            {
                "method": "random",
                "parameters": {"alpha": {"distribution": "log_uniform", "min": 0.0, "max": 1.0}},
            },
            "use log_uniform_values",
        ),
        ({"method": "grid", "parameters": {"rep-epoch": {"value": 1}}}, "did you mean 'rep-epochs'?"),
        (
            {"method": "grid", "parameters": {"rep-epochs": {"value": 1}, "rep_epochs": {"value": 2}}},
            "two parameters",
        ),
        ({"method": "grid", "parameters": {"dataset": {"values": ["MNIST", "EMNIST"]}}}, "'EMNIST'; allowed"),
        (
            {"method": "grid", "parameters": {"layers": {"value": "3072,100,10"}}},
            "MNIST images have 784 values",
        ),
        ({"method": "grid", "parameters": {"layers": {"value": "784"}}}, "at least one layer"),
        ({"method": "grid", "parameters": {"train-batch-size": {"values": [0, 32]}}}, "at least 1"),
        ({"method": "random", "parameters": {"alpha": {"distribution": "normal"}}}, "above 0"),
        ({"method": "grid", "parameters": {"recipe": {"value": "ft"}}}, "unknown recipe 'ft'"),
        (
            {
                "method": "grid",
                "metric": {"name": "final/test_acuracy"},
                "parameters": {"seed": {"value": 1}},
            },
            "did you mean 'final/test_accuracy'?",
        ),
        ({"method": "bayes", "parameters": {"seed": {"value": 1}}}, "needs a `metric`"),
    ],
)
def test_check_names_the_problem(content, sentence):
    problems = check(sweep_file(content)).problems
    assert any(sentence in text for text in problems), problems


def test_check_warns_of_metrics_that_some_runs_lack():
    parameters = {"recipe": {"values": ["ff", "bp"]}}
    path = sweep_file({"method": "grid", "metric": {"name": "test/goodness_accuracy"}, "parameters": parameters})
    found = check(path)
    assert found.problems == []
    assert any("method backprop lack it" in text for text in found.warnings)
    path = sweep_file({"method": "grid", "metric": {"name": "VDD_IN_power_mw"}, "parameters": parameters})
    assert any("sensor" in text for text in check(path).warnings)


def test_check_says_what_bayes_needs():
    path = sweep_file(
        {
            "method": "bayes",
            "metric": {"name": "final/val_accuracy"},
            "parameters": {"alpha": {"min": 1.0, "max": 9.0}},
        }
    )
    found = check(path)
    assert (found.problems, found.runs) == ([], None)
    assert any("agent" in text for text in found.warnings)
    with pytest.raises(FFError, match=r"method bayes of sweep\.yaml is steered by W&B's server"):
        expand(path)


def test_unreadable_files_are_named():
    with pytest.raises(FFError, match="cannot read sweep file absent"):
        load("absent.yaml")
    with pytest.raises(FFError, match="not valid YAML in line"):
        load(sweep_file("method: grid\nparameters: [1\n"))
    with pytest.raises(FFError, match="must hold"):
        load(sweep_file("- 1"))


@pytest.mark.parametrize("content", [b"method: gr\xe9", "method: grid".encode("utf-16"), b"a: \x00", b"a: 2024-13-45"])
def test_a_file_that_is_no_text_in_utf8_ends_with_one_sentence(content, capsys):
    Path("sweep.yaml").write_bytes(content)
    for words in (["--check"], ["--local"], []):
        Path("Snakefile").touch()
        assert main(["sweep", "sweep.yaml", *words]) == 1
        captured = capsys.readouterr()
        assert captured.err.startswith("ff: sweep file sweep.yaml is not valid YAML")
        assert len(captured.err.splitlines()) == 1


KEYS = st.sampled_from(
    ["value", "values", "min", "max", "distribution", "q", "probabilities", "parameters", "x", 1, True]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.dates())
VALUES = st.recursive(
    SCALARS | st.sampled_from(["grid", "random", "DIGITS", "784,20", "uniform", "normal", "q_uniform", "bp"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)
SETTINGS = st.sampled_from(
    ["layers", "seed", "recipe", "alpha", "dataset", "no-cuda", "method", "out", "rep_epochs", 7]
)
FIELDS = {
    "method": st.sampled_from(["grid", "random", "bayes"]) | VALUES,
    "parameters": st.dictionaries(SETTINGS, st.dictionaries(KEYS, VALUES, max_size=3) | VALUES, max_size=3) | VALUES,
    "metric": st.dictionaries(st.sampled_from(["name", "goal"]), VALUES, max_size=2) | VALUES,
    "command": st.lists(VALUES, max_size=3) | VALUES,
    "program": VALUES,
    "run_cap": VALUES,
}


@given(st.fixed_dictionaries({}, optional=FIELDS), st.none() | st.integers(1, 3))
def test_whatever_the_file_holds_there_is_an_answer(content, count):
    path = sweep_file(yaml.safe_dump(content))
    try:
        found = check(path, count)
    except FFError:
        return
    try:
        read_sweep(path, count)
    except FFError:
        assert found.problems or found.runs is None or found.method == "bayes"


def test_the_schema_is_the_published_one():
    schema = read_json(ROOT / "ff/tracking/sweeps/schema/wandb_sweep.json")
    assert schema["title"] == "SweepConfig"
    assert "MIT License" in (ROOT / "ff/tracking/sweeps/schema/wandb_sweep.LICENSE").read_text()


# ---------------------------------------------------------------- the command line


def command_line(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(list(map(str, words))))


def test_check_on_the_command_line(capsys):
    assert command_line("--check", EXAMPLES / "datasets.yaml") == 0
    out = capsys.readouterr().out
    assert "method grid, 168 runs (dataset 4 x layers 7 x no_cuda 2 x seed 3)" in out
    assert "locally 84 trainings" in out
    assert command_line("--check", of(rep_epoch={"value": 1})) == 1
    assert "problem: parameter 'rep_epoch' is not a setting" in capsys.readouterr().out


# ---------------------------------------------------------------- on W&B (its client replaced)


class Client:
    """Stands for the module wandb."""

    def __init__(self, failure=None):
        self.failure, self.calls = failure, []

    def sweep(self, config, entity=None, project=None):
        self.calls.append((config, entity, project))
        if self.failure:
            raise RuntimeError(self.failure)
        return "abc123"


def test_creating_a_sweep_sends_ff_train_in_place_of_the_program():
    client = Client()
    path = sweep_file(REFACTORED)
    assert create(path, entity="team", client=client) == ("abc123", "team/edgeff-refactor/abc123")
    ((config, entity, project),) = client.calls
    assert (entity, project) == ("team", "edgeff-refactor")
    assert config["command"] == ["${env}", "ff", "train", "${args}"]
    assert config["parameters"]["rep-epochs"] == {"value": 20}
    assert config["metric"] == {"name": "final/test_accuracy", "goal": "maximize"}
    write_text("again.yaml", yaml.safe_dump(config))
    assert schema_problems(load("again.yaml")) == []
    assert expand("again.yaml") == expand(path)


def test_a_refusal_by_wandb_is_one_sentence_without_the_key(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with pytest.raises(FFError) as caught:
        create(of(seed={"value": 1}), client=Client(f"no access for {KEY}\nmore"))
    assert str(caught.value) == "W&B did not take the sweep sweep.yaml: no access for (key)"


def test_creating_a_sweep_needs_a_key_and_a_server(monkeypatch):
    path = of(seed={"value": 1})
    with pytest.raises(FFError, match="needs WANDB_API_KEY"):
        create(path)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(FFError, match="cannot be reached") as caught:
        create(path)
    assert KEY not in str(caught.value)


def test_run_agent_starts_an_agent_that_finds_ff(monkeypatch):
    started = []

    def record(words, environment):
        started.append((words, environment))
        return 3

    monkeypatch.setattr(command, "create", lambda *_: ("abc", "team/p/abc"))
    monkeypatch.setattr(command, "wait_for", record)
    assert command_line(of(seed={"value": 1}), "--run-agent", "--count", 2) == 3
    ((words, environment),) = started
    assert words == [sys.executable, "-m", "wandb", "agent", "--count", "2", "team/p/abc"]
    assert environment["PATH"].startswith(str(Path(sys.executable).parent))
