"""What the tests of W&B share: made run folders, offline runs read back, a search for the key."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

from ff.files import read_csv, read_json, write_csv, write_json
from ff.tracking import names, open_tracker

ROOT = Path(__file__).resolve().parents[2]
KEY = "0123456789abcdef0123456789abcdef01234567"
NOWHERE = "http://127.0.0.1:9"
CONFIG = {
    "dataset": "DIGITS",
    "layers": "784,20,10",
    "recipe": "ff",
    "seed": 3,
    "rep_epochs": 2,
    "softmax_epochs": 1,
    "train_batch_size": 32,
    "recipe_settings": {"method": "forward-forward", "learning_rate": 0.01},
}
# Digits alone, as a stamp may be: it must not be taken for a number.
MODEL = "1234567890123456"
RUN = {
    "name": "DIGITS/784-20-10/ff/seed3",
    "dataset": "DIGITS",
    "layers": "784-20-10",
    "recipe": "ff",
    "seed": 3,
    "model": MODEL,
}


def scores(split, readout, depth, accuracy):
    row = {"split": split, "readout": readout, "depth": depth, "n": 100}
    return row | {"accuracy": accuracy, "macro_f1": accuracy - 0.01, "error": 1 - accuracy}


def write_weights(folder, model=MODEL):
    """A model.safetensors without tensors, whose header names the model."""
    about = {"format": 2, "model": model}
    header = json.dumps({"__metadata__": {"ff": json.dumps(about)}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def make_run(results, accuracy=0.9, model=MODEL):
    """A run folder with every file that is mirrored, in the formats that ff writes."""
    folder = results / RUN["name"]
    rows = [
        scores(s, r, d, accuracy - 0.1 / d + shift - less)
        for s, shift in (("train", 0.02), ("val", 0.01), ("test", 0.0))
        for r, less in (("head", 0.0), ("goodness", 0.03))
        for d in (1, 2)
    ]
    metrics = {
        "schema": 1,
        "config": CONFIG,
        "run": RUN | {"model": model},
        "provenance": {
            "git_commit": "abc",
            "python": "3.11",
            "machine": {"model": "board"},
            "warnings": [],
        },
        "results": rows,
        "final": {"test_accuracy": accuracy - 0.05, "val_accuracy": 0.8, "train_accuracy": 0.95},
        "shared_by_seeds": 1,
        "seconds": {"load": 0.5, "representation": 2.5, "softmax": 1.0, "evaluation": 0.25, "total": 4.25},
        "samples_per_s": {"representation": 1000.0, "softmax": 4000.0},
        "peak_memory_mb": {"host": 300.5, "device": None},
        "parameters": 15910,
        "macs_per_sample": {"train_step": 40000, "head_readout": 16000},
        "energy": None,
        "resumed_from_epoch": None,
    }
    write_json(folder / "metrics.json", metrics)
    history = [
        {
            "phase": "representation",
            "epoch": 1,
            "loss": 0.7,
            "goodness_positive_1": 1.5,
            "goodness_negative_1": 1.0,
        },
        {
            "phase": "representation",
            "epoch": 2,
            "loss": 0.5,
            "goodness_positive_1": 2.5,
            "goodness_negative_1": 0.5,
        },
        {
            "phase": "softmax",
            "epoch": 1,
            "loss": 0.4,
            "validation_accuracy": 0.8,
            "validation_readout": "head",
            "validation_n": 360,
        },
    ]
    for row in history:
        row |= {"model": model, "learning_rate": 0.01, "seconds": 0.125, "validation_seconds": 0.01}
    columns = ["model", "phase", "epoch", "loss", "goodness_positive_1", "goodness_negative_1", "validation_accuracy"]
    write_csv(
        folder / "history.csv",
        [*columns, "validation_readout", "validation_n", "learning_rate", "seconds", "validation_seconds"],
        history,
    )
    marks = [
        {
            "model": model,
            "phase": "load",
            "start_monotonic_s": 10.0,
            "end_monotonic_s": 10.5,
            "start_unix_s": 1e9,
            "end_unix_s": 1e9 + 0.5,
        }
    ]
    write_csv(
        folder / "phases.csv",
        ["model", "phase", "start_monotonic_s", "end_monotonic_s", "start_unix_s", "end_unix_s"],
        marks,
    )
    samples = [
        {"model": model, "monotonic_s": 10.0 + i, "unix_s": 1e9 + i, "source": "tegrastats",
         "ram_used_mb": 1000 + i, "ram_total_mb": 4000,
         "gpu_percent": 50 + i, "cpu_percent": 25.5, "temperature_c.CPU": 40.0, "temperature_c.GPU": 41.5 + i,
         "power_mw.VDD_IN": 5000 + i, "power_mw.VDD_SOC": None}
        for i in range(3)
    ]  # fmt: skip
    write_csv(folder / "hardware.csv", list(samples[0]), samples)
    energy = {"representation": {"seconds": 2.5, "rails": {}, "total": {"gross_mj": 12500.0, "net_mj": None}}}
    write_json(folder / "hardware.json", {"schema": 1, "model": model, "samples": 3, "energy": energy})
    write_weights(folder, model)
    return folder


def add_evaluation(folder, model=MODEL):
    readout = scores("test", "head", 2, 0.9) | {"ece": None}
    readout["per_class"] = [{"class": "0", "n": 10, "precision": 1.0, "recall": 0.9, "f1": 0.95}]
    readout["confusion"] = [[9, 1], [0, 10]]
    layers = [{"depth": 1, "width": 20, "sparsity": 0.5, "dead_units": 2, "goodness": {"positive": {"mean": 2.0}}}]
    content = {
        "schema": 1,
        "run": RUN | {"model": model},
        "classes": ["0", "1"],
        "readouts": [readout],
        "layers": layers,
        "confidence": [],
    }
    write_json(folder / "evaluation.json", content)
    row = {"model": model, "rule": "logit", "k": 1.0, "accuracy": 0.89}
    write_csv(folder / "early_exit.csv", list(row), [row])
    point = {"rule": "logit", "k": 1.0, "choice": "c", "val": {"accuracy": 0.88}, "test": {"accuracy": 0.89}}
    cuts = [{"depth": d, "val": {"accuracy": 0.86 + d / 100}, "test": {"accuracy": d / 4}} for d in (1, 2)]
    write_json(
        folder / "early_exit.json",
        {
            "schema": 1,
            "run": RUN | {"model": model},
            "operating_point": point,
            "static_cuts": cuts,
            "reference_cut": {"depth": 2},
        },
    )


def add_timings(folder):
    rows = [
        {"model": MODEL, "device": "cpu", "threads": 2, "path": "deploy", "batch_size": b, "repeat": i, "order": i,
         "latency_ms": 2.0 * b + i, "device_ms": None}
        for b in (1, 8)
        for i in range(3)
    ]  # fmt: skip
    write_csv(folder / "variance/cpu.csv", list(rows[0]), rows)
    batch = {"threads": 2, "path": "deploy", "batch_size": 8, "n_repeats": 3}
    batch |= {"latency_ms": {"median": 17.0, "p5": 16.0}, "peak_memory_mb": 12.5}
    batch["throughput_synchronised_per_s"] = {"median": 470.0}
    batch["throughput_queued_per_s"] = {"median": 940.0, "method": "bootstrap BCa", "windows": [{"order": 1}]}
    batch["energy"] = {"total": {"gross_mj_per_sample": {"mean": 3.5}, "net_mj_per_sample": None}, "rails": {}}
    device = {"name": "a processor", "kind": "cpu", "available": True, "reason": None}
    write_json(folder / "variance/cpu.json", {"schema": 1, "run": RUN, "device": device, "batches": [batch]})
    agreement = {
        "schema": 1,
        "run": RUN,
        "devices": ["cpu", "cuda"],
        "available": False,
        "reason": "no CUDA device",
        "n": None,
    }
    write_json(folder / "variance/agreement.json", agreement)


def add_figures(results):
    from PIL import Image

    (results / "figures").mkdir(parents=True)
    Image.new("RGB", (8, 6), "white").save(results / "figures/accuracy.png")
    write_csv(results / "summary/accuracy.csv", ["dataset", "accuracy"], [{"dataset": "DIGITS", "accuracy": 0.9}])


def read_back(directory):
    """The records of an offline run as W&B's own reader shows them: (config, history, summary, tables, raw text)."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(directory)]
    text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    config, history, summary = {}, [], {}
    for line in text.splitlines():
        record = json.loads(line)
        body = record.get(record["type"]) or {}
        if record["type"] == "run":
            config |= (body.get("config") or {}).get("update") or {}
            run = body
        elif record["type"] == "config":
            config |= body.get("update") or {}
        elif record["type"] == "history":
            history.append({k: v for k, v in body["item"].items() if not k.startswith("_")})
        elif record["type"] == "summary":
            summary |= body.get("update") or {}
    tables = {}
    for path in Path(directory).rglob("*.table.json"):
        name = path.relative_to(Path(directory) / "files/media/table").as_posix()
        name = re.sub(r"_\d+_[0-9a-f]+\.table\.json$", "", name)
        content = json.loads(path.read_text())
        tables[name] = [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
    return run, config, history, summary, tables, text


def unstamped(path):
    """The rows of a CSV file without the column that names the model."""
    return [{name: cell for name, cell in row.items() if name != "model"} for row in read_csv(path)]


def offline_directories(folder="."):
    return sorted(Path(folder, "wandb").glob("offline-run-*"))


def wait_for(condition, seconds=60):
    """Poll `condition` until it holds: the mirror finishes in a process of its own."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the mirror did not finish"
        time.sleep(0.05)


def leaks(*folders):
    """Files below `folders` that hold the key."""
    files = [path for folder in folders for path in Path(folder).rglob("*") if path.is_file()]
    assert files
    return [path for path in files if KEY.encode() in path.read_bytes()]


def start_tracker(**changes):
    return open_tracker(**({"config": CONFIG} | changes))


def check_training_run(directory, folder, expected_id):
    run, config, history, summary, tables, text = read_back(directory)
    metrics = read_json(folder / "metrics.json")
    assert run["run_id"] == expected_id
    assert (run["job_type"], run["run_group"]) == ("train", "DIGITS/784-20-10/ff")
    assert set(run["tags"]) == {"forward-forward", "digits", "ff"}
    assert config["layers"] == [784, 20, 10]
    assert (config["width"], config["representation_epochs"], config["seed"]) == (20, 2, 3)
    assert config["git_commit"] == "abc"
    epochs = [row for row in history if "loss" in row]
    assert epochs == [names.epoch_row(row) for row in unstamped(folder / "history.csv")]
    assert epochs[0]["phase"] == "representation"
    assert epochs[0]["goodness/positive_1"] == 1.5
    assert epochs[2]["sample_val_accuracy"] == 0.8
    assert (epochs[0]["epoch_seconds"], epochs[0]["validation_seconds"]) == (0.125, 0.01)
    hardware = [row for row in history if "hardware_seconds" in row]
    assert hardware == [names.hardware_row(row, 10.0) for row in unstamped(folder / "hardware.csv")]
    assert not [row for row in history if any(name.endswith("model") for name in row)]
    assert config["model"] == MODEL
    assert [row["hardware_seconds"] for row in hardware] == [0, 1, 2]
    assert hardware[1]["VDD_IN_power_mw"] == 5001
    assert '"name":"VDD_IN_power_mw"' in text
    assert '"step_metric":"hardware_seconds"' in text
    for name, value in names.training_summary(metrics).items():
        assert summary[name] == value, name
    assert summary["energy/representation/gross_mj"] == 12500.0
    assert "energy/representation/net_mj" not in summary
    assert tables["readouts"] == metrics["results"]
    assert [row["phase"] for row in tables["phases"]] == ["load"]
    assert "model-DIGITS-784-20-10-ff-seed3" in text
