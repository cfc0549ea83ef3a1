"""The scoreboard over made runs whose accuracies and costs differ in every cell, and seeds that are none."""

import numpy as np
import pandas as pd
import pytest
from made_runs import make_grid, make_run
from safetensors.numpy import save_file

from ff import statistics
from ff.errors import FFError
from ff.files import read_json, write_json
from ff.layout import RunKey
from ff.summary import tables
from ff.summary.figures import build
from ff.summary.figures.scoreboard import MOST_RECIPES, MOST_ROWS

SEEDS = (3, 8, 21)
LAYERS = "784-30-10"
METHODS = {"ff": "forward-forward", "bp": "backprop", "tuned": "backprop"}
# Of each recipe on each data set: how right it is on test at the three seeds, and on validation.
TEST = {
    ("MNIST", "ff"): (0.950, 0.958, 0.955),
    ("MNIST", "bp"): (0.970, 0.960, 0.962),
    ("MNIST", "tuned"): (0.940, 0.951, 0.945),
    ("FMNIST", "ff"): (0.850, 0.861, 0.855),
    ("FMNIST", "bp"): (0.872, 0.860, 0.869),
}
# `tuned` is the better control on validation and the worse one on test.
VAL = {"ff": 0.96, "bp": 0.965, "tuned": 0.98}
EPOCHS_MACS, IMAGES = 1_000, 5_000


def write_run(root, run: RunKey, number: int, test: float) -> None:
    """Numbers of a run that no other has: `number` is its place."""
    results = []
    for readout, worse in (("goodness", 0.3), ("head", 0.0)):
        for split, n, share in (("train", IMAGES, 0.99), ("val", 1000, VAL[run.recipe]), ("test", 400, test)):
            n = 2000 if (readout, split) == ("goodness", "train") else n
            for depth in (1, 2):
                value = share - worse - 0.1 * (2 - depth)
                row = {"split": split, "readout": readout, "depth": depth, "n": n, "accuracy": value}
                results.append({**row, "macro_f1": value, "error": 1 - value})
    phases = {"backprop": 7.0 + number} if run.recipe != "ff" else {"representation": 3.0 + number, "softmax": 4.0}
    metrics = {
        "config": {"recipe_settings": {"method": METHODS[run.recipe]}},
        "results": results,
        "seconds": {**phases, "load": 50.0, "validation": 20.0, "total": 100.0 + number},
        "macs_per_sample": {"train_step": EPOCHS_MACS + number, "head_readout": 30 + number, "goodness_readout": 400},
        "peak_memory_mb": {"host": 200.0 + number, "device": None},
        "parameters": 1,
    }
    write_json(run.folder(root) / "metrics.json", metrics)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("scoreboard")
    runs = []
    for (dataset, recipe), shares in TEST.items():
        for seed, share in zip(SEEDS, shares, strict=True):
            run = RunKey(dataset, LAYERS, recipe, seed)
            write_run(root, run, len(runs), share)
            runs.append(run)
    return runs, tables.write_all(root, runs, root / "summary")


def rows(frame: pd.DataFrame) -> dict[tuple[str, str], pd.Series]:
    return {(row["dataset"], row["recipe"]): row for _, row in frame.iterrows()}


def test_a_row_is_the_deployed_readout_of_a_recipe_on_a_network_with_the_summarys_intervals(made):
    runs, written = made
    found = rows(written["scoreboard"])
    assert list(found) == list(TEST)
    summary = written["accuracy_summary"]
    for (dataset, recipe), row in found.items():
        assert (row["rule"], row["readout"], row["n_seeds"], row["n_images"]) == (METHODS[recipe], "head", 3, 400)
        assert row["accuracy"] == pytest.approx(np.mean(TEST[dataset, recipe]))
        assert row["val_accuracy"] == pytest.approx(VAL[recipe])
        same = (summary["dataset"] == dataset) & (summary["recipe"] == recipe) & (summary["readout"] == "head")
        [other] = summary[same & (summary["split"] == "test")].to_dict("records")
        for column in ("low", "high", "method", "total_low", "total_high", "total_method"):
            assert row[column] == other[column]
        assert row["runs"] == "; ".join(run.name for run in runs if (run.dataset, run.recipe) == (dataset, recipe))


def test_the_control_is_the_one_that_is_best_on_validation(made):
    found = rows(made[1]["scoreboard"])
    assert [found[dataset, "ff"]["control"] for dataset in ("MNIST", "FMNIST")] == ["tuned", "bp"]
    for (dataset, recipe), control in {("MNIST", "ff"): "tuned", ("FMNIST", "ff"): "bp"}.items():
        points = [100 * np.array(TEST[dataset, name]) for name in (recipe, control)]
        expected = statistics.mean_interval(points[0] - points[1])
        row = found[dataset, recipe]
        shown = row[["n_pairs", "difference_points", "difference_low", "difference_high", "difference_method"]]
        assert shown.tolist() == [3, *map(pytest.approx, expected[1:4]), expected.method]
    for key in (("MNIST", "bp"), ("MNIST", "tuned"), ("FMNIST", "bp")):
        assert found[key][["control", "difference_points", "difference_low"]].isna().all()


