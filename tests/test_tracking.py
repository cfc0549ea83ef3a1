"""W&B mirrors what is on disk: names, modes, live runs, uploads after the fact, and a key that never leaks."""

import argparse
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff import tracking, wandb_names, wandb_session
from ff.errors import FFError
from ff.files import read_csv, read_json, write_csv, write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
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
    "recipe_settings": {"learning_rate": 0.01},
}
RUN = {
    "name": "DIGITS/784-20-10/ff/seed3",
    "dataset": "DIGITS",
    "layers": "784-20-10",
    "recipe": "ff",
    "seed": 3,
}


@pytest.fixture(autouse=True)
def no_account(tmp_path, monkeypatch):
    """A home without W&B settings, and none in the environment."""
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("NETRC", raising=False)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    yield
    wandb = sys.modules.get("wandb")
    if wandb is not None:
        wandb.teardown(0)


def scores(split, readout, depth, accuracy):
    row = {"split": split, "readout": readout, "depth": depth, "n": 100}
    return row | {"accuracy": accuracy, "macro_f1": accuracy - 0.01, "error": 1 - accuracy}


def make_run(results, accuracy=0.9):
    """A run folder with every file that is mirrored, in the formats that ff writes."""
    folder = results / RUN["name"]
    rows = [
        scores(s, r, d, accuracy - 0.1 / d)
        for s in ("train", "val", "test")
        for r in ("head", "goodness")
        for d in (1, 2)
    ]
    metrics = {
        "schema": 1,
        "config": CONFIG,
        "run": RUN,
        "provenance": {
            "git_commit": "abc",
            "python": "3.11",
            "machine": {"model": "board"},
            "warnings": [],
        },
        "results": rows,
        "final": {"test_accuracy": accuracy - 0.05, "val_accuracy": 0.8, "train_accuracy": 0.95},
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
        },
    ]
    for row in history:
        row |= {"learning_rate": 0.01, "seconds": 0.125}
    columns = ["phase", "epoch", "loss", "goodness_positive_1", "goodness_negative_1", "validation_accuracy"]
    write_csv(folder / "history.csv", [*columns, "validation_readout", "learning_rate", "seconds"], history)
    marks = [
        {
            "phase": "load",
            "start_monotonic_s": 10.0,
            "end_monotonic_s": 10.5,
            "start_unix_s": 1e9,
            "end_unix_s": 1e9 + 0.5,
        }
    ]
    write_csv(
        folder / "phases.csv",
        ["phase", "start_monotonic_s", "end_monotonic_s", "start_unix_s", "end_unix_s"],
        marks,
    )
    samples = [
        {"monotonic_s": 10.0 + i, "unix_s": 1e9 + i, "source": "tegrastats",
         "ram_used_mb": 1000 + i, "ram_total_mb": 4000,
         "gpu_percent": 50 + i, "cpu_percent": 25.5, "temperature_c.CPU": 40.0, "temperature_c.GPU": 41.5 + i,
         "power_mw.VDD_IN": 5000 + i, "power_mw.VDD_SOC": None}
        for i in range(3)
    ]  # fmt: skip
    write_csv(folder / "hardware.csv", list(samples[0]), samples)
    energy = {"representation": {"seconds": 2.5, "rails": {}, "total": {"gross_mj": 12500.0, "net_mj": None}}}
    write_json(folder / "hardware.json", {"schema": 1, "samples": 3, "energy": energy})
    (folder / "model.safetensors").write_bytes(b"weights" * 100)
    return folder


def add_evaluation(folder):
    readout = scores("test", "head", 2, 0.9) | {"ece": None}
    readout["per_class"] = [{"class": "0", "n": 10, "precision": 1.0, "recall": 0.9, "f1": 0.95}]
    readout["confusion"] = [[9, 1], [0, 10]]
    layers = [{"depth": 1, "width": 20, "sparsity": 0.5, "dead_units": 2, "goodness": {"positive": {"mean": 2.0}}}]
    content = {
        "schema": 1,
        "run": RUN,
        "classes": ["0", "1"],
        "readouts": [readout],
        "layers": layers,
        "confidence": [],
    }
    write_json(folder / "evaluation.json", content)
    write_csv(folder / "early_exit.csv", ["rule", "k", "accuracy"], [{"rule": "logit", "k": 1.0, "accuracy": 0.89}])
    point = {"rule": "logit", "k": 1.0, "choice": "c", "val": {"accuracy": 0.88}, "test": {"accuracy": 0.89}}
    write_json(folder / "early_exit.json", {"schema": 1, "operating_point": point})


