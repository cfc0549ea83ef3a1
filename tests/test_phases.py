"""Phase marks: whole lines on the clock of the hardware log, through crashes and restarts."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from ff.errors import FFError
from ff.phases import COLUMNS, PhaseLog, boot_id, read_phases


def test_phases_are_marked_in_order_on_the_monotonic_clock(tmp_path):
    path = tmp_path / "new" / "phases.csv"
    before, log = time.monotonic(), PhaseLog(path)
    with log.phase("load"):
        time.sleep(0.02)
    with log.phase("softmax"):
        pass
    after = time.monotonic()
    load, softmax = read_phases(path)
    assert (load.name, softmax.name) == ("load", "softmax")
    times = [
        before,
        load.start_monotonic_s,
        load.end_monotonic_s,
        softmax.start_monotonic_s,
        softmax.end_monotonic_s,
        after,
    ]
    assert times == sorted(times)
    assert load.end_monotonic_s - load.start_monotonic_s >= 0.02
    assert load.end_unix_s - load.start_unix_s >= 0.01
    assert load.boot_id == boot_id()
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)


def test_the_clock_is_that_of_every_process(tmp_path):
    log = PhaseLog(tmp_path / "phases.csv")
    with log.phase("a"):
        command = [sys.executable, "-c", "import time; print(time.monotonic())"]
        other = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    [phase] = read_phases(log.path)
    assert phase.start_monotonic_s < other < phase.end_monotonic_s


def test_seconds_add_up_over_repeated_phases(tmp_path):
    log = PhaseLog()
    for _ in range(2):
        with log.phase("a"):
            time.sleep(0.01)
    assert log.seconds["a"] >= 0.02
    assert log.seconds["never"] == 0


def test_a_phase_that_fails_is_marked_too(tmp_path):
    log = PhaseLog(tmp_path / "phases.csv")
    with pytest.raises(KeyError), log.phase("load"):
        raise KeyError
    assert [phase.name for phase in read_phases(log.path)] == ["load"]


def test_a_restart_goes_on_below_with_one_header(tmp_path):
    for name in ("load", "representation"):
        with PhaseLog(tmp_path / "phases.csv").phase(name):
            pass
    assert [phase.name for phase in read_phases(tmp_path / "phases.csv")] == ["load", "representation"]
    assert (tmp_path / "phases.csv").read_text().count("phase,") == 1


def test_a_line_cut_by_a_crash_costs_that_line_only(tmp_path):
    path = tmp_path / "phases.csv"
    for name in ("load", "representation"):
        with PhaseLog(path).phase(name):
            pass
    path.write_text(path.read_text()[:-30].rsplit(",", 2)[0])
    assert [phase.name for phase in read_phases(path)] == ["load"]
    with PhaseLog(path).phase("softmax"):
        pass
    assert [phase.name for phase in read_phases(path)] == ["load", "softmax"]


def test_marks_of_a_run_that_is_not_continued_can_be_left_out(tmp_path):
    path = tmp_path / "phases.csv"
    with PhaseLog(path).phase("old"):
        pass
    log = PhaseLog(path)
    with log.phase("load"):
        pass
    log.forget_earlier()
    with log.phase("softmax"):
        pass
    assert [phase.name for phase in read_phases(path)] == ["load", "softmax"]
    PhaseLog().forget_earlier()


def test_a_disk_that_takes_no_more_is_one_sentence():
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(FFError, match="cannot write /dev/full"), PhaseLog(full).phase("load"):
        pass
