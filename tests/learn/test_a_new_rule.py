"""A learning rule that lies in one file works everywhere: settings, training, evaluation, tables, figures, report."""

import csv
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from made_networks import schema_errors

from ff.files import read_json

# What a file put into ff/learn/rules would be: the package is made with one more folder to look in.
WITH_RULE = """
import importlib.util, sys
spec = importlib.util.find_spec("ff.learn.rules")
spec.submodule_search_locations.append(sys.argv.pop(1))
module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from ff.cli import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def ff(tmp_path_factory):
    """Runs `ff` with the toy rule; returns what it printed."""
    folder = tmp_path_factory.mktemp("rule")
    (folder / "shrink.py").write_text(Path(__file__).with_name("toy_rule.py").read_text())

    def run(*arguments: str) -> str:
        command = [sys.executable, "-c", WITH_RULE, str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


def test_a_rule_needs_one_file(ff, prepared_dir, tmp_path):
    help_text = ff("train", "--help")
    assert "--strength" in help_text
    assert "shrink" in help_text
    place = ["--prepared-dir", str(prepared_dir), "--data-dir", str(tmp_path), "--out", str(tmp_path)]
    run = ["--dataset", "DIGITS", "--layers", "784,12,10", "--rep-epochs", "2", "--softmax-epochs", "3"]
    for recipe in ("toy", "bp"):
        said = ff("train", *run, *place, "--val-size", "200", "--recipe", recipe, "--alpha", "3", "--idle-s", "0")
        method = {"toy": "shrink", "bp": "backprop"}[recipe]
        assert f"alpha has no effect on recipe {recipe}: method {method} does not use it" in said
    folder = tmp_path / "DIGITS" / "784-12-10" / "toy" / "seed0"
    metrics = read_json(folder / "metrics.json")
    assert metrics["config"]["recipe_settings"]["strength"] == 0.5
    assert metrics["final"]["test_accuracy"] > 0.3
    assert metrics["final"]["test_goodness_accuracy"] is None
    assert metrics["macs_per_sample"] == {"train_step": 784 * 12 + 120, "head_readout": 784 * 12 + 120 + 220}
    with open(folder / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["phase"] for row in rows] == ["shrinking"] * 2 + ["softmax"] * 3
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])
    assert ff("evaluate", str(folder), "--early-exit", *place[:4])
    assert not schema_errors(read_json(folder / "evaluation.json"), "evaluation")
    if find_spec("onnxruntime"):
        said = ff("export", str(folder), "--int8", *place[:4])
        assert "full float32: 0 of 360 test answers differ from torch's" in said
    ff("figures", str(tmp_path))
    with open(tmp_path / "summary" / "training.csv") as file:
        by_recipe = {row["recipe"]: row for row in csv.DictReader(file)}
    assert float(by_recipe["toy"]["seconds_shrinking"]) > 0
    assert by_recipe["bp"]["seconds_shrinking"] == ""
    with open(tmp_path / "summary" / "recipes.csv") as file:
        # The control is what the other is held against, whatever their names.
        assert {(row["recipe_a"], row["recipe_b"]) for row in csv.DictReader(file)} == {("toy", "bp")}
    assert "toy" in (tmp_path / "report.html").read_text()


def test_settings_are_read_without_torch():
    code = "import sys, ff.learn.recipes, ff.workflow.grid; print({'torch', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
