"""The measurement of a run, for real on this machine's CPU: its files, its threads, its energy."""

import itertools
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from made_devices import Reading
from made_networks import made_prepared, made_run, schema_errors

from ff.data import prepared as prepared_sets
from ff.errors import FFError
from ff.files import read_csv, read_json
from ff.learn import products
from ff.measure import agreement, apart, power, protocol, run
from ff.measure.agreement import run_agreement
from ff.measure.devices import DeployedNetwork
from ff.measure.protocol import Times
from ff.measure.run import run_measurement
from ff.phases import read_phases
from ff.stamps import model_of

QUICK = Times(repeats=3, single_samples=6, rounds=2, queued_windows=2, warm_up_s=0.0)


@pytest.fixture
def no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def made(tmp_path, no_cuda, monkeypatch):
    monkeypatch.setattr(protocol, "QUEUED_S", 0.002)
    prepared = made_prepared()
    _, config = made_run(tmp_path, prepared, seed=5)
    return tmp_path, prepared, config


@pytest.mark.parametrize(("error", "library"), [(0.0, "onednn"), (1.0, "default")])
def test_the_library_that_multiplies_is_a_condition(made, monkeypatch, tmp_path, error, library):
    folder, prepared, _ = made
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(products, "_library", "default")
    monkeypatch.setattr(products, "onednn_error", lambda: error)
    monkeypatch.setattr(products, "onednn_gain", lambda: 2.0)
    run_measurement(folder, prepared, threads=[1], batch_sizes=(1,), times=QUICK, energy_windows=0)
    assert read_json(folder / "variance" / "cpu.json")["conditions"]["float32_products"] == library


def test_a_run_gets_files_for_each_device_there_or_not(made, monkeypatch):
    folder, prepared, config = made
    monkeypatch.setattr(run, "power_source", lambda: (None, "no sensor in this test"))
    run_measurement(folder, prepared, threads=[1, 2], batch_sizes=(1, 4), times=QUICK)
    cpu, cuda = (read_json(folder / "variance" / f"{name}.json") for name in ("cpu", "cuda"))
    assert schema_errors(cpu, "variance") == schema_errors(cuda, "variance") == []
    rows = read_csv(folder / "variance" / "cpu.csv")
    assert len(rows) == 2 * 2 * (6 + 3)
    assert all(float(row["latency_ms"]) > 0 and row["device_ms"] == "" for row in rows)
    assert {row["threads"] for row in rows} == {"1", "2"}
    assert {row["model"] for row in rows} == {model_of(folder)} == {cpu["run"]["model"]}
    assert cpu["device"]["available"] and cpu["device"]["name"] and cpu["seed"] == 5
    assert cpu["run"]["name"] == config.name and cpu["measured_together"] == ["cpu"]
    assert cpu["conditions"]["threads"] == [1, 2] and cuda["conditions"]["threads"] == []
    assert cpu["conditions"]["power"]["reason"] == "no sensor in this test"
    for batch in cpu["batches"]:
        assert (batch["throughput_queued_per_s"] is None) == (batch["path"] == "end_to_end")
    # Raw rows and queued windows share one global order.
    windows = [
        window["order"]
        for batch in cpu["batches"]
        for window in (batch["throughput_queued_per_s"] or {"windows": []})["windows"]
    ]
    assert sorted([int(row["order"]) for row in rows] + windows) == list(range(len(rows) + 2 * 2 * 2))
    assert not cuda["device"]["available"] and "no CUDA device" in cuda["device"]["reason"]
    assert cuda["batches"] == [] and read_csv(folder / "variance" / "cuda.csv") == []
    assert [phase.name for phase in read_phases(folder / "variance" / "phases.csv")] == ["measure"]


def test_every_timed_run_has_the_number_of_threads_that_its_row_names(made, monkeypatch):
    folder, prepared, _ = made
    before = torch.get_num_threads()
    seen = []
    original = DeployedNetwork.run

    def noting(self, path, inputs):
        seen.append((self.threads, torch.get_num_threads()))
        return original(self, path, inputs)

    monkeypatch.setattr(DeployedNetwork, "run", noting)
    run_measurement(folder, prepared, ("cpu",), [1, 3], (1, 2), QUICK, energy_windows=0)
    assert {wanted for wanted, _ in seen} == {1, 3} and all(wanted == there for wanted, there in seen)
    changes = sum(a != b for a, b in itertools.pairwise(wanted for wanted, _ in seen))
    assert changes >= 3
    assert torch.get_num_threads() == before


