"""Data sets: facts, preparation, verification, refusal of what is missing, damaged or hostile."""

import hashlib
import os
import pickle
import stat
import struct
from pathlib import Path

import numpy as np
import pytest
import textbook
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_raw_data import (
    cifar_batch,
    idx,
    made_images,
    made_labels,
    pickled_array,
    short_string,
    write_raw,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.io import savemat

from ff.data import unpickler
from ff.data.images import Part, standardise
from ff.data.prepared import open_or_prepare, open_prepared, prepare, status
from ff.data.readers import read_digits
from ff.data.registry import DATASETS
from ff.data.unpickler import load_arrays
from ff.errors import FFError

RAW = ("MNIST", "FMNIST", "SVHN", "CIFAR10")


@pytest.fixture
def official(monkeypatch):
    """Make the files given pass for the official ones."""

    def declare(name: str, paths: list[Path]) -> None:
        sums = tuple(hashlib.md5(path.read_bytes()).hexdigest() for path in paths)
        monkeypatch.setitem(DATASETS, name, DATASETS[name]._replace(md5=sums))

    return declare


# -- digits ----


def test_digits_are_split_as_ever(digits):
    # The content's checksum: whatever changes a pixel, a label or the split makes other runs of old ones.
    assert digits.content == "275f17e38cba39862bff4a70e8130461273a681ae89bc2f84904cfe0aee7d751"
    assert tuple(digits.train.images.shape) == (1437, 1, 28, 28)
    assert tuple(digits.test.images.shape) == (360, 1, 28, 28)
    assert (digits.facts.train_images, digits.facts.test_images) == (1437, 360)
    assert torch.bincount(digits.train.labels.int(), minlength=10).min() > 100
    assert torch.bincount(digits.test.labels.int(), minlength=10).min() > 20


def test_every_digit_is_in_one_part():
    from sklearn.datasets import load_digits

    # Bilinear from 8 to 28: each new pixel lies between the two old ones whose centres are next to its own.
    weights = np.zeros((28, 8))
    for pixel in range(28):
        place = min(max((pixel + 0.5) * 8 / 28 - 0.5, 0), 7)
        weights[pixel, int(place)] += 1 - place % 1
        weights[pixel, min(int(place) + 1, 7)] += place % 1
    enlarged = torch.from_numpy(weights @ load_digits().images @ weights.T * 255 / 16).flatten(1)
    train, test = read_digits()
    found = torch.cat([train.images, test.images]).double().flatten(1)
    origin = torch.cdist(found, enlarged).argmin(1)
    assert (found - enlarged[origin]).abs().max() <= 0.51
    assert torch.equal(origin.sort().values, torch.arange(1797))
    assert torch.equal(torch.from_numpy(load_digits().target)[origin], torch.cat([train.labels, test.labels]).long())
    assert not {image.tobytes() for image in train.images.numpy()} & {image.tobytes() for image in test.images.numpy()}


def test_the_facts_of_digits_are_those_of_its_training_part(digits):
    values = digits.train.images.double() / 255
    assert values.mean().item() == pytest.approx(DATASETS["DIGITS"].mean[0], abs=5e-5)
    assert values.std().item() == pytest.approx(DATASETS["DIGITS"].std[0], abs=5e-5)


def test_the_facts_of_the_real_sets_are_the_constants_in_common_use():
    """As in torchvision's and PyTorch's examples, of the training images."""
    assert {name: (DATASETS[name].mean, DATASETS[name].std) for name in RAW} == {
        "MNIST": ((0.1307,), (0.3081,)),
        "FMNIST": ((0.2860,), (0.3530,)),
        "SVHN": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
        "CIFAR10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    }


def test_the_sizes_of_the_real_sets_are_the_published_ones():
    """LeCun et al. 1998, Xiao et al. 2017, Netzer et al. 2011 (without `extra`), Krizhevsky 2009."""
    assert {
        name: (DATASETS[name].train_images, DATASETS[name].test_images, DATASETS[name].input_size) for name in RAW
    } == {
        "MNIST": (60_000, 10_000, 784),
        "FMNIST": (60_000, 10_000, 784),
        "SVHN": (73_257, 26_032, 3072),
        "CIFAR10": (50_000, 10_000, 3072),
    }


@pytest.mark.parametrize(("name", "tolerance"), [("MNIST", 5e-4), ("FMNIST", 5e-4), ("CIFAR10", 1e-3)])
def test_the_facts_of_the_real_sets(real_data, tmp_path, name, tolerance):
    # The CIFAR10 at hand is in part rebuilt from JPEG.
    prepared = prepare(name, str(real_data), tmp_path, verify=name != "CIFAR10", download=False)
    facts = DATASETS[name]
    assert (len(prepared.train.labels), len(prepared.test.labels)) == (facts.train_images, facts.test_images)
    assert torch.bincount(prepared.test.labels.int()).tolist() == pytest.approx([1000] * 10, rel=0.15)
    values = prepared.train.images.transpose(0, 1).flatten(1)
    for channel, pixels in enumerate(values):
        pixels = pixels.double() / 255
        assert pixels.mean().item() == pytest.approx(DATASETS[name].mean[channel], abs=tolerance)
        assert pixels.std().item() == pytest.approx(DATASETS[name].std[channel], abs=tolerance)


def test_the_real_svhn_reads_as_digits(real_data, tmp_path):
    prepared = prepare("SVHN", str(real_data), tmp_path, verify=False, download=False)
    counts = torch.bincount(prepared.train.labels.int(), minlength=10)
    # House numbers begin with 1 more often than with anything else, and with 0 hardly ever.
    assert counts.argmax() == 1
    assert counts[0] < counts[1]
    assert len(prepared.warnings) == 1


# -- what training sees ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["MNIST", "CIFAR10"])
def test_standardised_images_are_those_of_the_plain_formula_without_label_pixels(name, dtype):
    facts = DATASETS[name]
    part = Part(torch.from_numpy(made_images(6, *facts.shape)), torch.arange(6, dtype=torch.uint8))
    images = standardise(part, facts, "cpu", dtype)
    expected = textbook.neutral(textbook.standardised(part, name), facts.shape[0], 0.0)
    assert images.pixels.dtype == dtype
    assert torch.allclose(images.pixels.double(), expected, atol=1e-5 if dtype == torch.float32 else 1e-12)
    assert torch.allclose(images.square.double(), (expected**2).sum(1), rtol=1e-5)
    assert images.labels.tolist() == list(range(6))
    assert images.labels.dtype == torch.int64
    rows = torch.tensor([[5, 0, 5], [1, 2, 3]])
    pixels, square, labels = images.rows(rows)
    assert torch.equal(pixels[0, 2], images.pixels[5])
    assert torch.equal(labels, rows)
    assert torch.equal(square, images.square[rows])


def test_standardising_leaves_the_prepared_bytes_alone(digits):
    before = digits.train.images.clone()
    standardise(digits.train, digits.facts, "cpu")
    assert torch.equal(digits.train.images, before)


# -- prepared sets ----


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


# -- raw files ----


@pytest.mark.parametrize("name", RAW)
def test_official_files_are_read_in_their_order(name, tmp_path, official):
    official(name, write_raw(tmp_path, name))
    prepared = prepare(name, str(tmp_path), tmp_path / "prepared", download=False)
    assert (prepared.verified, prepared.warnings) == (True, [])
    assert len(prepared.train.labels) == 40
    assert len(prepared.test.labels) == 20
    images = prepared.test.images
    if name == "SVHN":
        expected = torch.from_numpy(made_images(32, 32, 3, 20)).permute(3, 2, 0, 1)
        # The digit 0 is called 10 in the files.
        assert prepared.train.labels.tolist() == made_labels(40).tolist()
    elif name == "CIFAR10":
        expected = torch.from_numpy(made_images(20, 3072, seed=5)).view(20, 3, 32, 32)
        assert prepared.train.labels.tolist() == [*np.concatenate([made_labels(8, k) for k in range(5)])]
        assert prepared.test.labels.tolist() == made_labels(20, 5).tolist()
    else:
        expected = torch.from_numpy(made_images(20, 28, 28, seed=1)).unsqueeze(1)
        assert prepared.test.labels.tolist() == made_labels(20, 1).tolist()
    assert torch.equal(images, expected)


@pytest.mark.parametrize("name", RAW)
def test_a_wrong_checksum_is_refused_by_the_files_name_and_accepted_on_request(name, tmp_path, official):
    paths = write_raw(tmp_path, name)
    official(name, paths)
    others = {"MNIST": idx(made_labels(40, 7)), "FMNIST": idx(made_labels(40, 7))}
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


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", RAW)
def test_missing_files_give_one_sentence_with_all_that_helps(name, verify, tmp_path):
    with pytest.raises(FFError) as raised:
        prepare(name, str(tmp_path), tmp_path / "prepared", verify=verify, download=False)
    message = str(raised.value)
    assert "\n" not in message
    for part in (name, str(tmp_path), *DATASETS[name].files, "--data-dir", "FF_DATA_DIR", "snakemake --cores 1 demo"):
        assert part in message
    assert not (tmp_path / "prepared").exists()


def test_one_missing_file_is_named_alone(tmp_path, official):
    paths = write_raw(tmp_path, "MNIST")
    official("MNIST", paths)
    paths[3].unlink()
    with pytest.raises(FFError) as raised:
        prepare("MNIST", str(tmp_path), tmp_path / "prepared", download=False)
    assert paths[3].name in str(raised.value)
    assert paths[2].name not in str(raised.value)


@pytest.mark.parametrize("name", RAW)
def test_an_unreachable_network_gives_the_same_sentence(name, tmp_path, warm):
    proxy = "http://127.0.0.1:9"
    environment = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), proxy) | {"no_proxy": ""}
    done = warm(tmp_path, "prepare", name, "--data-dir", tmp_path / "raw", **environment)
    assert done.code == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ff: {name}: ")
    assert "could not be fetched" in last
    assert str(tmp_path / "raw") in last
    assert "snakemake --cores 1 demo" in last
    assert "Traceback" not in done.stderr


