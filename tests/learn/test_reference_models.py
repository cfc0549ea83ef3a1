"""The same config gives the same weights as ever: hashes of trained models, kept from before the modules were moved.

    python tests/learn/test_reference_models.py

writes tests/learn/reference_models.json anew, for a change that is meant to change what is learnt.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ff.data.prepared import prepare
from ff.learn.products import choose_library, matmul
from ff.learn.recipes import make_run_config
from ff.learn.run import train
from ff.settings import ExecutionConfig

KEPT = Path(__file__).with_name("reference_models.json")
BASE = {"dataset": "DIGITS", "layers": "784,30,20", "rep_epochs": 2, "softmax_epochs": 2}
BASE |= {"val_size": 200, "train_batch_size": 64}
CONFIGS = [
    {},
    {"recipe": "edgeff"},
    {"recipe": "bp"},
    {"precision": "float64"},
    {"precision": "bfloat16"},
    {"recipe": "bp", "precision": "float64"},
    {"recipe": "bp", "precision": "bfloat16"},
    {"alpha": 4.0, "seed": 7},
    {"negatives": "uniform"},
    {"normalisation": "unit"},
    {"loss": "threshold", "threshold": 1.5},
    {"layers": "784,20,16,10", "schedule": "constant"},
    {"val_size": 0, "train_batch_size": 1000},
    {"overlay_value": 3.0, "neutral_value": 0.5, "hardness": 1.0},
    {"layers": "784,25"},
    {"recipe": "edgeff", "layers": "784,16,12,8", "seed": 3},
]
GROUP = [0, 3]


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """A hash of names, types, shapes and bytes."""
    whole = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole.update(tensor.view(torch.uint8).numpy().data)
    return whole.hexdigest()[:16]


def arithmetic() -> str:
    """A hash of what this machine's libraries make of some products: other processors round in another order, and on
    some another library multiplies."""
    choose_library()
    generator = torch.Generator().manual_seed(0)
    found = {}
    for rows, inner, columns in ((64, 784, 30), (64, 30, 20), (200, 784, 16), (1000, 50, 10), (1000, 784, 30)):
        for kind in (torch.float32, torch.float64, torch.bfloat16):
            sizes = ((2, rows, inner), (2, inner, columns))
            left, right = (torch.rand(size, generator=generator).to(kind) for size in sizes)
            for seeds in (1, 2):
                name = f"{seeds}x{rows}x{inner}x{columns} {kind}"
                found[name] = matmul(left[:seeds], right[:seeds], str(kind).removeprefix("torch."))
    values = torch.rand(10_000, generator=generator)
    found |= {name: getattr(values, name)() for name in ("exp", "log", "sigmoid", "rsqrt")}
    return digest(found)


def models(prepared: Path, out: Path) -> list[str]:
    """Hashes of the models of all configs, and of a group of seeds."""
    execution = {"prepared_dir": str(prepared), "sidecar": "off", "threads": 1}
    folders = []
    for number, changes in enumerate(CONFIGS):
        config = make_run_config(BASE | changes)[0]
        folders += train(config, ExecutionConfig(out=str(out / str(number)), **execution))
    folders += train(make_run_config(BASE)[0], ExecutionConfig(out=str(out / "group"), **execution), GROUP)
    return [digest(load_file(folder / "model.safetensors")) for folder in folders]


def test_the_same_configs_give_the_same_weights_as_ever(prepared_dir, tmp_path):
    kept = json.loads(KEPT.read_text())
    if arithmetic() != kept["arithmetic"]:
        pytest.skip("this machine's products round otherwise than those of the machine that the hashes are from")
    names = [*map(str, CONFIGS), *(f"group, seed {seed}" for seed in GROUP)]
    found = models(prepared_dir, tmp_path)
    assert dict(zip(names, found, strict=True)) == dict(zip(names, kept["models"], strict=True))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        prepare("DIGITS", prepared_dir=Path(folder, "prepared"))
        content = {"arithmetic": arithmetic(), "models": models(Path(folder, "prepared"), Path(folder, "out"))}
    KEPT.write_text(json.dumps(content, indent=1) + "\n")
