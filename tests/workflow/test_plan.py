"""The plan of a call: what the configuration comes to, which files there are to be, and what jobs are given."""

import copy
import re
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
from ff.workflow.jobs import Jobs
from ff.workflow.plan import read_plan
from ff.workflow.resources import train_minutes

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


def finish(stage, *runs, plan):
    """The files of a stage, of runs."""
    for run in runs:
        for file in plan.stages[stage]:
            path = run.folder("results") / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def shared(plan, stage="train", **call):
    """Which seeds of the grid share a job, and of which recipes: {seeds: [recipe]}."""
    *several, alone = plan.jobs(stage, **call)
    assert alone == Jobs(stage)
    recipes = {jobs.seeds: [cell.split("/")[2] for cell in jobs.cells if "MNIST" in cell] for jobs in several}
    return {seeds: found for seeds, found in recipes.items() if found}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)


def test_seeds_that_are_not_finished_share_a_job(here):
    plan = plan_of(grid=GRID | {"seed": [5, 0, 2]}, group_seeds=True)
    assert shared(plan) == {(0, 2, 5): ["ff", "bp"]}
    finish("train", RUN._replace(seed=2), plan=plan)
    assert shared(plan) == {(0, 5): ["ff"], (0, 2, 5): ["bp"]}
    # Its training is over, and nothing else is.
    assert shared(plan, "evaluate") == {(0, 2, 5): ["ff", "bp"]}
    finish("train", RUN._replace(seed=0), plan=plan)
    # One is left, and has nobody to share with.
    assert shared(plan) == {(0, 2, 5): ["bp"]}
    assert shared(plan_of(grid=GRID, group_seeds=False)) == {}


def test_few_seeds_share_a_job_and_the_same_ones_after_an_interruption(here):
    plan = plan_of(grid=GRID | {"recipe": ["ff"], "seed": list(range(9))})
    parts = [(0, 1, 2), (3, 4, 5), (6, 7, 8)]
    assert list(shared(plan)) == list(shared(plan, "measure")) == parts
    finish("train", *(RUN._replace(seed=seed) for seed in (0, 1, 2)), plan=plan)
    assert list(shared(plan)) == parts[1:]
    # Of nine jobs at once each has a run of its own, of four jobs two.
    assert shared(plan, "measure", at_once=9) == {}
    assert list(shared(plan, "measure", at_once=4)) == [(1, 2), (3, 4), (5, 6), (7, 8)]


def test_a_run_that_the_command_line_names_has_a_job_of_its_own(here):
    plan = plan_of(grid=GRID | {"recipe": ["ff"], "seed": [0, 1, 2]})
    path = f"results/{RUN.name}/evaluation.json"
    assert shared(plan, words=["all"]) == {(0, 1, 2): ["ff"]}
    assert shared(plan, words=["--cores", "1", path]) == {(0, 2): ["ff"]}


def test_what_failed_together_is_tried_alone(here):
    plan = plan_of(grid=GRID | {"recipe": ["ff"], "seed": [0, 1, 2, 3]})
    for seed in (0, 1):
        log = Path(layout.job_log("results", "train", RUN._replace(seed=seed)))
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("ff: error: the loss of seed 1 is not finite\n")
    assert shared(plan) == {(2, 3): ["ff"]}
    assert shared(plan, "measure") == {(0, 1, 2, 3): ["ff"]}


def test_seeds_are_trained_together_where_that_is_faster(here):
    wide = GRID | {"layers": ["784,1000,1000"], "recipe": ["ff"]}
    assert shared(plan_of()) == {(0, 1): ["ff", "bp"]}
    assert shared(plan_of(grid=wide)) == {}
    assert shared(plan_of(grid=wide), gpu=True) == {(0, 1): ["ff"]}
    assert shared(plan_of(grid=wide, group_seeds=True)) == {(0, 1): ["ff"]}
    # What starts Python for little work shares the start, however wide the network.
    assert shared(plan_of(grid=wide), "evaluate") == {(0, 1): ["ff"]}


def test_each_measurement_on_a_board_is_watched_by_itself(here):
    plan = plan_of(sidecar="service")
    assert shared(plan, "measure") == {}
    assert shared(plan, "train") == {(0, 1): ["ff", "bp"]}


