import json
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest
from fake_boards import (
    BOARDS,
    FakeTree,
    Following,
    curve_mj,
    follow_curve,
    install_fake_tegrastats,
    tegrastats_line,
    total_name,
    total_share,
    wait_until,
)

from ff.hardware import SensorMissing, recorder
from ff.hardware import log as log_file
from ff.hardware.ina3221 import Ina3221
from ff.hardware.log import read_log
from ff.hardware.recorder import Recorder, record
from ff.hardware.sources import Choice, choose
from ff.hardware.summary import summarise
from ff.hardware.tegrastats import Tegrastats
from ff.phases import PhaseLog, read_phases


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(recorder, "RETRY_S", (0.05,))


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def events(path):
    return [(record["source"], record["event"]) for record in records(path) if record["kind"] == "note"]


def samples(path):
    return [record for record in records(path) if record["kind"] == "sample"]


class Scripted:
    """A source that answers as told: a reading, or an exception to raise."""

    name, fd, method, period_s = "scripted", None, "as told", 0.01

    def __init__(self, answers):
        self.answers = list(answers)
        self.opened = 0

    def open(self):
        self.opened += 1

    def sample(self):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return [answer]

    def close(self):
        pass


def run_boards(tmp_path, recorders):
    """Record all boards at once through one phase; returns nothing, the logs lie in tmp_path."""
    phases = PhaseLog(tmp_path / "phases.csv")
    for one in recorders:
        one.start()
    wait_until(lambda: all(len(samples(tmp_path / f"{board}.jsonl")) > 3 for board in BOARDS))
    with phases.phase("representation"):
        time.sleep(1.6)
    time.sleep(0.1)
    for one in recorders:
        one.finish()


def check_energy(tmp_path, board, source):
    summary = summarise(tmp_path / f"{board}.jsonl", tmp_path / "phases.csv", tmp_path / f"{board}.csv")
    assert summary["sources"]["used"] == [source]
    (phase,) = read_phases(tmp_path / "phases.csv")
    start, end = phase.start_monotonic_s, phase.end_monotonic_s
    energy = summary["energy"]["representation"]
    assert energy["seconds"] == pytest.approx(end - start, abs=0.001)
    total = energy["total"]
    assert total["rail"] == total_name(board)
    assert total["gross_mj"] == pytest.approx(total_share(board) * curve_mj(start, end), rel=0.01)
    for _, label, share in BOARDS[board][1]:
        if label != "NC" and share > 0.04:  # smaller ones are dominated by the rounding to mW and mA
            assert energy["rails"][label]["gross_mj"] == pytest.approx(share * curve_mj(start, end), rel=0.02)


def test_energy_of_a_known_curve_through_power_monitors(tmp_path):
    trees = [FakeTree(tmp_path / board, board) for board in BOARDS]
    # Slow enough that a busy test machine leaves no gap of three intervals.
    recorders = [
        Recorder(tmp_path / f"{board}.jsonl", 60, tmp_path / board, choice=Choice([Ina3221(tmp_path / board)], []))
        for board in BOARDS
    ]
    with Following(trees):
        run_boards(tmp_path, recorders)
    for board in BOARDS:
        check_energy(tmp_path, board, "ina3221")


def test_energy_of_a_known_curve_through_tegrastats(tmp_path):
    recorders = []
    for board in BOARDS:
        root = tmp_path / board
        FakeTree(root, board)
        install_fake_tegrastats(root / "usr/bin", follow_curve(board))
        recorders.append(Recorder(tmp_path / f"{board}.jsonl", 100, root))
    run_boards(tmp_path, recorders)
    for board in BOARDS:
        check_energy(tmp_path, board, "tegrastats")
        raw = samples(tmp_path / f"{board}.jsonl")[0]["raw"]
        assert raw.startswith("RAM 613/3964MB (lfb 634x4MB)")


def test_the_log_begins_with_what_the_machine_is(tmp_path):
    log = tmp_path / "sub" / "log.jsonl"
    choice = Choice([Scripted([{"cpu_percent": [1.0]}]), *choose(20, tmp_path).first], [])
    with record(log, 20, choice=choice) as one:
        assert isinstance(one, Recorder)
        wait_until(lambda: len(samples(log)) > 2)
    header = records(log)[0]
    assert header["kind"] == "header"
    assert header["interval_ms"] == 20
    assert header["pid"] == os.getpid()
    assert header["machine"]["kernel"]
    assert header["sources"]["used"] == ["scripted"]
    assert header["sources"]["missing"][0]["source"] == "rapl"
    assert records(log)[-1]["event"] == "end"
    stamps = [sample["monotonic_s"] for sample in samples(log)]
    assert stamps == sorted(stamps)


