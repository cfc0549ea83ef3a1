"""Work in a fork: what it leaves behind, what its failure looks like, and that it ends with who waits for it."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from ff.errors import FFError
from ff.measure.apart import apart

LEFT = []


def leave_something(path):
    LEFT.append(os.getpid())
    path.write_text(str(os.getpid()))


def refuse(text):
    raise FFError(text)


def end(number):
    os.kill(os.getpid(), number)


def test_nothing_is_left_in_the_process_that_asks(tmp_path):
    for name in ("first", "second"):
        apart(leave_something, tmp_path / name)
    pids = [int((tmp_path / name).read_text()) for name in ("first", "second")]
    assert LEFT == []
    assert os.getpid() not in pids
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_what_goes_wrong_is_raised_here():
    with pytest.raises(FFError, match="no such batch"):
        apart(refuse, "no such batch")
    with pytest.raises(FFError, match="killed, for lack of memory perhaps"):
        apart(end, signal.SIGKILL)


def test_the_fork_ends_with_the_process_that_waits_for_it(tmp_path):
    code = (
        "import os, sys, time\nfrom ff.measure.apart import apart\n"
        "def work(path):\n    open(path, 'w').write(str(os.getpid()))\n    time.sleep(60)\n"
        f"apart(work, {str(tmp_path / 'new')!r})"
    )
    waiting = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 30
    while not ((tmp_path / "new").exists() and (tmp_path / "new").read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    fork = psutil.Process(int((tmp_path / "new").read_text()))
    waiting.kill()
    waiting.wait()
    assert psutil.wait_procs([fork], timeout=10)[1] == []
