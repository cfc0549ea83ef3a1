import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_boards import FakeTree, follow_curve, install_fake_tegrastats, wait_until

from ff.hardware.log import read_log
from ff.hardware.summary import summarise


@pytest.fixture
def board(tmp_path):
    """A Jetson whose tegrastats writes its process id beside the log."""
    root = tmp_path / "root"
    FakeTree(root, "Orin Nano")
    tell = f"open({str(tmp_path / 'tegrastats.pid')!r}, 'w').write(str(os.getpid()))\n"
    install_fake_tegrastats(root / "usr/bin", tell + follow_curve("Orin Nano"))
    return root


def command(tmp_path, board, *more):
    return [
        *(sys.executable, "-m", "ff.hardware.sidecar", "--ready", str(tmp_path / "run/ready")),
        *("--log", str(tmp_path / "logs/log.jsonl"), "--interval-ms", "20", "--root", str(board), *more),
    ]


def samples(tmp_path):
    attempts = read_log(tmp_path / "logs/log.jsonl")
    return attempts[-1].samples if attempts else []


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def child_pid(tmp_path):
    path = tmp_path / "tegrastats.pid"
    return int(wait_until(lambda: path.exists() and path.read_text()))


def test_it_says_that_it_runs_and_ends_on_sigterm_with_a_log_that_says_so(tmp_path, board):
    process = subprocess.Popen(command(tmp_path, board))
    wait_until((tmp_path / "run/ready").exists)
    wait_until(lambda: len(samples(tmp_path)) > 3)
    tegrastats = child_pid(tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    assert not alive(tegrastats)
    summary = summarise(tmp_path / "logs/log.jsonl")
    assert summary["samples"] > 3
    assert summary["attempts"][0]["ended"] == "ended by SIGTERM"
    assert summary["attempts"][0]["mode"] == "service"


def test_sigterm_before_anything_else_ends_it_with_status_0(tmp_path, board):
    process = subprocess.Popen(command(tmp_path, board))
    wait_until((tmp_path / "run/ready").exists)
    wait_until(lambda: "SIGTERM" in signals_caught(process.pid))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0


def signals_caught(pid):
    with open(f"/proc/{pid}/status") as file:
        mask = next((int(line.split()[1], 16) for line in file if line.startswith("SigCgt")), 0)
    return {number.name for number in signal.Signals if mask >> (number - 1) & 1}


def test_sigkill_leaves_whole_lines_and_no_child(tmp_path, board):
    process = subprocess.Popen(command(tmp_path, board))
    wait_until(lambda: len(samples(tmp_path)) > 3)
    tegrastats = child_pid(tmp_path)
    process.kill()
    process.wait(timeout=20)
    wait_until(lambda: not alive(tegrastats))
    for line in (tmp_path / "logs/log.jsonl").read_text().splitlines():
        json.loads(line)
    assert read_log(tmp_path / "logs/log.jsonl")[0].notes == []


PARENT = """
import subprocess, sys, threading, time
def start():
    child = subprocess.Popen(sys.argv[2:])
    open(sys.argv[1], "w").write(str(child.pid))
thread = threading.Thread(target=start)
thread.start()
thread.join()
time.sleep(600)
"""


def test_it_outlives_the_thread_that_started_it_but_not_the_process(tmp_path, board):
    """Snakemake starts jobs from threads, and the kernel's signal at the parent's death means the thread."""
    told = tmp_path / "sidecar.pid"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(told), *command(tmp_path, board)])
    pid = int(wait_until(lambda: told.exists() and told.read_text()))
    wait_until(lambda: len(samples(tmp_path)) > 3)
    seen = len(samples(tmp_path))
    wait_until(lambda: len(samples(tmp_path)) > seen + 3)
    tegrastats = child_pid(tmp_path)
    parent.kill()
    parent.wait(timeout=20)
    wait_until(lambda: not alive(pid))
    wait_until(lambda: not alive(tegrastats))
    notes = read_log(tmp_path / "logs/log.jsonl")[0].notes
    assert notes[-1]["text"] == "the parent process is gone"


# Starts what follows by a shell that waits until this process is gone, and is gone: so it is while Python starts.
DYING = """
import os, subprocess, sys
wait = 'while kill -0 "$0" 2>/dev/null; do sleep 0.01; done; exec "$@"'
words = [str(os.getpid()) if word == "PARENT" else word for word in sys.argv[2:]]
child = subprocess.Popen(["bash", "-c", wait, str(os.getpid()), *words], stderr=open(sys.argv[1] + ".said", "w"))
open(sys.argv[1], "w").write(str(child.pid))
os._exit(0)
"""

