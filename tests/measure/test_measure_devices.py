"""Devices: the deployed network, threads, memory, which devices are chosen, and the state of a machine."""

import pytest
import torch
from made_devices import made_jetson, write
from made_networks import made_config, made_network, made_prepared

from ff.errors import FFError, is_out_of_memory
from ff.learn.inference import Inference
from ff.measure import devices
from ff.measure.devices import (
    DeployedNetwork,
    available_cores,
    check_memory,
    choose_devices,
    deploy,
    device_facts,
    machine_state,
    needed_mb,
    thread_counts,
    why_missing,
)


def deployed(threads: int = 1, prepared=None, process: str = "/proc/self") -> DeployedNetwork:
    prepared = prepared or made_prepared()
    inference = Inference(made_network(made_config()), prepared.facts)
    return DeployedNetwork("cpu", inference, prepared.test, threads, process)


@pytest.fixture
def no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def one_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


# -- the deployed network ----


def test_both_paths_answer_the_same():
    one = deployed()
    draw = [torch.Generator().manual_seed(3) for _ in range(2)]
    pixels, images = (one.stage(path, 16, g) for path, g in zip(("deploy", "end_to_end"), draw, strict=True))
    assert pixels.shape == (16, 784) and images.shape == (16, 1, 28, 28) and images.dtype == torch.uint8
    assert torch.equal(pixels, one.inference.pixels(images))
    classes = one.run("deploy", pixels)
    assert torch.equal(classes, one.run("end_to_end", images))
    assert torch.equal(classes, one.inference.answer(pixels).classes)


def test_the_images_are_drawn_from_all_of_the_test_split():
    prepared = made_prepared(test=60)
    one = deployed(prepared=prepared)
    known = {image.numpy().tobytes(): row for row, image in enumerate(prepared.test.images)}

    def rows(seed, size):
        images = one.stage("end_to_end", size, torch.Generator().manual_seed(seed))
        return [known[image.numpy().tobytes()] for image in images]

    assert len(set(rows(1, 600))) == 60
    assert rows(1, 20) == rows(1, 20) != rows(2, 20)
    assert len({rows(seed, 1)[0] for seed in range(50)}) > 20


def test_it_works_with_its_number_of_threads():
    before = torch.get_num_threads()
    try:
        for threads in (2, 1, 3):
            deployed(threads).prepare()
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_gpu_is_waited_for_and_asked_for_its_own_memory(monkeypatch):
    asked = []
    for name, value in (
        ("synchronize", None),
        ("reset_peak_memory_stats", None),
        ("max_memory_allocated", 3 * 2**20),
    ):
        monkeypatch.setattr(
            torch.cuda, name, lambda device, name=name, value=value: asked.append((name, str(device))) or value
        )
    one = deployed()
    one.synchronise()
    assert asked == []
    one.device = torch.device("cuda", 1)
    one.synchronise()
    one.reset_peak_memory()
    assert one.peak_memory_mb() == 3
    assert asked == [(name, "cuda:1") for name in ("synchronize", "reset_peak_memory_stats", "max_memory_allocated")]


def test_peak_memory_of_the_cpu_is_what_the_kernel_says_since_the_reset(tmp_path):
    one = deployed(process=str(tmp_path))
    assert one.peak_memory_mb() is None
    # A kernel that does not let the mark be reset says nothing of this batch.
    (tmp_path / "clear_refs").mkdir()
    one.reset_peak_memory()
    assert one.peak_memory_mb() is None
    (tmp_path / "clear_refs").rmdir()
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\n")
    one.reset_peak_memory()
    assert (tmp_path / "clear_refs").read_text() == "5"
    assert one.peak_memory_mb() == 200


def test_an_earlier_peak_is_forgotten():
    one = deployed()
    one.reset_peak_memory()
    if one.peak_memory_mb() is None:
        pytest.skip("this kernel does not reset the mark")
    quiet = one.peak_memory_mb()
    large = torch.ones(64 * 2**20)  # 256 MB
    assert one.peak_memory_mb() > quiet + 200
    del large
    one.reset_peak_memory()
    assert one.peak_memory_mb() < quiet + 100


def test_the_cpu_comes_first_with_each_thread_count_and_a_gpu_once(monkeypatch):
    prepared = made_prepared()
    network = made_network(made_config())
    built = []
    monkeypatch.setattr(
        devices,
        "Inference",
        lambda network, facts: built.append(network) or Inference(made_network(made_config()), facts),
    )
    monkeypatch.setattr(type(network), "to", lambda self, device: device)
    found = deploy(["cuda:1", "cpu"], network, prepared.test, prepared.facts, [1, 4])
    first = next(found)
    # One is built as it is taken.
    assert built == ["cpu"] and (first.name, first.threads) == ("cpu", 1)
    assert [(one.name, one.threads) for one in found] == [("cpu", 4), ("cuda_1", 1)]
    assert built == ["cpu", "cuda:1"]


# -- which devices and threads ----


def test_why_a_device_is_missing(no_cuda):
    assert why_missing("cpu") is None
    assert "no CUDA device" in why_missing("cuda")
    assert "no device that torch knows" in why_missing("abacus")
    assert "not supported" in why_missing("meta")


def test_a_gpu_by_number(one_gpu):
    assert why_missing("cuda:0") is None and "none with number 4" in why_missing("cuda:4")