def test_differences_are_those_of_the_table_recipes(made):
    row = rows(made[1]["scoreboard"])["FMNIST", "ff"]
    pairs = made[1]["recipes"]
    [other] = pairs[(pairs["dataset"] == "FMNIST") & (pairs["readout"] == "head")].to_dict("records")
    assert (other["recipe_a"], other["recipe_b"]) == ("ff", "bp")
    for mine, its in (("points", "difference_points"), ("low", "low"), ("high", "high"), ("method", "method")):
        assert row[f"difference_{mine}"] == other[its]


def test_only_seeds_that_both_have_are_paired(tmp_path):
    """And a run without a test accuracy is in no number."""
    runs = [RunKey("MNIST", LAYERS, "ff", seed) for seed in SEEDS]
    runs += [RunKey("MNIST", LAYERS, "bp", seed) for seed in SEEDS[1:]]
    for number, run in enumerate(runs):
        write_run(tmp_path, run, number, 0.9 + 0.01 * number)
    found = rows(tables.write_all(tmp_path, runs, tmp_path / "summary")["scoreboard"])
    row = found["MNIST", "ff"]
    assert (row["n_seeds"], row["n_pairs"]) == (3, 2)
    assert row["difference_points"] == pytest.approx(-2.0)


def test_costs_are_means_over_seeds_and_what_was_not_measured_is_empty(made):
    runs, written = made
    for (dataset, recipe), row in rows(written["scoreboard"]).items():
        places = [place for place, run in enumerate(runs) if (run.dataset, run.recipe) == (dataset, recipe)]
        middle = np.mean(places)
        # All training images, of which a sampled readout scores a part.
        assert row["macs_train_epoch"] == pytest.approx(IMAGES * (EPOCHS_MACS + middle))
        assert row["macs_inference"] == pytest.approx(30 + middle)
        # Both phases of Forward-Forward; neither loading nor validation.
        expected = statistics.mean_interval([7.0 + place for place in places])
        shown = row[["seconds_train", "seconds_train_low", "seconds_train_high", "seconds_train_method"]]
        assert shown.tolist() == [*map(pytest.approx, expected[1:4]), expected.method]
        assert row["peak_memory_mb"] == pytest.approx(200 + middle)
        empty = ["peak_memory_device_mb", "energy_gross_mj", "energy_gross_low_mj", "energy_shared"]
        assert row[empty].isna().all()
        assert row["n_energy"] == 0


def test_energy_is_that_of_the_runs_that_have_it(tmp_path):
    make_grid(tmp_path, ["MNIST"], [(50, 10)], ["ff"], [42, 123], variance=False)
    runs = [RunKey("MNIST", "784-50-10", "ff", seed) for seed in (42, 123, 456)]
    make_run(tmp_path, runs[2], power=False, variance=False)
    hardware = runs[1].folder(tmp_path) / "hardware.json"
    content = read_json(hardware)
    content["run_energy"]["total"] |= {"gross_mj": 2 * content["run_energy"]["total"]["gross_mj"], "shared": True}
    write_json(hardware, content)
    written = tables.write_all(tmp_path, runs, tmp_path / "summary")
    [row] = written["scoreboard"].to_dict("records")
    energy = written["training"]["energy_gross_mj"].dropna()
    expected = statistics.mean_interval(energy, at_least=0)
    assert (row["n_seeds"], row["n_energy"], row["energy_shared"]) == (3, 2, 1)
    assert row["energy_gross_mj"] == pytest.approx(energy.mean())
    assert (row["energy_gross_low_mj"], row["energy_gross_high_mj"]) == expected[2:4]


# -- the figure ----


def drawn(root, *grid, **options):
    runs = make_grid(root, *grid, evaluation=False, early_exit=False, variance=False, **options)
    written = tables.write_all(root, runs, root / "summary")
    return written["scoreboard"], build("scoreboard", root / "summary", root)


