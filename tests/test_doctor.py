"""`ff doctor`: every check gives rows, none can stop the others, and the exit status follows the rows."""

import argparse
import builtins
import json
import os
import shutil
import sys
import time
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import made_raw_data
import pytest
import torch

from ff import doctor
from ff.data.prepared import open_or_prepare, prepare
from ff.data.registry import DATASETS
from ff.doctor import Row
from ff.errors import FFError
from ff.files import write_text
from ff.hardware import SensorMissing

KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def no_account(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FF_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def command_line(*words):
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    return doctor.run(parser.parse_args(list(words)))


def test_this_machine_can_train(capsys):
    assert command_line() == 0
    out = capsys.readouterr().out
    for name in (
        "Python",
        "torch",
        "torchvision",
        "memory",
        "psutil",
        "tegrastats",
        "INA3221",
        "NVML",
        "RAPL",
    ):
        assert f"  {name} " in out
    for name in ("MNIST", "DIGITS", "disk", "Snakemake", "W&B", "profile"):
        assert f"  {name} " in out
    assert out.endswith("training can run\n")


def test_json_has_every_row(monkeypatch, capsys):
    rows = [Row("a", "ok", "fine"), Row("b", "fail", "broken", "mend it")]
    monkeypatch.setattr(doctor, "checks", lambda _: [("x", lambda: rows)])
    assert command_line("--json") == 1
    content = json.loads(capsys.readouterr().out)
    assert content["rows"] == [row._asdict() for row in rows]
    assert content["ready"] is False
    assert content["verdict"] == "training cannot run: b: broken"


def test_a_failing_check_does_not_stop_the_others():
    def explode():
        raise RuntimeError("boom\nmore")

    rows = doctor.examine([("bad", explode), ("good", lambda: [Row("good", "ok", "")])])
    assert rows[0] == Row("bad", "warn", "the check itself failed: RuntimeError: boom")
    assert rows[1].name == "good"


def test_a_hanging_check_does_not_stop_the_others(monkeypatch):
    monkeypatch.setattr(doctor, "CHECK_S", 0.1)
    rows = doctor.examine([("slow", lambda: time.sleep(5)), ("good", lambda: [Row("good", "ok", "")])])
    assert "no answer" in rows[0].detail
    assert rows[1].state == "ok"


def test_without_torch_training_cannot_run(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **more):
        if name == "torch":
            raise ImportError("No module named 'torch'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    (row,) = doctor.check_torch()
    assert (row.state, row.advice) == ("fail", "pip install -c constraints.txt -e .")
    assert doctor.check_cuda() == []
    assert doctor.verdict([row]).startswith("training cannot run: torch: cannot be imported")


def test_missing_packages_are_named(monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", absent)
    assert "numpy, safetensors" in doctor.check_packages()[0].detail
    assert doctor.check_packages()[0].state == "fail"
    assert doctor.check_snakemake()[0].state == "warn"
    assert doctor.check_wandb()[0].state == "warn"


@pytest.mark.parametrize(
    ("found", "state"), [("9.27.1", "ok"), ("8.30.0", "warn"), ("10.0.0", "warn"), ("9.3", "warn")]
)
def test_snakemakes_version_is_held_against_the_tested_one(monkeypatch, found, state):
    monkeypatch.setattr(doctor, "version", lambda _: found)
    assert doctor.check_snakemake()[0].state == state


def test_an_old_python_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    assert doctor.check_python()[0].state == "fail"


def test_torchvision_is_reported_either_way(monkeypatch):
    from ff.data import torchvision_ops

    (row,) = doctor.check_torchvision()
    assert row.state == "ok"
    monkeypatch.setattr(torchvision_ops, "declare_missing_operators", lambda: ["nms"])
    assert "nms" in doctor.check_torchvision()[0].detail

    def absent():
        raise FFError("torchvision is not installed")

    monkeypatch.setattr(torchvision_ops, "declare_missing_operators", absent)
    assert doctor.check_torchvision()[0].state == "warn"


# ---------------------------------------------------------------- devices


def test_the_kernel_check_sees_a_right_and_a_wrong_device(monkeypatch):
    assert doctor.kernel_difference("cpu") < 1e-5
    real = torch.relu
    monkeypatch.setattr(torch, "relu", lambda x: real(x) * (1.01 if x.dtype == torch.float32 else 1))
    assert doctor.kernel_difference("cpu") > 1e-3


@pytest.mark.parametrize(("difference", "state"), [(1e-7, "ok"), (0.5, "fail"), (float("inf"), "fail")])
def test_a_cuda_device_that_computes_wrongly_stops_training(monkeypatch, difference, state):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2**30, 2**31))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    row = doctor._cuda_row(0, difference)
    assert row.state == state
    assert "1024 of 2048 MB" in row.detail
    assert (state == "ok") or "--no-cuda" in row.advice


def test_a_gpu_that_this_torch_has_no_code_for_stops_training(monkeypatch):
    def no_kernel(_):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(doctor, "kernel_difference", no_kernel)
    (row,) = doctor.check_cuda()
    assert (row.state, "no kernel image" in row.detail) == ("fail", True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_cuda_device_computes_what_the_cpu_does():
    assert all(row.state == "ok" for row in doctor.check_cuda())


def test_a_gpu_behind_a_cpu_build_is_pointed_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(doctor, "_has_nvidia_device", lambda: True)
    assert doctor.check_cuda()[0].state == "warn"
    monkeypatch.setattr(doctor, "_has_nvidia_device", lambda: False)
    assert doctor.check_cuda()[0].state == "ok"


def test_little_memory_is_pointed_out(monkeypatch):
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**28, total=2**32))
    (row,) = doctor.check_memory()
    assert (row.state, "256 of 4096 MB" in row.detail) == ("warn", True)


