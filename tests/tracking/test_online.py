"""W&B online, over HTTP: wandb's real client against a server on the loopback device that keeps what it is given."""

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from ff_process import ff_command, ff_environment
from test_fetch import make_artifact
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args
from wandb_runs import CONFIG, KEY, ROOT, RUN, leaks, make_run, start_tracker, unstamped, wait_for
from wandb_server import WandbServer

import ff.learn.run
from ff import cli
from ff.files import read_json, write_json, write_text
from ff.stamps import model_of
from ff.tracking import fetch, live, names, session, track
from ff.tracking.sweeps import remote
from ff.tracking.sweeps.cells import read_sweep
from ff.tracking.sweeps.files import setting_name
from ff.tracking.sweeps.remote import agent_environment
from ff.tracking.sweeps.values import expand

# The name of the new sweep is said on the terminal, whatever the mode of our own tests.
SAYING = {"WANDB_SILENT": "false"}
MARKER = Path("results/.tracked") / RUN["name"] / "train.json"


@pytest.fixture
def server(monkeypatch):
    """A server and a key for it."""
    server = WandbServer()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    yield server
    wandb = sys.modules.get("wandb")
    if wandb is not None:
        wandb.teardown(0)
    server.close()


def shown(row):
    return {name: value for name, value in row.items() if not name.startswith("_")}


def check_run(server, run_id, folder):
    """The run on the server against the files in `folder`."""
    run = server.runs[run_id]
    metrics = read_json(folder / "metrics.json")
    assert (run["project"], run["jobType"], run["groupName"]) == ("edgeff", "train", "DIGITS/784-20-10/ff")
    assert run["displayName"] == RUN["name"]
    assert not run["host"], "the name of the host is nobody's business"
    assert set(run["tags"]) == {"forward-forward", "digits", "ff"}
    assert run["config"]["layers"]["value"] == [784, 20, 10]
    epochs = [shown(row) for row in run["history"] if "loss" in row]
    assert epochs == [names.epoch_row(row) for row in unstamped(folder / "history.csv")]
    hardware = [shown(row) for row in run["history"] if "hardware_seconds" in row]
    assert hardware == [names.hardware_row(row, 10.0) for row in unstamped(folder / "hardware.csv")]
    for name, value in names.training_summary(metrics).items():
        assert run["summary"][name] == value, name
    models = [a for a in server.artifacts.values() if a["run"] == run_id and a["type"] == "model"]
    files = server.artifact_files(models[-1])
    assert files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert models[-1]["metadata"]["layers"] == [784, 20, 10]
    assert models[-1]["metadata"]["recipe"] == "ff"


def check_no_leak(server, tmp_path):
    assert leaks(tmp_path) == []
    assert not [path for _, path, body in server.requests if KEY.encode() in body or KEY in path]
    assert set(server.unknown) <= {"serverInfo"}, "wandb asks what the stand-in does not answer"


def test_ff_track_uploads_what_is_on_disk_once(server, tmp_path):
    folder = make_run(Path("results"))
    (line,) = track("results")
    assert (line["state"], line["warning"]) == ("uploaded", None)
    assert line["url"].endswith(f"/edgeff/runs/{line['run_id']}")
    check_run(server, line["run_id"], folder)
    requests = len(server.requests)
    assert [line["state"] for line in track("results")] == ["unchanged"]
    asked = server.requests[requests:]
    assert all(b"serverInfo" in body or "otel" in path for _, path, body in asked)
    check_no_leak(server, tmp_path)


def test_a_changed_run_updates_its_run_on_the_server(server):
    make_run(Path("results"))
    (first,) = track("results")
    folder = make_run(Path("results"), accuracy=0.95)
    (second,) = track("results")
    assert (second["state"], second["run_id"]) == ("uploaded", first["run_id"])
    assert len(server.runs) == 1
    summary = server.runs[first["run_id"]]["summary"]
    for name, value in names.training_summary(read_json(folder / "metrics.json")).items():
        assert summary[name] == value, name


def test_a_live_run_arrives(server, tmp_path, monkeypatch):
    monkeypatch.setattr(live, "ONLINE_WAIT_S", 60.0)
    folder = make_run(Path("results"))
    with start_tracker() as tracker:
        assert tracker.mode == "online"
        for row in unstamped(folder / "history.csv"):
            tracker.epoch(row)
        wait_for(lambda: tracker.run_id in server.runs)
        tracker.finish(folder)
    assert tracker.warnings == []
    assert read_json(MARKER)["mode"] == "online"
    check_run(server, tracker.run_id, folder)
    assert [line["state"] for line in track("results")] == ["unchanged"]
    check_no_leak(server, tmp_path)


