"""A sweep run here: its folder, its command, what it is worth, and that the DAG trains what the file says."""

import argparse
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from snakemake.cli import parse_config
from wandb_runs import MODEL, write_weights

from ff.cli import main
from ff.errors import FFError
from ff.files import read_json, write_csv, write_json, write_text
from ff.layout import RunKey
from ff.tracking.sweeps import command
from ff.tracking.sweeps.cells import in_place_of_the_grid, read_sweep
from ff.tracking.sweeps.local import claim, ranking, snakemake_command
from ff.workflow.grid import Grid

AXES = {
    "seed": st.lists(st.integers(0, 3), min_size=1, max_size=3),
    "layers": st.lists(st.sampled_from(["784,20,10", "784,30,10"]), min_size=1, max_size=2),
    "dataset": st.lists(st.sampled_from(["MNIST", "DIGITS", "SVHN"]), min_size=1, max_size=2),
    "recipe": st.lists(st.sampled_from(["ff", "bp", "edgeff", "mine"]), min_size=1, max_size=3),
    "rep-epochs": st.lists(st.integers(1, 3), min_size=1, max_size=2),
    "val-size": st.lists(st.sampled_from([10, 10000]), min_size=1, max_size=2),
    "alpha": st.lists(st.sampled_from([2.0, 61.0]), min_size=1, max_size=2),
    "method": st.lists(st.sampled_from(["forward-forward", "backprop"]), min_size=1, max_size=2),
    "no-cuda": st.lists(st.booleans(), min_size=1, max_size=2),
}
CONFIGURATION = {
    "results": "results",
    "recipes": {"mine": {"base": "bp", "learning_rate": 0.5}, "ff.alpha_61": {"base": "edgeff"}},
    "train": {"rep_epochs": 7, "softmax_epochs": 7, "val_size": 77, "test_batch_size": 7},
    "train_by_dataset": {"DIGITS": {"rep_epochs": 8, "softmax_epochs": 8}},
    "train_by_recipe": {"ff": {"rep_epochs": 9, "softmax_epochs": 9}},
}


def sweep_file(parameters, name="sweep.yaml", **keys):
    write_text(name, yaml.safe_dump({"method": "grid", "parameters": parameters, **keys}))
    return name


@given(st.fixed_dictionaries({}, optional=AXES).filter(bool))
def test_the_dag_trains_what_the_file_says_whatever_the_grid_is_configured_to(axes):
    path = sweep_file({name: {"values": values} for name, values in axes.items()})
    sweep, keys = in_place_of_the_grid(CONFIGURATION | {"sweep": path})
    grid = Grid(CONFIGURATION | keys)
    cells = [grid.run(run.key) for run in sweep.runs]
    assert cells == sweep.runs
    # The file by itself, without the configuration's names: as many trainings, of the same settings.
    drawn = {json.dumps([run.as_dict() | {"recipe": None}], sort_keys=True) for run in cells}
    alone = read_sweep(path, recipes=CONFIGURATION["recipes"]).runs
    assert drawn == {json.dumps([run.as_dict() | {"recipe": None}], sort_keys=True) for run in alone}
    assert len({run.name for run in cells}) == len(cells)


def test_a_recipe_of_the_configuration_is_not_changed_by_a_variant_of_its_name():
    path = sweep_file({"recipe": {"values": ["ff", "ff.alpha_61"]}, "alpha": {"values": [2.0, 61.0]}})
    sweep, keys = in_place_of_the_grid(CONFIGURATION | {"sweep": path})
    assert keys["recipes"]["ff.alpha_61"] == CONFIGURATION["recipes"]["ff.alpha_61"]
    assert len({run.recipe for run in sweep.runs}) == 4
    assert Grid(CONFIGURATION | keys).run(RunKey("MNIST", "784-100", "ff.alpha_61", 0)).settings.alpha == 2.0


# ---------------------------------------------------------------- the results folder


