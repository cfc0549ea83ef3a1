"""Prepared sets: made once, opened as they are, refused where they are damaged or not what was asked for."""

import gzip
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from made_raw_data import (
    RAW,
    cifar_batch,
    idx,
    made_images,
    made_labels,
    write_raw,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.io import savemat

from ff.data.images import Part
from ff.data.prepared import open_or_prepare, open_prepared, prepare, status
from ff.data.registry import DATASETS
from ff.errors import FFError


def test_an_opened_set_is_mapped_not_read(tmp_path, warm):
    images = torch.zeros(60_000, 3, 32, 32, dtype=torch.uint8)
    labels = torch.zeros(60_000, dtype=torch.uint8)
    write_prepared(
        tmp_path / "CIFAR10.safetensors", Part(images, labels), Part(images[:10].clone(), labels[:10].clone())
    )
    code = """
import resource, sys, torch, safetensors.torch
from ff.data.prepared import open_prepared
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
prepared = open_prepared(sys.argv[1])
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(any(sys.argv[1] in line for line in open("/proc/self/maps")), grown, len(prepared.train.labels))
"""
    if not Path("/proc/self/maps").exists():
        pytest.skip("no /proc/self/maps on this system")
    path = tmp_path / "CIFAR10.safetensors"
    done = warm(tmp_path, path, code=code)
    mapped, grown_kb, count = done.stdout.split()
    assert (mapped, count) == ("True", "60000"), done.stderr
    # Of 184 MB.
    assert int(grown_kb) < 40_000


def write_prepared(path: Path, train: Part, test: Part, **changes) -> None:
    from ff.files import write_tensors

    tensors = {
        f"{name}_{kind}": tensor
        for name, part in (("train", train), ("test", test))
        for kind, tensor in part._asdict().items()
    }
    meta = {"dataset": path.stem, "content": "made", "verified": True, "warnings": []} | changes
    write_tensors(path, tensors, {key: value for key, value in meta.items() if value is not None})


def made_part(count: int = 5) -> Part:
    return Part(torch.from_numpy(made_images(count, 1, 28, 28)), torch.from_numpy(made_labels(count).astype(np.uint8)))


def test_an_unverified_set_is_opened_on_request_only(tmp_path):
    path = tmp_path / "MNIST.safetensors"
    write_prepared(path, made_part(), made_part(), verified=False, warnings=["not the official bytes"])
    with pytest.raises(FFError, match=r"MNIST\.safetensors.*verify: false"):
        open_prepared(path)
    assert open_prepared(path, verify=False).warnings == ["not the official bytes"]


def test_a_missing_prepared_set_says_how_to_make_it(tmp_path):
    with pytest.raises(FFError, match="ff prepare MNIST"):
        open_prepared(tmp_path / "MNIST.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.9])
def test_a_cut_prepared_set_is_refused(tmp_path, prepared_dir, share):
    data = (prepared_dir / "DIGITS.safetensors").read_bytes()
    path = tmp_path / "DIGITS.safetensors"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(FFError, match=r"DIGITS\.safetensors is not a prepared data set"):
        open_prepared(path)


@pytest.mark.parametrize("missing", ["dataset", "content", "verified", "warnings"])
def test_a_prepared_set_without_its_facts_is_refused(tmp_path, missing):
    path = tmp_path / "MNIST.safetensors"
    write_prepared(path, made_part(), made_part(), **{missing: None})
    with pytest.raises(FFError, match="is not a prepared data set"):
        open_prepared(path)


def test_a_prepared_set_whose_tensors_do_not_fit_is_refused(tmp_path, prepared_dir):
    good = prepared_dir / "DIGITS.safetensors"
    tensors, path = load_file(good), tmp_path / "DIGITS.safetensors"
    for name, tensor in {
        "train_labels": tensors["train_labels"][:-1],
        "test_images": tensors["test_images"].float(),
        "train_images": tensors["train_images"].flatten(1),
        "test_labels": torch.full_like(tensors["test_labels"], 10),
    }.items():
        with safe_open(good, framework="pt") as file:
            save_file(tensors | {name: tensor.contiguous()}, path, metadata=file.metadata())
        with pytest.raises(FFError, match="is not a prepared data set"):
            open_prepared(path)


def test_the_prepared_set_of_another_name_is_refused(tmp_path, prepared_dir):
    (tmp_path / "MNIST.safetensors").write_bytes((prepared_dir / "DIGITS.safetensors").read_bytes())
    with pytest.raises(FFError, match="holds DIGITS, not MNIST"):
        open_or_prepare("MNIST", prepared_dir=tmp_path)


def test_a_prepared_set_is_made_once_and_is_the_same_each_time(tmp_path, prepared_dir):
    first = open_or_prepare("DIGITS", prepared_dir=tmp_path)
    path = tmp_path / "DIGITS.safetensors"
    assert path.read_bytes() == (prepared_dir / "DIGITS.safetensors").read_bytes()
    before = path.stat().st_mtime_ns
    assert open_or_prepare("DIGITS", prepared_dir=tmp_path).content == first.content
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize("name", RAW)
def test_a_wrong_checksum_is_refused_by_the_files_name_and_accepted_on_request(name, tmp_path, official):
    paths = write_raw(tmp_path, name)
    official(name, paths)
    others = {"MNIST": idx(made_labels(40, 7)), "FMNIST": idx(made_labels(40, 7))}
    others["KMNIST"] = gzip.compress(others["MNIST"])
    others["CIFAR100"] = cifar_batch(made_images(20, 3072), made_labels(20, 7).tolist(), of_100=True)
    others["CIFAR10"] = cifar_batch(made_images(8, 3072), made_labels(8, 7).tolist())
    if name == "SVHN":
        savemat(paths[1], {"X": made_images(32, 32, 3, 20), "y": made_labels(20, 7).reshape(-1, 1)})
    else:
        paths[1].write_bytes(others[name])
    with pytest.raises(FFError) as raised:
        prepare(name, str(tmp_path), tmp_path / "prepared", download=False)
    assert str(paths[1]) in str(raised.value)
    assert str(paths[0]) not in str(raised.value)
    assert "verify: false" in str(raised.value)
    assert not (tmp_path / "prepared").exists()
    prepared = prepare(name, str(tmp_path), tmp_path / "prepared", verify=False, download=False)
    assert not prepared.verified
    [warning] = prepared.warnings
    assert paths[1].name in warning
    assert paths[0].name not in warning
    with pytest.raises(FFError, match="verify: false"):
        open_or_prepare(name, str(tmp_path), tmp_path / "prepared")


def test_a_read_only_data_folder_is_enough(tmp_path, official):
    paths = write_raw(tmp_path / "raw", "MNIST")
    official("MNIST", paths)
    everything = [tmp_path / "raw", *(tmp_path / "raw").rglob("*")]
    before = {path: path.stat().st_mtime_ns for path in everything}
    for path in everything:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    try:
        prepare("MNIST", str(tmp_path / "raw"), tmp_path / "prepared", download=False)
        # To a superuser nothing is read-only, so see also that nothing was touched.
        assert {path: path.stat().st_mtime_ns for path in [tmp_path / "raw", *(tmp_path / "raw").rglob("*")]} == before
    finally:
        for path in everything:
            path.chmod(path.stat().st_mode | stat.S_IWUSR)


def test_status_says_what_is_there(tmp_path, prepared_dir):
    paths = write_raw(tmp_path, "CIFAR10")
    paths[2].unlink()
    found = status("CIFAR10", str(tmp_path), tmp_path / "prepared")
    assert found.missing == [DATASETS["CIFAR10"].files[2]]
    assert (found.folder, found.prepared, found.refused is None) == (tmp_path, False, False)
    found = status("DIGITS", str(tmp_path), prepared_dir)
    assert (found.missing, found.prepared, found.refused) == ([], True, None)