def test_the_number_of_threads_is_put_back_after_a_failure(made, monkeypatch):
    folder, prepared, _ = made
    before = torch.get_num_threads()

    def broken(self, path, inputs):
        raise RuntimeError("broken")

    monkeypatch.setattr(DeployedNetwork, "run", broken)
    with pytest.raises(RuntimeError, match="broken"):
        run_measurement(folder, prepared, ("cpu",), [before + 1], (1,), QUICK, energy_windows=0)
    assert torch.get_num_threads() == before


class Steady:
    """7 W, always; 1 W of it on a rail of its own, which counts its energy."""

    name, period_s = "steady", 0.2
    start_s = None

    def read(self):
        import time

        self.start_s = self.start_s or time.perf_counter()
        return Reading({"VDD_IN": 7000.0}, {"VDD_CPU": 1000.0 * (time.perf_counter() - self.start_s)})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_a_run_with_a_power_sensor_has_energy_of_both_kinds(made, monkeypatch):
    folder, prepared, _ = made
    monkeypatch.setattr(run, "power_source", lambda: (Steady(), None))
    # Short windows of a slow sensor: a thread that is held up for a moment leaves no gap in its readings.
    for name, value in {"WINDOW_S": 0.3, "SENSOR_PERIODS": 1, "LEAD_IN_S": 0.0, "LEAD_IN_PERIODS": 0.5}.items():
        monkeypatch.setattr(power, name, value)
    run_measurement(folder, prepared, ("cpu",), [1], (4,), QUICK, energy_windows=2)
    document = read_json(folder / "variance" / "cpu.json")
    assert schema_errors(document, "variance") == []
    energies = {(b["path"], b["batch_size"]): b["energy"] for b in document["batches"]}
    assert energies["end_to_end", 4] is None
    used = energies["deploy", 4]
    assert used["total"]["rail"] == "VDD_IN" and set(used["rails"]) == {"VDD_IN", "VDD_CPU"}
    for window in used["windows"]:
        assert window["gross_mj_per_sample"] == pytest.approx(7000 * window["window_s"] / window["inferences"])
        assert window["net_mj_per_sample"] == pytest.approx(0, abs=1e-6)
    assert used["rails"]["VDD_CPU"]["power_mw"]["mean"] == pytest.approx(1000, rel=0.01)
    gross = used["total"]["gross_mj_per_sample"]
    assert gross["n"] == 2 and gross["low"] < gross["mean"] < gross["high"]
    # Two windows of a machine that other work disturbs can be so far apart that the interval would reach below 0.
    assert gross["method"].startswith("Student t")
    found = document["conditions"]["power"]
    assert found["source"] == "steady" and found["idle_mw"]["total"]["mean"] == pytest.approx(7000)
    assert len(found["idle_mw"]["windows_mw"]) == 3
    assert [phase.name for phase in read_phases(folder / "variance" / "phases.csv")] == [
        *("measure", "idle_before", "energy:cpu:1:4", "idle_between", "energy:cpu:1:4", "idle_after")
    ]


def test_the_seed_draws_the_order_and_is_the_runs_unless_another_is_named(made):
    folder, prepared, config = made

    def order(**seed):
        run_measurement(folder, prepared, ("cpu",), [1], (1, 2), QUICK, energy_windows=0, **seed)
        document = read_json(folder / "variance" / "cpu.json")
        rows = sorted(read_csv(folder / "variance" / "cpu.csv"), key=lambda row: int(row["order"]))
        return document["seed"], [(row["path"], row["batch_size"], row["repeat"]) for row in rows]

    assert order() == order(seed=config.seed) and order()[0] == config.seed == 5
    assert order(seed=77)[0] == 77 and order(seed=77)[1] != order()[1]


def test_measuring_again_replaces_the_phase_marks(made):
    folder, prepared, _ = made
    for _ in range(2):
        run_measurement(folder, prepared, ("cpu",), [1], (1,), QUICK, energy_windows=0)
    assert len(read_phases(folder / "variance" / "phases.csv")) == 1


