"""Who else runs: other recorders of this machine, also after kills, and other processes on a GPU."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_boards import wait_until
from fake_nvml import FakeNvml, Gpu

from ff.hardware import sharing
from ff.hardware.log import read_log
from ff.hardware.nvml import Nvml
from ff.hardware.recorder import Recorder
from ff.hardware.sharing import Job, Presence, Watch, beside, foreign
from ff.hardware.sources import Choice


def entered(root, name, pid=0, workflow=None):
    presence = Presence(root)
    presence.enter(Job(name, pid, workflow))
    return presence


def test_recorders_see_each_other_while_they_run(tmp_path):
    first = entered(tmp_path, "a", 11)
    assert first.others() == []
    second = entered(tmp_path, "b", 12, 7)
    assert first.others() == [Job("b", 12, 7)]
    assert second.others() == [Job("a", 11)]
    assert sorted(Presence(tmp_path).others()) == [Job("a", 11), Job("b", 12, 7)]
    second.leave()
    second.leave()
    assert first.others() == []
    first.leave()
    assert list(tmp_path.rglob("*.job")) == []


HOLD = """
import sys, time
from ff.hardware.sharing import Job, Presence
presence = Presence(sys.argv[1])
presence.enter(Job("the other", 5))
print("ready", flush=True)
time.sleep(600)
"""


def test_one_that_was_killed_counts_for_nothing_and_is_cleared_away(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    other.stdout.readline()
    mine = entered(tmp_path, "mine")
    assert mine.others() == [Job("the other", 5)]
    other.kill()
    other.communicate()
    assert len(list(tmp_path.rglob("*.job"))) == 2
    assert mine.others() == []
    assert len(list(tmp_path.rglob("*.job"))) == 1
    mine.leave()


def test_a_file_that_somebody_looks_at_is_not_held(tmp_path):
    """Two who look at a file that was left behind do not take each other for its owner."""
    import fcntl

    folder = tmp_path / f"dev/shm/ff-{os.getuid()}"
    folder.mkdir(parents=True)
    (folder / "1-x.job").write_text('{"name": "gone", "pid": 1}')
    with open(folder / "1-x.job") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert Presence(tmp_path).others() == []


def test_what_a_recorder_wrote_that_cannot_be_read_is_still_another(tmp_path):
    mine = entered(tmp_path, "mine")
    next(iter(tmp_path.rglob("*.job"))).write_text("{")
    assert Presence(tmp_path).others() == [Job("another job", 0)]
    mine.leave()


def test_where_nobody_can_be_seen_it_is_not_known(tmp_path, monkeypatch):
    assert Presence(tmp_path).others() is None
    monkeypatch.setattr(sharing.os, "getuid", lambda: 12345)
    with pytest.raises(PermissionError):
        entered(tmp_path, "a folder of somebody else")


# -- processes on a GPU, by a tree of processes that is made up ----


@pytest.fixture
def tree(monkeypatch):
    """1 init; 10 a workflow with the jobs 11 and 12, of which 11 has a child 13; 20 somebody else's. 99: not seen."""
    parents = {1: 0, 10: 1, 11: 10, 12: 10, 13: 11, 20: 1}

    def lineage(pid):
        line = []
        while pid in parents:
            line.append(pid)
            pid = parents[pid]
        return line

    monkeypatch.setattr(sharing, "lineage", lineage)
    monkeypatch.setattr(sharing, "named", str)


@pytest.mark.parametrize(
    ("processes", "pid", "alone", "others"),
    [
        ([11], 11, True, []),
        ([13], 11, True, []),
        ([11, 13, 12], 11, True, ["12"]),
        ([11, 20], 11, True, ["20"]),
        ([20], 11, True, ["20"]),
        ([], 11, True, []),
        # A sidecar knows the workflow: one of its processes is the job's.
        ([11], 10, False, []),
        ([11, 12], 10, False, ["12"]),
        ([11, 20], 10, False, ["20"]),
        ([20], 10, False, ["20"]),
        # In a container NVML's numbers are those of outside.
        ([99], 11, True, []),
        ([98, 99], 11, True, ["99"]),
        ([11, 99], 11, True, ["99"]),
        ([99], 10, False, []),
    ],
)
def test_processes_that_are_not_the_jobs(tree, processes, pid, alone, others):
    assert foreign(processes, pid, alone) == others