def test_ff_train_is_mirrored_with_its_hardware(server, tmp_path):
    words = ("--dataset", "DIGITS", "--layers", "784,8,4", "--rep-epochs", "1000000", "--hw-interval-ms", "50")
    training = subprocess.Popen(ff_command("train", *words), env=ff_environment(WANDB_MODE="online"))
    try:
        wait_for(lambda: server.runs)
        (log,) = Path("results").rglob("*.jsonl")
        wait_for(lambda: log.read_text().count('"kind":"sample"') > 5)
    finally:
        # Killed, so that nothing comes from files that a finished training leaves.
        training.kill()
        training.wait()
    (run,) = server.runs.values()
    wait_for(lambda: [row for row in run["history"] if "hardware_seconds" in row], seconds=20)
    assert any(row.get("ram_used_mb", 0) > 0 for row in run["history"])
    check_no_leak(server, tmp_path)


def test_a_slow_server_is_left_to_the_background(server, monkeypatch):
    monkeypatch.setattr(live, "ONLINE_WAIT_S", 0.5)
    folder = make_run(Path("results"))
    with start_tracker() as tracker:
        wait_for(lambda: tracker.run_id in server.runs)
        server.delay_s = 1.0
        tracker.finish(folder)
    assert any("in the background" in warning for warning in tracker.warnings)
    assert not MARKER.exists()
    server.delay_s = 0.0
    wait_for(MARKER.is_file)
    check_run(server, tracker.run_id, folder)


def test_a_run_of_an_agent_belongs_to_the_sweep(server, monkeypatch):
    monkeypatch.setattr(live, "ONLINE_WAIT_S", 60.0)
    write_text("sweep.yaml", "method: grid\nparameters:\n  seed: {values: [3]}\n")
    sweep_id, path = remote.create("sweep.yaml", entity="team")
    assert path == f"team/edgeff/{sweep_id}"
    assert "seed" in server.sweeps[sweep_id]["config"]
    monkeypatch.setenv("WANDB_SWEEP_ID", sweep_id)
    monkeypatch.setenv("WANDB_RUN_ID", "given-by-agent")
    monkeypatch.setenv("WANDB_PROJECT", "edgeff")
    folder = make_run(Path("results"))
    with start_tracker() as tracker:
        tracker.finish(folder)
    assert tracker.warnings == []
    assert server.runs["given-by-agent"]["sweep"] == sweep_id
    # Uploads after the fact keep their own ids, whatever run the agent is at.
    assert [line["run_id"] for line in track("results")] == ["given-by-agent"]
    (line,) = track("results", again=True, project="other")
    assert server.runs[line["run_id"]]["project"] == "other"


def examples():
    return sorted((ROOT / "config/sweeps").glob("*.yaml"))


