"""The plan of a call: what the configuration comes to, which files there are to be, and what jobs are given."""

import copy
import dataclasses
from pathlib import Path

import pytest
import yaml
from snakemake.iocontainers import Wildcards

from ff import layout
from ff.errors import FFError
from ff.layout import WILDCARDS, RunKey
from ff.summary.figures import FIGURES
from ff.workflow import plan as plans
from ff.workflow.code import code_of_all_runs, code_of_run, training_code
from ff.workflow.plan import read_plan
from ff.workflow.resources import train_memory_mb, train_minutes

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "config/config.yaml").read_text())
GRID = {"dataset": ["MNIST"], "layers": ["784,20,10"], "recipe": ["ff", "bp"], "seed": [0, 1]}
CELL = {"dataset": "MNIST", "layers": "784-20-10", "recipe": "ff"}
RUN = RunKey(**CELL, seed=1)


def plan_of(here=True, data_dir=None, **keys):
    return read_plan(copy.deepcopy(CONFIG) | {"grid": GRID} | keys, ROOT, data_dir, here)


def wildcards(**values):
    return Wildcards(fromdict=values)


@pytest.fixture
def board(monkeypatch):
    monkeypatch.setattr(plans, "is_board", lambda: True)


def test_the_configuration_given_stays_as_it_is():
    given = copy.deepcopy(CONFIG) | {"grid": GRID, "group_seeds": "true"}
    before = copy.deepcopy(given)
    assert read_plan(given, ROOT).configuration["group_seeds"] is True
    assert given == before


def test_the_command_line_says_where_raw_files_are_before_the_environment_and_the_configuration(monkeypatch):
    assert plan_of(data_dir="here").configuration["data_dir"] == "here"
    assert plan_of().configuration["data_dir"] == CONFIG["data_dir"]
    monkeypatch.setenv("FF_DATA_DIR", "there")
    assert plan_of().configuration["data_dir"] == "there"
    assert plan_of(data_dir="here").configuration["data_dir"] == "here"


def test_only_a_board_has_a_sidecar_beside_each_job(board, monkeypatch):
    assert plan_of().configuration["sidecar"] == "service"
    assert plan_of(here=False).configuration["sidecar"] == "inline"
    assert plan_of(sidecar="off").configuration["sidecar"] == "off"
    monkeypatch.setattr(plans, "is_board", lambda: False)
    assert plan_of().configuration["sidecar"] == "inline"


def test_a_sweep_is_in_the_place_of_the_grid():
    plan = plan_of(sweep=str(ROOT / "config/sweeps/width.yaml"), results="other/")
    assert plan.results.startswith("other/sweeps/width-")
    assert {run.recipe for run in plan.runs[""]} == {"ff"}
    assert plan.runs["demo/"] == []


def test_a_target_that_cannot_be_is_said():
    plan = plan_of(results="other/")
    plan.check_targets(["all", "--cores", f"other/{RUN.name}/variance/cpu.csv"])
    with pytest.raises(FFError, match="a run has no file 'cpu"):
        plan.check_targets(["all", f"other/{RUN.name}/cpu.csv"])


# -- files ----


def test_everything_of_a_collection_is_its_report_figures_and_runs():
    plan = plan_of()
    files = plan.finished("")
    assert len(files) == len(set(files)) == 1 + 2 * len(FIGURES) + 4 * len(plan.run_files)
    assert {"results/report.html", "results/figures/accuracy.svg", f"results/{RUN.name}/hardware.json"} <= set(files)
    assert {path.split("/")[1] for path in plan.finished("demo/")} == {"demo", "DIGITS"}


def test_figures_need_their_tables_and_the_samples_of_each_device():
    inputs = plan_of().figure_inputs("", "latency")
    assert "results/summary/latency.csv" in inputs
    assert {f"results/{RUN.name}/variance/{device}.csv" for device in ("cpu", "cuda")} <= set(inputs)
    assert not [path for path in inputs if path.endswith(("phases.csv", ".json"))]


# -- jobs ----