def test_no_sensor_at_all_is_no_error(tmp_path):
    log = tmp_path / "log.jsonl"
    with record(log, 10, choice=Choice([], [])):
        wait_until(lambda: records(log))
    assert [entry["kind"] for entry in records(log)] == ["header", "note"]
    assert summarise(log)["samples"] == 0


def test_what_the_job_raises_passes_through(tmp_path):
    with pytest.raises(KeyError, match="mine"), record(tmp_path / "log.jsonl", 10, choice=Choice([], [])):
        raise KeyError("mine")


def test_a_log_that_cannot_be_written_does_not_harm_the_job(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "log.jsonl", "/dev/full", tmp_path):
        with record(path, 5, choice=Choice([Scripted([{"cpu_percent": [1.0]}])], [])):
            time.sleep(0.05)
        said = capfd.readouterr().err
        assert said.count("cannot be written") == 1
        assert str(path) in said


def test_a_broken_choice_of_sources_does_not_harm_the_job(tmp_path, capfd):
    with record(tmp_path / "log.jsonl", choice="nonsense"):
        pass
    assert "the hardware log ends" in capfd.readouterr().err


def test_a_sensor_that_vanishes_and_comes_back(tmp_path):
    tree = tmp_path / "tree"
    FakeTree(tree, "Orin Nano")
    log = tmp_path / "log.jsonl"
    with record(log, 10, choice=Choice([Ina3221(tree)], [])):
        wait_until(lambda: samples(log))
        (tree / "sys").rename(tmp_path / "away")
        wait_until(lambda: ("ina3221", "lost") in events(log))
        before = len(samples(log))
        (tmp_path / "away").rename(tree / "sys")
        wait_until(lambda: ("ina3221", "recovered") in events(log) and len(samples(log)) > before)
    assert events(log)[-1] == (None, "end")


def test_a_sensor_that_answers_with_an_error(tmp_path):
    source = Scripted([{"power_mw": {"VDD_IN": 1.0}}, OSError(5, "Input/output error")])
    log = tmp_path / "log.jsonl"
    other = Scripted([{"cpu_percent": [1.0]}])
    other.name = "other"
    with record(log, 10, choice=Choice([source, other], [])):
        wait_until(lambda: source.opened > 3)
    assert ("scripted", "lost") in events(log)
    assert "Input/output error" in log.read_text()
    assert len([sample for sample in samples(log) if sample["source"] == "other"]) > 3


@pytest.mark.parametrize(
    "answer", [ValueError("odd"), RuntimeError(), MemoryError(), {"power_mw": {"A": float("nan")}}]
)
def test_a_source_that_misbehaves_is_survived(tmp_path, answer):
    log = tmp_path / "log.jsonl"
    with record(log, 10, choice=Choice([Scripted([{"cpu_percent": [1.0]}, answer])], [])):
        wait_until(lambda: len(events(log)) + len(samples(log)) > 4)
    for line in log.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_a_hanging_sensor_does_not_hold_up_the_job(tmp_path):
    release = threading.Event()

    class Hanging(Scripted):
        def sample(self):
            release.wait()
            return []

    one = Recorder(tmp_path / "log.jsonl", 10, choice=Choice([Hanging([{}])], []))
    one.start()
    wait_until(lambda: records(tmp_path / "log.jsonl"))
    one.finish(timeout_s=0.05)
    release.set()


def fake_jetson(tmp_path, body, board="Xavier NX"):
    root = tmp_path / "root"
    FakeTree(root, board)
    if body is not None:
        install_fake_tegrastats(root / "usr/bin", body)
    return root


LINE = tegrastats_line("Xavier NX", 4000.0)


def test_garbage_half_way(tmp_path):
    body = (
        f"say({LINE!r})\nos.write(1, b'\\x00\\xff\\xfe(((\\n')\nsay('Segmentation fault')\n"
        f"while True:\n    say({LINE!r})\n    time.sleep(0.01)\n"
    )
    log = tmp_path / "log.jsonl"
    with record(log, 20, root=fake_jetson(tmp_path, body)):
        wait_until(lambda: len(samples(log)) > 5)
    assert events(log).count(("tegrastats", "garbage")) == 1
    read = samples(log)
    assert read[1]["raw"] == "\0\ufffd\ufffd((("
    assert read[1]["power_mw"] == {}
    assert read[-1]["power_mw"]["VDD_IN"] == 4000