@pytest.mark.parametrize("path", examples(), ids=lambda path: path.stem)
def test_wandbs_own_sweep_and_agent_take_our_files(server, path, monkeypatch):
    command = [sys.executable, "-m", "wandb", "sweep", "--entity", "team", "--project", "edgeff", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env={**os.environ, **SAYING})
    assert "wandb agent team/edgeff/sweep0" in done.stdout + done.stderr
    stored = yaml.safe_load(server.sweeps["sweep0"]["config"])
    # What W&B's agent makes of it for a run.
    drawn = expand(path, count=1)[0]
    args = {name: {"value": drawn[setting_name(name)]} for name in stored["parameters"]}
    parts = create_sweep_command_args({"args": args}) | {"env": ["/usr/bin/env"], "program": [stored["program"]]}
    words = []
    for word in create_sweep_command(list(stored["command"])):
        macro = re.fullmatch(r"\$\{(\w+)\}", word)
        words += parts[macro.group(1)] if macro else [word]
    assert words[:3] == ["/usr/bin/env", "ff", "train"]
    begun = []
    monkeypatch.setattr(ff.learn.run, "train", lambda config, *_, **__: begun.append(config) or sys.exit("enough"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with pytest.raises(SystemExit, match="enough"):
        cli.main(words[2:])
    (wanted,) = read_sweep(path, count=1).runs
    assert begun[0].as_dict() | {"recipe": wanted.recipe} == wanted.as_dict()


# W&B's agent looks for new work every five seconds.
@pytest.mark.slow
@pytest.mark.parametrize("ours", [True, False], ids=["ff sweep", "wandb sweep"])
def test_an_agent_trains_what_the_sweep_hands_out(server, capfd, ours):
    parameters = {"layers": {"value": "784,8,4"}, "no-cuda": {"values": [True]}, "rep-epochs": {"value": 1}}
    parameters |= {"dataset": {"value": "DIGITS"}, "softmax-epochs": {"value": 1}, "seed": {"value": 4}}
    head = yaml.safe_load((ROOT / "config/sweeps/width.yaml").read_text())
    program = {"program": "Main.py"} if ours else {key: head[key] for key in ("program", "command")}
    write_text("sweep.yaml", json.dumps(program | {"method": "grid", "parameters": parameters}))
    drawn = {name: {"value": entry.get("value", True)} for name, entry in parameters.items()}
    server.commands = [{"type": "run", "run_id": "r1", "program": "ff", "args": drawn}]
    if ours:
        assert cli.main(["sweep", "sweep.yaml", "--run-agent", "--count", "1", "--entity", "team"]) == 0
    else:
        wandb = [sys.executable, "-m", "wandb"]
        subprocess.run(
            [*wandb, "sweep", "--entity", "team", "--project", "edgeff", "sweep.yaml"], timeout=60, check=True
        )
        agent = [*wandb, "agent", "--count", "1", "team/edgeff/sweep0"]
        subprocess.run(agent, env=agent_environment(), timeout=120, check=True)
    assert server.agents == {"agent0": "sweep0"}
    # A folder for each run: the next one may differ in settings that are no part of the path.
    metrics = read_json("results/sweeps/sweep0/r1/DIGITS/784-8-4/ff/seed4/metrics.json")
    assert (metrics["config"]["rep_epochs"], metrics["config"]["softmax_epochs"]) == (1, 1)
    assert server.runs["r1"]["sweep"] == "sweep0"
    out = capfd.readouterr()
    assert KEY not in out.out + out.err


def test_models_go_to_the_server_and_come_back(server, tmp_path):
    write_text("sweep.yaml", "method: grid\nparameters:\n  seed: {values: [0, 1]}\n")
    sweep_id, _ = remote.create("sweep.yaml", entity="team")
    for seed in (0, 1):
        source, _ = make_artifact(Path("made") / str(seed), seed)
        folder = Path(f"results/DIGITS/784-6-4/ff/seed{seed}")
        folder.mkdir(parents=True)
        for file in source.iterdir():
            file.rename(folder / file.name)
        run = {"name": folder.relative_to("results").as_posix(), "dataset": "DIGITS", "layers": "784-6-4"}
        run |= {"recipe": "ff", "seed": seed, "model": model_of(folder)}
        write_json(folder / "metrics.json", {"schema": 1, "run": run, "config": CONFIG | run, "results": []})
    assert [line["state"] for line in track("results")] == ["uploaded", "uploaded"]
    for run in server.runs.values():
        run["sweep"] = sweep_id
    folders = fetch.fetch_models(f"team/edgeff/sweeps/{sweep_id}", "fetched")
    assert folders == [Path(f"fetched/DIGITS/784-6-4/ff/seed{seed}") for seed in (0, 1)]
    for folder in folders:
        original = Path("results") / folder.relative_to("fetched")
        for name in ("model.safetensors", "metrics.json", "history.csv"):
            assert (folder / name).read_bytes() == (original / name).read_bytes()
    check_no_leak(server, tmp_path)


def test_offline_runs_are_uploaded_by_wandb_sync_and_then_counted(server):
    folder = make_run(Path("results"))
    (line,) = track("results", mode="offline")
    (directory,) = Path("wandb").glob("offline-run-*")
    command = [sys.executable, "-m", "wandb", "sync", str(directory)]
    subprocess.run(command, env=os.environ | {"WANDB_MODE": "online"}, timeout=60, check=True, capture_output=True)
    check_run(server, line["run_id"], folder)
    assert [line["state"] for line in track("results")] == ["unchanged"]


def test_offline_runs_are_uploaded_by_ff_track_and_wandb_sync_then_passes_over_them(server):
    folder = make_run(Path("results"))
    (first,) = track("results", mode="offline")
    (second,) = track("results")
    assert (second["state"], second["run_id"]) == ("uploaded", first["run_id"])
    check_run(server, second["run_id"], folder)
    (directory,) = Path("wandb").glob("offline-run-*")
    assert [path.name for path in directory.glob("*.synced")] == [f"run-{first['run_id']}.wandb.synced"]


def test_a_server_that_stops_answering_costs_seconds_and_the_run_is_kept_offline(server, monkeypatch):
    monkeypatch.setattr(session, "INIT_S", 2.0)
    make_run(Path("results"))
    answered = server.answer

    def stall(operation, variables):
        if operation == "UpsertBucket":
            threading.Event().wait(20)
        return answered(operation, variables)

    monkeypatch.setattr(server, "answer", stall)
    (line,) = track("results")
    assert line["state"] == "offline"
    assert "did not open the run" in line["warning"]
    assert read_json(MARKER)["mode"] == "offline"