def folder_of(path, **keys):
    return in_place_of_the_grid({"results": "results", "sweep": path} | keys)[1]["results"]


def test_each_content_of_a_sweep_has_a_folder_of_its_own():
    path = sweep_file({"seed": {"values": [1, 2]}, "rep-epochs": {"value": 3}})
    first = folder_of(path)
    assert first.startswith("results/sweeps/sweep-")
    assert len(first) == len("results/sweeps/sweep-") + 8
    write_text(
        path, "# said differently\nparameters: {rep_epochs: {values: [3]}, seed: {min: 1, max: 2}}\nmethod: grid\n"
    )
    assert folder_of(path) == first, "the same trainings"
    assert folder_of(path, sweep_count=1) != first
    assert folder_of(path, results="elsewhere") == first.replace("results", "elsewhere", 1)
    assert folder_of(path, sweep_out="mine") == "mine"
    others = [{"rep-epochs": {"value": 4}}, {"alpha": {"value": 3.0}}, {"no-cuda": {"value": True}}]
    found = {folder_of(sweep_file({"seed": {"values": [1, 2]}, "rep-epochs": {"value": 3}} | more)) for more in others}
    assert len(found | {first}) == 4
    assert folder_of(sweep_file({"seed": {"values": [1, 2]}}, name="a b/..c.yaml")).startswith("results/sweeps/_c-")


def test_draws_of_another_seed_have_another_folder():
    path = sweep_file({"alpha": {"min": 1.0, "max": 9.0}}, method="random")
    keys = [{"sweep_count": 2, "sweep_seed": seed} for seed in (0, 0, 1)]
    first, again, other = (folder_of(path, **key) for key in keys)
    assert first == again != other


def test_where_runs_are_carried_out_is_the_workflows():
    places = {"threads": {"value": 0}, "out": {"value": "x"}, "device": {"value": "cuda"}, "project": {"value": "p"}}
    sweep, keys = in_place_of_the_grid({"results": "results", "sweep": sweep_file(places, program="train.py")})
    assert keys["device"] == "cuda"
    assert "threads" not in keys
    assert [warning.split(" ")[:2] for warning in sweep.warnings] == [
        ["program", "'train.py'"],
        ["setting", "'out'"],
        ["setting", "'project'"],
        ["threads", "0"],
    ]


def test_a_folder_with_other_results_is_refused():
    sweep = read_sweep(sweep_file({"seed": {"value": 1}}))
    other = read_sweep(sweep_file({"seed": {"value": 2}}))
    claim(Path("mine"), "sweep.yaml", sweep, Path("results"))
    assert read_json("mine/sweep.json")["file"] == "sweep.yaml"
    claim(Path("mine"), "sweep.yaml", sweep, Path("results"))
    with pytest.raises(FFError, match=r"mine holds another sweep, of sweep\.yaml"):
        claim(Path("mine"), "sweep.yaml", other, Path("results"))
    with pytest.raises(FFError, match="is the results folder of the grid"):
        claim(Path("results/"), "sweep.yaml", sweep, Path("results"))
    write_text("notes/todo.txt", "")
    with pytest.raises(FFError, match="notes is there already and no sweep's"):
        claim(Path("notes"), "sweep.yaml", sweep, Path("results"))


# ---------------------------------------------------------------- the command


def test_snakemake_is_asked_for_everything_and_reads_the_names_as_they_are():
    words = snakemake_command("1e5.yaml", "config/config.yaml", "2", 5, 7, "2024", dry_run=True)
    assert words[1:7] == ["-m", "snakemake", "all", "--cores", "2", "--configfile"]
    assert "--dry-run" in words[: words.index("--config")]
    assert parse_config(words[words.index("--config") + 1 :]) == {
        "sweep": "./1e5.yaml",
        "sweep_seed": 7,
        "sweep_count": 5,
        "sweep_out": "./2024",
    }
    assert folder_of(sweep_file({"seed": {"value": 1}}), sweep_out="./2024") == "2024"


