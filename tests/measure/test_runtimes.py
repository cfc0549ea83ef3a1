"""Other runtimes than torch by the same protocol: real ONNX Runtime on a made network, and made devices."""

import itertools

import numpy as np
import pytest
import torch
from made_devices import Device, Sensor, World
from made_networks import made_prepared, made_run, schema_errors
from made_runs import make_run

pytest.importorskip("onnx", reason="onnx is not installed (extra edge)")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra edge)")

import onnxruntime

from ff import layout
from ff.cli import main
from ff.data import prepared as prepared_sets
from ff.errors import FFError
from ff.export import runtimes as exported_runtimes
from ff.export.bundle import export_run
from ff.export.files import open_bundle
from ff.files import read_csv, read_json, write_json
from ff.learn import checkpoint
from ff.learn.inference import Inference
from ff.measure import power, protocol, run
from ff.measure.protocol import Times, measure
from ff.measure.run import run_measurement
from ff.measure.runtimes import deploy_exported, places
from ff.memory import peak_host_mb
from ff.settings import MeasureConfig
from ff.stamps import model_of
from ff.summary import tables

QUICK = Times(repeats=3, single_samples=6, rounds=2, queued_windows=2, warm_up_s=0.0)
ALL = ("torch", "onnxruntime", "onnxruntime-int8", "tensorrt")


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(protocol, "QUEUED_S", 0.002)
    monkeypatch.setattr(run, "power_source", lambda: (None, "no sensor in this test"))
    prepared = made_prepared()
    made_run(tmp_path, prepared)
    export_run(tmp_path, prepared)
    return tmp_path, prepared


def test_every_runtime_gets_files_there_or_not_and_is_measured_in_the_same_rounds(made):
    folder, prepared = made
    run_measurement(folder, prepared, ("cpu", "cuda"), [1, 2], (1, 4), QUICK, runtimes=ALL)
    files = {path.relative_to(folder).as_posix() for path in folder.glob("variance/**/*.*")}
    assert files | {"variance/agreement.json"} == set(layout.measure_files(["cpu", "cuda"], ALL[1:]))
    stems = {name: f"cpu_{name}" for name in ALL[1:]}
    documents = {name: read_json(folder / f"variance/runtimes/{stem}.json") for name, stem in stems.items()}
    documents["torch"] = read_json(folder / "variance/cpu.json")
    orders = []
    for name in ALL[:3]:
        content = documents[name]
        assert schema_errors(content, "variance") == []
        assert (content["runtime"], content["run"]["model"]) == (name, model_of(folder))
        assert content["measured_together"] == ["cpu", "runtimes/cpu_onnxruntime", "runtimes/cpu_onnxruntime-int8"]
        paths = ["deploy", "end_to_end"] if name == "torch" else ["end_to_end"]
        cells = [(batch["threads"], batch["path"], batch["batch_size"]) for batch in content["batches"]]
        assert sorted(cells) == sorted(itertools.product((1, 2), paths, (1, 4)))
        rows = read_csv(folder / f"variance/{'cpu' if name == 'torch' else f'runtimes/{stems[name]}'}.csv")
        assert len(rows) == 2 * len(paths) * (6 + 3)
        assert {row["model"] for row in rows} == {model_of(folder)}
        orders.append([int(row["order"]) for row in rows])
    # Taking turns: none is done before the other begins.
    assert all(min(one) < max(other) for one, other in itertools.permutations(orders, 2))
    assert schema_errors(documents["tensorrt"], "variance") == []
    assert documents["tensorrt"]["device"]["reason"] == "tensorrt computes on cuda only"
    gone = read_json(folder / "variance/runtimes/cuda_onnxruntime.json")
    assert "no CUDA device" in gone["device"]["reason"] and gone["batches"] == []
    sizes = {name: documents[name]["file_bytes"] for name in ALL[:3]}
    assert sizes["onnxruntime"] == (folder / "export/full.onnx").stat().st_size > 2 * sizes["onnxruntime-int8"]


def subjects(folder, prepared, runtimes=ALL, threads=(1,)):
    bundle = open_bundle(folder)
    return list(deploy_exported(places(folder, bundle, ["cpu"], runtimes), folder, bundle, prepared.test, threads))


def test_a_runtime_answers_the_images_that_torch_answers(made):
    """Of the same draw the same images, and the answer of full depth."""
    folder, prepared = made
    inference = Inference(checkpoint.load(folder / "model.safetensors")[0], prepared.facts)
    found = subjects(folder, prepared)
    assert [one.name for one in found] == ["runtimes/cpu_onnxruntime", "runtimes/cpu_onnxruntime-int8"]
    for one in found:
        images = one.stage("end_to_end", 50, torch.Generator().manual_seed(3))
        rows = torch.randint(len(prepared.test.labels), (50,), generator=torch.Generator().manual_seed(3))
        np.testing.assert_array_equal(images, prepared.test.images[rows].numpy())
        expected = inference.answer(inference.pixels(prepared.test.images[rows])).classes.numpy()
        assert (one.run("end_to_end", images) == expected).mean() > (0.8 if "int8" in one.name else 0.999)


def test_memory_is_that_of_a_process_of_its_own(made):
    """Not of this one, which holds torch; and a batch takes what it takes."""
    folder, prepared = made
    [one] = subjects(folder, prepared, ["onnxruntime"])
    generator = torch.Generator()
    peaks = []
    for size in (1, 5000):
        one.run("end_to_end", one.stage("end_to_end", size, generator))
        peaks.append(one.peak_memory_mb())
    # 5000 images of 784 float32 values are 15 MB, in several copies.
    assert 20 < peaks[0] < peaks[1] - 15 < 400
    assert peaks[0] < 0.6 * peak_host_mb()