def test_a_job_has_the_settings_of_its_run():
    run = plan_of(train_by_recipe={"ff": {"rep_epochs": 3}}).run(wildcards(**CELL, seed="1", job="train"))
    assert (run.key, run.rep_epochs) == (RUN, 3)


def test_runs_of_a_group_share_job_and_hardware_log():
    plan, alone = plan_of(group_seeds=True), plan_of()
    first, group = RUN._replace(seed=0), wildcards(**CELL)
    assert plan.key(group) == first
    assert plan.in_group(["a"]) == [f"results/{WILDCARDS.cell}/seed{seed}/a" for seed in (0, 1)]
    second = wildcards(**CELL, seed="1")
    assert plan.training_samples(second) == layout.hardware_log("results", first, "train")
    assert alone.training_samples(second) == layout.hardware_log("results", RUN, "train")
    # A seed outside of the grid is trained alone.
    assert "/seed7/" in plan.training_samples(wildcards(**CELL, seed="7"))
    assert plan.train_memory_mb(group, 1) > plan.train_memory_mb(second, 1) == alone.train_memory_mb(second, 1)
    assert plan.train_minutes(group, 2) == train_minutes(plan.run(group), 2, 2)


def test_a_job_waits_for_its_sidecar_where_there_is_one():
    ready = plan_of(sidecar="service").sidecar("measure")
    assert ready(wildcards(**CELL, seed="1")) == [f"results/{RUN.name}/.sidecar-measure"]
    assert plan_of(sidecar="inline").sidecar("measure")(wildcards(**CELL, seed="1")) == []


def test_data_sets_may_be_measured_in_a_way_of_their_own():
    plan = plan_of(measure_by_dataset={"SVHN": {"repeats": 7}})
    assert plan.measure_settings(wildcards(dataset="SVHN"))["repeats"] == 7
    assert plan.measure_settings(wildcards(dataset="MNIST")) == CONFIG["measure"]


def test_estimates_of_what_a_training_needs():
    run = plan_of().run(wildcards(**CELL | {"layers": "784-2000-10"}, seed="1"))
    weights = 784 * 2000 + 2000 * 10
    # Images as bytes; in float32 what both layers say of the training split, weights, gradients and both moments, and
    # four times a mini-batch of 512 under each of ten labels.
    fixed = 70_000 * 784 + 4 * 4 * 512 * 10 * 2000
    assert train_memory_mb(run) == 300 + (fixed + 4 * (50_000 * 2010 + 4 * weights)) // 2**20
    # Of ten seeds at once the outputs are more than is kept: they are computed for each mini-batch.
    ten = 70_000 * 784 + 10 * 4 * (4 * 512 * 10 * 2000 + 4 * weights)
    assert train_memory_mb(run, seeds=10) == 300 + ten // 2**20
    double = dataclasses.replace(run, precision="float64", val_size=0)
    assert (
        train_memory_mb(double)
        == 300 + (70_000 * 784 + 8 * (60_000 * 2010 + 4 * weights) + 2 * 4 * 4 * 512 * 10 * 2000) // 2**20
    )
    assert train_memory_mb(run, attempt=3) == 4 * train_memory_mb(run)
    # 20 epochs of 4 MAC a weight and image at 20 GMAC/s.
    assert train_minutes(run, seeds=60) == 5 + 60 * 60_000 * 20 * 4 * (784 * 2000 + 2000 * 10) // (20 * 10**9) // 60
    assert train_minutes(run, attempt=2) == 2 * train_minutes(run)


def test_the_code_of_a_job_is_its_script_with_the_rule_that_it_runs():
    plan = plan_of()
    ff, bp = (plan.grid.run(RUN._replace(recipe=recipe)) for recipe in ("ff", "bp"))
    assert training_code(ff) != training_code(bp)
    assert training_code(ff) == training_code(plan.grid.run(RUN))
    assert code_of_run("workflow/scripts/evaluate.py", ff) != code_of_run("workflow/scripts/evaluate.py", bp)
    assert code_of_run("workflow/scripts/evaluate.py", ff) != training_code(ff)
    assert code_of_all_runs("workflow/scripts/figures.py", "accuracy") != code_of_all_runs(
        "workflow/scripts/figures.py"
    )
