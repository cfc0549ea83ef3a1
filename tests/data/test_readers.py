"""Raw files of each format: read in their order, and refused where they are damaged."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_raw_data import (
    RAW,
    cifar_batch,
    idx,
    made_images,
    made_labels,
    write_raw,
)
from scipy.io import savemat

from ff.data.prepared import prepare
from ff.data.readers import read_digits
from ff.data.registry import DATASETS
from ff.errors import FFError


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


def test_the_real_svhn_reads_as_digits(real_data, tmp_path):
    prepared = prepare("SVHN", str(real_data), tmp_path, verify=False, download=False)
    counts = torch.bincount(prepared.train.labels.int(), minlength=10)
    # House numbers begin with 1 more often than with anything else, and with 0 hardly ever.
    assert counts.argmax() == 1
    assert counts[0] < counts[1]
    assert len(prepared.warnings) == 1


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
    elif name == "CIFAR100":
        # The fine labels: the coarse ones of this file are others.
        expected = torch.from_numpy(made_images(20, 3072, seed=1)).view(20, 3, 32, 32)
        assert prepared.train.labels.tolist() == made_labels(40, 0, 100).tolist()
        assert prepared.test.labels.tolist() == made_labels(20, 1, 100).tolist()
    elif name == "CIFAR10":
        expected = torch.from_numpy(made_images(20, 3072, seed=5)).view(20, 3, 32, 32)
        assert prepared.train.labels.tolist() == [*np.concatenate([made_labels(8, k) for k in range(5)])]
        assert prepared.test.labels.tolist() == made_labels(20, 5).tolist()
    else:
        expected = torch.from_numpy(made_images(20, 28, 28, seed=1)).unsqueeze(1)
        assert prepared.test.labels.tolist() == made_labels(20, 1).tolist()
    assert torch.equal(images, expected)


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
    for name in ("MNIST", "KMNIST", "SVHN", "CIFAR10", "CIFAR100"):
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
