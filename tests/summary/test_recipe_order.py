"""A control is known by how its runs learned: a recipe of any name may be backpropagation."""

import pytest
from made_runs import make_grid

from ff.files import read_json, write_json
from ff.layout import RunKey
from ff.summary import report, tables
from ff.summary.figures import build
from ff.summary.report import sections


def grid_of(root, methods):
    """Runs of two seeds for each recipe, and their tables; `methods`: how each recipe learned."""
    runs = make_grid(root, hidden=[(50, 10)], recipes=list(methods), seeds=[42, 123], repeats=4)
    for run in runs:
        path = run.folder(root) / "metrics.json"
        metrics = read_json(path)
        metrics["config"]["recipe_settings"]["method"] = methods[run.recipe]
        write_json(path, metrics)
    tables.write_all(root, runs, root / "summary")
    return root


@pytest.fixture(scope="module")
def with_own_control(tmp_path_factory):
    """The control is called mine and is better than the published recipe (95 % against 92.5 %)."""
    root = tmp_path_factory.mktemp("control") / "results"
    return grid_of(root, {"mine": "backprop", "edgeff": "forward-forward"})


def page_of(root):
    return report.write_report(root, root / "summary", root / "figures", root / "report.html").read_text()


def test_the_table_of_runs_says_how_each_learned(with_own_control):
    runs = tables.read_table(with_own_control / "summary", "runs")
    assert set(map(tuple, runs[["recipe", "method"]].to_numpy())) == {
        ("mine", "backprop"),
        ("edgeff", "forward-forward"),
    }


def test_a_control_of_any_name_is_not_the_best_forward_forward_network(with_own_control):
    page = page_of(with_own_control)
    assert "the Forward-Forward network that is best on validation, 784-50-10 with recipe edgeff," in page
    assert "with recipe mine" not in page
    assert "recipe edgeff is 2.50 points below mine" in page
    assert "edgeff minus mine" in page


def test_depth_and_costs_are_shown_of_whatever_phase_and_readouts_a_rule_has(tmp_path):
    run = RunKey("MNIST", "784-20-10", "mono", 1)
    make_grid(tmp_path, ["MNIST"], [(20, 10)], ["mono"], [1], evaluation=False, early_exit=False, variance=False)
    path = run.folder(tmp_path) / "metrics.json"
    metrics = read_json(path)
    metrics["config"]["recipe_settings"] = {"method": "mono-forward"}
    metrics["samples_per_s"] = {"mono": 31_000.0}
    for row in metrics["results"]:
        row["readout"] = "summed" if row["readout"] == "goodness" else row["readout"]
    write_json(path, metrics)
    written = tables.write_all(tmp_path, [run], tmp_path / "summary")
    [table] = sections.training(written)
    assert "31,000" in table.rows[0]
    [ax] = build("accuracy_depth", tmp_path / "summary", tmp_path).axes
    test = written["accuracy"][written["accuracy"]["split"] == "test"]
    drawn = [list(line.get_ydata()) for line in ax.lines]
    assert drawn == [list(100 * test[test["readout"] == name]["accuracy"]) for name in ("head", "summed")]


def test_figures_with_room_for_one_recipe_do_not_show_the_control(with_own_control):
    figure = build("accuracy_depth", with_own_control / "summary", with_own_control)
    assert any("Recipe edgeff;" in text.get_text() for text in figure.texts)
    figure = build("confusion", with_own_control / "summary", with_own_control)
    shown = " ".join(ax.get_title(loc="left") for ax in figure.axes)
    assert "edgeff" in shown
    assert "mine" not in shown


def test_a_control_alone_is_said_to_be_one(tmp_path):
    page = page_of(grid_of(tmp_path / "results", {"mine": "backprop"}))
    assert "784-50-10 trained by backprop (mine) reaches" in page


def test_a_recipe_called_bp_that_learns_forward_is_no_control(tmp_path):
    root = grid_of(tmp_path / "results", {"bp": "forward-forward", "edgeff": "forward-forward"})
    assert "that is best on validation, 784-50-10 with recipe bp," in page_of(root)
