"""The protocol single-stream: real networks by `quick`, the whole of it on a made clock with a made sensor."""

import functools

import numpy as np
import pytest
import torch
from made_devices import Sensor, World
from made_networks import made_prepared, made_run, schema_errors

from ff.cli import main
from ff.data import prepared as prepared_sets
from ff.errors import FFError
from ff.files import read_json
from ff.learn import checkpoint
from ff.learn.inference import Inference
from ff.measure import single_stream
from ff.measure.power import PowerMeter
from ff.measure.single_stream import check_runs, run_single_stream
from ff.measure.ways import Way
from ff.stamps import model_of


def document(folder):
    return read_json(folder / "single_stream.json")


# -- the whole protocol, on a made clock ----


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A run whose network answers 0 in 4 ms of a made clock, its data, its world, and when it was asked what."""
    prepared, world, asked = made_prepared(), World(), []
    made_run(tmp_path, prepared)

    def answer(images):
        asked.append((world.now, len(images), int(images[0, 0, 0, 0])))
        world.advance(0.004, busy=True)
        return np.zeros(1, int), np.full(1, 2)

    ways = [Way("cpu", "torch", "cut", depth, answer) for depth in (1, 2, 3)] + [
        Way("cpu", "torch", "exit", None, answer)
    ]
    monkeypatch.setattr(single_stream, "ways_on", lambda place, *_: ways if place["available"] else [])
    monkeypatch.setattr(single_stream, "PowerMeter", functools.partial(PowerMeter, every=world.every))
    return tmp_path, prepared, world, asked


def stream(made, **options):
    folder, prepared, world, _ = made
    run_single_stream(folder, prepared, clock=world.clock, sleep=world.sleep, **options)
    return document(folder)


def test_five_runs_of_ten_seconds_and_their_median(made, monkeypatch):
    monkeypatch.setattr(single_stream, "power_source", lambda: (None, "no sensor in this test"))
    found = stream(made)
    assert not schema_errors(found, "single_stream")
    assert (found["protocol"], found["conforms"], found["batch_size"]) == ("single-stream", True, 1)
    assert found["run"]["model"] == model_of(made[0])
    # Full depth and early exit; the cuts below are another matter.
    assert [one["path"] for one in found["results"]] == ["full", "exit"]
    for one in found["results"]:
        assert len(one["runs"]) == 5
        assert all(
            10 <= run["seconds"] < 10.1 and run["inferences"] == pytest.approx(2500, abs=30) for run in one["runs"]
        )
        assert one["latency_ms"] == pytest.approx(4, rel=0.01)
        assert one["inferences_per_s"] == pytest.approx(250, rel=0.01)
        assert one["energy"] is None
        assert {"power_mode", "temperature_c", "clocks_mhz"} <= set(one["before"]) & set(one["after"])


def test_neither_a_slow_nor_a_fast_run_moves_the_median(made, monkeypatch):
    monkeypatch.setattr(single_stream, "power_source", lambda: (None, "no sensor in this test"))
    world = made[2]
    original = world.advance

    def uneven(seconds, **options):
        factor = 10 if 14 < world.now < 20 else 0.5 if 34 < world.now < 40 else 1
        original(seconds * factor, **options)

    world.advance = uneven
    one = stream(made)["results"][0]
    counts = sorted(run["inferences"] for run in one["runs"])
    assert counts[0] < 0.8 * counts[2] < 0.8 * 0.8 * counts[4]
    assert one["latency_ms"] == pytest.approx(4, rel=0.01)


def test_accuracy_is_that_of_the_function_that_is_timed_one_image_at_a_time(made, monkeypatch):
    monkeypatch.setattr(single_stream, "power_source", lambda: (None, "no sensor in this test"))
    _, prepared, _, asked = made
    one = stream(made)["results"][0]
    assert one["test_accuracy"] == pytest.approx(float((prepared.test.labels == 0).double().mean()))
    assert one["mean_layers"] == 2
    assert {size for _, size, _ in asked} == {1}
    # All test images in turn, then again from the first.
    first = [value for _, _, value in asked[:60]]
    assert first == prepared.test.images[:, 0, 0, 0].tolist()
    assert [value for _, _, value in asked[60:180]] == first * 2


def test_the_runs_begin_warm(made, monkeypatch):
    """2 s of work, 500 images, lie between the accuracy and the first run."""
    monkeypatch.setattr(single_stream, "power_source", lambda: (None, "no sensor in this test"))
    results, images = stream(made)["results"], len(made[1].test.labels)
    counted = sum(run["inferences"] for one in results for run in one["runs"])
    assert len(made[3]) - counted - 2 * images == pytest.approx(2 * 500, abs=4)


def test_energy_is_taken_between_the_time_stamps_gross_and_net(made, monkeypatch):
    world = made[2]
    sensor = Sensor(world, 0.5)
    monkeypatch.setattr(single_stream, "power_source", lambda: (sensor, None))
    found = stream(made)
    assert not schema_errors(found, "single_stream")
    assert found["power"] == {"source": "made sensor", "reason": None}
    one = found["results"][0]
    total = one["energy"]["total"]
    # Idle and load of the made world, over 4 ms.
    idle, load = world.idle_mw(0), world.load_mw
    assert total["gross_mj_per_sample"]["mean"] == pytest.approx((idle + load) * 0.004, rel=0.03)
    assert total["net_mj_per_sample"]["mean"] == pytest.approx(load * 0.004, rel=0.03)
    assert [window["inferences"] for window in one["energy"]["windows"]] == [run["inferences"] for run in one["runs"]]


def test_a_slow_sensor_makes_the_runs_longer(made, monkeypatch):
    monkeypatch.setattr(single_stream, "power_source", lambda: (Sensor(made[2], 1.0), None))
    assert all(run["seconds"] >= 20 for one in stream(made)["results"] for run in one["runs"])


# -- what is refused ----


def test_a_run_that_is_too_short_is_refused_and_nothing_is_written(made, monkeypatch):
    """A clock that was set back or forth makes a run short."""
    monkeypatch.setattr(single_stream, "power_source", lambda: (None, "no sensor in this test"))
    monkeypatch.setitem(single_stream.PROTOCOLS, "single-stream", single_stream.Stream(5, 9.0, 0.0, True))
    with pytest.raises(FFError, match=r"torch on cpu: a run lasted 9 s and single-stream asks for 10 s or more"):
        stream(made)
    assert not (made[0] / "single_stream.json").exists()


def test_fewer_than_five_runs_are_refused():
    long = [{"seconds": 10.0, "inferences": 1}] * 5
    check_runs(long, "x")
    with pytest.raises(FFError, match="4 runs are no result of single-stream, which asks for 5"):
        check_runs(long[:4], "x")
    with pytest.raises(FFError, match=r"a run lasted 9.99 s"):
        check_runs([*long, {"seconds": 9.99, "inferences": 1}], "x")


# -- real networks ----


def test_quick_answers_with_real_runtimes_and_says_that_it_is_a_trial(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnx", reason="onnx is not installed (extra edge)")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra edge)")
    from ff.assess.early_exit import run_early_exit
    from ff.export.bundle import export_run

    prepared = made_prepared()
    network, _ = made_run(tmp_path, prepared)
    run_early_exit(tmp_path, prepared, repeats=1)
    export_run(tmp_path, prepared)
    monkeypatch.setattr(prepared_sets, "open_or_prepare", lambda *_: prepared)
    options = ["--devices", "cpu", "--threads", "1", "--runtimes", "torch", "onnxruntime", "tensorrt"]
    before = torch.get_num_threads()
    assert main(["measure", str(tmp_path), "--protocol", "quick", *options]) == 0
    assert torch.get_num_threads() == before
    text = capsys.readouterr().out
    assert "onnxruntime on cpu, full depth: " in text and "tensorrt on cpu: not measured: tensorrt computes" in text
    assert "a trial by the protocol quick: its runs are too short to be a result" in text
    found = document(tmp_path)
    assert not schema_errors(found, "single_stream")
    assert not found["conforms"]
    inference = Inference(network, prepared.facts)
    right = inference.answer(inference.pixels(prepared.test.images)).classes == prepared.test.labels
    full = [one for one in found["results"] if one["path"] == "full"]
    assert [one["runtime"] for one in full] == ["torch", "onnxruntime"]
    assert all(one["test_accuracy"] == pytest.approx(float(right.double().mean()), abs=0.02) for one in full)


def test_torch_alone_needs_no_bundle(tmp_path):
    prepared = made_prepared()
    made_run(tmp_path, prepared)
    run_single_stream(tmp_path, prepared, "quick")
    assert [one["path"] for one in document(tmp_path)["results"]] == ["full"]
    with pytest.raises(FFError, match="there is no bundle"):
        run_single_stream(tmp_path, prepared, "quick", runtimes=("onnxruntime",))
    assert checkpoint.load(tmp_path / "model.safetensors")