def test_a_flood_is_stopped(tmp_path):
    log = tmp_path / "log.jsonl"
    with record(log, 20, root=fake_jetson(tmp_path, "while True:\n    os.write(1, b'y\\n' * 30000)\n")):
        wait_until(lambda: ("tegrastats", "lost") in events(log))
    assert len(samples(log)) < 1000


@pytest.mark.parametrize(
    ("body", "event"),
    [
        (f"say({LINE!r})\ntime.sleep(60)\n", "silent"),
        (f"say({LINE!r})\nsys.exit(3)\n", "lost"),
        ("sys.exit(1)\n", "lost"),
    ],
)
def test_power_monitors_take_over_from_a_tegrastats_that_fails(tmp_path, body, event):
    root = fake_jetson(tmp_path, body)
    log = tmp_path / "log.jsonl"
    one = Recorder(log, 20, root, silent_after_s=0.15)
    one.start()
    wait_until(lambda: ("tegrastats", event) in events(log))
    wait_until(lambda: any(sample["source"] == "ina3221" for sample in samples(log)))
    one.finish()
    rails = {rail for sample in samples(log) for rail in sample["power_mw"]}
    assert rails == {"VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"}


def test_power_monitors_help_a_tegrastats_without_power(tmp_path):
    """Early releases print no rails without root."""
    body = "while True:\n    say('RAM 1/2MB CPU [1%@2]')\n    time.sleep(0.01)\n"
    log = tmp_path / "log.jsonl"
    with record(log, 20, root=fake_jetson(tmp_path, body)):
        wait_until(lambda: {sample["source"] for sample in samples(log)} == {"tegrastats", "ina3221"})


def test_a_jetson_without_tegrastats_is_read_by_its_power_monitors(tmp_path):
    log = tmp_path / "log.jsonl"
    with record(log, 20, root=fake_jetson(tmp_path, None)):
        wait_until(lambda: samples(log))
    sources = records(log)[0]["sources"]
    assert sources["used"] == ["ina3221"]
    assert sources["missing"][0]["source"] == "tegrastats"


def test_a_program_that_does_not_start_is_a_missing_sensor(tmp_path):
    program = tmp_path / "usr/bin/tegrastats"
    program.parent.mkdir(parents=True)
    program.write_bytes(b"\x7fELF not really")
    program.chmod(0o755)
    with pytest.raises(SensorMissing, match="does not start"):
        Tegrastats(20, tmp_path).open()


def test_a_retry_keeps_what_the_attempt_before_left(tmp_path):
    log = tmp_path / "log.jsonl"
    choice = Choice([Scripted([{"power_mw": {"VDD_IN": 5.0}}])], [])
    for _ in range(2):
        before = len(samples(log)) if log.exists() else 0
        with record(log, 10, choice=choice):
            wait_until(lambda before=before: len(samples(log)) > before + 2)
        # A kill can cut the last line; the next attempt begins a line of its own.
        shutil.copy(log, tmp_path / "whole.jsonl")
    with open(log, "a") as file:
        file.write('{"kind": "sample", "monotonic_s": 1')
    with record(log, 10, choice=choice):
        wait_until(lambda: len(read_log(log)) == 3 and len(read_log(log)[-1].samples) > 2)
    attempts = read_log(log)
    assert len(attempts) == 3
    assert all(len(attempt.samples) > 2 for attempt in attempts)
    assert len(summarise(log)["attempts"]) == 3


def test_writing_goes_on_when_the_disk_has_room_again(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(log_file, "DISK_RETRY_S", 0.0)
    real = os.write
    full = threading.Event()

    def write(descriptor, data):
        if full.is_set() and len(data) > 1:
            real(descriptor, data[:3])
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(log_file.os, "write", write)
    log = tmp_path / "log.jsonl"
    with record(log, 10, choice=Choice([Scripted([{"cpu_percent": [1.0]}])], [])):
        wait_until(lambda: log.exists() and read_log(log) and read_log(log)[0].samples)
        full.set()
        time.sleep(0.05)
        before = len(read_log(log)[0].samples)
        full.clear()
        wait_until(lambda: len(read_log(log)[0].samples) > before)
    said = capfd.readouterr().err
    assert "No space left on device" in said
    assert "written again" in said


def test_the_recorder_is_light():
    """A sidecar must be there before the job, and a job must not pay for imports it does not need."""
    code = (
        "import sys, ff.hardware.recorder, ff.hardware.sidecar, ff.hardware.summary; "
        "print([m for m in ('torch', 'numpy', 'pandas', 'psutil', 'pynvml') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