def test_a_device_or_a_batch_size_that_is_named_twice_is_measured_once(made):
    folder, prepared, _ = made
    run_measurement(folder, prepared, ("cpu", "cpu"), [1, "1"], (2, 2), QUICK, energy_windows=0)
    assert len(read_csv(folder / "variance" / "cpu.csv")) == 2 * 3
    assert [b["path"] for b in read_json(folder / "variance" / "cpu.json")["batches"]] == ["deploy", "end_to_end"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"times": QUICK._replace(repeats=0)},
        {"times": QUICK._replace(single_samples=0)},
        {"times": QUICK._replace(rounds=0)},
        {"batch_sizes": (4, 0)},
        {"batch_sizes": ()},
    ],
)
def test_a_count_below_one_is_refused_in_a_sentence(tmp_path, wrong):
    with pytest.raises(FFError, match="give at least 1"):
        run_measurement(tmp_path, made_prepared(), **wrong)
    with pytest.raises(FFError, match="-1 energy windows"):
        run_measurement(tmp_path, made_prepared(), energy_windows=-1)


def test_an_absurd_batch_size_is_refused_before_anything_is_measured(made):
    folder, prepared, _ = made
    with pytest.raises(FFError, match=r"batch size 99999999999 takes about [\d,]+ MB"):
        run_measurement(folder, prepared, ("cpu",), [1], (1, 99_999_999_999), QUICK)
    assert not (folder / "variance").exists()


def test_the_workflows_job_measures_as_its_settings_say(made, monkeypatch, tmp_path):
    _, prepared, config = made
    calls = []
    monkeypatch.setattr(prepared_sets, "open_prepared", lambda path, verify: prepared)
    monkeypatch.setattr(run, "run_measurement", lambda *a, **kw: calls.append(("measurement", a, kw)))
    monkeypatch.setattr(run, "run_power_modes", lambda *a, **kw: calls.append(("power modes", a, kw)))
    monkeypatch.setattr(agreement, "run_agreement", lambda *a, **kw: calls.append(("agreement", a, kw)))
    measure = {"devices": ["cpu", "cuda"], "threads": [1, "all"], "batch_sizes": [1, 8], "repeats": 7}
    measure |= {"single_samples": 101, "rounds": 3, "energy_windows": 2, "early_exit_repeats": 5}
    measure |= {"runtimes": ["torch", "onnxruntime"], "power_modes": [0, 2]}
    # In a fork nobody would see the calls; what that does is tested beside ff.measure.apart.
    monkeypatch.setattr(apart, "apart", lambda function, *arguments: function(*arguments))
    folders = [tmp_path / "results" / config.key._replace(seed=seed).name for seed in (0, 1)]
    snakemake = SimpleNamespace(
        input=SimpleNamespace(model=[str(folder / "model.safetensors") for folder in folders], data="data"),
        params=SimpleNamespace(measure=measure),
        config={"results": str(tmp_path / "results"), "sidecar": "off", "hw_interval_ms": 500, "verify": True},
        log=[str(tmp_path / "log")],
    )
    script = Path(__file__).parents[2] / "workflow" / "scripts" / "measure.py"
    runpy.run_path(str(script), {"snakemake": snakemake})
    assert [where for _, where, _ in calls[::3]] == [(folder, prepared) for folder in folders]
    assert [where for _, where, _ in calls[1::3]] == [(folder, prepared, [0, 2]) for folder in folders]
    assert [where for _, where, _ in calls[2::3]] == [(folder, prepared, ["cpu", "cuda"]) for folder in folders]
    how = dict(calls[0][2])
    assert how == calls[1][2]
    assert how.pop("times") == Times(repeats=7, single_samples=101, rounds=3)
    assert how == {name: measure[name] for name in ("devices", "threads", "batch_sizes", "energy_windows", "runtimes")}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_gpu_is_measured_and_agrees(tmp_path):
    prepared = made_prepared()
    made_run(tmp_path, prepared)
    run_measurement(tmp_path, prepared, batch_sizes=(1, 32), times=Times(5, 5, 2), energy_windows=0)
    run_agreement(tmp_path, prepared)
    document = read_json(tmp_path / "variance" / "cuda.json")
    assert schema_errors(document, "variance") == []
    for batch in document["batches"]:
        assert 0 < batch["device_ms"]["median"] <= batch["latency_ms"]["median"] and batch["peak_memory_mb"] > 0
    assert read_json(tmp_path / "variance" / "agreement.json")["same_predictions_share"] > 0.99
