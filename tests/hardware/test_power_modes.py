"""Switching the power modes of a board that is not there: what was on is on again, whatever ends the work."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_nvpmodel import FakeBoard
from ff_process import ff_environment

from ff.files import read_json
from ff.hardware.power_modes import put_back, switched

WORK = """
import os, sys, time
from ff.hardware.power_modes import switched
with switched(1) as why_not:
    print(why_not, flush=True)
    time.sleep(float(sys.argv[1]))
time.sleep(60)
"""


@pytest.fixture
def board(tmp_path, monkeypatch):
    made = FakeBoard(tmp_path / "board")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


def state(board):
    path = board.state / "ff/power_mode.json"
    return read_json(path) if path.exists() else None


def test_the_block_runs_in_the_mode_and_the_one_before_is_put_back(board):
    for mode in (1, 0):
        with switched(mode) as why_not:
            assert (why_not, board.mode, state(board)) == (None, mode, {"mode": 2})
        assert (board.mode, state(board)) == (2, None)
    assert board.calls("-m") == ["-m 1", "-m 2", "-m 0", "-m 2"]


def test_an_exception_puts_it_back(board):
    with pytest.raises(ZeroDivisionError), switched(1):
        assert board.mode == 1
        raise ZeroDivisionError
    assert (board.mode, state(board)) == (2, None)


def test_nothing_is_touched_where_nothing_is_to_be_switched(board):
    with switched(None) as why_not:
        assert why_not is None
    put_back()
    assert board.calls() == []
    with switched(2) as why_not:
        assert why_not is None
    assert board.calls() == ["-q"]
    assert state(board) is None


def made_clocks(root, lowest):
    """The files of a Jetson with one core and its clocks from `lowest` to 1510400 kHz."""
    for name, text in {
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": lowest,
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1510400",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


REFUSED = [
    ({"reboot": "1\n"}, 1, "power mode 1 cannot be switched on: NVPM WARN: Reboot required for changing"),
    ({"locked": ""}, 1, "power mode 1 cannot be switched on: NVPM ERROR: failed to write PARAM GPU"),
    ({}, 7, "power mode 7 cannot be switched on: NVPM ERROR: Invalid power mode 7"),
    ({"silent": ""}, 1, "nvpmodel does not say which power mode is on: NVPM ERROR: Error opening"),
]


@pytest.mark.parametrize(("files", "mode", "text"), REFUSED, ids=lambda value: str(value)[:20])
def test_a_mode_that_cannot_be_switched_on_says_why_and_changes_nothing(board, files, mode, text):
    board.set(**files)
    with switched(mode) as why_not:
        assert why_not.startswith(text) and "\n" not in why_not
    assert (board.mode, state(board)) == (2, None)
    assert board.calls("rebooted") == []
    assert len(board.calls("-m")) == ("silent" not in files)


def test_a_machine_without_nvpmodel_says_so(board):
    (board.programs / "nvpmodel").unlink()
    with switched(1) as why_not:
        assert why_not == "this machine has no nvpmodel, which switches the power modes of a Jetson"


def test_pinned_clocks_stay_pinned(board, tmp_path):
    with switched(1, made_clocks(tmp_path / "pinned", "1510400")) as why_not:
        assert why_not.startswith("jetson_clocks has pinned the clocks")
    assert board.calls() == []
    with switched(1, made_clocks(tmp_path / "free", "729600")) as why_not:
        assert (why_not, board.mode) == (None, 1)


def test_who_is_not_root_switches_by_a_sudo_that_asks_nothing(board, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    board.set(rights="sudo")
    with switched(1) as why_not:
        assert (why_not, board.mode) == (None, 1)
    assert board.mode == 2
    board.set(password="", calls=None)
    with switched(1) as why_not:
        assert why_not.endswith("sudo: a password is required")
    assert (board.mode, board.calls()) == (2, [])
    (board.programs / "sudo").unlink()
    monkeypatch.setenv("PATH", f"{board.programs}{os.pathsep}/usr/bin{os.pathsep}/bin")
    if not Path("/usr/bin/sudo").exists():
        with switched(1) as why_not:
            assert why_not == "power mode 1 cannot be switched on: NVPM ERROR: Permission denied"


def test_without_a_place_for_its_note_nothing_is_switched(board):
    board.state.write_text("a file where a folder should be")
    with switched(1) as why_not:
        assert "which says after a kill what to put back, cannot be written" in why_not
    assert board.calls() == []


def test_two_processes_do_not_switch_at_once(board):
    (board.state / "ff").mkdir(parents=True)
    with open(board.state / "ff/power_mode.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with switched(1) as why_not:
            assert why_not == "another process measures in other power modes at this time"
        (board.state / "ff/power_mode.json").write_text('{"mode": 0}')
        put_back()
    assert (board.mode, board.calls()) == (2, [])


def test_a_mode_that_cannot_be_put_back_is_said_and_tried_again(board, capsys):
    with switched(1) as why_not:
        assert why_not is None
        board.set(locked="")
    assert (board.mode, state(board)) == (1, {"mode": 2})
    assert "ff: power mode 2, which was on before, cannot be put back: NVPM ERROR: failed" in capsys.readouterr().err
    with switched(0) as why_not:
        assert "is not on again" in why_not
    assert (board.mode, state(board)) == (1, {"mode": 2})
    board.set(locked=None)
    put_back()
    assert (board.mode, state(board)) == (2, None)


# -- what ends a process ----


def started(board, seconds=60):
    """A process that is for so many seconds in power mode 1, and a minute longer there."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORK, str(seconds)],
        env=ff_environment(**board.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "None\n"
    assert board.mode == 1
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_puts_it_back(board, number):
    process = started(board)
    process.send_signal(number)
    process.communicate(timeout=20)
    assert (board.mode, state(board)) == (2, None)
    assert process.returncode == (-number if number == signal.SIGINT else 128 + number)


def test_a_second_signal_does_not_stop_the_putting_back(board):
    process = started(board)
    board.set(slow="")
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 20
    while "-m 2" not in board.calls() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert (board.mode, state(board)) == (2, None)


def test_a_signal_while_it_is_put_back_is_not_lost(board):
    board.set(slow="")
    process = started(board, 0.0)
    deadline = time.monotonic() + 20
    while "-m 2" not in board.calls() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    assert (board.mode, state(board)) == (2, None)


def test_after_a_kill_the_next_start_puts_it_back(board, capsys):
    process = started(board)
    process.kill()
    process.communicate()
    assert (board.mode, state(board)) == (1, {"mode": 2})
    put_back()
    assert (board.mode, state(board)) == (2, None)
    assert capsys.readouterr().err == "ff: the power mode is again what it was before a measurement that was killed\n"


def test_after_a_kill_the_next_switch_starts_from_the_mode_before(board):
    process = started(board)
    process.kill()
    process.communicate()
    with switched(0):
        assert (board.mode, state(board)) == (0, {"mode": 2})
    assert (board.mode, state(board)) == (2, None)
