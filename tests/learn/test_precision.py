"""`precision: auto`: bfloat16 only where it was shown to be as accurate and is faster, and the reason given."""

import pytest
import torch

from ff.files import read_json, write_csv
from ff.learn import precision
from ff.learn.recipes import make_run_config
from ff.learn.run import train
from ff.settings import ExecutionConfig

COLUMNS = ("dataset", "layers", "recipe", "epochs", "seeds", "difference_points", "low_points", "high_points")
LAYERS = "784,30,30"


@pytest.fixture
def shown(monkeypatch, tmp_path):
    """Makes rows the evidence, on a processor where bfloat16 gains `gain`."""

    def evidence(low: str = "-0.1", high: str = "0.1", seeds: str = "5", gain: float = 2.0, recipe: str = "ff") -> None:
        row = dict(zip(COLUMNS, ("DIGITS", "784-30-30", recipe, "10 + 10", seeds, "0", low, high), strict=True))
        write_csv(tmp_path / "precision.csv", COLUMNS, [row])
        monkeypatch.setattr(precision, "EVIDENCE", tmp_path / "precision.csv")
        monkeypatch.setattr(precision, "bfloat16_gain", lambda: gain)
        precision._shown.cache_clear()

    yield evidence
    precision._shown.cache_clear()


def chosen(device: str = "cpu", **values) -> precision.Choice:
    run = {"dataset": "DIGITS", "layers": LAYERS, "precision": "auto"} | values
    return precision.choose(make_run_config(run, {"own": {"base": "ff"}})[0], torch.device(device))


def test_what_was_shown_equal_is_multiplied_in_bfloat16_and_the_reason_given(shown):
    shown("-0.2", "0.2")
    assert chosen() == (
        "bfloat16",
        "auto: bfloat16 changes validation accuracy by [-0.20, +0.20] points (5 seeds, paired, 10 + 10 epochs)",
    )


@pytest.mark.parametrize(
    "evidence",
    [{"low": "-0.21"}, {"high": "0.21"}, {"low": "-0.3", "high": "-0.25"}, {"seeds": "4"}],
    ids=["may lose", "may gain", "loses", "few seeds"],
)
def test_what_was_not_shown_equal_stays_float32(shown, evidence):
    shown(**evidence)
    found = chosen()
    assert found.precision == "float32"
    assert found.why.endswith("which is not shown equal")


@pytest.mark.parametrize(
    "run",
    [
        {"layers": "784,31,30"},
        {"dataset": "MNIST", "layers": "784,30,30"},
        {"recipe": "bp"},
        {"recipe": "own"},
        {"learning_rate": 0.02},
        {"hardness": 1.0},
    ],
    ids=["other layers", "other data", "other recipe", "a recipe of the user's", "other rate", "other negatives"],
)
def test_evidence_counts_for_the_network_and_the_settings_it_is_of(shown, run):
    shown()
    assert chosen(**run) == ("float32", "auto: bfloat16 was not tried on this network with these settings")


def test_where_bfloat16_is_not_faster_a_processor_multiplies_in_float32(shown):
    shown(gain=1.05)
    assert chosen() == ("float32", "auto: bfloat16 is not faster on this processor")
    # What a processor is faster in says nothing of a GPU.
    assert chosen("cuda").precision == "bfloat16"


@pytest.mark.parametrize("asked", ["float32", "bfloat16", "float64"])
def test_a_precision_that_is_named_is_taken(shown, asked):
    shown()
    assert chosen(precision=asked) == (asked, "asked for")


@pytest.mark.parametrize(("gain", "expected"), [(2.0, "bfloat16"), (1.0, "float32")])
def test_metrics_json_says_what_was_chosen_and_why(shown, prepared_dir, tmp_path, gain, expected):
    shown(gain=gain, seeds="6")
    run = {"dataset": "DIGITS", "layers": LAYERS, "rep_epochs": 1, "softmax_epochs": 1}
    execution = ExecutionConfig(device="cpu", sidecar="off", prepared_dir=str(prepared_dir), out=str(tmp_path / "auto"))
    [folder] = train(make_run_config(run | {"precision": "auto"})[0], execution)
    metrics = read_json(folder / "metrics.json")
    assert metrics["config"]["precision"] == expected
    assert metrics["provenance"]["why_precision"] == chosen().why
    # What was chosen is what multiplied: the weights are those of a run that asked for it.
    asked = make_run_config(run | {"precision": expected})[0]
    [other] = train(asked, ExecutionConfig(**vars(execution) | {"out": str(tmp_path / "asked")}))
    assert (folder / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert read_json(other / "metrics.json")["provenance"]["why_precision"] == "asked for"


def test_the_evidence_kept_with_the_code_is_of_built_in_recipes():
    precision._shown.cache_clear()
    assert precision._shown()
    for (dataset, layers, recipe), row in precision._shown().items():
        config = make_run_config({"dataset": dataset, "layers": layers.replace("-", ","), "recipe": recipe})[0]
        assert config.layers_name == layers
        assert tuple(row) == COLUMNS
        assert float(row["low_points"]) <= float(row["difference_points"]) <= float(row["high_points"])
