import json
import signal
import subprocess
import sys

import pytest
from fake_boards import SAMPLES, wait_until

from ff.errors import FFError
from ff.hardware.log import read_log
from ff.hardware.monitor import in_words, main, run
from ff.hardware.tegrastats import parse_line


def test_replay_prints_an_object_per_line(capsys):
    assert main(["--replay", str(SAMPLES)]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    lines = [line for line in SAMPLES.read_text().splitlines() if line and not line.startswith("#")]
    assert printed == [parse_line(line) for line in lines]


def test_replay_leaves_out_and_counts_what_is_not_tegrastats(tmp_path, capsys):
    path = tmp_path / "log"
    path.write_bytes(b"# comment\n\xff\xfe\x00garbage\n\n  # another\nRAM 1/2MB\r\nRAM 5/\n" + b"\0" * 100)
    assert main(["--replay", str(path)]) == 0
    out, said = capsys.readouterr()
    assert [json.loads(line)["ram_used_mb"] for line in out.splitlines()] == [1]
    assert said == f"ff: 3 of 4 lines of {path} are not tegrastats' and were left out\n"


@pytest.mark.parametrize(
    "content", [b"", b"\x7fELF\0\1\n" * 5, b"\0" * 200_000, b"version 5\n" * 20_000, b"# only this\n"]
)
def test_replay_of_another_file_is_refused(tmp_path, capsys, content):
    path = tmp_path / "log"
    path.write_bytes(content)
    assert main(["--replay", str(path)]) == 1
    out, said = capsys.readouterr()
    assert out == ""
    assert said.startswith(f"ff: {path} is no log of tegrastats")
    assert said.count("\n") == 1


def test_replay_of_a_program_is_refused(capsys):
    assert main(["--replay", sys.executable]) == 1
    assert capsys.readouterr().out == ""


def test_replay_of_what_never_ends_is_refused(capsys):
    assert main(["--replay", "/dev/zero"]) == 1
    assert "is no log of tegrastats" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["missing", "."])
def test_replay_of_what_cannot_be_read_is_one_sentence(tmp_path, capsys, name):
    assert main(["--replay", str(tmp_path / name)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("ff: cannot read")
    assert said.count("\n") == 1


def test_watching_prints_lines_and_writes_a_log(tmp_path, capsys):
    log = tmp_path / "log.jsonl"
    assert main(["--seconds", "0.3", "--interval-ms", "20", "--log", str(log)]) == 0
    out = capsys.readouterr().out
    assert "sources: psutil" in out
    assert "\x1b" not in out
    assert read_log(log)[0].samples


def test_watching_as_json(capsys):
    assert main(["--seconds", "0.3", "--interval-ms", "20", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert records[0]["kind"] == "header"
    samples = [record for record in records if record["kind"] == "sample"]
    # What the monitor itself takes follows each look at the sensors.
    assert [sample["source"] for sample in samples[:4]] == ["psutil", "monitor"] * 2
    assert all(sample["monitor_cpu_percent"] >= 0 for sample in samples if sample["source"] == "monitor")


@pytest.mark.parametrize("options", [["--interval-ms", "0"], ["--seconds", "-1"]])
def test_settings_out_of_range_are_refused(options):
    assert main(options) == 1


def test_run_raises_what_the_command_line_prints(tmp_path):
    import argparse

    from ff.hardware.monitor import add_arguments

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(FFError, match="cannot read"):
        run(parser.parse_args(["--replay", str(tmp_path / "none")]))


def monitor(*options, **settings):
    return subprocess.Popen(
        [sys.executable, "-m", "ff.hardware.monitor", "--interval-ms", "20", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **settings,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_cleanly(number):
    process = monitor()
    process.stdout.readline()
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert said == b""


@pytest.mark.parametrize("options", [["--json"], ["--replay", "-"]])
def test_a_closed_pipe_ends_it_cleanly(options):
    process = monitor(*options, stdin=subprocess.PIPE)
    if "--replay" in options:
        process.stdin.write(b"RAM 1/2MB\n" * 2000)
        process.stdin.flush()
    process.stdout.readline()
    process.stdout.close()
    if "--replay" in options:
        process.stdin.close()
    wait_until(lambda: process.poll() is not None)
    assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_reading_in_words_leaves_out_what_is_unknown():
    reading = parse_line(SAMPLES.read_text().splitlines()[3])
    text = "\n".join(in_words("tegrastats", reading))
    assert "gpu" not in in_words("tegrastats", {"gpu_percent": None, "gpu_freq_mhz": None})
    for line in SAMPLES.read_text().splitlines():
        assert "None" not in "\n".join(in_words("tegrastats", parse_line(line)))
    assert text.startswith("tegrastats")
    assert in_words("monitor", {"monitor_cpu_percent": 0.42})[1] == "  takes 0.4 % of a core"