def command_line(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(list(map(str, words))))


@pytest.fixture
def project(monkeypatch):
    """A folder to sweep in, where Snakemake is not started; gives the commands that were."""
    started = []
    write_text("Snakefile", "")
    monkeypatch.setattr(command, "wait_for", lambda words: started.append(words) or 0)
    return started


@pytest.mark.parametrize("cores", ["0", "-1", "two", ""])
def test_no_cores_are_an_error(project, cores):
    with pytest.raises(FFError, match=r"--cores is .*; it must be 'all' or at least 1"):
        command_line(sweep_file({"seed": {"value": 1}}), "--local", f"--cores={cores}")
    assert not project


def test_local_needs_the_projects_folder():
    with pytest.raises(FFError, match="no Snakefile here"):
        command_line(sweep_file({"seed": {"value": 1}}), "--local")


@pytest.mark.parametrize("flag", ["-n", "--dry-run"])
def test_a_dry_run_leaves_nothing_and_ranks_nothing(project, capsys, flag):
    metric = {"name": "final/val_accuracy", "goal": "maximize"}
    path = sweep_file({"seed": {"value": 1}}, metric=metric)
    finished(read_sweep(path).runs[0], folder_of(path), 0.9)
    before = sorted(Path().rglob("*"))
    assert command_line(path, "--local", flag) == 0
    assert "--dry-run" in project[0]
    assert capsys.readouterr().out == f"1 trainings, in {folder_of(path)}\n"
    assert sorted(Path().rglob("*")) == before


def test_the_exit_status_is_snakemakes(project, monkeypatch):
    monkeypatch.setattr(command, "wait_for", lambda words: 7)
    assert command_line(sweep_file({"seed": {"value": 1}}), "--local") == 7


def test_ctrl_c_leaves_snakemake_to_tidy_up(monkeypatch):
    class Interrupted:
        """A process that Ctrl-C reaches too, and which then needs a moment."""

        returncode = None

        def __init__(self, *_, **__):
            self.waited = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def poll(self):
            return self.returncode

        def wait(self):
            self.waited += 1
            if self.waited < 3:
                raise KeyboardInterrupt
            self.returncode = -2

    monkeypatch.setattr(command.subprocess, "Popen", Interrupted)
    try:
        assert command.wait_for(["snakemake"]) == 130
    except KeyboardInterrupt:
        # It would end the tests.
        pytest.fail("the interrupt ended the waiting")


# ---------------------------------------------------------------- what did best


def finished(run, results, accuracy, model=MODEL, **config):
    """The files of a finished training that a ranking reads."""
    folder = Path(results) / run.name
    content = {"config": run.as_dict() | config, "run": {"model": model}, "final": {"val_accuracy": accuracy}}
    write_json(folder / "metrics.json", content)
    write_weights(folder)
    rows = [{"model": MODEL, "phase": "softmax", "epoch": i, "loss": loss} for i, loss in ((1, 9.0), (2, accuracy / 2))]
    write_csv(folder / "history.csv", list(rows[0]), rows)
    return folder


def swept(alphas=(2.0, 3.0, 4.0), seeds=(0, 1, 2)):
    return read_sweep(sweep_file({"alpha": {"values": list(alphas)}, "seed": {"values": list(seeds)}})).runs