@pytest.mark.parametrize(
    ("named", "device", "no_cuda_asked", "chosen"),
    [
        (None, "auto", False, ["cpu", "cuda"]),
        (None, "auto", True, ["cpu"]),
        (None, "cpu", False, ["cpu"]),
        (["cpu"], "auto", False, ["cpu"]),
        # --devices goes before --device, --no-cuda before both.
        (["cpu"], "cuda", False, ["cpu"]),
        (["cpu", "cuda"], "cuda", True, ["cpu"]),
    ],
)
def test_which_devices_are_measured(no_cuda, named, device, no_cuda_asked, chosen):
    assert choose_devices(named, device, no_cuda_asked) == chosen


@pytest.mark.parametrize(
    ("named", "device", "no_cuda_asked", "part"),
    [
        (["cuda"], "auto", False, "cuda cannot be measured: no CUDA device is usable on this machine"),
        (["cpu", "cuda:1"], "auto", False, "cuda:1 cannot be measured"),
        (None, "cuda", False, "cuda cannot be measured"),
        (None, "abacus", False, "'abacus' is no device that torch knows"),
        (["cuda"], "auto", True, "--no-cuda leaves no device of cuda"),
        (None, "cuda:0", True, "--no-cuda leaves no device of cuda:0"),
    ],
)
def test_a_device_that_is_named_must_be_there(no_cuda, named, device, no_cuda_asked, part):
    with pytest.raises(FFError, match=part):
        choose_devices(named, device, no_cuda_asked)


def test_a_gpu_that_is_there_is_measured_where_it_is_named(one_gpu):
    assert choose_devices(["cuda"]) == ["cuda"] and choose_devices(None, "cuda:0") == ["cuda:0"]


def test_thread_counts(monkeypatch):
    monkeypatch.setattr(devices, "available_cores", lambda: 6)
    assert thread_counts([1, "all"]) == [1, 6] == thread_counts(["1", " all"])
    assert thread_counts([2, "all", 6, 2]) == [2, 6]
    # With one core, 1 and all are the same and measured once.
    monkeypatch.setattr(devices, "available_cores", lambda: 1)
    assert thread_counts([1, "all"]) == [1]


@pytest.mark.parametrize("wanted", [[0], ["many"], [-1], [""], [1.5], [], [4096]])
def test_what_is_no_thread_count_is_refused(wanted):
    with pytest.raises(FFError, match="threads"):
        thread_counts(wanted)


def test_the_cores_a_process_may_use(tmp_path, monkeypatch):
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda pid: set(range(8)))
    assert available_cores(tmp_path) == 8
    quota = tmp_path / "sys/fs/cgroup/cpu.max"
    for text, cores in (("max 100000\n", 8), ("250000 100000\n", 2), ("50000 100000\n", 1), ("1600000 100000\n", 8)):
        write(quota, text)
        assert available_cores(tmp_path) == cores


# -- memory ----


def test_a_batch_that_would_not_fit_is_refused_before_it_is_made(tmp_path):
    write(tmp_path / "proc/meminfo", "MemTotal:        8000000 kB\nMemAvailable:    4096000 kB\n")
    layers = (784, 1000, 10)
    check_memory(layers, (1, 512, 100_000), tmp_path)
    with pytest.raises(FFError, match=r"batch size 99999999 takes about 2,.* MB to measure and 4,000 MB are free"):
        check_memory(layers, (1, 99_999_999), tmp_path)
    # Where the kernel does not say, the allocator has the last word.
    check_memory(layers, (99_999_999,), tmp_path / "nowhere")


def test_the_memory_of_a_batch_grows_with_it_and_with_the_network():
    # Four batches of float32 pixels that lie ready, one of pixels and of images in the making, outputs and copies.
    assert needed_mb((784, 1000, 10), 1024) == pytest.approx(4 * (6 * 784 + 2 * 1010) * 1024 / 2**20)
    one = deployed()
    staged = one.stage("deploy", 64, torch.Generator())
    assert needed_mb((784, 30, 20, 10), 64) * 2**20 >= devices.STAGED * staged.numel() * 4


def test_what_a_lack_of_memory_looks_like():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(error.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."))
    assert is_out_of_memory(MemoryError()) and not is_out_of_memory(RuntimeError("shapes do not match"))


# -- conditions ----


def test_the_state_of_a_jetson(tmp_path):
    made_jetson(tmp_path)
    state = machine_state(tmp_path)
    assert state["power_mode"] == "15W" and state["jetson_clocks"] is False
    assert state["governor"] == {"cpu": "schedutil", "17000000.gpu": "nvhost_podgov"}
    assert state["clocks_mhz"]["cpu"] == [1190.4] and state["clocks_mhz"]["17000000.gpu"] == 306.0
    assert state["temperature_c"]["cpu-thermal"] == 48.5


def test_what_a_machine_does_not_say_is_left_out(tmp_path):
    state = machine_state(tmp_path)
    assert state["power_mode"] is None and state["jetson_clocks"] is None
    assert state["governor"] == {} and not state["clocks_mhz"].get("cpu")


def test_the_facts_of_a_device(no_cuda):
    assert device_facts("cpu")["available"] and device_facts("cpu")["name"]
    missing = device_facts("cuda:1")
    assert (missing["available"], missing["kind"]) == (False, "cuda") and "no CUDA device" in missing["reason"]