# ---------------------------------------------------------------- sensors


class Sensor:
    fd, method = None, "energy counter"

    def __init__(self, name="rapl", fault=None, readings=({"power_mw": {"package": 5.0}},)):
        self.name, self.fault, self.readings, self.closed = name, fault, list(readings), False

    def open(self):
        if self.fault:
            raise self.fault

    def sample(self):
        return list(self.readings)

    def close(self):
        self.closed = True


def test_a_sensor_that_reads_names_its_rails():
    sensor = Sensor()
    row, rails = doctor.sensor_row(sensor)
    assert (row, rails) == (Row("RAPL", "ok", "reads power_mw; energy counter"), ["package"])
    assert sensor.closed


def test_a_sensor_that_may_not_be_read_says_what_would_allow_it():
    fault = SensorMissing("the counters may be read by root only; allow it with: sudo chmod a+r /sys/x")
    row, rails = doctor.sensor_row(Sensor(fault=fault))
    assert row == Row("RAPL", "warn", "not used: the counters may be read by root only", "sudo chmod a+r /sys/x")
    assert rails == []


def test_a_sensor_that_is_not_there_is_no_warning():
    row, _ = doctor.sensor_row(Sensor("tegrastats", SensorMissing("tegrastats is not on this machine")))
    assert row == Row("tegrastats", "ok", "not used: tegrastats is not on this machine")


def test_a_sensor_that_fails_while_being_read_is_a_row():
    row, _ = doctor.sensor_row(Sensor(fault=PermissionError(13, "Permission denied", "/sys/y")))
    assert (row.state, row.advice) == ("warn", "sudo chmod a+r /sys/y")
    row, _ = doctor.sensor_row(Sensor(readings=()))
    assert row.detail == "it starts but gives no reading"


def test_a_jetsons_power_monitor_is_read_from_its_files(tmp_path):
    root = tmp_path / "jetson"
    write_text(root / "etc/nv_tegra_release", "# R36")
    hwmon = root / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    for name, text in {
        "in1_label": "VDD_IN",
        "in1_input": "5000",
        "curr1_input": "1000",
        "name": "ina3221",
    }.items():
        write_text(hwmon / name, text + "\n")
    rows = {row.name: row for row in doctor.check_sensors(root)}
    assert rows["INA3221"].state == "ok"
    assert "VDD_IN" in rows["power"].detail
    assert "jetson" in doctor.check_profile(root)[0].detail


def test_no_power_sensor_is_said_to_be_missing(tmp_path, monkeypatch):
    from ff.hardware import nvml

    def absent(_):
        raise SensorMissing("no NVIDIA driver answers")

    monkeypatch.setattr(nvml.Nvml, "open", absent)
    rows = {row.name: row for row in doctor.check_sensors(tmp_path)}
    assert rows["power"].state == "warn"
    assert "missing, not 0" in rows["power"].detail


