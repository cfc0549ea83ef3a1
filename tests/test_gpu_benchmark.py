"""benchmarks/gpu.py tests itself on the CPU, so that it can be trusted on a device that is lent for minutes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
# What a machine with torch and numpy lacks.
MISSING = ("safetensors", "pandas", "yaml", "scipy", "sklearn", "matplotlib", "psutil", "pynvml", "torchvision")
MISSING += ("snakemake", "wandb", "jsonschema", "dotenv", "tqdm", "jinja2", "PIL")
BLOCKED = f"import runpy, sys; sys.modules.update(dict.fromkeys({MISSING!r})); runpy.run_path(sys.argv[0], run_name="
CHECKS = ("correctness", "determinism", "graph")


def run(*arguments: object) -> subprocess.CompletedProcess:
    """The benchmark in a process that can import torch and numpy only."""
    code = f"import sys; sys.argv = sys.argv[1:]; {BLOCKED}'__main__')"
    words = [sys.executable, "-c", code, BENCHMARKS / "gpu.py", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (BENCHMARKS.parent, BENCHMARKS)))}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=200)


def test_graphs_are_checked_with_torch_and_numpy_alone(tmp_path):
    done = run("--device", "cpu", "--quick", "--repeats", 1, "--only", "graph", "--json", tmp_path / "found.json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row["same_bytes"] for row in found["parts"]["graph"][:3]] == [True] * 3
    assert found["failed"] == {}


@pytest.mark.slow
def test_every_part_runs_and_every_check_holds(tmp_path):
    done = run("--device", "cpu", "--quick", "--json", tmp_path / "found.json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["parts"]) == list(found["about"]["seconds"]) == re.findall(r"^(\w+) on cpu$", done.stdout, re.M)
    assert found["failed"] == {} and len(found["parts"]) == 8
    assert all(row["holds"] for name in CHECKS for row in found["parts"][name] if row.get("holds") is not None)
    # On a CPU no memory of a device is measured.
    assert found["parts"]["memory"][0]["peak_mb"] is None


def test_the_grid_is_the_published_one(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    published = yaml.safe_load((BENCHMARKS.parent / "config/published_full.yaml").read_text())
    grid, settings = published["grid"], published["train"]
    assert [f"784,{layers}" for layers in gpu.GRID_LAYERS] == grid["layers"]
    assert list(gpu.GRID_DATASETS) == grid["dataset"]
    assert list(gpu.GRID_SEEDS) == grid["seed"]
    assert settings["rep_epochs"] == settings["softmax_epochs"] == gpu.GRID_EPOCHS
    assert settings["train_batch_size"] == gpu.GRID_BATCH


def test_a_part_that_fails_leaves_the_others(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    def broken(self):
        raise RuntimeError("CUDA error: operation failed")

    path = tmp_path / "found.json"
    monkeypatch.setattr(gpu.Bench, "memory", broken)
    words = ["gpu.py", "--device", "cpu", "--quick", "--repeats", "1", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", [*words, "--only", "memory", "seeds"])
    assert gpu.main() == 1
    found = json.loads(path.read_text())
    assert found["failed"] == {"memory": "RuntimeError: CUDA error: operation failed"}
    assert list(found["parts"]) == ["seeds"]