def test_batches_of_cifar10_may_be_missing_on_request(tmp_path):
    paths = write_raw(tmp_path, "CIFAR10")
    paths[3].unlink()
    paths[4].unlink()
    prepared = prepare("CIFAR10", str(tmp_path), tmp_path / "prepared", verify=False, download=False)
    assert len(prepared.train.labels) == 24
    assert any("without data_batch_4, data_batch_5" in warning for warning in prepared.warnings)
    paths[5].unlink()
    with pytest.raises(FFError, match="test_batch"):
        prepare("CIFAR10", str(tmp_path), tmp_path / "prepared", verify=False, download=False)


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


def test_a_data_folder_that_takes_no_files_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(FFError, match=r"SVHN.*Permission denied.*demo"):
        prepare("SVHN", str(tmp_path / "raw"), tmp_path / "prepared")


def test_status_says_what_is_there(tmp_path, prepared_dir):
    paths = write_raw(tmp_path, "CIFAR10")
    paths[2].unlink()
    found = status("CIFAR10", str(tmp_path), tmp_path / "prepared")
    assert found.missing == [DATASETS["CIFAR10"].files[2]]
    assert (found.folder, found.prepared, found.refused is None) == (tmp_path, False, False)
    found = status("DIGITS", str(tmp_path), prepared_dir)
    assert (found.missing, found.prepared, found.refused) == ([], True, None)


