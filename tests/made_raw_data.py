"""Small raw data sets in the official formats, with random images."""

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


def cifar_batch(images: np.ndarray, labels: list[int]) -> bytes:
    """A batch as in the official files: protocol 2, written by Python 2."""
    return (
        b"\x80\x02}("
        + (short_string(b"batch_label") + short_string(b"made batch"))
        + (short_string(b"labels") + b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e")
        + (short_string(b"data") + pickled_array(images))
        + (short_string(b"filenames") + b"](" + b"".join(short_string(b"a.png") for _ in labels) + b"e")
        + b"u."
    )


def made_labels(count: int, shift: int = 0) -> np.ndarray:
    return (np.arange(count) + shift) % 10


def made_images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_raw(root: Path, name: str, train: int = 40, test: int = 20) -> list[Path]:
    """Write the raw files of data set `name` below `root`; gives their paths, in the order of its facts."""
    facts = DATASETS[name]
    paths = [root / file for file in facts.files]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    if facts.reader == "idx":
        for part, count in enumerate((train, test)):
            paths[2 * part].write_bytes(idx(made_images(count, *facts.shape[1:], seed=part)))
            paths[2 * part + 1].write_bytes(idx(made_labels(count, part) % len(facts.classes)))
    elif facts.reader == "cifar":
        for number, path in enumerate(paths):
            count = test if number == 5 else train // 5
            path.write_bytes(cifar_batch(made_images(count, 3072, seed=number), made_labels(count, number).tolist()))
    elif facts.reader == "mat":
        from scipy.io import savemat

        for path, count in zip(paths, (train, test), strict=True):
            labels = made_labels(count)
            content = {"X": made_images(32, 32, 3, count), "y": np.where(labels == 0, 10, labels).reshape(-1, 1)}
            savemat(path, content)
    return paths