# Takes over the orphans of what it starts (PR_SET_CHILD_SUBREAPER, prctl(2)), as systemd does for a user.
REAPER = """
import ctypes, subprocess, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
subprocess.run(sys.argv[1:])
time.sleep(600)
"""


def ends_without_a_log(tmp_path, starter):
    told = tmp_path / "sidecar.pid"
    pid = int(wait_until(lambda: told.exists() and told.read_text()))
    try:
        wait_until(lambda: not alive(pid))
    finally:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
        starter.kill()
        starter.wait()
    assert "the process that asked for it is gone" in (tmp_path / "sidecar.pid.said").read_text()
    assert not (tmp_path / "logs/log.jsonl").exists()
    assert not (tmp_path / "run/ready").exists()


def test_a_parent_that_dies_while_python_starts_leaves_nothing_running(tmp_path, board):
    starter = [sys.executable, "-c", DYING, str(tmp_path / "sidecar.pid"), *command(tmp_path, board)]
    # In a session of its own, so that whoever takes over the orphan is in another.
    process = subprocess.Popen(starter, start_new_session=True)
    process.wait()
    ends_without_a_log(tmp_path, process)


def test_nor_does_one_whose_orphans_are_taken_over_by_a_process_like_itself(tmp_path, board):
    starter = [sys.executable, "-c", DYING, str(tmp_path / "sidecar.pid")]
    words = [*starter, *command(tmp_path, board, "--parent", "PARENT")]
    ends_without_a_log(tmp_path, subprocess.Popen([sys.executable, "-c", REAPER, *words]))


def test_a_parent_that_dies_before_the_kernel_is_asked_to_tell(tmp_path, board):
    dies = (
        "import os, sys\nfrom ff.hardware import sidecar\n"
        "sidecar.signal_parents_death = lambda number: setattr(os, 'getppid', lambda: 1)\n"
        "sys.exit(sidecar.main(sys.argv[1:]))\n"
    )
    words = command(tmp_path, board, "--parent", str(os.getpid()))[3:]
    assert subprocess.run([sys.executable, "-c", dies, *words], timeout=60).returncode == 0
    assert not (tmp_path / "logs/log.jsonl").exists()


def test_the_parent_that_it_is_told_of_is_its_own(tmp_path, board):
    process = subprocess.Popen(command(tmp_path, board, "--parent", str(os.getpid())))
    wait_until(lambda: len(samples(tmp_path)) > 3)
    process.terminate()
    assert process.wait(timeout=20) == 0


def test_a_full_disk_stops_the_log_and_not_the_sidecar(tmp_path, board):
    limit = 20000
    process = subprocess.Popen(
        command(tmp_path, board),
        stderr=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    log = tmp_path / "logs/log.jsonl"
    wait_until(lambda: log.exists() and log.stat().st_size == limit)
    time.sleep(0.1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert said.decode().count("cannot be written") == 1
    assert len(samples(tmp_path)) > 3


def test_a_full_file_system(tmp_path, board):
    disk = tmp_path / "logs"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    process = subprocess.Popen(command(tmp_path, board), stderr=subprocess.PIPE)
    try:
        assert b"No space left on device" in process.stderr.readline()
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0
        assert len(samples(tmp_path)) > 3
    finally:
        process.kill()
        process.wait()
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_nowhere_to_write_and_no_sensor(tmp_path):
    (tmp_path / "file").write_text("")
    where = str(tmp_path / "file")
    arguments = ["--ready", f"{where}/ready", "--log", f"{where}/log"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ff.hardware.sidecar", *arguments, "--root", str(tmp_path)],
        stderr=subprocess.PIPE,
    )
    assert b"cannot be written" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert b"Traceback" not in said


def test_exec_from_a_shell_is_the_process_that_gets_the_signal(tmp_path, board):
    line = "exec " + " ".join(command(tmp_path, board))
    process = subprocess.Popen(["bash", "-c", line])
    wait_until(lambda: len(samples(tmp_path)) > 3)
    assert Path(f"/proc/{process.pid}/exe").resolve() == Path(sys.executable).resolve()
    process.terminate()
    assert process.wait(timeout=20) == 0
