"""`ff measure` as a person calls it: which devices it takes, what it says, and how it refuses."""

import subprocess
import sys

import pytest
import torch
from made_networks import made_prepared, made_run

from ff import cli
from ff.data import prepared as prepared_sets
from ff.files import read_csv, read_json
from ff.measure import apart, protocol


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run folder on a machine without a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(prepared_sets, "open_or_prepare", lambda *_, **__: made_prepared())
    monkeypatch.setattr(protocol, "QUEUED_S", 0.001)
    # A test's length: two rounds without the half second of work before each block.
    monkeypatch.setattr(protocol, "Times", lambda repeats=50, times=protocol.Times: times(repeats, 3, 2, 2, 0.0))
    # The tests' process has threads of its own by now, which a fork would lack.
    monkeypatch.setattr(apart, "apart", lambda function, *arguments: function(*arguments))
    made_run(tmp_path / "run", made_prepared())
    return tmp_path / "run"


@pytest.fixture
def without_edge(monkeypatch):
    """An environment without the extra `edge`."""
    for name in [name for name in sys.modules if name.startswith(("ff.export", "onnx"))]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("onnx", "onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)


QUICK = ("--batch-sizes", "1,4", "--repeats", "2", "--energy-windows", "0")


def files(folder):
    return sorted(path.name for path in (folder / "variance").glob("*"))


def test_the_default_measures_the_cpu_and_says_why_there_is_no_gpu(folder, capsys):
    assert cli.main(["measure", str(folder), *QUICK, "--threads", "1,2"]) == 0
    out = capsys.readouterr().out
    assert "cuda: not measured: no CUDA device is usable on this machine" in out
    assert "cpu (1 CPU thread) deploy, batch 1: median" in out and "cpu (2 CPU threads) end_to_end, batch 4" in out
    assert "samples/s synchronised" in out and "samples/s queued" in out
    assert files(folder) == ["agreement.json", "cpu.csv", "cpu.json", "cuda.csv", "cuda.json", "phases.csv"]
    rows = read_csv(folder / "variance" / "cpu.csv")
    assert {row["threads"] for row in rows} == {"1", "2"}


def test_without_the_extra_edge_torch_is_measured(folder, without_edge, capsys):
    assert cli.main(["measure", str(folder), *QUICK, "--devices", "cpu", "--threads", "1"]) == 0
    assert "end_to_end, batch 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--devices", "cpu"],
        ["--device", "cpu"],
        ["--no-cuda"],
        ["--no-cuda", "--devices", "cpu", "cuda"],
        ["--device", "cuda", "--devices", "cpu"],
    ],
)
def test_only_what_was_asked_for_is_measured(folder, arguments):
    assert cli.main(["measure", str(folder), *QUICK, "--threads", "1", *arguments]) == 0
    assert files(folder) == ["cpu.csv", "cpu.json", "phases.csv"]
    assert read_json(folder / "variance" / "cpu.json")["conditions"]["threads"] == [1]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--devices", "cuda"], "ff: cuda cannot be measured: no CUDA device is usable"),
        (["--devices", "cpu", "cuda"], "ff: cuda cannot be measured: no CUDA device is usable"),
        (["--device", "cuda"], "ff: cuda cannot be measured"),
        (["--device", "cuda:3"], "ff: cuda:3 cannot be measured"),
        (["--no-cuda", "--devices", "cuda"], "ff: --no-cuda leaves no device of cuda"),
        (["--devices", "abacus"], "'abacus' is no device that torch knows"),
        (["--batch-sizes", "99999999999"], "ff: batch size 99999999999 takes about"),
        (["--batch-sizes", "0"], "give at least 1"),
        (["--batch-sizes", "many"], "--batch-sizes must be numbers"),
        (["--repeats", "0"], "cannot measure with repeats 0"),
        (["--threads", "none"], "CPU threads to measure must be numbers from 1 to 1024 or 'all', not 'none'"),
        (["--energy-windows", "-2"], "-2 energy windows"),
    ],
)
def test_what_cannot_be_measured_is_an_error_in_one_sentence(folder, capsys, arguments, part):
    assert cli.main(["measure", str(folder), *arguments]) == 1
    stderr = capsys.readouterr().err
    assert part in stderr and len(stderr.strip().splitlines()) == 1
    assert not (folder / "variance").exists()


def test_memory_that_runs_out_is_an_error_that_names_the_batch_size(folder, capsys, monkeypatch):
    from ff.measure.devices import DeployedNetwork

    original = DeployedNetwork.run

    def run(self, path, inputs):
        if len(inputs) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return original(self, path, inputs)

    monkeypatch.setattr(DeployedNetwork, "run", run)
    assert cli.main(["measure", str(folder), *QUICK]) == 1
    assert "ff: batch size 4 does not fit into the memory of cpu" in capsys.readouterr().err


IN_A_FORK = """
import os, sys, torch
from ff import cli
from ff.commands import measure

def measured(folder, *_):
    return [f"{folder.name} {os.getpid() != here} {torch.cuda.is_initialized()}"]

here, measure._measure = os.getpid(), measured
torch.cuda.is_available = None
sys.exit(cli.main(["measure", "first", "second"]))
"""


def test_each_run_is_measured_in_a_fork_before_which_no_gpu_is_looked_for():
    done = subprocess.run([sys.executable, "-c", IN_A_FORK], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["first True False", "second True False"], done.stderr
