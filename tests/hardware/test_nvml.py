"""NVML through a module that is made up: which way to a GPU's energy is taken, and how often it is renewed."""

import sys

import pytest
from fake_nvml import FakeNvml, Gpu

from ff.hardware import SensorMissing
from ff.hardware.nvml import Nvml, visible


@pytest.fixture
def pynvml(monkeypatch):
    """A function that puts GPUs into this machine."""

    def install(*gpus):
        module = FakeNvml(*gpus)
        monkeypatch.setitem(sys.modules, "pynvml", module)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        return module

    return install


def opened():
    source = Nvml()
    source.open()
    return source


def test_the_energy_counter_is_preferred_and_counts_from_the_start(pynvml):
    module = pynvml(Gpu(energy_mj=5000, instant_mw=300_000, usage_mw=70_000))
    source = opened()
    assert (source.method, source.period_s) == ("total-energy counter", 0.1)
    module.gpus[0] = module.gpus[0]._replace(energy_mj=5100)
    (reading,) = source.sample()
    assert reading["energy_mj"] == {"gpu0": 100}
    assert reading["power_mw"] == {"gpu0": 300_000}


def test_without_a_counter_it_is_the_power_of_the_moment(pynvml):
    pynvml(Gpu(instant_mw=300_000, usage_mw=70_000))
    source = opened()
    assert (source.method, source.period_s) == ("instantaneous power", 0.1)
    (reading,) = source.sample()
    assert reading["power_mw"] == {"gpu0": 300_000}
    assert "energy_mj" not in reading


TURING, AMPERE, ADA, HOPPER, NOT_KNOWN = 6, 7, 8, 9, 0xFFFFFFFF


@pytest.mark.parametrize(
    ("architecture", "capability", "method", "period_s"),
    [
        (TURING, (7, 5), "power usage", 0.1),
        (AMPERE, (8, 0), "power usage", 0.1),  # GA100
        (AMPERE, (8, 6), "power averaged over 1 s", 1.0),
        (AMPERE, None, "power averaged over 1 s", 1.0),
        (ADA, (8, 9), "power averaged over 1 s", 1.0),
        (HOPPER, (9, 0), "power averaged over 1 s", 1.0),
        (NOT_KNOWN, (8, 0), "power averaged over 1 s", 1.0),
        (None, (8, 0), "power averaged over 1 s", 1.0),
    ],
)
def test_the_power_of_newer_gpus_is_a_mean_over_a_second(pynvml, architecture, capability, method, period_s):
    pynvml(Gpu(architecture, capability))
    source = opened()
    assert (source.method, source.period_s) == (method, period_s)
    assert source.sample()[0]["power_mw"] == {"gpu0": 70000}


def test_an_older_library_has_no_such_functions(pynvml, monkeypatch):
    module = pynvml(Gpu(TURING, (7, 5), instant_mw=1))
    for name in ("NVML_FI_DEV_POWER_INSTANT", "nvmlDeviceGetArchitecture", "nvmlDeviceGetComputeRunningProcesses"):
        monkeypatch.delattr(type(module), name)
    source = opened()
    assert source.method == "power averaged over 1 s", "what a GPU is not known to do right is not relied on"
    assert source.sample()[0]["power_mw"] == {"gpu0": 70000}


def test_the_slowest_of_several_gpus_sets_the_period(pynvml):
    pynvml(Gpu(energy_mj=1), Gpu(ADA, (8, 9)))
    source = opened()
    assert source.period_s == 1.0
    assert source.method == "total-energy counter, power averaged over 1 s"


def test_a_gpu_that_says_nothing_of_power_has_no_method(pynvml):
    pynvml(Gpu(usage_mw=None, load=5))
    source = opened()
    assert (source.method, source.period_s) == (None, 0.1)
    assert source.sample()[0]["gpu_percent"] == 5


def test_nvml_reads_the_gpus_of_the_job(pynvml, monkeypatch):
    pynvml(Gpu(energy_mj=1, load=42, processes=(11, 12)), Gpu(usage_mw=70001))
    source = opened()
    first, second = source.sample()
    assert (first["gpu_percent"], first["gpu_freq_mhz"], first["gpu_memory_used_mb"]) == (42, [1980], 1024.0)
    assert first["temperature_c"] == {"gpu0": 33}
    assert first["gpu_processes"] == [11, 12]
    assert second["power_mw"] == {"gpu1": 70001}
    assert "gpu_percent" not in second
    assert "gpu_processes" not in second
    source.close()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [reading["gpu"] for reading in opened().sample()] == [1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SensorMissing, match="CUDA_VISIBLE_DEVICES"):
        Nvml().open()


def test_a_gpu_that_is_lost_is_no_reading(pynvml):
    module = pynvml(Gpu())
    source = opened()
    module.gpus[0] = Gpu(usage_mw=None)
    with pytest.raises(OSError, match="no GPU answers"):
        source.sample()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [(None, [0, 1]), ("", []), ("1,0", [1, 0]), ("GPU-bb", [1]), ("0,-1,1", [0]), ("7", []), ("GPU-", [])],
)
def test_visible_devices(setting, expected):
    assert visible(["GPU-aaaa1111", "GPU-bbbb2222"], setting) == expected
