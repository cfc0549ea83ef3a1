"""Idle windows: only where power can be read, marked as phases, and worth the same whoever records the samples."""

import time

import pytest
from fake_boards import FakeTree, Following, wait_until

from ff.hardware import idle
from ff.hardware.idle import idle_window
from ff.hardware.ina3221 import Ina3221
from ff.hardware.log import read_log
from ff.hardware.recorder import Recorder
from ff.hardware.sources import Choice
from ff.hardware.summary import summarise
from ff.phases import IDLE_AFTER, IDLE_BEFORE, PhaseLog, read_phases


def test_without_a_sensor_nothing_is_waited_for_and_nothing_marked(tmp_path):
    slept = []
    phases = PhaseLog(tmp_path / "phases.csv")
    assert not idle_window(phases, IDLE_BEFORE, 5.0, tmp_path, slept.append)
    assert slept == []
    assert phases.rows == []


def test_a_window_is_a_phase_of_its_length_after_the_sensor_has_settled(tmp_path):
    FakeTree(tmp_path, "Orin Nano")
    phases, marks = PhaseLog(tmp_path / "phases.csv"), []

    def sleep(seconds):
        marks.append((seconds, len(phases.rows)))

    assert idle_window(phases, IDLE_BEFORE, 5.0, tmp_path, sleep)
    assert idle_window(phases, IDLE_AFTER, 5.0, tmp_path, sleep)
    assert [seconds for seconds, _ in marks] == [1.0, 5.0, 1.0, 5.0]
    assert [row.name for row in read_phases(tmp_path / "phases.csv")] == ["idle_before", "idle_after"]


def test_a_slow_sensor_settles_for_two_periods(tmp_path, monkeypatch):
    monkeypatch.setattr(Ina3221, "period_s", 3.0)
    FakeTree(tmp_path, "Nano")
    slept = []
    idle_window(PhaseLog(), IDLE_BEFORE, 5.0, tmp_path, slept.append)
    assert slept == [6.0, 5.0]


def test_no_seconds_are_no_window(tmp_path, monkeypatch):
    monkeypatch.setattr(idle, "open_power_source", lambda root: pytest.fail("the sensors were looked for"))
    assert not idle_window(PhaseLog(), IDLE_BEFORE, 0.0, tmp_path)


@pytest.mark.parametrize("mode", ["inline", "service"])
def test_the_process_that_measures_makes_the_baseline(tmp_path, mode):
    """The board idles at 8 W, and works at 12 W; what came before the windows is busy, too."""
    power = {"now": 12000.0}
    tree = FakeTree(tmp_path / "board", "Orin Nano")
    tree_power = pytest.MonkeyPatch()
    tree_power.setattr("fake_boards.curve_mw", lambda now: power["now"])
    phases, log = PhaseLog(tmp_path / "phases.csv"), tmp_path / "log.jsonl"
    recorder = Recorder(log, 20, tmp_path / "board", mode, Choice([Ina3221(tmp_path / "board")], []))

    def rest(name):
        power["now"] = 8000.0
        assert idle_window(phases, name, 3.0, tmp_path / "board", lambda seconds: time.sleep(seconds / 8))
        power["now"] = 12000.0
        time.sleep(0.05)

    with Following([tree]):
        recorder.start()
        wait_until(lambda: read_log(log) and len(read_log(log)[0].samples) > 5)
        rest(IDLE_BEFORE)
        with phases.phase("representation"):
            time.sleep(0.4)
        rest(IDLE_AFTER)
        recorder.finish()
    tree_power.undo()
    summary = summarise(log, tmp_path / "phases.csv")
    assert summary["idle"]["total"]["power_mw"] == pytest.approx(8000, rel=0.01)
    work = summary["energy"]["representation"]
    assert work["total"]["net_mj"] == pytest.approx(4000 * work["seconds"], rel=0.05)
    assert summary["idle"]["windows"] == 2
