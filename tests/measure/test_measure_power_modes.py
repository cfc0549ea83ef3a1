"""A run measured in power modes of a board that is not there: what each measurement finds, its files, its table."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from fake_nvpmodel import FakeBoard
from ff_process import ff_environment
from made_networks import made_prepared, made_run, schema_errors

from ff import cli
from ff.data import prepared as prepared_sets
from ff.files import read_csv, read_json, write_json
from ff.layout import RunKey, measure_files, run_files
from ff.measure import protocol, run, single_stream
from ff.measure.deployed import run_deployed
from ff.measure.protocol import Times
from ff.measure.run import run_power_modes
from ff.measure.single_stream import run_single_stream
from ff.summary import tables

QUICK = Times(repeats=2, single_samples=2, rounds=1, queued_windows=1, warm_up_s=0.0)


@pytest.fixture
def board(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(protocol, "QUEUED_S", 0.001)
    made = FakeBoard(tmp_path / "board")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    # What the files of a board say of its mode.
    state = {"clocks_mhz": {}, "governor": {}, "jetson_clocks": None, "temperature_c": {"tj": 50.0}}
    monkeypatch.setattr(run, "machine_state", lambda: state | {"power_mode": f"MODE_{made.mode}"})
    return made


@pytest.fixture
def folder(tmp_path):
    """The folder of a run below tmp_path."""
    prepared = made_prepared()
    folder = tmp_path / made_run(tmp_path / "made", prepared)[1].name
    made_run(folder, prepared)
    return folder


def document(folder, mode, stem="cpu"):
    return read_json(folder / f"variance/power_modes/{mode}/{stem}.json")


def test_each_mode_is_measured_in_that_mode(board, folder):
    board.set(reboot="0\n")
    how = {"devices": ("cpu", "cuda"), "threads": [1], "batch_sizes": (1, 4), "times": QUICK}
    run_power_modes(folder, made_prepared(), [1, 0, 2], **how)
    assert board.mode == 2
    assert board.calls("-m") == ["-m 1", "-m 2", "-m 0"]
    for mode in (1, 2):
        found = document(folder, mode)
        assert not schema_errors(found, "variance")
        assert [found["conditions"][when]["power_mode"] for when in ("before", "after")] == [f"MODE_{mode}"] * 2
        assert {one["batch_size"] for one in found["batches"]} == {1, 4}
        assert read_csv(folder / f"variance/power_modes/{mode}/cpu.csv")
        assert "CUDA" in document(folder, mode, "cuda")["device"]["reason"]
    gone = document(folder, 0)
    assert not schema_errors(gone, "variance")
    assert (gone["device"]["available"], gone["batches"], gone["measured_together"]) == (False, [], [])
    assert gone["device"]["reason"].startswith("power mode 0 cannot be switched on: NVPM WARN: Reboot required")
    assert gone["device"]["reason"] == document(folder, 0, "cuda")["device"]["reason"]
    assert gone["conditions"]["before"]["power_mode"] == "MODE_2"
    named = measure_files(["cpu", "cuda"], power_modes=[0, 1, 2])
    assert all((folder / file).exists() for file in named if "power_modes" in file)
    assert set(named) <= set(run_files(["cpu", "cuda"], power_modes=[0, 1, 2]))


def test_the_table_has_a_row_for_each_mode(board, folder, tmp_path):
    board.set(reboot="0\n")
    run_power_modes(folder, made_prepared(), [0, 1], devices=("cpu",), threads=[1], batch_sizes=(1, 4), times=QUICK)
    table = tables.power_modes(tables.files_of(tmp_path, [RunKey.parse(folder.relative_to(tmp_path).as_posix())]))
    assert table[["power_mode", "name", "available", "batch_size"]].astype(object).fillna("").values.tolist() == [
        *([0, "", 0, ""], [1, "MODE_1", 1, 1], [1, "MODE_1", 1, 4])
    ]
    batches = {one["batch_size"]: one for one in document(folder, 1)["batches"] if one["path"] == "end_to_end"}
    assert table["median_ms"].tolist()[1:] == [batches[size]["latency_ms"]["median"] for size in (1, 4)]
    assert table["temperature_after_c"].tolist()[1:] == [50.0, 50.0]
    assert table["reason"][0].startswith("power mode 0 cannot be switched on")


def test_other_runtimes_are_not_measured_in_a_mode_that_is_not_on(board, folder):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra edge)")
    from ff.export.bundle import export_run

    export_run(folder, made_prepared(), int8=False)
    board.set(reboot="0\n")
    how = {"devices": ("cpu",), "threads": [1], "batch_sizes": (1,), "times": QUICK}
    run_power_modes(folder, made_prepared(), [1, 0], **how, runtimes=("torch", "onnxruntime"))
    assert document(folder, 1, "runtimes/cpu_onnxruntime")["device"]["available"]
    gone = document(folder, 0, "runtimes/cpu_onnxruntime")
    assert (gone["device"]["available"], gone["batches"]) == (False, [])
    assert "Reboot required" in gone["device"]["reason"]


def test_the_command_measures_in_modes_and_says_what_could_not_be(board, folder, monkeypatch, capsys):
    monkeypatch.setattr(prepared_sets, "open_or_prepare", lambda *_, **__: made_prepared())
    monkeypatch.setattr(protocol, "Times", lambda repeats=50: QUICK)
    options = ("--devices", "cpu", "--threads", "1", "--batch-sizes", "1", "--energy-windows", "0")
    assert cli.main(["measure", str(folder), *options, "--power-modes", "1", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert board.mode == 2
    assert len([line for line in lines if "power mode 1: cpu (1 CPU thread) end_to_end, batch 1: median" in line]) == 1
    assert len([line for line in lines if "power mode 5: cpu: not measured: power mode 5 cannot be" in line]) == 1
    assert read_json(folder / "variance/cpu.json")["conditions"]["before"]["power_mode"] == "MODE_2"


@pytest.mark.parametrize("measured", ["variance", "single_stream", "deployed"])
def test_a_measurement_first_puts_back_what_a_killed_one_has_left(board, folder, measured, monkeypatch):
    monkeypatch.setitem(single_stream.PROTOCOLS, "quick", single_stream.Stream(1, 0.001, 0.0, False))
    board.set(mode="1\n")
    write_json(board.state / "ff/power_mode.json", {"mode": 2})
    if measured == "single_stream":
        run_single_stream(folder, made_prepared(), "quick")
    elif measured == "deployed":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra edge)")
        from ff.export.bundle import export_run

        export_run(folder, made_prepared(), int8=False)
        run_deployed(folder, made_prepared(), ("cpu",), ("torch",), [1], repeats=1)
    else:
        run.run_measurement(folder, made_prepared(), ("cpu",), [1], (1,), QUICK, 0)
        assert read_json(folder / "variance/cpu.json")["conditions"]["before"]["power_mode"] == "MODE_2"
    assert board.mode == 2


def test_the_fork_of_a_job_that_is_killed_puts_the_mode_back(board):
    code = (
        "import time\nfrom ff.hardware.power_modes import switched\nfrom ff.measure.apart import apart\n"
        "def work():\n    with switched(1):\n        print('on', flush=True)\n        time.sleep(60)\n"
        "apart(work)"
    )
    environment = ff_environment(**board.environment)
    job = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert job.stdout.readline() == "on\n"
    assert board.mode == 1
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    deadline = time.monotonic() + 20
    while board.mode != 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert board.mode == 2