def add_timings(folder):
    rows = [
        {"device": "cpu", "threads": 2, "path": "deploy", "batch_size": b, "repeat": i, "order": i,
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
    write_json(folder / "variance/cpu.json", {"schema": 1, "device": device, "batches": [batch]})
    agreement = {
        "schema": 1,
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


# ---------------------------------------------------------------- names


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
    row = wandb_names.hardware_row(flat, 10.0)
    assert row["hardware_seconds"] == 2.5
    assert row["VDD_IN_power_mw"] == 5000
    assert row["ram_used_mb"] == 1000
    assert row["ram_usage_percent"] == 25
    assert row["gpu_usage_percent"] == 99
    assert row["temperature_celsius"] == 40
    assert "cpu_avg_percent" not in row, "what was not measured is left out"


def test_a_reading_with_one_load_per_core_gives_their_mean():
    reading = {"monotonic_s": 1.0, "cpu_percent": [10.0, 30.0, None], "power_mw": {"GPU": 7.0}}
    row = wandb_names.hardware_row(reading, 1.0)
    assert row["cpu_avg_percent"] == 20.0
    assert row["hardware/cpu_percent.1"] == 30.0
    assert row["GPU_power_mw"] == 7.0


def test_published_names_of_scores(tmp_path):
    metrics = read_json(make_run(tmp_path) / "metrics.json")
    summary = wandb_names.training_summary(metrics)
    assert summary["final/test_accuracy"] == metrics["final"]["test_accuracy"]
    for split, name in {"train": "train", "val": "validation", "test": "test"}.items():
        deepest = next(r for r in metrics["results"] if (r["split"], r["readout"], r["depth"]) == (split, "head", 2))
        assert summary[f"{name}/accuracy"] == deepest["accuracy"]
        assert summary[f"{name}/f1_score"] == deepest["macro_f1"]
        assert summary[f"{name}/error"] == deepest["error"]
    assert "peak_memory_mb/device" not in summary
    assert set(summary) - {"resumed_from_epoch"} <= wandb_names.logged_metrics() | wandb_names.conditional_metrics()


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
    assert wandb_names.number(str(value)) == value
    assert wandb_names.number(value) == value


CELLS = st.one_of(st.none(), st.integers(-9, 9), st.floats(width=16), st.sampled_from(["", "1", "2.5", "x", "nan"]))


@given(st.lists(st.fixed_dictionaries({"a": CELLS}, optional={"b": CELLS}), max_size=6))
def test_table_columns_have_one_type(rows):
    columns, data = wandb_names.table(rows)
    for index in range(len(columns)):
        assert len({type(line[index]) for line in data if line[index] is not None}) <= 1


def test_run_ids_follow_settings_and_machine_not_results(tmp_path):
    metrics = read_json(make_run(tmp_path) / "metrics.json")
    first = wandb_names.run_id("train", metrics)
    assert re.fullmatch(r"[0-9a-f]{16}", first)
    assert wandb_names.run_id("train", metrics | {"final": {}, "seconds": {}}) == first
    assert wandb_names.run_id("eval", metrics) != first
    assert wandb_names.run_id("train", metrics | {"config": CONFIG | {"rep_epochs": 9}}) != first
    assert wandb_names.run_id("train", metrics | {"provenance": {"machine": {"model": "other"}}}) != first


# ---------------------------------------------------------------- modes and the key


def test_without_a_key_the_mode_is_offline():
    access = wandb_session.resolve_access()
    assert access.mode == "offline"
    assert "WANDB_API_KEY" in access.reason


def test_a_key_in_the_environment_means_online(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    access = wandb_session.resolve_access()
    assert access.mode == "online"
    assert KEY not in repr(access)


def test_a_key_in_a_dotenv_file_means_online_and_stays_out_of_the_environment():
    Path("deeper").mkdir()
    Path(".git").mkdir()
    write_text(".env", f"WANDB_API_KEY={KEY}\nWANDB_ENTITY=team\nOTHER=1\n")
    access = wandb_session.resolve_access(folder="deeper")
    assert (access.mode, access.key, access.entity) == ("online", KEY, "team")
    assert "WANDB_API_KEY" not in os.environ


def test_the_environment_wins_over_the_dotenv_file(monkeypatch):
    write_text(".env", f"WANDB_API_KEY={KEY}\n")
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    assert wandb_session.resolve_access().key == "f" * 40


def test_a_key_that_wandb_login_left_is_found(monkeypatch):
    write_text(Path.home() / ".netrc", f"machine api.wandb.ai\n  login user\n  password {KEY}\n")
    assert wandb_session.resolve_access().mode == "online"
    monkeypatch.setenv("WANDB_BASE_URL", NOWHERE)
    assert wandb_session.resolve_access().mode == "offline"


@pytest.mark.parametrize(
    ("variables", "mode"),
    [
        ({"WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_DISABLED": "true"}, "disabled"),
        ({"WANDB_MODE": "online"}, "offline"),
    ],
)
def test_wandbs_own_variables_are_heeded(monkeypatch, variables, mode):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wandb_session.resolve_access().mode == mode


def test_without_wandb_nothing_is_mirrored_and_nothing_breaks(monkeypatch):
    monkeypatch.setattr(wandb_session.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert start_tracker().mode == "disabled"
    assert wandb_session.resolve_access("online").reason == "wandb is not installed"


def test_what_is_asked_for_wins_and_unknown_modes_are_refused(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert wandb_session.resolve_access("disabled").mode == "disabled"
    with pytest.raises(FFError, match="unknown W&B mode 'maybe'"):
        wandb_session.resolve_access("maybe")


def test_the_example_dotenv_file_holds_no_key():
    lines = [line for line in (ROOT / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ["WANDB_API_KEY="]


# ---------------------------------------------------------------- live


def start_tracker(**changes):
    return tracking.open_tracker(**({"config": CONFIG, "run_name": RUN["name"]} | changes))


def test_a_live_offline_run_equals_the_files(tmp_path):
    folder = make_run(tmp_path / "results")
    with start_tracker() as tracker:
        assert tracker.mode == "offline"
        for row in read_csv(folder / "history.csv"):
            tracker.epoch(row)
        tracker.finish(read_json(folder / "metrics.json"), folder / "model.safetensors")
    marker = tmp_path / "results/.tracked" / RUN["name"] / "train.json"
    wait_for(marker.is_file)
    (directory,) = offline_directories()
    assert Path(read_json(marker)["directory"]) == directory.resolve()
    assert directory.name.endswith(tracker.run_id)
    check_training_run(directory, folder, expected_id=tracker.run_id)
    # What was mirrored live is not mirrored again.
    assert [line["state"] for line in tracking.track(tmp_path / "results")] == ["unchanged"]


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
    assert epochs == [wandb_names.epoch_row(row) for row in read_csv(folder / "history.csv")]
    assert epochs[0]["phase"] == "representation"
    assert epochs[0]["goodness/positive_1"] == 1.5
    assert epochs[2]["sample_val_accuracy"] == 0.8
    hardware = [row for row in history if "hardware_seconds" in row]
    assert hardware == [wandb_names.hardware_row(row, 10.0) for row in read_csv(folder / "hardware.csv")]
    assert [row["hardware_seconds"] for row in hardware] == [0, 1, 2]
    assert hardware[1]["VDD_IN_power_mw"] == 5001
    assert '"name":"VDD_IN_power_mw"' in text
    assert '"step_metric":"hardware_seconds"' in text
    for name, value in wandb_names.training_summary(metrics).items():
        assert summary[name] == value, name
    assert summary["energy/representation/gross_mj"] == 12500.0
    assert "energy/representation/net_mj" not in summary
    assert tables["readouts"] == metrics["results"]
    assert [row["phase"] for row in tables["phases"]] == ["load"]
    assert "model-DIGITS-784-20-10-ff-seed3" in text


def test_a_killed_training_keeps_its_epochs(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "OFFLINE_DELAY_S", 0.0)
    script = (
        "import json, os, signal, time\n"
        "from ff import tracking\n"
        "tracking.OFFLINE_DELAY_S = 0.0\n"
        f"tracker = tracking.open_tracker(config={CONFIG!r})\n"
        "for epoch in range(1, 6):\n"
        "    tracker.epoch({'phase': 'representation', 'epoch': epoch, 'loss': 1 / epoch})\n"
        "time.sleep(0.5)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    wait_for(lambda: any(b"exit" in p.read_bytes() for p in Path("wandb").glob("offline-run-*/logs/debug.log")))
    (directory,) = offline_directories()
    wait_for(lambda: '"type":"exit"' in read_back(directory)[5])
    _, _, history, _, _, text = read_back(directory)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert '"exit_code":1' in text


def test_live_hardware_samples_have_their_own_step(tmp_path):
    folder = make_run(tmp_path / "results")
    with start_tracker() as tracker:
        tracker.hardware({"kind": "note", "monotonic_s": 49.0})
        for i in range(2):
            tracker.hardware({"kind": "sample", "monotonic_s": 50.0 + i, "cpu_percent": [10, 30 + i], "raw": "RAM"})
        tracker.finish(read_json(folder / "metrics.json"), folder / "model.safetensors")
    wait_for((tmp_path / "results/.tracked" / RUN["name"] / "train.json").is_file)
    _, _, history, _, _, text = read_back(offline_directories()[0])
    rows = [row for row in history if "hardware_seconds" in row]
    assert [row["hardware_seconds"] for row in rows] == [0, 1], "the file's samples are older than those told live"
    assert [row["cpu_avg_percent"] for row in rows] == [20.0, 20.5]
    assert '"name":"cpu_avg_percent"' in text


def test_disabled_starts_nothing(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    tracker = start_tracker(mode="disabled")
    tracker.epoch({"epoch": 1})
    tracker.hardware({"monotonic_s": 1.0})
    tracker.finish({}, "nowhere/model.safetensors")
    assert threading.active_count() >= 1
    assert not Path("wandb").exists()


def test_tracking_imports_neither_wandb_nor_torch():
    code = (
        "import sys\n"
        "from ff import tracking\n"
        "t = tracking.open_tracker(mode='disabled')\n"
        "t = tracking.open_tracker()\n"
        "t.epoch({'epoch': 1})\n"
        "print(sorted({'wandb', 'torch', 'pandas'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert out.stdout.strip() == "[]"


def test_a_tracker_never_raises_into_the_run(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    tracker = start_tracker()
    tracker.epoch({"epoch": object()})
    tracker.epoch({1: {2: {3}}})
    tracker.finish({"run": None}, "nowhere/model.safetensors")
    assert any("mirror" in warning for warning in tracker.warnings)


def test_the_sidecars_log_is_followed(tmp_path):
    log = tmp_path / "train.jsonl"
    lines: tracking.queue.SimpleQueue = tracking.queue.SimpleQueue()
    first, second = ({"kind": "sample", "monotonic_s": float(i), "ram_used_mb": i} for i in (2, 3))
    text = json.dumps(second)
    log.write_text(
        f'{{"kind": "header"}}\n{{"kind": "sample", "monotonic_s": 1.0}}\n{json.dumps(first)}\nnot json\n{text[:20]}'
    )
    threading.Thread(target=tracking._follow, args=(log, lines, 1.5), daemon=True).start()
    assert json.loads(lines.get(timeout=20)) == {"hardware": first}
    with open(log, "a") as file:
        file.write(text[20:] + "\n")
    assert json.loads(lines.get(timeout=20)) == {"hardware": second}


def test_a_run_of_a_sweep_keeps_the_agents_id(monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "from-agent")
    assert start_tracker(mode="disabled").run_id == "from-agent"


# ---------------------------------------------------------------- unreachable W&B


@pytest.fixture
def black_hole():
    """A server that takes connections and never answers."""
    server = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def accept():
        while True:
            try:
                taken.append(server.accept()[0])
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    server.close()
    for connection in taken:
        connection.close()


def test_silent_and_absent_servers_are_told_from_answering_ones(black_hole):
    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(401)
            self.end_headers()

        def log_message(self, *_):
            pass

    answering = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=answering.serve_forever, daemon=True).start()
    access = wandb_session.Access("online", "test", key=KEY)
    try:
        at = f"http://127.0.0.1:{answering.server_port}"
        assert wandb_session.unreachable(wandb_session.Access("online", "test", KEY, at)) is None
    finally:
        answering.shutdown()
        answering.server_close()
    for url in (NOWHERE, black_hole):
        access = wandb_session.Access("online", "test", KEY, url)
        assert "cannot be reached" in wandb_session.unreachable(access, seconds=1)


def test_live_with_unreachable_wandb_warns_and_keeps_the_run_offline(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "results")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", NOWHERE)
    monkeypatch.setattr(tracking, "ONLINE_WAIT_S", 60.0)
    with start_tracker() as tracker:
        assert tracker.mode == "online"
        tracker.finish(read_json(folder / "metrics.json"), folder / "model.safetensors")
    assert any("cannot be reached" in warning and "ff track" in warning for warning in tracker.warnings)
    assert KEY not in " ".join(tracker.warnings)
    assert read_json(tmp_path / "results/.tracked" / RUN["name"] / "train.json")["mode"] == "offline"
    (directory,) = offline_directories()
    check_training_run(directory, folder, expected_id=tracker.run_id)
    assert leaks(tmp_path) == []


def test_ff_track_with_unreachable_wandb_ends_with_a_warning_and_no_key(tmp_path):
    make_run(tmp_path / "results")
    write_text(".env", f"WANDB_API_KEY={KEY}\n")
    code = (
        "import argparse; from ff import tracking\n"
        "parser = argparse.ArgumentParser(); tracking.add_arguments(parser)\n"
        f"raise SystemExit(tracking.run(parser.parse_args([{str(tmp_path / 'results')!r}])))"
    )
    environment = os.environ | {"WANDB_BASE_URL": NOWHERE, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be reached" in done.stderr
    assert "1 offline" in done.stdout
    assert KEY not in done.stdout + done.stderr
    assert [path.name for path in leaks(tmp_path)] == [".env"]


# ---------------------------------------------------------------- after the fact


def test_track_mirrors_each_part_once_and_equals_the_files(tmp_path):
    results = tmp_path / "results"
    folder = make_run(results)
    add_evaluation(folder)
    add_timings(folder)
    add_figures(results)
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()}
    lines = list(tracking.track(results))
    assert {line["part"]: line["state"] for line in lines} == dict.fromkeys(
        ("train", "evaluation", "variance", "figures"), "offline"
    )
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    by_id = {path.name.rsplit("-", 1)[1]: path for path in offline_directories()}
    ids = {line["part"]: line["run_id"] for line in lines}
    assert set(by_id) == set(ids.values())

    check_training_run(by_id[ids["train"]], folder, expected_id=ids["train"])

    run, config, _, summary, tables, _ = read_back(by_id[ids["evaluation"]])
    assert (run["job_type"], config["run_id"]) == ("eval", ids["train"])
    assert (summary["test/accuracy"], summary["early_exit/test/accuracy"]) == (0.9, 0.89)
    per_class = {"split": "test", "readout": "head", "depth": 2, "class": 0, "n": 10}
    assert tables["per_class"] == [per_class | {"precision": 1.0, "recall": 0.9, "f1": 0.95}]
    assert [row["count"] for row in tables["confusion"]] == [9, 1, 0, 10]
    assert tables["early_exit"] == [{"rule": "logit", "k": 1.0, "accuracy": 0.89}]
    assert tables["layers"][0]["goodness.positive.mean"] == 2.0

    run, _, history, summary, tables, _ = read_back(by_id[ids["variance"]])
    assert run["job_type"] == "variance-eval"
    timed = read_csv(folder / "variance/cpu.csv")
    assert [row["latency_ms"] for row in history if "latency_ms" in row] == [float(row["latency_ms"]) for row in timed]
    assert history[3]["latency_per_sample_ms"] == float(timed[3]["latency_ms"]) / 8
    assert history[3]["throughput_samples_sec"] == 8000 / float(timed[3]["latency_ms"])
    assert "device_ms" not in history[3]
    assert tables["latency_stats_table"][0]["latency_median_ms"] == 17.0
    assert tables["latency_stats_table"][0]["threads"] == 2
    assert tables["latency_stats_table"][0]["throughput_median"] == 470.0
    assert tables["latency_stats_table"][0]["throughput_queued_median"] == 940.0
    assert tables["latency_stats_table"][0]["energy_per_sample_mj"] == 3.5
    assert tables["latency_stats_table"][0]["net_energy_per_sample_mj"] is None
    assert summary["agreement/available"] is False

    run, _, history, _, tables, text = read_back(by_id[ids["figures"]])
    assert run["job_type"] == "figures"
    assert tables["summary/accuracy"] == [{"dataset": "DIGITS", "accuracy": 0.9}]
    assert "figures/accuracy" in text

    assert {line["state"] for line in tracking.track(results)} == {"unchanged"}
    assert len(offline_directories()) == 4


def test_collections_beside_the_runs_have_figures_of_their_own(tmp_path):
    add_figures(tmp_path / "results")
    add_figures(tmp_path / "results/demo")
    lines = list(tracking.track(tmp_path / "results"))
    assert [(line["part"], line["state"]) for line in lines] == [("figures", "offline")] * 2
    assert len({line["run_id"] for line in lines}) == 2
    assert {line["state"] for line in tracking.track(tmp_path / "results")} == {"unchanged"}


def test_a_missing_part_is_not_an_error_and_a_broken_one_does_not_stop_the_others(tmp_path):
    results = tmp_path / "results"
    folder = make_run(results)
    write_text(folder / "evaluation.json", "{")
    lines = {line["part"]: line for line in tracking.track(results)}
    assert lines["train"]["state"] == "offline"
    assert lines["evaluation"]["state"] == "failed"
    assert "not valid JSON" in lines["evaluation"]["warning"]
    assert not (results / ".tracked" / RUN["name"] / "evaluation.json").exists()


def test_track_disabled_writes_nothing(tmp_path):
    results = tmp_path / "results"
    make_run(results)
    assert [line["state"] for line in tracking.track(results, mode="disabled")] == ["disabled"]
    assert not (results / ".tracked").exists()
    assert not Path("wandb").exists()


def test_track_names_a_folder_that_is_not_there():
    with pytest.raises(FFError, match="no results folder"):
        list(tracking.track("absent"))


def test_marks_of_offline_runs_count_online_once_they_were_synced(tmp_path):
    directory = tmp_path / "offline-run-x"
    directory.mkdir()
    target = {"project": "edgeff", "entity": None}
    mark = {
        "digest": "d",
        "project": "edgeff",
        "mode": "offline",
        "base_url": NOWHERE,
        "directory": str(directory),
    }
    online = wandb_session.Access("online", "test", KEY, NOWHERE)
    offline = wandb_session.Access("offline", "test")
    assert tracking._mirrored(mark, "d", offline, target)
    assert not tracking._mirrored(mark, "changed", offline, target)
    assert not tracking._mirrored(mark, "d", online, target)
    (directory / "run-x.wandb.synced").touch()
    assert tracking._mirrored(mark, "d", online, target)
    assert not tracking._mirrored(mark, "d", online, target | {"project": "other"})
    assert not tracking._mirrored(mark | {"mode": "online"}, "d", wandb_session.Access("online", "t", KEY), target)


def test_the_command_line_of_ff_track():
    parser = argparse.ArgumentParser()
    tracking.add_arguments(parser)
    args = parser.parse_args(["elsewhere", "--mode", "offline", "--project", "p", "--again"])
    assert (args.results, args.mode, args.project, args.again) == ("elsewhere", "offline", "p", True)


# ---------------------------------------------------------------- the rule


def test_the_rule_mirrors_the_results_of_a_workflow(tmp_path):
    add_evaluation(make_run(Path("results")))
    for path in ("rules/tracking.smk", "workflow/scripts/track.py"):
        write_text(path, (ROOT / path).read_text())
    write_text("envs/cpu.yaml", "channels: [conda-forge]\n")
    given = f'RESULTS = "results"\ndef finished(collection):\n    return "results/{RUN["name"]}/metrics.json"\n'
    text = f'{given}include: "rules/tracking.smk"\n'
    write_text("Snakefile", text)
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "track",
        "--cores",
        "1",
        "--config",
        "wandb={mode: offline}",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    report = read_json("results/tracking.json")
    assert [(line["part"], line["state"]) for line in report["parts"]] == [
        ("train", "offline"),
        ("evaluation", "offline"),
    ]
    assert len(offline_directories()) == 2