def test_a_bundle_is_asked_for_and_another_models_is_refused(made):
    folder, prepared = made
    made_run(folder, prepared, seed=9)
    run_measurement(folder, prepared, ("cpu",), [1], (1,), QUICK)
    with pytest.raises(FFError, match=r"it belongs to model .*; export it again"):
        run_measurement(folder, prepared, ("cpu",), [1], (1,), QUICK, runtimes=ALL[:2])


def test_torch_alone_looks_at_no_bundle(tmp_path, made):
    folder, prepared = made
    (folder / "export/bundle.json").unlink()
    run_measurement(folder, prepared, ("cpu",), [1], (1,), QUICK, runtimes=("torch",))
    assert not (folder / "variance/runtimes").exists()
    with pytest.raises(FFError, match="there is no bundle"):
        run_measurement(folder, prepared, ("cpu",), [1], (1,), QUICK, runtimes=("torch", "onnxruntime"))


# -- what is there ----


def test_why_a_runtime_is_not_there(made, monkeypatch):
    bundle = open_bundle(made[0])
    why = exported_runtimes.why_missing
    assert why("onnxruntime", "cpu", bundle) is None
    here = {"CPUExecutionProvider"}
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(here))
    assert why("onnxruntime", "cuda", bundle) == "this onnxruntime was built without CUDAExecutionProvider"
    assert why("tensorrt", "cuda", bundle) == "this onnxruntime was built without TensorrtExecutionProvider"
    here |= {"TensorrtExecutionProvider", "CUDAExecutionProvider"}
    assert why("tensorrt", "cuda", bundle) is None
    monkeypatch.setattr("ff.export.packages.find_spec", lambda name: None)
    assert "onnx and onnxruntime are not installed" in why("onnxruntime", "cpu", bundle)


def test_the_runtimes_of_the_settings_are_those_there_are():
    [setting] = [one for one in MeasureConfig.__dataclass_fields__.values() if one.name == "runtimes"]
    assert set(setting.metadata["choices"]) == {"torch", *exported_runtimes.RUNTIMES}


def test_tensorrt_leaves_by_stages_since_it_skips_no_branch():
    assert not exported_runtimes.RUNTIMES["tensorrt"].skips_branches


# -- the protocol ----


class Whole(Device):
    """A device that takes images and gives classes, as an exported network does."""

    paths = ("end_to_end",)


def test_a_subject_of_one_path_is_timed_on_that_path_alone():
    world = World()
    one, two = Whole(world, "whole"), Device(world, "both", lambda path, size: 0.002)
    measured = measure([one, two], (1, 8), QUICK, clock=one.clock)
    assert {row["path"] for row in measured.rows["whole"]} == {"end_to_end"}
    assert len(measured.rows["whole"]) == 6 + 3
    assert {entry[1] for entry in one.log if entry[0] in ("run", "stage")} == {"end_to_end"}
    for batch in measured.batches["whole"]:
        assert batch["throughput_queued_per_s"] is None
        assert batch["latency_ms"]["median"] == pytest.approx(one.true_ms("end_to_end", batch["batch_size"]))
    assert len(measured.batches["both"]) == 4


def test_energy_of_a_subject_of_one_path_is_of_that_path():
    world = World()
    device = Whole(world, "whole", lambda path, size: 0.02)
    found = measure(
        [device],
        (8,),
        QUICK,
        clock=world.clock,
        power=power.PowerMeter(Sensor(world), world.clock, world.every),
        energy_windows=2,
        sleep=world.sleep,
    )
    [batch] = found.batches["whole"]
    assert batch["path"] == "end_to_end"
    assert batch["energy"]["total"]["gross_mj_per_sample"]["mean"] > 0


# -- the command ----


def test_the_command_measures_each_runtime(made, monkeypatch, capsys):
    folder, prepared = made
    monkeypatch.setattr(prepared_sets, "open_or_prepare", lambda *_: prepared)
    options = ["--devices", "cpu", "--threads", "1", "--batch-sizes", "4", "--repeats", "2"]
    assert main(["measure", str(folder), *options, "--runtimes", *ALL]) == 0
    text = capsys.readouterr().out
    assert "onnxruntime-int8 on cpu (1 CPU thread) end_to_end, batch 4: median " in text
    assert "tensorrt on cpu: not measured: tensorrt computes on cuda only" in text


def test_the_table_of_runtimes_has_the_accuracy_of_each(tmp_path):
    key = layout.RunKey("MNIST", "784-20-10", "ff", 0)
    folder = make_run(tmp_path, key)
    paths = [
        {"path": path, "number_format": kind, "accuracy": accuracy, "accuracy_torch": 0.9}
        for path, kind, accuracy in (("full", "float32", 0.89), ("stages", "int8", 0.5), ("full", "int8", 0.88))
    ]
    write_json(folder / "export/parity.json", {"run": read_json(folder / "metrics.json")["run"], "paths": paths})
    found = tables.runtimes(tables.files_of(tmp_path, [key])).groupby("runtime")["test_accuracy"].unique()
    assert found.pop("tensorrt").tolist() == pytest.approx([float("nan")], nan_ok=True)
    assert found.map(list).to_dict() == {"torch": [0.9], "onnxruntime": [0.89], "onnxruntime-int8": [0.88]}
