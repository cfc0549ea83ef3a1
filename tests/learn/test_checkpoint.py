"""Checkpoints: what is written comes back, and what does not fit is refused in one sentence."""

import itertools
import json
import subprocess
import sys

import pytest
import torch
from ff_process import ff_environment
from made_networks import made_config, made_network
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ff import stamps
from ff.data.images import Block
from ff.errors import FFError
from ff.learn import checkpoint
from ff.learn.network import initial_network
from ff.learn.readouts import GOODNESS, HEAD, SUMMED, Seen
from ff.learn.recipes import make_run_config


@pytest.fixture
def path(tmp_path):
    config = made_config(seed=3)
    checkpoint.save(tmp_path / "model.safetensors", made_network(config), 0, config)
    return tmp_path / "model.safetensors"


def parts(path):
    with safe_open(path, framework="pt") as file:
        return load_file(path), json.loads(file.metadata()["ff"])


def rewrite(path, tensors, meta, stamped=False):
    if stamped and isinstance(meta.get("config"), dict):
        # The damage itself is to be found, not the hash that no longer fits.
        meta["model"] = checkpoint.stamp(tensors, meta["config"])
    save_file(tensors, path, metadata={"ff": json.dumps(meta)})


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"recipe": "edgeff", "overlay_value": 3.0},
        {"recipe": "bp", "precision": "float64", "neutral_value": 0.5},
        {"recipe": "mono", "dropout": 0.1, "shift": 2, "flip": True, "schedule": "step"},
        {"recipe": "predsim", "layers": "784,8,7,6", "projection": False},
        {"dataset": "CIFAR10", "layers": "3072,8,7", "precision": "bfloat16"},
    ],
)
def test_a_network_comes_back_as_it_was(tmp_path, values):
    config = made_config(**values)
    channels = 3 if config.dataset == "CIFAR10" else 1
    network = made_network(config, channels)
    checkpoint.save(tmp_path / "m", network, 0, config)
    found, meta = checkpoint.load(tmp_path / "m")
    assert checkpoint.config(meta) == config
    for one, other in zip(
        [*found.weights, *found.biases, found.heads, found.head_biases],
        [*network.weights, *network.biases, network.heads, network.head_biases],
        strict=True,
    ):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype
    for name in (
        "channels",
        "normalisation",
        "overlay_value",
        "neutral_value",
        "heads_see",
        "heads_biased",
        "negative_slope",
        "precision",
    ):
        assert getattr(found, name) == getattr(network, name)
    x = torch.rand(1, 4, config.layers[0], dtype=network.weights[0].dtype)
    one, other = (Seen(n, Block(x, x.square().sum(-1), torch.zeros(1, 4))) for n in (found, network))
    for readout in (GOODNESS, HEAD, SUMMED):
        assert torch.equal(readout.said(one), readout.said(other))


def test_the_network_of_one_seed_of_a_group_is_saved(tmp_path):
    config = make_run_config({"layers": "784,6,5", "seed": 8})[0]
    group = initial_network(config, [7, 8], 1)
    group.heads += torch.rand_like(group.heads) * group.head_mask()
    group.head_biases += torch.rand_like(group.head_biases)
    checkpoint.save(tmp_path / "m", group, 1, config)
    found, _ = checkpoint.load(tmp_path / "m")
    for one, other in zip([*found.weights, *found.biases], [*group.weights, *group.biases], strict=True):
        assert torch.equal(one[0], other[1])
    assert torch.equal(found.heads[0], group.heads[1])
    assert torch.equal(found.head_biases[0], group.head_biases[1])


def test_the_same_network_gives_the_same_bytes(tmp_path):
    config = made_config()
    for name in "ab":
        checkpoint.save(tmp_path / name, made_network(config), 0, config)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_there_is_no_pickle_in_it(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    # The header names every byte that follows, and all of them are numbers.
    spans = sorted(entry["data_offsets"] for name, entry in header.items() if name != "__metadata__")
    assert spans[0][0] == 0
    assert all(one[1] == other[0] for one, other in itertools.pairwise(spans))
    assert 8 + length + spans[-1][1] == len(data)
    assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == {"F32"}
    assert list(header["__metadata__"]) == ["ff"]


def test_tensors_have_the_names_and_shapes_that_are_documented(path):
    tensors, meta = parts(path)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "layers.1.weight": (30, 784),
        "layers.1.bias": (30,),
        "layers.2.weight": (20, 30),
        "layers.2.bias": (20,),
        "layers.3.weight": (10, 20),
        "layers.3.bias": (10,),
        "heads.1.weight": (10, 30),
        "heads.1.bias": (10,),
        "heads.2.weight": (10, 50),
        "heads.2.bias": (10,),
        "heads.3.weight": (10, 60),
        "heads.3.bias": (10,),
    }
    assert meta["format"] == 2
    assert meta["config"]["seed"] == 3