# -- damaged raw files ----


@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("cut", [0, 1, 3, 10, 0.5, -1])
def test_cut_files_are_one_sentence(name, cut, tmp_path):
    for number, path in enumerate(write_raw(tmp_path, name)):
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * cut) if isinstance(cut, float) else cut])
        with pytest.raises(FFError) as raised:
            prepare(name, str(tmp_path), tmp_path / "prepared", verify=False, download=False)
        assert "\n" not in str(raised.value)
        assert name in str(raised.value)
        path.write_bytes(data)
        if name == "CIFAR10" and number == 1:
            break


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_noise_in_the_place_of_files_is_one_sentence(tmp_path_factory, noise):
    root = tmp_path_factory.getbasetemp() / "noise"
    for name in ("MNIST", "SVHN", "CIFAR10"):
        for file in DATASETS[name].files:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_bytes(noise)
        with pytest.raises(FFError):
            prepare(name, str(root), root / "prepared", verify=False, download=False)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (1, idx(made_labels(39))),  # a label too few
        (1, idx(made_labels(40) + 1)),  # label 10
        (0, idx(made_images(40, 28, 27))),  # another size
        (0, idx(made_images(40, 784))),  # another shape
        (1, idx(made_images(40, 1))),
        (0, idx(made_images(0, 28, 28))),
    ],
)
def test_idx_files_that_do_not_fit_together_are_refused(file, content, tmp_path):
    write_raw(tmp_path, "MNIST")[file].write_bytes(content)
    with pytest.raises(FFError, match="MNIST"):
        prepare("MNIST", str(tmp_path), tmp_path / "prepared", verify=False, download=False)


