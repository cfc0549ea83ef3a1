"""Phase marks: whole lines on the clock of the hardware log, through crashes and restarts."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from ff_process import ff_environment

from ff.errors import FFError
from ff.phases import COLUMNS, PhaseLog, boot_id, model_of_phases, read_phases


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
    assert log.seconds("a") >= 0.02
    assert log.seconds("never") == 0


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


def test_a_job_goes_on_after_the_marks_that_count_and_forgets_the_others(tmp_path):
    path = tmp_path / "phases.csv"
    first = PhaseLog(path)
    for name in ("import", "representation", "representation"):
        with first.phase(name):
            pass
    counting = first.rows[:2]
    second = PhaseLog(path)
    with second.phase("import"):
        pass
    second.continue_after(counting)
    with second.phase("softmax"):
        pass
    assert read_phases(path) == second.rows
    assert [phase.name for phase in second.rows] == ["import", "representation", "import", "softmax"]
    assert [[row.name for row in stretch] for stretch in second.stretches()] == [
        ["import", "representation"],
        ["import", "softmax"],
    ]
    assert second.seconds("import") == sum(row.seconds for row in (counting[0], second.rows[2]))
    PhaseLog().continue_after([])


def test_a_process_knows_when_it_started():
    code = "import time; time.sleep(0.3); from ff.phases import process_start_s; print(process_start_s())"
    before = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ff_environment()
    )
    started = float(done.stdout)
    # The kernel counts in hundredths of a second.
    assert before - 0.02 <= started <= time.monotonic() - 0.3


def test_marks_carry_the_stamp_of_the_model(tmp_path):
    log = PhaseLog(tmp_path / "early.csv")
    with log.phase("load"):
        pass
    assert model_of_phases(log.path) is None
    log.write(tmp_path / "phases.csv", "0123456789abcdef")
    assert model_of_phases(tmp_path / "phases.csv") == "0123456789abcdef"
    assert read_phases(tmp_path / "phases.csv") == log.rows
    assert model_of_phases(tmp_path / "nowhere.csv") is None


def test_a_disk_that_takes_no_more_is_one_sentence():
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(FFError, match="cannot write /dev/full"), PhaseLog(full).phase("load"):
        pass
