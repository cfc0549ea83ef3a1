"""Runs mirrored while they train."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
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
    unstamped,
    wait_for,
)

from ff.cli import main
from ff.files import read_json
from ff.phases import boot_id
from ff.tracking import live, mirror, track


def test_a_live_offline_run_equals_the_files(tmp_path):
    folder = make_run(tmp_path / "results")
    with start_tracker() as tracker:
        assert tracker.mode == "offline"
        for row in unstamped(folder / "history.csv"):
            tracker.epoch(row)
        tracker.finish(folder)
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


def append(path, *records):
    """Write records, or text as it is, to the end of a hardware log."""
    with open(path, "a") as file:
        file.writelines(r if isinstance(r, str) else json.dumps(r) + "\n" for r in records)


def header(boot=None):
    return {"kind": "header", "boot_id": boot_id() if boot is None else boot}


def sample(monotonic_s, **fields):
    return {"kind": "sample", "monotonic_s": monotonic_s, "unix_s": 1e9, "source": "psutil", **fields}


def test_the_hardware_log_is_mirrored_while_the_run_trains(tmp_path, monkeypatch):
    # Nothing tells the mirror that the run has finished: what it has of the hardware, it has followed.
    monkeypatch.setattr(live, "OFFLINE_DELAY_S", 0.0)
    log = tmp_path / "hardware.jsonl"
    append(log, header("another boot"), sample(time.monotonic() + 1e6), header(), sample(time.monotonic() - 1))
    with start_tracker(hardware_log=log):
        now = time.monotonic()
        append(log, header(), {"kind": "note", "monotonic_s": now})
        append(log, sample(now, cpu_percent=[10, 30], raw="RAM"))
        append(log, sample(now + 0.5, cpu_percent=[10, 31], ram_used_mb=7))
    wait_for(lambda: any(b"exit" in p.read_bytes() for p in Path("wandb").glob("offline-run-*/logs/debug.log")))
    (directory,) = offline_directories()
    wait_for(lambda: '"type":"exit"' in read_back(directory)[5])
    _, _, history, _, _, text = read_back(directory)
    assert [row["hardware_seconds"] for row in history] == [0, pytest.approx(0.5)]
    assert [row["cpu_avg_percent"] for row in history] == [20.0, 20.5]
    assert history[1]["ram_used_mb"] == 7
    assert any('"name":"cpu_avg_percent"' in line and '"hardware_seconds"' in line for line in text.splitlines())


def times(hardware_log):
    return [record["monotonic_s"] for record in hardware_log.new_samples()]


def test_lines_are_followed_as_they_are_completed(tmp_path):
    path = tmp_path / "train.jsonl"
    followed = mirror.HardwareLog(path, 1.5)
    assert times(followed) == []
    second = json.dumps(sample(3.0))
    append(path, header(), sample(1.0), sample(2.0), "not json\n", sample(math.nan), second[:20])
    assert times(followed) == [2.0]
    append(path, second[20:])
    assert times(followed) == []
    append(path, "\n", sample(4.0))
    assert times(followed) == [3.0, 4.0]


def test_a_new_log_in_the_place_of_the_old_one_is_read_from_its_beginning(tmp_path):
    path = tmp_path / "train.jsonl"
    append(path, header(), *(sample(float(i)) for i in range(9)))
    followed = mirror.HardwareLog(path, 100.0)
    assert times(followed) == []
    path.unlink()
    assert times(followed) == []
    append(path, header(), sample(101.0))
    assert times(followed) == [101.0]


def test_samples_of_another_boot_are_not_this_runs(tmp_path):
    path = tmp_path / "train.jsonl"
    append(path, header("another"), sample(7.0), header(), sample(8.0), header("third"), sample(9.0))
    assert times(mirror.HardwareLog(path, 0.0)) == [8.0]


def test_disabled_starts_nothing(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    tracker = start_tracker(mode="disabled")
    tracker.epoch({"epoch": 1})
    tracker.finish("nowhere")
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
    tracker.finish("nowhere")
    assert any("mirror" in warning for warning in tracker.warnings)


def test_a_run_of_a_sweep_keeps_the_agents_id(monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "from-agent")
    assert start_tracker(mode="disabled").run_id == "from-agent"


SMALL = ("--dataset", "DIGITS", "--layers", "784,8,6", "--softmax-epochs", "1", "--enable-hw-monitor", "false")


def test_runs_of_an_agent_may_differ_in_what_is_no_part_of_a_path(prepared_dir, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    for run, epochs in (("a", "1"), ("b", "2")):
        monkeypatch.setenv("WANDB_RUN_ID", run)
        words = ("train", *SMALL, "--rep-epochs", epochs, "--prepared-dir", str(prepared_dir))
        assert main(words) == 0
    found = {path.parts[3]: read_json(path)["config"]["rep_epochs"] for path in Path().rglob("metrics.json")}
    assert [str(path) for path in sorted(Path("results/sweeps/s1").iterdir())] == [
        "results/sweeps/s1/a",
        "results/sweeps/s1/b",
    ]
    assert found == {"a": 1, "b": 2}


def test_a_training_that_does_not_begin_is_not_mirrored(prepared_dir, monkeypatch, capsys):
    words = ("train", *SMALL, "--prepared-dir", str(prepared_dir), "--rep-epochs")
    assert main([*words, "1", "--no-wandb"]) == 0

    def refuse(*_, **__):
        raise AssertionError("a mirror was opened")

    monkeypatch.setattr(live, "open_tracker", refuse)
    assert main([*words, "1"]) == 0
    assert main([*words, "2"]) == 1
    assert "holds a finished run with other settings (rep_epochs is 1 there, not 2)" in capsys.readouterr().err


def test_live_with_unreachable_wandb_warns_and_keeps_the_run_offline(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "results")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", NOWHERE)
    monkeypatch.setattr(live, "ONLINE_WAIT_S", 60.0)
    with start_tracker() as tracker:
        assert tracker.mode == "online"
        tracker.finish(folder)
    assert any("cannot be reached" in warning and "ff track" in warning for warning in tracker.warnings)
    assert KEY not in " ".join(tracker.warnings)
    assert read_json(tmp_path / "results/.tracked" / RUN["name"] / "train.json")["mode"] == "offline"
    (directory,) = offline_directories()
    check_training_run(directory, folder, expected_id=tracker.run_id)
    assert leaks(tmp_path) == []
