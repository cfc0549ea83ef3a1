"""Runs mirrored while they train."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from wandb_runs import (
    CONFIG,
    KEY,
    NOWHERE,
    ROOT,
    RUN,
    check_training_run,
    leaks,
    make_run,
    offline_directories,
    read_back,
    start_tracker,
    wait_for,
)

from ff.files import read_csv, read_json
from ff.tracking import live, mirror, track


def test_a_live_offline_run_equals_the_files(tmp_path):
    folder = make_run(tmp_path / "results")
    with start_tracker() as tracker:
        assert tracker.mode == "offline"
        for row in read_csv(folder / "history.csv"):
            tracker.epoch(row)
        tracker.finish(read_json(folder / "metrics.json"), folder / "model.safetensors")
    marker = tmp_path / "results/.tracked" / RUN["name"] / "train.json"
    wait_for(marker.is_file)
    (directory,) = offline_directories()
    assert Path(read_json(marker)["directory"]) == directory.resolve()
    assert directory.name.endswith(tracker.run_id)
    check_training_run(directory, folder, expected_id=tracker.run_id)
    # What was mirrored live is not mirrored again.
    assert [line["state"] for line in track(tmp_path / "results")] == ["unchanged"]


def test_a_killed_training_keeps_its_epochs(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "OFFLINE_DELAY_S", 0.0)
    script = (
        "import json, os, signal, time\n"
        "from ff.tracking import live, open_tracker\n"
        "live.OFFLINE_DELAY_S = 0.0\n"
        f"tracker = open_tracker(config={CONFIG!r})\n"
        "for epoch in range(1, 6):\n"
        "    tracker.epoch({'phase': 'representation', 'epoch': epoch, 'loss': 1 / epoch})\n"
        "time.sleep(0.5)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    wait_for(lambda: any(b"exit" in p.read_bytes() for p in Path("wandb").glob("offline-run-*/logs/debug.log")))
    (directory,) = offline_directories()
    wait_for(lambda: '"type":"exit"' in read_back(directory)[5])
    _, _, history, _, _, text = read_back(directory)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert '"exit_code":1' in text


def test_live_hardware_samples_have_their_own_step(tmp_path):
    folder = make_run(tmp_path / "results")
    with start_tracker() as tracker:
        tracker.hardware({"kind": "note", "monotonic_s": 49.0})
        for i in range(2):
            tracker.hardware({"kind": "sample", "monotonic_s": 50.0 + i, "cpu_percent": [10, 30 + i], "raw": "RAM"})
        tracker.finish(read_json(folder / "metrics.json"), folder / "model.safetensors")
    wait_for((tmp_path / "results/.tracked" / RUN["name"] / "train.json").is_file)
    _, _, history, _, _, text = read_back(offline_directories()[0])
    rows = [row for row in history if "hardware_seconds" in row]
    assert [row["hardware_seconds"] for row in rows] == [0, 1], "the file's samples are older than those told live"
    assert [row["cpu_avg_percent"] for row in rows] == [20.0, 20.5]
    assert '"name":"cpu_avg_percent"' in text


def test_disabled_starts_nothing(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    tracker = start_tracker(mode="disabled")
    tracker.epoch({"epoch": 1})
    tracker.hardware({"monotonic_s": 1.0})
    tracker.finish({}, "nowhere/model.safetensors")
    assert threading.active_count() >= 1
    assert not Path("wandb").exists()


def test_tracking_imports_neither_wandb_nor_torch():
    code = (
        "import sys\n"
        "from ff.tracking import live, open_tracker\n"
        "t = open_tracker(mode='disabled')\n"
        "t = open_tracker()\n"
        "t.epoch({'epoch': 1})\n"
        "print(sorted({'wandb', 'torch', 'pandas'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert out.stdout.strip() == "[]"


def test_a_tracker_never_raises_into_the_run(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    tracker = start_tracker()
    tracker.epoch({"epoch": object()})
    tracker.epoch({1: {2: {3}}})
    tracker.finish({"run": None}, "nowhere/model.safetensors")
    assert any("mirror" in warning for warning in tracker.warnings)


def test_the_sidecars_log_is_followed(tmp_path):
    log = tmp_path / "train.jsonl"
    lines: mirror.queue.SimpleQueue = mirror.queue.SimpleQueue()
    first, second = ({"kind": "sample", "monotonic_s": float(i), "ram_used_mb": i} for i in (2, 3))
    text = json.dumps(second)
    log.write_text(
        f'{{"kind": "header"}}\n{{"kind": "sample", "monotonic_s": 1.0}}\n{json.dumps(first)}\nnot json\n{text[:20]}'
    )
    threading.Thread(target=mirror._follow, args=(log, lines, 1.5), daemon=True).start()
    assert json.loads(lines.get(timeout=20)) == {"hardware": first}
    with open(log, "a") as file:
        file.write(text[20:] + "\n")
    assert json.loads(lines.get(timeout=20)) == {"hardware": second}


def test_a_run_of_a_sweep_keeps_the_agents_id(monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "from-agent")
    assert start_tracker(mode="disabled").run_id == "from-agent"


def test_live_with_unreachable_wandb_warns_and_keeps_the_run_offline(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "results")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", NOWHERE)
    monkeypatch.setattr(live, "ONLINE_WAIT_S", 60.0)
    with start_tracker() as tracker:
        assert tracker.mode == "online"
        tracker.finish(read_json(folder / "metrics.json"), folder / "model.safetensors")
    assert any("cannot be reached" in warning and "ff track" in warning for warning in tracker.warnings)
    assert KEY not in " ".join(tracker.warnings)
    assert read_json(tmp_path / "results/.tracked" / RUN["name"] / "train.json")["mode"] == "offline"
    (directory,) = offline_directories()
    check_training_run(directory, folder, expected_id=tracker.run_id)
    assert leaks(tmp_path) == []
