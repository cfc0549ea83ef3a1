"""The readers: raw files of one format to the two official parts, and how torchvision is asked to fetch such files."""

import gzip
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from ff.data.images import Part
from ff.data.torchvision_ops import declare_missing_operators
from ff.data.unpickler import load_arrays
from ff.errors import FFError

# The last 360 of a fixed shuffle of the 1,797 digits are the test set.
DIGITS_TEST_SIZE = 360


def read_idx(paths: list[Path]) -> tuple[Part, Part]:
    """Four IDX files, as MNIST and FMNIST have them: images [N, H, W] and labels [N], of both parts.

    Files named .gz, as those of KMNIST, are unpacked into a folder of the moment, since torchvision reads plain ones.
    """
    declare_missing_operators()
    from torchvision.datasets.mnist import read_image_file, read_label_file

    with tempfile.TemporaryDirectory() as folder:
        plain = [_unpacked(path, Path(folder)) if path.suffix == ".gz" else path for path in paths]
        arrays = [read(str(path)) for read, path in zip((read_image_file, read_label_file) * 2, plain, strict=True)]
    parts = [Part(images.unsqueeze(1), labels.to(torch.uint8)) for images, labels in (arrays[:2], arrays[2:])]
    return parts[0], parts[1]


def _unpacked(path: Path, folder: Path) -> Path:
    with gzip.open(path) as packed, open(folder / path.stem, "wb") as plain:
        shutil.copyfileobj(packed, plain)
    return folder / path.stem


def read_mat(paths: list[Path]) -> tuple[Part, Part]:
    """SVHN's two MATLAB files with X [32, 32, 3, N] and y [N, 1], in which the digit 0 is called 10."""
    from scipy.io import loadmat

    parts = []
    for path in paths:
        content = loadmat(path)
        images = torch.from_numpy(content["X"]).permute(3, 2, 0, 1).contiguous()
        parts.append(Part(images, torch.from_numpy(content["y"].astype("uint8").ravel() % 10)))
    return parts[0], parts[1]


def read_cifar(paths: list[Path]) -> tuple[Part, Part]:
    """CIFAR's pickled batches with data uint8 [n, 3072] and labels (CIFAR100: the fine ones of its two sets); the last
    is the test images'."""
    import numpy

    contents = [load_arrays(path.read_bytes(), path.name) for path in paths]
    batches = [(content["data"], content["labels"]) for content in contents]
    for (images, labels), path in zip(batches, paths, strict=True):
        if len(images) != len(labels):
            raise FFError(f"{path}: {len(images)} images, but {len(labels)} labels; fetch the file again")
    parts = []
    for chosen in (batches[:-1], batches[-1:]):
        images = numpy.concatenate([numpy.asarray(images, dtype=numpy.uint8) for images, _ in chosen])
        labels = numpy.concatenate([numpy.asarray(labels, dtype=numpy.uint8) for _, labels in chosen])
        parts.append(Part(torch.from_numpy(images.reshape(-1, 3, 32, 32)), torch.from_numpy(labels)))
    return parts[0], parts[1]


def read_digits(_: Sequence[Path] = ()) -> tuple[Part, Part]:
    """scikit-learn's 1,797 handwritten digits (8 x 8, values 0..16), enlarged to 28 x 28 (bilinear); fixed split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float().unsqueeze(1) * (255 / 16)
    large = torch.nn.functional.interpolate(small, size=(28, 28), mode="bilinear", align_corners=False)
    images, labels = large.round().to(torch.uint8), torch.from_numpy(bunch.target).to(torch.uint8)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order.split([len(order) - DIGITS_TEST_SIZE, DIGITS_TEST_SIZE])
    return Part(images[train], labels[train]), Part(images[test], labels[test])


def fetch_at_once(kind: type, folder: Path, _: str) -> None:
    """A class of torchvision.datasets that fetches all its files into a folder of its own below `folder`."""
    kind(folder, download=True)


def fetch_by_split(kind: type, folder: Path, file: str) -> None:
    """A class that fetches each split by itself, into the folder it is given: that of `file` below `folder`."""
    place = (folder / file).parent
    place.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        kind(place, split=split, download=True)


class Reader(NamedTuple):
    """How files of one format are read and fetched."""

    read: Callable[
        [list[Path]], tuple[Part, Part]
    ]  # the training and the test images, of files in the registry's order
    fetch: Callable[[type, Path, str], None] = fetch_at_once
    any_training_files: bool = False  # it also reads some of the training files only


READERS = {
    "idx": Reader(read_idx),
    "mat": Reader(read_mat, fetch_by_split),
    "cifar": Reader(read_cifar, any_training_files=True),
    "digits": Reader(read_digits),
}