@pytest.mark.parametrize(
    "change",
    [
        {"X": made_images(32, 32, 3, 39)},
        {"X": made_images(40, 32, 32, 3)},
        {"X": made_images(32, 32, 3, 40).astype(float)},
        {"X": "text"},
        {"y": np.array([["a"] * 40])},
    ],
)
def test_mat_files_that_hold_something_else_are_refused(change, tmp_path):
    paths = write_raw(tmp_path, "SVHN")
    good = {"X": made_images(32, 32, 3, 40), "y": made_labels(40).reshape(-1, 1)}
    savemat(paths[0], good | change)
    with pytest.raises(FFError, match="SVHN"):
        prepare("SVHN", str(tmp_path), tmp_path / "prepared", verify=False, download=False)


def test_a_batch_with_labels_of_another_length_is_refused_even_where_the_sum_is_right(tmp_path):
    paths = write_raw(tmp_path, "CIFAR10")
    paths[0].write_bytes(cifar_batch(made_images(8, 3072), made_labels(9).tolist()))
    paths[1].write_bytes(cifar_batch(made_images(8, 3072), made_labels(7).tolist()))
    with pytest.raises(FFError, match=r"data_batch_1: 8 images, but 9 labels"):
        prepare("CIFAR10", str(tmp_path), tmp_path / "prepared", verify=False, download=False)


# -- pickles ----


def test_a_batch_as_in_the_official_files_is_read():
    images = made_images(4, 3072)
    content = load_arrays(cifar_batch(images, [3, 1, 4, 1]), "data_batch_1")
    assert np.array_equal(content["data"], images)
    assert content["data"].dtype == np.uint8
    assert content["labels"] == [3, 1, 4, 1]
    assert content["batch_label"] == "made batch"


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_batch_that_python_3_wrote_is_read(protocol):
    images = made_images(4, 3072)
    for data, labels in ((images, [1, 2, 3, 4]), (np.asfortranarray(images), np.arange(4))):
        found = load_arrays(pickle.dumps({"data": data, "labels": labels}, protocol=protocol), "data_batch_1")
        assert np.array_equal(found["data"], images)
        assert np.array_equal(found["labels"], labels)


class Reduced:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def names(module: str, name: str, *, arguments: bytes = b"(") -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n" + arguments + b"tR"


def in_batch(value: bytes) -> bytes:
    """A batch whose `data` is what the opcodes given leave behind."""
    return b"\x80\x02}(" + short_string(b"labels") + b"](K\x01e" + short_string(b"data") + value + b"u."


