"""The GPUs that jobs may use: how many there are without torch, and one for each job."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ff.workflow import gpus

UUIDS = ["GPU-aaaa1111", "GPU-bbbb2222", "GPU-cccc3333"]


def no_driver() -> None:
    raise RuntimeError("NVML: driver not loaded")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with three GPUs and a torch for CUDA; changes by its keyword arguments."""

    def set_up(uuids=UUIDS, cuda="'12.4'", jetson=False, visible=None, nvml=True, driver=True):
        (tmp_path / "version.py").write_text(f"__version__ = '2'\ncuda: Optional[str] = {cuda}\nhip = None\n")
        spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
        monkeypatch.setattr(gpus.importlib.util, "find_spec", lambda name: spec if cuda else None)
        monkeypatch.setattr(gpus, "is_jetson", lambda: jetson)
        pynvml = SimpleNamespace(
            NVMLError=RuntimeError,
            nvmlInit=lambda: None if driver else no_driver(),
            nvmlShutdown=lambda: None,
            nvmlDeviceGetCount=lambda: len(uuids),
            nvmlDeviceGetHandleByIndex=lambda index: index,
            nvmlDeviceGetUUID=lambda handle: uuids[handle],
        )
        monkeypatch.setitem(sys.modules, "pynvml", pynvml if nvml else None)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        monkeypatch.setattr(gpus.tempfile, "tempdir", str(tmp_path))

    return set_up


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, UUIDS),
        ({"uuids": []}, []),
        ({"nvml": False}, []),
        ({"driver": False}, []),
        ({"cuda": "None"}, []),
        ({"cuda": None}, UUIDS),
        ({"jetson": True, "nvml": False}, ["0"]),
        ({"jetson": True, "cuda": "None"}, []),
        ({"visible": "1"}, UUIDS[1:2]),
        ({"visible": "2, 0"}, [UUIDS[2], UUIDS[0]]),
        ({"visible": "GPU-bbbb"}, UUIDS[1:2]),
        ({"visible": "0,9,1"}, UUIDS[:1]),
        ({"visible": ""}, []),
        ({"visible": "-1"}, []),
        ({"visible": "MIG-1,MIG-2"}, ["MIG-1", "MIG-2"]),
        ({"visible": "MIG-1", "uuids": []}, []),
        ({"uuids": [b"GPU-aaaa1111"]}, UUIDS[:1]),
    ],
)
def test_the_gpus_that_torch_could_use_are_found_without_it(machine, changes, expected):
    machine(**changes)
    assert gpus.usable_gpus() == expected


def test_torch_is_not_imported_for_it():
    code = "import sys, ff.workflow.gpus; ff.workflow.gpus.usable_gpus(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


def test_this_torch_is_asked_right():
    import torch

    assert gpus.torch_has_cuda() == (torch.version.cuda is not None)


def chosen():
    return os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_each_job_takes_a_gpu_of_its_own(machine, device):
    machine()
    with gpus.one_gpu(device):
        assert chosen() == UUIDS[0]
    assert chosen() is None
    holding = "import sys; from ff.workflow import gpus\ngpus.usable_gpus = lambda: sys.argv[2:]\n"
    holding += (
        "gpus.tempfile.tempdir = sys.argv[1]\nwith gpus.one_gpu('auto'):\n    print('taken', flush=True); input()\n"
    )
    command = [sys.executable, "-c", holding, gpus.tempfile.tempdir, *UUIDS[:2]]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as first, subprocess.Popen(command, **pipes) as second:
        assert first.stdout.readline() == second.stdout.readline() == "taken\n"
        with gpus.one_gpu(device):
            assert chosen() == UUIDS[2]
        # A job that is killed holds nothing any more.
        second.kill()
        second.wait()
        first.kill()
        first.wait()
        with gpus.one_gpu(device):
            assert chosen() == UUIDS[0]


def test_one_that_is_free_is_taken_among_those_that_are_visible(machine):
    machine(visible="2,1")
    with gpus.one_gpu("auto"):
        assert chosen() == UUIDS[2]
    assert chosen() == "2,1"


@pytest.mark.parametrize(
    ("device", "uuids"), [("cpu", UUIDS), ("cuda:1", UUIDS), ("auto", UUIDS[:1]), ("auto", []), ("cuda", UUIDS[:1])]
)
def test_nothing_is_taken_where_there_is_no_choice(machine, device, uuids):
    machine(uuids=uuids)
    with gpus.one_gpu(device):
        assert chosen() is None


def test_where_all_are_taken_one_is_shared(machine, monkeypatch):
    machine(uuids=UUIDS[:2])
    monkeypatch.setattr(gpus, "usable_gpus", lambda: UUIDS[:2])
    with gpus.one_gpu("auto"), gpus.one_gpu("auto"):
        assert chosen() == UUIDS[1]
        with gpus.one_gpu("auto"):
            assert chosen() == UUIDS[1]


def test_an_error_in_the_job_is_not_taken_for_a_busy_gpu(machine):
    machine()
    with pytest.raises(OSError, match="own"), gpus.one_gpu("auto"):
        raise OSError("own")
    assert chosen() is None


@pytest.mark.parametrize(
    ("device", "count", "may", "at_once"),
    [("auto", 0, False, 1), ("auto", 2, True, 2), ("cuda", 0, True, 1), ("cuda:1", 2, True, 1), ("cpu", 2, False, 2)],
)
def test_as_many_jobs_take_a_gpu_at_once_as_there_are(device, count, may, at_once):
    assert gpus.may_use_gpu(device, UUIDS[:count]) is may
    assert gpus.jobs_at_once(device, UUIDS[:count]) == at_once