def test_each_data_set_has_a_row_of_panels_with_the_tables_numbers(tmp_path):
    table, figure = drawn(tmp_path, ["MNIST", "SVHN"], [(20, 10)], ["ff", "edgeff", "bp"])
    assert len(figure.axes) == 10
    for number, dataset in enumerate(("MNIST", "SVHN")):
        accuracy, macs, time, memory, energy = figure.axes[5 * number : 5 * number + 5]
        found = table[table["dataset"] == dataset].set_index("recipe").loc[["ff", "edgeff", "bp"]]
        assert accuracy.get_title(loc="left") == f"{dataset}, {found['layers'].iloc[0]}"
        assert [label.get_text() for label in accuracy.get_yticklabels()] == list(found.index)
        marks = [line for line in accuracy.lines if line.get_marker() != "None"]
        assert [line.get_xdata()[0] for line in marks] == pytest.approx(100 * found["accuracy"])
        assert [line.get_ydata()[0] for line in marks] == [0, 1, 2]
        ends = [line.get_xdata() for line in accuracy.lines if line.get_marker() == "None"]
        assert np.array(ends) == pytest.approx(100 * found[["low", "high"]].to_numpy())
        for ax, column, factor in (
            (macs, "macs_train_epoch", 1e-9),
            (time, "seconds_train", 1),
            (memory, "peak_memory_mb", 1),
            (energy, "energy_gross_mj", 1e-3),
        ):
            assert [bar.get_width() for bar in ax.patches] == pytest.approx(factor * found[column])
            assert ax.get_xlim()[0] == 0


def test_energy_that_was_not_measured_is_said_and_no_bar_of_no_length(tmp_path):
    _, figure = drawn(tmp_path, ["MNIST"], [(20, 10)], ["ff", "bp"], [42], power=False)
    energy = figure.axes[-1]
    assert "no power sensor" in " ".join(energy.texts[0].get_text().split())
    assert not energy.patches
    # One seed has no interval.
    assert all(line.get_marker() != "None" for line in figure.axes[0].lines)


def test_many_networks_leave_one_of_each_data_set(tmp_path):
    hidden = [(width, 10) for width in range(20, 20 + MOST_ROWS)]
    _, figure = drawn(tmp_path, ["MNIST", "SVHN"], hidden, ["ff"], [42], hardware=False)
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]
    assert [title.split(",")[0] for title in titles] == ["MNIST", "SVHN"]
    assert f"{2 * MOST_ROWS - 2} networks" in " ".join(figure._supxlabel.get_text().split())


def test_many_recipes_leave_the_best_on_validation_of_each_rule(tmp_path):
    recipes = [f"r{number}" for number in range(MOST_RECIPES)]
    runs = [RunKey("MNIST", LAYERS, recipe, 3) for recipe in (*recipes, "bp")]
    for number, run in enumerate(runs):
        METHODS.setdefault(run.recipe, "forward-forward")
        VAL.setdefault(run.recipe, 0.95 if run.recipe == "r2" else 0.9)
        write_run(tmp_path, run, number, 0.9 - 0.02 * (run.recipe == "r2"))
    tables.write_all(tmp_path, runs, tmp_path / "summary")
    figure = build("scoreboard", tmp_path / "summary", tmp_path)
    # r2 is the worst on test.
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["r2", "bp"]


# -- seeds that are none ----


def weights(run: RunKey, root, first: float, last: float = 0.0) -> None:
    """A model of 40,000 bytes, beginning with `first` and ending with `last`; its header names the run's seed."""
    tensor = np.zeros(10_000, np.float32)
    tensor[0], tensor[-1] = first, last
    run.folder(root).mkdir(parents=True, exist_ok=True)
    save_file({"weight": tensor}, run.folder(root) / "model.safetensors", {"ff": f'{{"seed": {run.seed}}}'})


def test_two_seeds_with_the_same_weights_are_an_error_that_names_both(tmp_path):
    runs = [RunKey("MNIST", LAYERS, "ff", seed) for seed in (*SEEDS, 100_000)]
    for number, run in enumerate(runs):
        weights(run, tmp_path, first=float(number % 3))
    with pytest.raises(FFError) as raised:
        tables.write_all(tmp_path, runs, tmp_path / "summary")
    text = str(raised.value)
    assert text.startswith(f"{runs[0].name} and {runs[3].name} hold the same weights")
    assert "\n" not in text
    assert not (tmp_path / "summary").exists()


def test_weights_that_differ_anywhere_or_are_of_another_cell_are_no_error(tmp_path):
    """Also where one recipe is another under a new name."""
    runs = [RunKey("MNIST", LAYERS, recipe, seed) for recipe in ("ff", "mine") for seed in SEEDS]
    for run in runs:
        # The same at the beginning, of which a sample is compared first.
        weights(run, tmp_path, first=1.0, last=float(run.seed))
    silent = RunKey("MNIST", LAYERS, "ff", 0)
    tables.write_all(tmp_path, [*runs, silent], tmp_path / "summary")
    assert (tmp_path / "summary/scoreboard.csv").exists()