ARRAY, DTYPE = b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\ndtype\n"
OBJECTS = DTYPE + b"U\x01OK\x00K\x01\x87R"
HOSTILE = {
    "os.system": pickle.dumps({"data": Reduced(os.system, "touch hacked"), "labels": []}),
    "posix.system": in_batch(names("posix", "system", arguments=b"(" + short_string(b"touch hacked"))),
    "builtins.eval": pickle.dumps({"data": Reduced(eval, "open('hacked', 'w')"), "labels": []}),
    "builtins.exec": in_batch(names("__builtin__", "exec", arguments=b"(" + short_string(b"open('hacked','w')"))),
    "builtins.getattr": in_batch(names("builtins", "getattr")),
    "numpy.load": pickle.dumps({"data": Reduced(np.load, "hacked"), "labels": []}),
    "numpy.fromfile": in_batch(names("numpy", "fromfile", arguments=b"(" + short_string(b"/etc/passwd"))),
    "numpy.memmap": in_batch(names("numpy", "memmap", arguments=b"(" + short_string(b"hacked"))),
    "numpy.f2py": in_batch(names("numpy.testing._private.utils", "runstring")),
    "nested name": in_batch(names("numpy", "ndarray.tofile")),
    "nested name of protocol 4": b"\x80\x04}(\x8c\x06labels](e\x8c\x04data\x8c\x05numpy\x8c\x0endarray.tofile\x93)Ru.",
    "dunder": in_batch(names("numpy", "ndarray.__class__")),
    "subprocess": in_batch(names("subprocess", "Popen", arguments=b"(" + short_string(b"true"))),
    "unused": b"\x80\x02" + names("os", "getcwd") + b"0" + cifar_batch(made_images(1, 3072), [1])[2:],
    "instance": in_batch(b"(" + short_string(b"true") + b"ios\nsystem\n"),
    "extension": in_batch(b"\x82\x01"),
    "persistent": in_batch(b"Pnumber\n"),
    # numpy's own names, used otherwise: an array of objects over bytes makes any number an address.
    "objects over bytes": in_batch(b"cnumpy\nndarray\n(K\x01\x85" + OBJECTS + short_string(b"A" * 8) + b"tR"),
    "ndarray called": in_batch(b"cnumpy\nndarray\n(K\x01\x85tR"),
    "ndarray made": in_batch(b"cnumpy\nndarray\n(K\x01\x85t\x81"),
    "array without content": in_batch(ARRAY + b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R"),
    "array of objects": in_batch(
        ARRAY + b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01\x85" + OBJECTS + b"\x89](K\x01etb"
    ),
    "dtype with fields": in_batch(
        ARRAY
        + b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01\x85"
        + (DTYPE + b"U\x02V8K\x00K\x01\x87R")
        + (
            b"(K\x03U\x01|N"
            + short_string(b"a")
            + b"\x85}"
            + short_string(b"a")
            + OBJECTS
            + b"K\x00\x86sK\x08K\x01K\x00tb"
        )
        + (b"\x89" + short_string(b"A" * 8) + b"tb")
    ),
    "more than was stored": in_batch(pickled_array(made_images(1, 4)).replace(b"J\x04\0\0\0", b"J\xff\xff\xff\x7f")),
    "less than nothing": in_batch(pickled_array(made_images(1, 4)).replace(b"J\x04\0\0\0", b"J\xfe\xff\xff\xff")),
    "state of a class": in_batch(ARRAY + b"N}" + short_string(b"array") + b"K\x01s\x86b"),
    "state of another class": in_batch(DTYPE + b"N}" + short_string(b"dtype") + b"K\x01s\x86b"),
    "state of bytes": in_batch(b"c_codecs\nencode\nN}" + short_string(b"x") + b"K\x01s\x86b"),
    "another codec": in_batch(b"c_codecs\nencode\n(" + short_string(b"x") + short_string(b"zlib") + b"tR"),
    "no dictionary": b"\x80\x02](K\x01e.",
    "no labels": b"\x80\x02}" + short_string(b"data") + b"K\x01s.",
    "empty": b"",
    "recursive": b"\x80\x02}q\x00" + short_string(b"data") + b"h\x00s.",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pickles_are_refused_and_do_nothing(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {name: dict(vars(thing)) for name, thing in vars(unpickler).items() if isinstance(thing, type)}
    with pytest.raises(FFError, match="batch_9"):
        load_arrays(HOSTILE[kind], "batch_9")
    assert list(tmp_path.iterdir()) == []
    assert {name: dict(vars(thing)) for name, thing in vars(unpickler).items() if isinstance(thing, type)} == before


def test_the_hostile_pickles_would_work_with_the_plain_unpickler(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in ("os.system", "builtins.eval", "posix.system"):
        pickle.loads(HOSTILE[kind], encoding="latin1")
        assert (tmp_path / "hacked").exists(), kind
        (tmp_path / "hacked").unlink()


@pytest.mark.parametrize(
    "bomb",
    [
        # A few bytes that ask for gigabytes: a memo of four thousand million entries, an array, a byte array.
        b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".",
        in_batch(ARRAY + b"cnumpy\nndarray\n\x8a\x06\x00\x00\x00\x00\x00\x10\x85U\x01b\x87R"),
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",
    ],
)
def test_pickles_that_ask_for_too_much_memory_are_refused(bomb, warm, tmp_path):
    (tmp_path / "bomb").write_bytes(bomb)
    code = """
import resource
from ff.data.unpickler import load_arrays
from ff.errors import FFError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
try:
    load_arrays(open("bomb", "rb").read(), "data_batch_1")
except FFError:
    print("refused", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = warm(tmp_path, code=code)
    word, grown_kb = done.stdout.split()
    assert word == "refused", done.stderr
    assert int(grown_kb) < 100_000


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_changed_batches_are_read_or_refused(data):
    batch = bytearray(cifar_batch(made_images(2, 12), [1, 2]))
    for _ in range(data.draw(st.integers(1, 4))):
        batch[data.draw(st.integers(0, len(batch) - 1))] = data.draw(st.integers(0, 255))
    try:
        content = load_arrays(bytes(batch), "data_batch_1")
    except FFError:
        return
    assert {"data", "labels"} <= set(content)