def test_settings_are_ranked_by_the_mean_over_their_seeds():
    values = {"ff": [0.90, 0.90, 0.93], "ff.alpha_3": [0.99, 0.80, 0.80], "ff.alpha_4": [0.95, 0.91, 0.93]}
    for run in swept():
        finished(run, "out", values[run.recipe][run.seed])
    places = ranking(swept(), {"name": "final/val_accuracy", "goal": "maximize"}, "out")
    # The best single run is one of the worst setting.
    assert [place.cell.rpartition("/")[2] for place in places] == ["ff.alpha_4", "ff", "ff.alpha_3"]
    assert [place.interval.estimate for place in places] == pytest.approx([0.93, 0.91, 2.59 / 3])
    assert [(place.interval.n, place.asked) for place in places] == [(3, 3)] * 3
    assert all(0 <= place.interval.low < place.interval.estimate < place.interval.high <= 1 for place in places)
    # Without a goal W&B minimises.
    worst = ranking(swept(), {"name": "final/val_accuracy"}, "out")
    assert [place.cell for place in worst] == [place.cell for place in reversed(places)]


def test_the_last_epochs_values_are_metrics_too():
    for run in swept():
        finished(run, "out", 0.5 + run.seed)
    (place, *_) = ranking(swept(), {"name": "loss"}, "out")
    assert place.interval.estimate == pytest.approx((0.25 + 0.75 + 1.25) / 3)


def test_only_finished_runs_of_these_very_settings_are_ranked():
    first, *rest = swept(alphas=[2.0], seeds=[0, 1, 2, 3, 4])
    finished(first, "out", 0.9)
    finished(rest[0], "out", 0.1, rep_epochs=99)
    finished(rest[1], "out", 0.1, model="another")
    write_text(Path("out") / rest[2].name / "metrics.json", "{")
    (place,) = ranking([first, *rest], {"name": "final/val_accuracy", "goal": "maximize"}, "out")
    assert (place.interval.estimate, place.interval.n, place.asked) == (0.9, 1, 5)
    assert ranking(rest, {"name": "final/val_accuracy"}, "out") == []
    assert ranking([first], None, "out") == []


def test_what_is_printed_says_what_counts(project, capsys):
    metric = {"name": "final/val_accuracy", "goal": "maximize"}
    path = sweep_file({"alpha": {"values": [2.0, 3.0]}, "seed": {"values": [0, 1]}}, metric=metric)
    out = folder_of(path)
    command_line(path, "--local")
    assert "no finished run has final/val_accuracy" in capsys.readouterr().out
    for run, accuracy in zip(read_sweep(path).runs, (0.90, 0.91, 0.92), strict=False):
        finished(run, out, accuracy)
    write_text(f"{out}/report.html", "")
    assert command_line(path, "--local", "--out", out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"4 trainings, in {out}", "final/val_accuracy, mean over seeds (95 % interval), best of 2:"]
    assert lines[2] == "0.9200  MNIST/784-100-100-100/ff.alpha_3  1 of 2 seeds"
    assert lines[3].startswith("0.9050 (")
    assert lines[3].endswith(")  MNIST/784-100-100-100/ff  2 seeds")
    assert lines[4:] == ["1 of 4 trainings have no final/val_accuracy", f"report: {out}/report.html"]


def test_ranking_by_test_data_is_not_passed_over(project, capsys):
    path = sweep_file({"seed": {"value": 0}}, metric={"name": "final/test_accuracy", "goal": "maximize"})
    folder = finished(read_sweep(path).runs[0], folder_of(path), 0.9)
    metrics = read_json(folder / "metrics.json")
    write_json(folder / "metrics.json", metrics | {"final": {"test_accuracy": 0.8}})
    write_json(Path(folder_of(path), "sweep.json"), {"digest": read_sweep(path).digest()})
    command_line(path, "--local")
    assert "note: this ranks by test data" in capsys.readouterr().out


def test_what_the_workflow_reads_is_what_the_command_reads(capsys):
    write_text("config/config.yaml", "results: base\nrecipes: {mine: {base: bp}}\n")
    write_text("over.yaml", "results: over\n")
    path = sweep_file({"recipe": {"value": "mine"}})
    assert main(["sweep", path, "--check", "--configfile", "over.yaml"]) == 0
    assert "locally 1 trainings, in over/sweeps/sweep-" in capsys.readouterr().out
