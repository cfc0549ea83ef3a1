"""Small raw data sets in the official formats, with random images."""

import gzip
import struct
from pathlib import Path

import numpy as np

from ff.data.registry import DATASETS

# The data sets that have raw files.
RAW = tuple(name for name, facts in DATASETS.items() if facts.files)


def idx(array: np.ndarray) -> bytes:
    """An array of bytes as an IDX file: 0, 0, type 8 (bytes), number of dimensions, sizes, content."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def short_string(data: bytes) -> bytes:
    """Python 2's string in a pickle of protocol 2: SHORT_BINSTRING, or BINSTRING from 256 bytes on."""
    return b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<I", len(data)) + data


def pickled_array(data: np.ndarray) -> bytes:
    """Opcodes that build an array of bytes as numpy of Python 2 pickled it."""
    shape = b"".join(b"J" + struct.pack("<i", size) for size in data.shape)
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01(" + shape + b"t"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89" + short_string(data.tobytes()) + b"tb"
    )


def cifar_batch(images: np.ndarray, labels: list[int], of_100: bool = False) -> bytes:
    """A batch as in the official files: protocol 2, written by Python 2. CIFAR100 has two sets of labels."""
    coarse = short_string(b"coarse_labels") + _numbers([label // 5 for label in labels]) if of_100 else b""
    return (
        b"\x80\x02}("
        + (short_string(b"batch_label") + short_string(b"made batch"))
        + (short_string(b"fine_labels" if of_100 else b"labels") + _numbers(labels) + coarse)
        + (short_string(b"data") + pickled_array(images))
        + (short_string(b"filenames") + b"](" + b"".join(short_string(b"a.png") for _ in labels) + b"e")
        + b"u."
    )


def _numbers(values: list[int]) -> bytes:
    return b"](" + b"".join(b"K" + bytes([value]) for value in values) + b"e"


def made_labels(count: int, shift: int = 0, classes: int = 10) -> np.ndarray:
    """All labels in turn, in steps of 7, so that few of a hundred reach the last ones."""
    step = 7 if classes > 10 else 1
    return (step * np.arange(count) + shift) % classes


def made_images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_raw(root: Path, name: str, train: int = 40, test: int = 20) -> list[Path]:
    """Write the raw files of data set `name` below `root`; gives their paths, in the order of its facts."""
    facts, classes = DATASETS[name], len(DATASETS[name].classes)
    paths = [root / file for file in facts.files]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    if facts.reader == "idx":
        for part, count in enumerate((train, test)):
            for place, array in enumerate((made_images(count, *facts.shape[1:], seed=part), made_labels(count, part))):
                path, content = paths[2 * part + place], idx(array % classes if place else array)
                path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    elif facts.reader == "cifar":
        for number, path in enumerate(paths):
            count = test if path is paths[-1] else train // (len(paths) - 1)
            labels = made_labels(count, number, classes).tolist()
            path.write_bytes(cifar_batch(made_images(count, 3072, seed=number), labels, of_100=classes == 100))
    elif facts.reader == "mat":
        from scipy.io import savemat

        for path, count in zip(paths, (train, test), strict=True):
            labels = made_labels(count)
            content = {"X": made_images(32, 32, 3, count), "y": np.where(labels == 0, 10, labels).reshape(-1, 1)}
            savemat(path, content)
    return paths
