"""Runs mirrored after the fact: `ff track`, its rule, and what is left alone."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
from wandb_runs import (
    KEY,
    MODEL,
    NOWHERE,
    ROOT,
    RUN,
    add_evaluation,
    add_figures,
    add_timings,
    check_training_run,
    leaks,
    make_run,
    offline_directories,
    read_back,
    write_weights,
)

from ff.errors import FFError
from ff.files import read_csv, read_json, write_csv, write_json, write_text
from ff.tracking import parts, session, track, upload


def test_ff_track_with_unreachable_wandb_ends_with_a_warning_and_no_key(tmp_path):
    make_run(tmp_path / "results")
    write_text(".env", f"WANDB_API_KEY={KEY}\n")
    code = (
        "import argparse; from ff.tracking import upload\n"
        "parser = argparse.ArgumentParser(); upload.add_arguments(parser)\n"
        f"raise SystemExit(upload.run(parser.parse_args([{str(tmp_path / 'results')!r}])))"
    )
    environment = os.environ | {"WANDB_BASE_URL": NOWHERE, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be reached" in done.stderr
    assert "1 offline" in done.stdout
    assert KEY not in done.stdout + done.stderr
    assert [path.name for path in leaks(tmp_path)] == [".env"]


def test_track_mirrors_each_part_once_and_equals_the_files(tmp_path):
    results = tmp_path / "results"
    folder = make_run(results)
    add_evaluation(folder)
    add_timings(folder)
    add_figures(results)
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()}
    lines = list(track(results))
    assert {line["part"]: line["state"] for line in lines} == dict.fromkeys(
        ("train", "evaluation", "variance", "figures"), "offline"
    )
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    by_id = {path.name.rsplit("-", 1)[1]: path for path in offline_directories()}
    ids = {line["part"]: line["run_id"] for line in lines}
    assert set(by_id) == set(ids.values())

    check_training_run(by_id[ids["train"]], folder, expected_id=ids["train"])

    run, config, _, summary, tables, _ = read_back(by_id[ids["evaluation"]])
    assert (run["job_type"], config["run_id"]) == ("eval", ids["train"])
    assert (summary["test/accuracy"], summary["early_exit/test/accuracy"]) == (0.9, 0.89)
    assert (summary["early_exit/cut/depth"], summary["early_exit/cut/test/accuracy"]) == (2, 0.5)
    per_class = {"split": "test", "readout": "head", "depth": 2, "class": 0, "n": 10}
    assert tables["per_class"] == [per_class | {"precision": 1.0, "recall": 0.9, "f1": 0.95}]
    assert [row["count"] for row in tables["confusion"]] == [9, 1, 0, 10]
    assert tables["early_exit"] == [{"rule": "logit", "k": 1.0, "accuracy": 0.89}]
    assert tables["layers"][0]["goodness.positive.mean"] == 2.0

    run, _, history, summary, tables, _ = read_back(by_id[ids["variance"]])
    assert run["job_type"] == "variance-eval"
    timed = read_csv(folder / "variance/cpu.csv")
    assert [row["latency_ms"] for row in history if "latency_ms" in row] == [float(row["latency_ms"]) for row in timed]
    assert history[3]["latency_per_sample_ms"] == float(timed[3]["latency_ms"]) / 8
    assert history[3]["throughput_samples_sec"] == 8000 / float(timed[3]["latency_ms"])
    assert "device_ms" not in history[3]
    assert tables["latency_stats_table"][0]["latency_median_ms"] == 17.0
    assert tables["latency_stats_table"][0]["threads"] == 2
    assert tables["latency_stats_table"][0]["throughput_median"] == 470.0
    assert tables["latency_stats_table"][0]["throughput_queued_median"] == 940.0
    assert tables["latency_stats_table"][0]["energy_per_sample_mj"] == 3.5
    assert tables["latency_stats_table"][0]["net_energy_per_sample_mj"] is None
    assert summary["agreement/available"] is False

    run, _, history, _, tables, text = read_back(by_id[ids["figures"]])
    assert run["job_type"] == "figures"
    assert tables["summary/accuracy"] == [{"dataset": "DIGITS", "accuracy": 0.9}]
    assert "figures/accuracy" in text

    assert {line["state"] for line in track(results)} == {"unchanged"}
    assert len(offline_directories()) == 4


def test_hardware_seconds_go_on_where_the_machine_was_started_again(tmp_path):
    results = tmp_path / "results"
    folder = make_run(results)
    clocks = [(500.0, 1e9), (501.0, 1e9 + 1), (3.0, 1e9 + 61), (5.0, 1e9 + 63)]
    rows = [{"model": MODEL, "monotonic_s": m, "unix_s": u, "ram_used_mb": 1} for m, u in clocks]
    write_csv(folder / "hardware.csv", list(rows[0]), rows)
    list(track(results))
    _, _, history, _, _, _ = read_back(offline_directories()[0])
    assert [row["hardware_seconds"] for row in history if "hardware_seconds" in row] == [0, 1, 61, 63]


def test_collections_beside_the_runs_have_figures_of_their_own(tmp_path):
    add_figures(tmp_path / "results")
    add_figures(tmp_path / "results/demo")
    lines = list(track(tmp_path / "results"))
    assert [(line["part"], line["state"]) for line in lines] == [("figures", "offline")] * 2
    assert len({line["run_id"] for line in lines}) == 2
    assert {line["state"] for line in track(tmp_path / "results")} == {"unchanged"}


def test_a_sweeps_runs_are_runs_of_their_own_beside_the_grids(tmp_path):
    results = tmp_path / "results"
    make_run(results)
    make_run(results / "sweeps/width-0123abcd", accuracy=0.7)
    write_json(tmp_path / "results/own/sweep.json", {"digest": "x"})
    make_run(results / "own", accuracy=0.6)
    add_figures(results / "sweeps/width-0123abcd")
    lines = list(track(results))
    assert [(line["run"], line["state"]) for line in lines] == [
        (RUN["name"], "offline"),
        (f"own/{RUN['name']}", "offline"),
        (f"sweeps/width-0123abcd/{RUN['name']}", "offline"),
        ("sweeps/width-0123abcd", "offline"),
    ]
    assert len({line["run_id"] for line in lines}) == 4
    by_id = {path.name.rsplit("-", 1)[1]: path for path in offline_directories()}
    tags = [set(read_back(by_id[line["run_id"]])[0]["tags"]) - {"forward-forward", "digits", "ff"} for line in lines]
    assert tags == [set(), {"own"}, {"width-0123abcd"}, {"figures"}]
    assert {line["state"] for line in track(results)} == {"unchanged"}


def test_a_missing_part_is_not_an_error_and_a_broken_one_does_not_stop_the_others(tmp_path):
    results = tmp_path / "results"
    folder = make_run(results)
    write_text(folder / "evaluation.json", "{")
    lines = {line["part"]: line for line in track(results)}
    assert lines["train"]["state"] == "offline"
    assert lines["evaluation"]["state"] == "failed"
    assert "not valid JSON" in lines["evaluation"]["warning"]
    assert not (results / ".tracked" / RUN["name"] / "evaluation.json").exists()


OTHER = "fedcba9876543210"


def test_what_belongs_to_another_model_is_left_out(tmp_path):
    results = tmp_path / "results"
    add_evaluation(make_run(results))
    add_timings(results / RUN["name"])
    make_run(results, model=OTHER)
    lines = {line["part"]: line for line in track(results)}
    assert {part: line["state"] for part, line in lines.items()} == {
        "train": "offline",
        "evaluation": "stale",
        "variance": "stale",
    }
    assert f"evaluation.json is left out, stale: it belongs to model {MODEL}" in lines["evaluation"]["warning"]
    (directory,) = offline_directories()
    assert read_back(directory)[1]["model"] == OTHER
    add_evaluation(results / RUN["name"], model=OTHER)
    assert {line["part"]: line["state"] for line in track(results)} == {
        "train": "unchanged",
        "evaluation": "offline",
        "variance": "stale",
    }


def test_a_single_file_of_another_model_is_left_out_of_its_part(tmp_path):
    results = tmp_path / "results"
    folder = make_run(results)
    add_evaluation(folder, model=OTHER)
    evaluation = read_json(folder / "evaluation.json")
    write_json(folder / "evaluation.json", evaluation | {"run": RUN})
    hardware = read_json(folder / "hardware.json")
    write_json(folder / "hardware.json", hardware | {"model": None})
    lines = {line["part"]: line for line in track(results)}
    assert [lines[part]["state"] for part in ("train", "evaluation")] == ["offline", "offline"]
    assert "hardware.json is left out, stale: it belongs to an unnamed model" in lines["train"]["warning"]
    assert lines["evaluation"]["warning"].count("is left out") == 2
    by_id = {path.name.rsplit("-", 1)[1]: path for path in offline_directories()}
    _, _, _, summary, tables, _ = read_back(by_id[lines["evaluation"]["run_id"]])
    assert summary["test/accuracy"] == 0.9
    assert "early_exit" not in tables
    assert not [name for name in summary if name.startswith("early_exit")]
    _, _, _, summary, _, text = read_back(by_id[lines["train"]["run_id"]])
    assert not [name for name in summary if name.startswith("energy")]
    assert "hardware.json" not in text


def test_metrics_of_another_model_than_the_weights_are_no_result(tmp_path):
    results = tmp_path / "results"
    folder = make_run(results)
    write_weights(folder, OTHER)
    (line,) = track(results)
    assert (line["state"], line["run_id"]) == ("stale", None)
    assert "metrics.json is left out" in line["warning"]
    assert not offline_directories()


def test_a_broken_note_is_written_anew_and_a_broken_folder_stops_no_other(tmp_path):
    results = tmp_path / "results"
    make_run(results)
    list(track(results))
    note = results / ".tracked" / RUN["name"] / "train.json"
    run_id = read_json(note)["run_id"]
    write_text(note, "{")
    write_json(results / "AAA/784-20-10/ff/seed3/metrics.json", [])
    lines = list(track(results))
    assert [(line["run"], line["state"]) for line in lines] == [
        ("AAA/784-20-10/ff/seed3", "failed"),
        (RUN["name"], "offline"),
    ]
    assert "is not a JSON object" in lines[0]["warning"]
    assert read_json(note)["run_id"] == run_id


def test_track_disabled_writes_nothing(tmp_path):
    results = tmp_path / "results"
    make_run(results)
    assert [line["state"] for line in track(results, mode="disabled")] == ["disabled"]
    assert not (results / ".tracked").exists()
    assert not Path("wandb").exists()


@pytest.mark.parametrize("asked", [{"mode": "online"}, {"WANDB_MODE": "online"}])
def test_online_without_a_key_is_an_error_not_offline(tmp_path, monkeypatch, asked):
    make_run(tmp_path / "results")
    monkeypatch.setenv("WANDB_MODE", asked.get("WANDB_MODE", ""))
    with pytest.raises(FFError, match=r"online was asked for, but online needs WANDB_API_KEY.*--mode offline"):
        list(track(tmp_path / "results", mode=asked.get("mode", "auto")))
    assert not Path("wandb").exists()


def test_ff_track_online_without_a_key_ends_with_a_sentence(ff, tmp_path):
    make_run(tmp_path / "results")
    done = ff("track", "results", "--mode", "online")
    assert done.returncode == 1
    assert done.stderr.startswith("ff: W&B mode online was asked for, but")
    assert len(done.stderr.splitlines()) == 1


def test_what_is_not_mirrored_at_all_is_said_with_the_reason(tmp_path, capsys, monkeypatch):
    make_run(tmp_path / "results")
    monkeypatch.setattr(session.importlib.util, "find_spec", lambda _: None)
    parser = argparse.ArgumentParser()
    upload.add_arguments(parser)
    assert upload.run(parser.parse_args([str(tmp_path / "results")])) == 0
    captured = capsys.readouterr()
    assert captured.err == "ff: nothing is mirrored: wandb is not installed\n"
    assert captured.out == "W&B: 1 disabled\n"


def test_track_names_a_folder_that_is_not_there():
    with pytest.raises(FFError, match="no results folder"):
        list(track("absent"))


def test_marks_of_offline_runs_count_online_once_they_were_synced(tmp_path):
    directory = tmp_path / "offline-run-x"
    directory.mkdir()
    target = {"project": "edgeff", "entity": None}
    mark = {
        "digest": "d",
        "project": "edgeff",
        "mode": "offline",
        "base_url": NOWHERE,
        "directory": str(directory),
    }
    online = session.Access("online", "test", KEY, NOWHERE)
    offline = session.Access("offline", "test")
    assert parts.is_mirrored(mark, "d", offline, target)
    assert not parts.is_mirrored(mark, "changed", offline, target)
    assert not parts.is_mirrored(mark, "d", online, target)
    (directory / "run-x.wandb.synced").touch()
    assert parts.is_mirrored(mark, "d", online, target)
    assert not parts.is_mirrored(mark, "d", online, target | {"project": "other"})
    assert not parts.is_mirrored(mark | {"mode": "online"}, "d", session.Access("online", "t", KEY), target)


def test_the_command_line_of_ff_track():
    parser = argparse.ArgumentParser()
    upload.add_arguments(parser)
    args = parser.parse_args(["elsewhere", "--mode", "offline", "--project", "p", "--again"])
    assert (args.results, args.mode, args.project, args.again) == ("elsewhere", "offline", "p", True)


# ---------------------------------------------------------------- the rule


def run_rule(mode):
    """The target `track` on results/ with a workflow of nothing else; gives the finished process."""
    for path in ("rules/tracking.smk", "workflow/scripts/track.py"):
        write_text(path, (ROOT / path).read_text())
    write_text("envs/ff.yaml", "channels: [conda-forge]\n")
    write_text(
        "Snakefile",
        f"""from types import SimpleNamespace
from ff.settings import WandbConfig
RESULTS, LOGS = "results", "logs"
PLAN = SimpleNamespace(finished=lambda collection: "results/{RUN["name"]}/metrics.json")
include: "rules/tracking.smk"
""",
    )
    command = [sys.executable, "-m", "snakemake", "track", "--cores", "1", "--config", f"wandb={{mode: {mode}}}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_rule_mirrors_the_results_of_a_workflow():
    add_evaluation(make_run(Path("results")))
    done = run_rule("offline")
    assert done.returncode == 0, done.stderr
    report = read_json("results/tracking.json")
    assert [(line["part"], line["state"]) for line in report["parts"]] == [
        ("train", "offline"),
        ("evaluation", "offline"),
    ]
    assert len(offline_directories()) == 2


def test_the_rule_ends_with_a_sentence_where_online_was_asked_for_without_a_key():
    make_run(Path("results"))
    done = run_rule("online")
    assert done.returncode == 1
    assert "ff: W&B mode online was asked for, but online needs WANDB_API_KEY" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("results/tracking.json").exists()
