"""Names on W&B: what a file on disk is called there."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wandb_runs import CONFIG, ROOT, make_run

from ff.files import read_csv, read_json
from ff.learn.recipes import make_run_config
from ff.learn.run import train
from ff.settings import ExecutionConfig
from ff.tracking import names


def test_published_names_of_a_hardware_sample():
    flat = {
        "monotonic_s": "12.5",
        "unix_s": "100",
        "source": "tegrastats",
        "ram_used_mb": "1000",
        "ram_total_mb": "4000",
    }
    flat |= {
        "gpu_percent": "99",
        "cpu_percent": "",
        "power_mw.VDD_IN": "5000",
        "temperature_c.Tdiode": "40",
        "temperature_c.GPU": "45",
    }
    row = names.hardware_row(flat, 10.0)
    assert row["hardware_seconds"] == 2.5
    assert row["VDD_IN_power_mw"] == 5000
    assert row["ram_used_mb"] == 1000
    assert row["ram_usage_percent"] == 25
    assert row["gpu_usage_percent"] == 99
    assert row["temperature_celsius"] == 40
    assert "cpu_avg_percent" not in row, "what was not measured is left out"


def test_a_reading_with_one_load_per_core_gives_their_mean():
    reading = {"monotonic_s": 1.0, "cpu_percent": [10.0, 30.0, None], "power_mw": {"GPU": 7.0}}
    row = names.hardware_row(reading, 1.0)
    assert row["cpu_avg_percent"] == 20.0
    assert row["hardware/cpu_percent.1"] == 30.0
    assert row["GPU_power_mw"] == 7.0


def test_published_names_of_scores(tmp_path):
    metrics = read_json(make_run(tmp_path) / "metrics.json")
    summary = names.training_summary(metrics)
    assert summary["final/test_accuracy"] == metrics["final"]["test_accuracy"]
    for split, name in {"train": "train", "val": "validation", "test": "test"}.items():
        deepest = next(r for r in metrics["results"] if (r["split"], r["readout"], r["depth"]) == (split, "head", 2))
        assert summary[f"{name}/accuracy"] == deepest["accuracy"]
        assert summary[f"{name}/f1_score"] == deepest["macro_f1"]
        assert summary[f"{name}/error"] == deepest["error"]
        goodness = next(
            r for r in metrics["results"] if (r["split"], r["readout"], r["depth"]) == (split, "goodness", 2)
        )
        assert summary[f"{name}/goodness_accuracy"] == goodness["accuracy"] != deepest["accuracy"]
    assert "peak_memory_mb/device" not in summary


def test_energy_is_mirrored_with_its_interval():
    total = {
        "rail": "VDD_IN",
        "gross_mj": 12.5,
        "gross_low_mj": 12.0,
        "net_mj": 3.5,
        "net_low_mj": None,
        "shared": True,
    }
    hardware = {"energy": {"softmax": {"total": total}, "load": {"total": None}}, "run_energy": {"total": total}}
    for name in ("energy/softmax", "energy/run"):
        found = {key: value for key, value in names.energy_summary(hardware).items() if key.startswith(name)}
        assert found == {
            f"{name}/gross_mj": 12.5,
            f"{name}/gross_low_mj": 12.0,
            f"{name}/net_mj": 3.5,
            f"{name}/shared": True,
        }


def test_published_names_of_timings():
    batch = {"path": "deploy", "batch_size": 8, "n_repeats": 3, "latency_ms": {"median": 2.0, "p95": 2.5}}
    batch |= {"throughput_synchronised_per_s": {"median": 4000.0, "n": 3}, "peak_memory_mb": 12.5, "threads": 2}
    batch["throughput_queued_per_s"] = {"median": 5000.0}
    total = {"gross_mj_per_sample": {"mean": 3.0}, "net_mj_per_sample": {"mean": 1.0}, "power_mw": {"mean": 5000.0}}
    energy = {"total": total, "rails": {}}
    devices = {
        "cuda_1": {"device": {"kind": "cuda"}, "batches": [batch | {"energy": energy}]},
        "cpu": {"batches": [batch]},
    }
    gpu, cpu = names.timing_statistics(devices, 100)
    common = {"width": 100, "path": "deploy", "batch_size": 8, "n_repeats": 3, "memory_mb": 12.5}
    common |= {"latency_median_ms": 2.0, "latency_p95_ms": 2.5, "threads": 2}
    common |= {"throughput_median": 4000.0, "throughput_queued_median": 5000.0}
    measured = {"energy_per_sample_mj": 3.0, "net_energy_per_sample_mj": 1.0, "avg_power_mw": 5000.0}
    assert gpu == common | measured | {"device": "cuda"}
    assert cpu == common | dict.fromkeys(measured) | {"device": "cpu"}


@pytest.mark.parametrize("recipe", ["ff", "control"])
def test_a_metric_of_a_sweep_is_one_that_runs_log(prepared_dir, tmp_path, recipe):
    values = {"dataset": "DIGITS", "layers": "784,8,6", "rep_epochs": 1, "softmax_epochs": 1, "val_size": 200}
    config, _ = make_run_config(values | {"recipe": recipe}, {"control": {"base": "bp"}})
    execution = ExecutionConfig(prepared_dir=str(prepared_dir), out=str(tmp_path), sidecar="off")
    (folder,) = train(config, execution)
    rows = [names.epoch_row(row) for row in read_csv(folder / "history.csv")]
    summary = names.training_summary(read_json(folder / "metrics.json"))
    known = {name for name, of in names.conditional_metrics().items() if config.settings.method in of}
    assert {*summary, *rows[-1]} >= names.logged_metrics() | known
    assert set(summary) <= names.logged_metrics() | known


@pytest.mark.parametrize(
    ("recipe", "block", "tag"),
    [
        ("bp", {}, "backprop"),
        ("mine", {"base": "bp"}, "backprop"),
        ("bp", {"method": "forward-forward"}, "forward-forward"),
    ],
)
def test_how_a_run_learned_is_told_by_its_settings_not_by_its_recipes_name(recipe, block, tag):
    config, _ = make_run_config({"recipe": recipe, "layers": "784,20,10", "seed": 3}, {recipe: block})
    found = names.labels(config.as_dict())
    assert found["tags"] == [tag, "mnist", recipe]
    assert (found["name"], found["group"]) == (f"MNIST/784-20-10/{recipe}/seed3", f"MNIST/784-20-10/{recipe}")


def test_the_table_in_the_documentation_names_what_is_logged(tmp_path):
    text = (ROOT / "docs/wandb.md").read_text()
    for name in (
        "sample_val_accuracy",
        "final/test_accuracy",
        "ram_used_mb",
        "gpu_usage_percent",
        "temperature_celsius",
    ):
        assert f"`{name}`" in text
    for name in (
        "hardware_seconds",
        "latency_per_sample_ms",
        "throughput_samples_sec",
        "latency_stats_table",
    ):
        assert f"`{name}`" in text


@given(st.one_of(st.integers(-(10**9), 10**9), st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_survive_a_csv_cell(value):
    assert names.number(str(value)) == value
    assert names.number(value) == value


CELLS = st.one_of(st.none(), st.integers(-9, 9), st.floats(width=16), st.sampled_from(["", "1", "2.5", "x", "nan"]))


@given(st.lists(st.fixed_dictionaries({"a": CELLS}, optional={"b": CELLS}), max_size=6))
def test_table_columns_have_one_type(rows):
    columns, data = names.table(rows)
    for index in range(len(columns)):
        assert len({type(line[index]) for line in data if line[index] is not None}) <= 1


def test_run_ids_follow_settings_and_machine_not_results(tmp_path):
    metrics = read_json(make_run(tmp_path) / "metrics.json")
    first = names.run_id("train", metrics)
    assert re.fullmatch(r"[0-9a-f]{16}", first)
    assert names.run_id("train", metrics | {"final": {}, "seconds": {}}) == first
    assert names.run_id("eval", metrics) != first
    assert names.run_id("train", metrics | {"config": CONFIG | {"rep_epochs": 9}}) != first
    assert names.run_id("train", metrics | {"provenance": {"machine": {"model": "other"}}}) != first