def test_a_measurement_leaves_out_its_own_recorder(tree):
    own, other = Job("own", 50, 10), Job("other", 51, 10)
    assert beside([own], 11) == []
    assert beside([own, other], 11) == ["other"], "one of the two sidecars is its own"
    assert beside([Job("own", 11), other], 20) == ["own", "other"]
    assert beside([Job("inline", 11)], 11) == []


def test_the_lineage_of_a_real_process_reaches_back():
    assert sharing.lineage(os.getpid())[:2] == [os.getpid(), os.getppid()]
    assert sharing.lineage(2**22 + 1) == []
    assert foreign([os.getpid()], os.getpid(), alone=True) == []
    (named,) = foreign([os.getppid()], os.getpid(), alone=True)
    comm = Path(f"/proc/{os.getppid()}/comm").read_text().strip()
    assert named == f"process {os.getppid()} ({comm})"


def test_others_are_looked_for_again_after_a_while(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(sharing.time, "monotonic", lambda: now[0])
    mine = entered(tmp_path, "mine", os.getpid())
    watch = Watch(mine, os.getpid(), alone=True)
    assert watch.machine() == []
    other = entered(tmp_path, "other", 5)
    now[0] = 0.3
    assert watch.machine() == ["other"]
    assert watch.gpu(None) is None
    other.leave()
    mine.leave()


# -- in the samples ----


class Steady:
    """A source that always reads the same."""

    name, fd, method, period_s = "steady", None, "as told", 0.01

    def open(self):
        pass

    def sample(self):
        return [{"power_mw": {"VDD_IN": 5.0}}]

    close = open


def recording(root, run, mode="inline"):
    one = Recorder(root / f"results/MNIST/784-10/ff/{run}/log.jsonl", 10, root, mode, Choice([Steady()], []))
    one.start()
    return one


def last_sample(root, run):
    attempts = read_log(root / f"results/MNIST/784-10/ff/{run}/log.jsonl")
    return attempts[-1].samples[-1] if attempts and attempts[-1].samples else {}


def test_samples_name_the_jobs_that_run_at_the_same_time(tmp_path, monkeypatch):
    # Each in a process of its own, as two in one process are one job.
    monkeypatch.setattr(sharing, "beside", lambda jobs, pid: [job.name for job in jobs])
    first = recording(tmp_path, "seed1")
    wait_until(lambda: last_sample(tmp_path, "seed1").get("shared_with") == [])
    second = recording(tmp_path, "seed2")
    wait_until(lambda: last_sample(tmp_path, "seed1").get("shared_with") == ["MNIST/784-10/ff/seed2/log.jsonl"])
    wait_until(lambda: last_sample(tmp_path, "seed2").get("shared_with") == ["MNIST/784-10/ff/seed1/log.jsonl"])
    second.finish()
    wait_until(lambda: last_sample(tmp_path, "seed1").get("shared_with") == [])
    first.finish()
    assert list(tmp_path.rglob("*.job")) == []


def test_a_monitor_is_no_job(tmp_path):
    watching = recording(tmp_path, "seed1", "monitor")
    wait_until(lambda: last_sample(tmp_path, "seed1"))
    assert Presence(tmp_path).others() is None
    assert "shared_with" not in last_sample(tmp_path, "seed1")
    watching.finish()


def test_samples_of_a_gpu_name_the_processes_on_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sharing, "named", str)
    module = FakeNvml(Gpu(processes=(os.getpid(),)), Gpu())
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    log = tmp_path / "log.jsonl"
    one = Recorder(log, 10, tmp_path, choice=Choice([Nvml()], []))
    one.start()

    def latest(gpu):
        return next((s for s in reversed(read_log(log)[-1].samples) if s["gpu"] == gpu), {}) if read_log(log) else {}

    wait_until(lambda: latest(0).get("shared_with") == [])
    assert "gpu_processes" not in latest(0)
    assert "shared_with" not in latest(1), "it does not list its processes"
    module.gpus[0] = Gpu(processes=(os.getpid(), os.getppid()))
    wait_until(lambda: latest(0).get("shared_with") == [str(os.getppid())])
    one.finish()


def test_a_fork_of_the_job_does_not_keep_its_place(tmp_path):
    mine = entered(tmp_path, "mine")
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        mine.leave()
        assert Presence(tmp_path).others() == []
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