def test_runs_of_the_demo_are_no_part_of_a_grids_jobs(here):
    grid = GRID | {"dataset": ["DIGITS"], "layers": ["784,100,100"], "recipe": ["ff"], "seed": [0, 1, 2, 3, 4]}
    of_cell = [j.seeds for j in plan_of(grid=grid).jobs("train") if "DIGITS/784-100-100/ff" in j.cells]
    assert of_cell == [(0, 1, 2), (3, 4)]


def test_a_node_has_the_jobs_that_its_command_line_names(here):
    plan = plan_of(grid=GRID | {"seed": [0, 1, 2]})
    [jobs, alone] = plan.jobs("train", words=["--allowed-rules", "train_seeds_0_12", "evaluate_seeds_3_4", "--cores"])
    assert (jobs.rule, jobs.seeds, alone) == ("train_seeds_0_12", (0, 12), Jobs("train"))
    assert re.fullmatch(jobs.cell, RUN.cell)


def test_a_job_for_several_seeds_has_the_files_and_the_log_of_each():
    jobs = Jobs("train", (0, 7), (RUN.cell, "MNIST/784-20-10/b.p"))
    assert jobs.paths("results", ["a", "b"]) == [
        f"results/{{cell}}/seed{seed}/{file}" for seed in (0, 7) for file in "ab"
    ]
    assert jobs.logs("results") == [f"logs/train/{{cell}}/seed{seed}.log" for seed in (0, 7)]
    assert re.fullmatch(jobs.cell, "MNIST/784-20-10/b.p")
    assert not re.fullmatch(jobs.cell, "MNIST/784-20-10/b_p")
    assert Jobs("train").paths("results", ["a"]) == [f"results/{WILDCARDS.name}/a"]


def test_a_job_for_several_seeds_asks_for_what_they_need():
    plan, two, one = plan_of(), Jobs("train", (0, 1)), Jobs("train")
    group, run = wildcards(cell=RUN.cell), wildcards(**CELL, seed="1")
    assert plan.run(group) == plan.run(wildcards(**CELL, seed="0"))
    assert plan.prepared_set(group) == plan.prepared_set(run) == "data/prepared/MNIST.safetensors"
    assert plan.train_memory_mb(two)(group, 1) > plan.train_memory_mb(one)(run, 1)
    assert plan.train_minutes(two)(group, 2) == train_minutes(plan.run(run), 2, 2)
    ready = plan_of(sidecar="service").sidecar("train", Jobs("train", (3, 4)))
    assert ready(group) == [f"results/{RUN.cell}/seed3/.sidecar-train"]


def test_a_job_waits_for_its_sidecar_where_there_is_one():
    ready = plan_of(sidecar="service").sidecar("measure", Jobs("measure"))
    assert ready(wildcards(**CELL, seed="1")) == [f"results/{RUN.name}/.sidecar-measure"]
    assert plan_of(sidecar="inline").sidecar("measure", Jobs("measure"))(wildcards(**CELL, seed="1")) == []


def test_data_sets_may_be_measured_in_a_way_of_their_own():
    plan = plan_of(measure_by_dataset={"SVHN": {"repeats": 7}})
    assert plan.measure_settings(wildcards(cell="SVHN/3072-20/ff"))["repeats"] == 7
    assert plan.measure_settings(wildcards(**CELL, seed="1")) == CONFIG["measure"]


def test_estimates_of_what_a_training_needs():
    run = plan_of().run(wildcards(**CELL | {"layers": "784-2000-10"}, seed="1"))
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


def test_power_modes_are_files_of_the_measurement():
    plan = plan_of(measure=CONFIG["measure"] | {"power_modes": [0, 3], "devices": ["cpu"]})
    modes = {file for file in plan.stages["measure"] if "power_modes" in file}
    assert modes == {f"variance/power_modes/{mode}/cpu.{kind}" for mode in (0, 3) for kind in ("csv", "json")}
    assert modes <= set(plan.run_files)
    assert not [file for file in plan_of().run_files if "power_modes" in file]
    with pytest.raises(FFError, match=r"measure.power_modes"):
        plan_of(measure=CONFIG["measure"] | {"power_modes": [-1]})