def test_the_stamp_is_of_config_and_weights_and_can_be_read_without_torch(path, tmp_path):
    _, meta = parts(path)
    assert stamps.model_of(tmp_path) == meta["model"] == checkpoint.load(path)[1]["model"]
    others = [made_config(seed=3, alpha=3.0), made_config(seed=4)]
    network = made_network(made_config(seed=3))
    found = {checkpoint.save(tmp_path / "other", network, 0, config) for config in others}
    assert len(found | {meta["model"]}) == 3
    assert checkpoint.save(tmp_path / "again", network, 0, made_config(seed=3)) == meta["model"]
    network.weights[0][0, 0, 0] += 1e-6
    assert checkpoint.save(tmp_path / "again", network, 0, made_config(seed=3)) != meta["model"]
    code = f"import sys; from ff.stamps import model_of; print(model_of({str(tmp_path)!r}), 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=ff_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [meta["model"], "False"]


@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_a_flipped_bit_among_the_weights_is_refused(path, place):
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    data[start + int(place * (len(data) - start))] ^= 1
    path.write_bytes(data)
    with pytest.raises(FFError, match="does not fit its hash"):
        checkpoint.load(path)


def test_a_changed_config_is_refused(path):
    tensors, meta = parts(path)
    meta["config"]["rep_epochs"] += 1
    rewrite(path, tensors, meta)
    with pytest.raises(FFError, match="does not fit its hash"):
        checkpoint.load(path)


def test_a_missing_checkpoint_says_to_train_first(tmp_path):
    with pytest.raises(FFError, match=r"model\.safetensors; train the run first"):
        checkpoint.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_cut_file_is_refused(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(FFError, match="is not an ff checkpoint"):
        checkpoint.load(path)


@pytest.mark.parametrize("content", [b"\x80\x04N.", b"PK\x03\x04", b"\xff" * 100, b"{}"])
def test_other_files_are_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(FFError, match="is not an ff checkpoint"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("layers.2.bias"),
        lambda tensors: tensors.pop("heads.3.weight"),
        lambda tensors: tensors.update({"layers.4.weight": torch.zeros(3)}),
        lambda tensors: tensors.update({"layers.1.weight": torch.zeros(30, 783)}),
        lambda tensors: tensors.update({"layers.1.weight": torch.zeros(784, 30)}),
        lambda tensors: tensors.update({"layers.1.bias": torch.zeros(1)}),
        # These hold as many numbers as they should, or would be spread over the classes.
        lambda tensors: tensors.update({"heads.2.weight": torch.zeros(50, 10)}),
        lambda tensors: tensors.update({"heads.1.bias": torch.zeros(1)}),
        lambda tensors: tensors.update({"heads.1.bias": torch.zeros(10, dtype=torch.int64)}),
    ],
)
def test_tensors_that_do_not_fit_the_config_are_refused(path, change):
    tensors, meta = parts(path)
    change(tensors)
    rewrite(path, tensors, meta, stamped=True)
    with pytest.raises(FFError, match=r"model\.safetensors is not an ff checkpoint"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta.pop("config"),
        lambda meta: meta.pop("channels"),
        lambda meta: meta.update(channels="many"),
        lambda meta: meta.update(config=[1]),
        lambda meta: meta.update(config=None),
        lambda meta: meta["config"].update(layers="784,30"),
        lambda meta: meta["config"].update(dataset="CIFAR10"),
        lambda meta: meta["config"].update(recipe=["ff"]),
        lambda meta: meta["config"].pop("recipe_settings"),
        lambda meta: meta["config"].update(recipe_settings=3),
        lambda meta: meta["config"].update(surprise=3),
    ],
)
def test_metadata_that_makes_no_sense_is_refused(path, change):
    tensors, meta = parts(path)
    change(meta)
    rewrite(path, tensors, meta, stamped=True)
    with pytest.raises(FFError, match=r"model\.safetensors is not an ff checkpoint"):
        checkpoint.load(path)


@pytest.mark.parametrize("metadata", [None, {}, {"ff": "[1, 2]"}, {"ff": "{"}, {"other": "x"}])
def test_a_safetensors_file_of_something_else_is_refused(path, metadata):
    save_file({"a": torch.zeros(2)}, path, metadata=metadata)
    with pytest.raises(FFError, match="is not an ff checkpoint"):
        checkpoint.load(path)