# ---------------------------------------------------------------- data, disk, W&B, profile


def test_absent_data_sets_name_the_command(tmp_path):
    (row,) = doctor.check_dataset("MNIST")
    assert row.state == "warn"
    assert str(tmp_path / "data") in row.detail
    assert "ff prepare MNIST" in row.advice
    assert doctor.check_dataset("DIGITS") == [Row("DIGITS", "ok", "bundled")]


def test_digits_need_the_package_that_has_them(monkeypatch):
    monkeypatch.setitem(DATASETS, "DIGITS", DATASETS["DIGITS"]._replace(package="no-such-package"))
    [row] = doctor.check_dataset("DIGITS")
    assert (row.state, row.advice) == ("warn", "pip install no-such-package")


def test_a_prepared_set_is_opened_as_a_training_would(tmp_path):
    prepare("DIGITS", prepared_dir=tmp_path / "data/prepared")
    assert doctor.check_dataset("DIGITS") == [Row("DIGITS", "ok", "prepared, verified")]
    path = tmp_path / "data/prepared/DIGITS.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    (row,) = doctor.check_dataset("DIGITS")
    assert row.state == "warn"
    assert row.detail.startswith("training refuses it: ")
    assert row.advice == "delete it and run: ff prepare"
    path.write_bytes(whole)
    path.rename(path.with_name("MNIST.safetensors"))
    assert "holds DIGITS, not MNIST" in doctor.check_dataset("MNIST")[0].detail


@pytest.mark.parametrize("prepared", [False, True])
def test_files_that_are_not_the_official_ones_are_refused_as_by_a_training(tmp_path, prepared):
    made_raw_data.write_raw(tmp_path / "data", "MNIST")
    if prepared:
        prepare("MNIST", verify=False)
    (row,) = doctor.check_dataset("MNIST")
    assert row.state == "warn"
    assert "not the official" in row.detail
    assert "--verify false" in row.advice
    with pytest.raises(FFError) as refusal:
        open_or_prepare("MNIST", download=False)
    said = f"{row.detail.removeprefix('training refuses it: ')}; {row.advice}"
    assert str(refusal.value).removeprefix("MNIST: ") == said


def test_one_changed_byte_of_an_official_file_is_seen(tmp_path, real_data, monkeypatch):
    monkeypatch.setenv("FF_DATA_DIR", str(tmp_path))
    shutil.copytree(real_data / "MNIST", tmp_path / "MNIST")
    (row,) = doctor.check_dataset("MNIST")
    assert (row.state, "official files" in row.detail) == ("ok", True)
    labels = tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte"
    data = bytearray(labels.read_bytes())
    data[-1] ^= 1
    labels.write_bytes(data)
    (row,) = doctor.check_dataset("MNIST")
    assert row.state == "warn"
    assert f"{labels} is not the official file" in row.detail


@pytest.mark.parametrize(("free_mb", "state"), [(10, "fail"), (500, "warn"), (50000, "ok")])
def test_disk_space(monkeypatch, free_mb, state):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=free_mb * 2**20))
    assert doctor.check_disk()[0].state == state


def test_a_folder_that_cannot_be_written_stops_training():
    (row,) = doctor.check_disk("/proc")
    assert (row.state, "cannot be written" in row.detail) == ("fail", True)


def test_the_wandb_row_never_shows_the_key(monkeypatch):
    (row,) = doctor.check_wandb()
    assert "mode offline" in row.detail
    assert ".env" in row.advice
    write_text(".env", f"WANDB_API_KEY={KEY}\nWANDB_BASE_URL=http://127.0.0.1:9\n")
    (row,) = doctor.check_wandb()
    assert (row.state, "mode online" in row.detail, "cannot be reached" in row.detail) == ("warn", True, True)
    assert KEY not in str(row)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert "mode disabled" in doctor.check_wandb()[0].detail


def test_profiles(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    assert doctor.check_profile(tmp_path)[0].detail == "default"
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "slurm" in doctor.check_profile(tmp_path)[0].detail
