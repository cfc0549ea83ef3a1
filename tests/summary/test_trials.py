"""The trials of a search: their table, and a choice that validation alone makes."""

import pandas as pd
import pytest

from ff.cli import main
from ff.errors import FFError
from ff.files import write_json
from ff.layout import RunKey, find_runs
from ff.summary.trials import choices, trials, warnings

SEEDS = (1, 2, 3)
METHODS = {"ff": "forward-forward", "bp": "backprop", "mono": "mono-forward"}
# Mean validation accuracies: ff_b 0.92 (though ff_a has the best single seed), bp_a 0.95, mono_b 0.93.
VAL = {
    "ff_a": (0.97, 0.88, 0.88),
    "ff_b": (0.92, 0.92, 0.92),
    "bp_a": (0.95, 0.94, 0.96),
    "bp_b": (0.94, 0.94, 0.94),
    "mono_a": (0.91, 0.91, 0.91),
    "mono_b": (0.93, 0.93, 0.93),
}
CHOSEN = {"forward-forward": "ff_b", "backprop": "bp_a", "mono-forward": "mono_b"}


def write_trial(root, recipe: str, seed: int, val: float, test: float, dataset: str = "MNIST") -> None:
    results = []
    for split, share in (("train", 0.999), ("val", val), ("test", test)):
        # At another depth and by another readout than the deployed one, whatever would turn the choice.
        for readout, depth, value in (("head", 1, 1 - share), ("head", 2, share), ("goodness", 2, 1 - share)):
            results.append({"split": split, "readout": readout, "depth": depth, "n": 500, "accuracy": value})
    rate = 0.01 if recipe.endswith("a") else 0.001
    settings = {"method": METHODS[recipe.split("_")[0]], "learning_rate": rate, "schedule": "linear"}
    if recipe.startswith("ff"):
        settings["loss"] = "paired"  # which other rules do not have, and all trials of this one
    run = RunKey(dataset, "784-20-10", recipe, seed)
    config = {**run._asdict(), "layers": [784, 20, 10], "rep_epochs": 3, "recipe_settings": settings}
    write_json(run.folder(root) / "metrics.json", {"config": config, "results": results})


def made(root, test: float = 0.9, without: tuple[str, int] | None = None):
    for recipe, shares in VAL.items():
        for seed, share in zip(SEEDS, shares, strict=True):
            if (recipe, seed) != without:
                # On test each recipe is the better, the worse it is on validation.
                write_trial(root, recipe, seed, share, test - share / 10)
    return trials(root, find_runs(root))


def test_each_trial_is_a_row_with_its_validation_accuracy_and_what_differs_in_its_settings(tmp_path):
    frame = made(tmp_path)
    assert list(frame.columns) == [
        *("dataset", "layers", "recipe", "seed", "rule", "readout", "n", "val_accuracy", "chosen", "learning_rate")
    ]
    for row in frame.itertuples():
        assert row.val_accuracy == VAL[row.recipe][SEEDS.index(row.seed)]
        assert (row.rule, row.readout, row.n) == (METHODS[row.recipe.split("_")[0]], "head", 500)
        assert row.learning_rate == (0.01 if row.recipe.endswith("a") else 0.001)
        assert row.chosen == (row.recipe in CHOSEN.values())
    assert len(frame) == 18


def test_each_rule_has_the_setting_that_is_best_in_the_mean_over_seeds(tmp_path):
    frame = made(tmp_path)
    found = choices(frame)
    assert {choice.rule: choice.recipe for choice in found} == CHOSEN
    for choice in found:
        assert choice.val_accuracy == pytest.approx(sum(VAL[choice.recipe]) / 3)
        assert (choice.seeds, choice.trials, choice.incomplete) == (3, 2, ())
    assert warnings(frame, found) == []


def test_data_sets_choose_for_themselves(tmp_path):
    made(tmp_path)
    for seed in SEEDS:
        for recipe, share in (("ff_a", 0.8), ("ff_b", 0.7)):
            write_trial(tmp_path, recipe, seed, share, 0.5, "FMNIST")
    frame = trials(tmp_path, find_runs(tmp_path))
    found = {(choice.dataset, choice.rule): choice.recipe for choice in choices(frame)}
    assert found["FMNIST", "forward-forward"] == "ff_a"
    assert found["MNIST", "forward-forward"] == "ff_b"
    chosen = frame[frame["chosen"] == 1]
    assert set(zip(chosen["dataset"], chosen["recipe"], strict=True)) == {
        *(("MNIST", recipe) for recipe in CHOSEN.values()),
        ("FMNIST", "ff_a"),
    }


def test_other_test_accuracies_change_nothing(tmp_path, capsys):
    said, tables = [], []
    for number, test in enumerate((0.9, 0.1)):
        made(tmp_path / str(number), test)
        assert main(["trials", str(tmp_path / str(number)), "--csv", str(tmp_path / "trials.csv")]) == 0
        said.append(capsys.readouterr().out)
        tables.append((tmp_path / "trials.csv").read_bytes())
    assert said[0] == said[1]
    assert tables[0] == tables[1]
    assert "MNIST, 784-20-10, forward-forward: ff_b, 92.00 % on validation (mean of 3 seeds, best of 2)" in said[0]
    assert "test" not in said[0].replace(str(tmp_path), "")
    assert not [column for column in pd.read_csv(tmp_path / "trials.csv") if "test" in column]


def test_a_trial_that_lacks_a_seed_is_named_and_not_chosen(tmp_path):
    """Means over other validation images are not compared; and the rule then has fewer trials than the others."""
    frame = made(tmp_path, without=("bp_a", 2))
    found = choices(frame)
    assert {choice.rule: choice.recipe for choice in found} == CHOSEN | {"backprop": "bp_b"}
    said = warnings(frame, found)
    assert any("bp_a cannot be chosen: a seed is missing" in text for text in said)
    assert any("different numbers of trials" in text and "backprop 1" in text for text in said)


def test_a_rule_of_which_nothing_is_complete_is_said(tmp_path):
    made(tmp_path)
    for recipe in ("bp_a", "bp_b"):
        (RunKey("MNIST", "784-20-10", recipe, 1).folder(tmp_path) / "metrics.json").unlink()
    frame = trials(tmp_path, find_runs(tmp_path))
    found = choices(frame)
    assert "backprop" not in {choice.rule for choice in found}
    assert any("nothing is chosen for backprop" in text for text in warnings(frame, found))


def test_a_folder_without_trials_is_one_sentence(tmp_path, capsys):
    with pytest.raises(FFError, match="train the trials"):
        trials(tmp_path, find_runs(tmp_path))
    assert main(["trials", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
