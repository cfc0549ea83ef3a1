"""The data sets: download, verification, preparation, and the tensors that training and evaluation read.

`prepare` turns official files into one `{dataset}.safetensors` (uint8 images and labels of both official parts),
which later jobs memory-map. Official files come through torchvision.datasets with its checksums. Files that are not
the official bytes are read only on request (`verify=False`), and then by readers that cannot run code.
"""

import hashlib
import io
import json
import os
import pickle
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ff.data.labels import clear_label_pixels
from ff.data.registry import FACTS, Facts, data_folder, describe, find, recorded, wanted_source
from ff.errors import FFError
from ff.files import write_tensors

if TYPE_CHECKING:
    import numpy


# The last 360 of a fixed shuffle of the 1,797 digits are the test set.
DIGITS_TEST_SIZE = 360


class Part(NamedTuple):
    """One official part as stored: images uint8 [N, C, H, W], labels uint8 [N]."""

    images: Tensor
    labels: Tensor


class Prepared(NamedTuple):
    """An opened prepared set; `content` is the SHA-256 of its images and labels, `warnings` goes to metrics.json."""

    name: str
    train: Part
    test: Part
    content: str
    verified: bool
    warnings: list[str]

    @property
    def facts(self) -> Facts:
        """The data set's facts."""
        return FACTS[self.name]


class Images(NamedTuple):
    """Standardised images on a device, label pixels set to 0."""

    pixels: Tensor  # [N, D], or [1, B, D] as a block for any number of networks
    square: Tensor  # sum of squares of each image's pixels, [N] or [1, B]
    labels: Tensor  # int64, [N] or [1, B]
    channels: int

    def rows(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels [S, B, D], their sums of squares [S, B] and labels [S, B] of images `rows` [S, B]."""
        flat = rows.flatten()
        pixels = self.pixels.index_select(0, flat).view(*rows.shape, -1)
        return pixels, self.square[flat].view(rows.shape), self.labels[flat].view(rows.shape)

    def block(self, part: slice, seeds: int) -> "Images":
        """The images of `part` as a block [S, B, ...] for `seeds` networks (a view)."""
        return Images(
            self.pixels[part].expand(seeds, -1, -1),
            self.square[part].expand(seeds, -1),
            self.labels[part].expand(seeds, -1),
            self.channels,
        )


def standardise(part: Part, facts: Facts, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Images:
    """(value / 255 - mean) / std per channel, on `device`; the images cross to it as bytes."""
    channels = facts.shape[0]
    images = part.images.to(device).to(dtype).flatten(2)
    mean = torch.tensor(facts.mean, device=device, dtype=dtype)[:, None]
    std = torch.tensor(facts.std, device=device, dtype=dtype)[:, None]
    pixels = images.mul_(1 / (255 * std)).sub_(mean / std).flatten(1)
    clear_label_pixels(pixels, channels, len(facts.classes))
    square = torch.linalg.vector_norm(pixels, dim=-1).square_()
    return Images(pixels, square, part.labels.to(device).long(), channels)


# -- prepared sets ----


def prepared_path(name: str, prepared_dir: str | os.PathLike = "data/prepared") -> Path:
    """Where the prepared set of `name` lies."""
    return Path(prepared_dir) / f"{name}.safetensors"


def open_prepared(path: str | os.PathLike, verify: bool = True) -> Prepared:
    """Memory-map a prepared set; FFError when it is missing, damaged, or unverified while `verify` asks otherwise."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {})["ff"])
            parts = [Part(file.get_tensor(f"{p}_images"), file.get_tensor(f"{p}_labels")) for p in ("train", "test")]
        name, content, verified, warnings = (meta[key] for key in ("dataset", "content", "verified", "warnings"))
        for part in parts:
            _check_part(name, part)
    except FileNotFoundError:
        raise FFError(f"{path} does not exist; make it with: ff prepare {Path(path).stem}") from None
    except (SafetensorError, FFError, KeyError, TypeError, ValueError, OSError) as error:
        raise FFError(f"{path} is not a prepared data set ({error}); delete it and run: ff prepare") from error
    prepared = Prepared(name, *parts, content, verified, warnings)
    _check_prepared(path, prepared, name, verify)
    return prepared


def _check_prepared(path: str | os.PathLike, prepared: Prepared, name: str, verify: bool) -> None:
    if prepared.name != name:
        raise FFError(f"{path} holds {prepared.name}, not {name}; delete it and run: ff prepare {name}")
    if verify and not prepared.verified:
        raise FFError(
            f"{path} was made from files that are not the official bytes; "
            "allow it with verify: false (--verify false), or delete it and give the official files"
        )


def prepare(
    name: str,
    data_dir: str | None = None,
    prepared_dir: str | os.PathLike = "data/prepared",
    verify: bool = True,
    download: bool = True,
) -> Prepared:
    """Read the raw files of data set `name`, write its prepared file, and open it.

    Raises FFError when files are missing and cannot be fetched, or are not the official bytes while `verify` is set.
    """
    folder, path = data_folder(data_dir), prepared_path(name, prepared_dir)
    warnings: list[str] = []
    if name == "DIGITS":
        source = describe(name, folder)
        train, test = read_digits()
    else:
        source, (train, test) = _read_official(name, folder, verify, download, warnings, recorded(path))
    for part in (train, test):
        _check_part(name, part)
    tensors = {
        "train_images": train.images.contiguous(),
        "train_labels": train.labels,
        "test_images": test.images.contiguous(),
        "test_labels": test.labels,
    }
    content = hashlib.sha256()
    for tensor in tensors.values():
        content.update(tensor.numpy().tobytes())
    facts = FACTS[name]
    meta = {
        "dataset": name,
        "content": content.hexdigest(),
        "verified": not warnings,
        "warnings": warnings,
        **source,
        "mean": facts.mean,
        "std": facts.std,
    }
    write_tensors(path, tensors, meta)
    return open_prepared(path, verify)


def open_or_prepare(
    name: str,
    data_dir: str | None = None,
    prepared_dir: str | os.PathLike = "data/prepared",
    verify: bool = True,
    download: bool = True,
) -> Prepared:
    """Open the prepared set of `name`, making it first where it does not exist.

    It is made again where it came from other files than those below `data_dir` now, or from files that are not the
    official bytes while `verify` is set; where no `data_dir` is given, never. Raises FFError as `prepare` does.
    """
    path = prepared_path(name, prepared_dir)
    if path.exists():
        prepared = open_prepared(path, verify and not data_dir)
        _check_prepared(path, prepared, name, verify and not data_dir)
        if why_outdated(name, data_dir, prepared_dir, verify) is None:
            return prepared
    return prepare(name, data_dir, prepared_dir, verify, download)


def why_outdated(
    name: str, data_dir: str | None, prepared_dir: str | os.PathLike = "data/prepared", verify: bool = True
) -> str | None:
    """Why the prepared set of `name` is not the one to use with these settings; None where it is."""
    path = prepared_path(name, prepared_dir)
    known = recorded(path) or {}
    if not data_dir:
        return None
    if verify and not known.get("verified"):
        return f"{path} was made from files that are not the official bytes"
    if wanted_source(name, Path(data_dir), path) != known.get("source"):
        return f"{path} was made from other files than those in {data_dir}"
    return None


def status(name: str, data_dir: str | None = None, prepared_dir: str | os.PathLike = "data/prepared") -> dict[str, Any]:
    """What is there of data set `name`: raw files present and missing, prepared or not, verified (None: unknown).

    `refused` is why a training, as it is set by default, would not take what is there; None where it would, and where
    it would fetch what is missing. Raw files are held against their MD5 for that, unless the prepared set is used.
    """
    folder, path = data_folder(data_dir), prepared_path(name, prepared_dir)
    present = [file for file in FACTS[name].files if find(folder, file)]
    prepared = refused = None
    try:
        if path.exists():
            prepared = open_prepared(path, verify=False)
            _check_prepared(path, prepared, name, verify=True)
        else:
            _unofficial(name, folder, describe(name, folder), verify=True)
    except FFError as error:
        refused = str(error)
    return {
        "dataset": name,
        "folder": str(folder),
        "files_present": present,
        "files_missing": [file for file in FACTS[name].files if file not in present],
        "prepared": path.exists(),
        "verified": prepared.verified if prepared is not None else False if path.exists() else None,
        "refused": refused,
    }


def _check_part(name: str, part: Part) -> None:
    facts = FACTS[name]
    count = len(part.labels)
    if part.images.dtype != torch.uint8 or tuple(part.images.shape) != (count, *facts.shape) or count == 0:
        raise FFError(
            f"{name}: images of shape {tuple(part.images.shape)} do not fit {count} labels; fetch the files again"
        )
    if part.labels.dtype != torch.uint8 or part.labels.dim() != 1:
        raise FFError(f"{name}: its labels are no list of small numbers; fetch the files again")
    if int(part.labels.max()) >= len(facts.classes):
        raise FFError(f"{name}: label {int(part.labels.max())} is none of the ten classes; fetch the files again")


# -- raw files ----


def read_digits() -> tuple[Part, Part]:
    """scikit-learn's 1,797 handwritten digits (8 x 8, values 0..16), enlarged to 28 x 28 (bilinear); fixed split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float().unsqueeze(1) * (255 / 16)
    large = torch.nn.functional.interpolate(small, size=(28, 28), mode="bilinear", align_corners=False)
    images, labels = large.round().to(torch.uint8), torch.from_numpy(bunch.target).to(torch.uint8)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[:-DIGITS_TEST_SIZE], order[-DIGITS_TEST_SIZE:]
    return Part(images[train], labels[train]), Part(images[test], labels[test])


def _read_official(
    name: str, folder: Path, verify: bool, download: bool, warnings: list[str], known: dict[str, Any] | None
) -> tuple[dict[str, Any], tuple[Part, Part]]:
    """The description of the raw files and what they hold; what is wrong with them is added to `warnings`."""
    facts = FACTS[name]
    if any(find(folder, file) is None for file in facts.files):
        _fetch(name, folder, download)
    paths = [find(folder, file) for file in facts.files]
    missing = [file for file, path in zip(facts.files, paths, strict=True) if path is None]
    # A part of CIFAR10's training batches can do on request; a set without test data, or without any of its only
    # training file, can not.
    if missing and (verify or name != "CIFAR10" or len(missing) == len(facts.files) or facts.files[-1] in missing):
        raise _absent(name, folder, missing)
    source = describe(name, folder, known)
    unofficial = _unofficial(name, folder, source, verify)
    if unofficial:
        warnings.append(f"{name}: not the official bytes: {', '.join(path.name for path in unofficial)}")
    if missing:
        warnings.append(f"{name}: without {', '.join(Path(file).name for file in missing)}")
    try:
        return source, READERS[name]([path for path in paths if path is not None])
    except FFError:
        raise
    except Exception as error:
        # Damaged files make the libraries that read them fail in any way (assert, struct, zlib, their own types).
        why = _short(error)
        raise FFError(f"{name}: the files below {folder} cannot be read ({why}); fetch them again") from error


def _unofficial(name: str, folder: Path, source: dict[str, Any], verify: bool) -> list[Path]:
    """The raw files that are there but not the official bytes; FFError where there are some and `verify` is set.

    `source` is what `ff.data.registry.describe` says of them.
    """
    expected = dict(zip(FACTS[name].files, FACTS[name].md5, strict=True))
    differing = [file for file, entry in source["source_files"].items() if entry["md5"] != expected[file]]
    unofficial = [path for file in differing if (path := find(folder, file)) is not None]
    if verify and unofficial:
        raise FFError(
            f"{name}: {', '.join(map(str, unofficial))} "
            f"{'is' if len(unofficial) == 1 else 'are'} not the official file (MD5 differs); delete it to fetch it "
            "again, or accept it with verify: false (--verify false)"
        )
    return unofficial


def _fetch(name: str, folder: Path, download: bool) -> None:
    """Let torchvision fetch and unpack the official files, with its checksums and progress bar."""
    missing = [file for file in FACTS[name].files if find(folder, file) is None]
    if not download:
        return
    from ff.data.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    from torchvision import datasets

    calls: dict[str, Callable[[], Any]] = {
        "MNIST": lambda: datasets.MNIST(folder, download=True),
        "FMNIST": lambda: datasets.FashionMNIST(folder, download=True),
        "SVHN": lambda: [datasets.SVHN(folder / "SVHN", split=split, download=True) for split in ("train", "test")],
        "CIFAR10": lambda: datasets.CIFAR10(folder, download=True),
    }
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)
    try:
        if name == "SVHN":
            (folder / "SVHN").mkdir(parents=True, exist_ok=True)
        calls[name]()
    except (OSError, RuntimeError, ValueError) as error:
        raise _absent(name, folder, missing, f" and could not be fetched ({_short(error)})") from None
    finally:
        socket.setdefaulttimeout(timeout)


def _short(error: BaseException) -> str:
    # torchvision lists the addresses it tried, with their errors, over several lines.
    words = str(getattr(error, "reason", None) or error).split()
    return " ".join(words)[:200] or type(error).__name__


def _absent(name: str, folder: Path, missing: list[str], why: str = "") -> FFError:
    return FFError(
        f"{name}: {', '.join(missing)} not found in {folder.absolute()}{why}; put the official files there or point "
        "--data-dir (FF_DATA_DIR, config data_dir) at a torchvision data folder; "
        "without any files, run the demo: snakemake --cores 1 demo"
    )


def _read_idx(paths: list[Path]) -> tuple[Part, Part]:
    """MNIST and FMNIST: four IDX files."""
    from ff.data.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    from torchvision.datasets.mnist import read_image_file, read_label_file

    arrays = [read(str(path)) for read, path in zip((read_image_file, read_label_file) * 2, paths, strict=True)]
    parts = [Part(images.unsqueeze(1), labels.to(torch.uint8)) for images, labels in (arrays[:2], arrays[2:])]
    return parts[0], parts[1]


def _read_svhn(paths: list[Path]) -> tuple[Part, Part]:
    """SVHN: MATLAB files with X [32, 32, 3, N] and y [N, 1], in which the digit 0 is called 10."""
    from scipy.io import loadmat

    parts = []
    for path in paths:
        content = loadmat(path)
        images = torch.from_numpy(content["X"]).permute(3, 2, 0, 1).contiguous()
        parts.append(Part(images, torch.from_numpy(content["y"].astype("uint8").ravel() % 10)))
    return parts[0], parts[1]


def _read_cifar(paths: list[Path]) -> tuple[Part, Part]:
    """CIFAR10: pickled batches with data uint8 [n, 3072] and labels."""
    import numpy

    batches = [load_arrays(path.read_bytes(), path.name) for path in paths]
    for batch, path in zip(batches, paths, strict=True):
        if len(batch["data"]) != len(batch["labels"]):
            raise FFError(
                f"{path}: {len(batch['data'])} images, but {len(batch['labels'])} labels; fetch the file again"
            )
    parts = []
    for chosen in (batches[:-1], batches[-1:]):
        images = numpy.concatenate([numpy.asarray(batch["data"], dtype=numpy.uint8) for batch in chosen])
        labels = numpy.concatenate([numpy.asarray(batch["labels"], dtype=numpy.uint8) for batch in chosen])
        parts.append(Part(torch.from_numpy(images.reshape(-1, 3, 32, 32)), torch.from_numpy(labels)))
    return parts[0], parts[1]


READERS = {"MNIST": _read_idx, "FMNIST": _read_idx, "SVHN": _read_svhn, "CIFAR10": _read_cifar}


class _StoredType:
    """What a pickled dtype says; numpy's own would accept a state that makes it read any address as an object."""

    __slots__ = ("code", "order")

    def __init__(self, code: str, *_: Any):
        self.code, self.order = str(code), "|"

    def __setstate__(self, state: tuple) -> None:
        self.order = str(state[1])

    def dtype(self) -> "numpy.dtype":
        """The integer type that it names."""
        import numpy

        if not re.fullmatch(r"[|<>][iu][1248]", self.order + self.code):
            raise pickle.UnpicklingError(f"it holds an array of type {self.order + self.code!r}, not of whole numbers")
        return numpy.dtype(self.order + self.code)


class _StoredArray:
    """What a pickled array says. Not numpy's own, whose constructor takes any type over any bytes."""

    __slots__ = ("_state",)

    def __init__(self, *_: Any):
        self._state: tuple | None = None

    def __setstate__(self, state: tuple) -> None:
        self._state = state

    def array(self) -> "numpy.ndarray":
        """The numbers, over the bytes that were stored and no others."""
        import numpy

        if self._state is None:
            raise pickle.UnpicklingError("it holds an array without content")
        _, shape, kind, by_columns, raw = self._state
        if min(shape) < 0:
            # reshape would take it for "as many as there are".
            raise pickle.UnpicklingError(f"it holds an array of shape {shape}")
        data = raw.encode("latin1") if isinstance(raw, str) else raw
        return numpy.frombuffer(data, kind.dtype()).reshape(shape, order="F" if by_columns else "C")


class _StoredBytes(bytes):
    """How Python 3 writes bytes in protocol 2: as text with the name of a codec."""

    def __new__(cls, text: str, codec: str) -> "_StoredBytes":
        if codec != "latin1":
            raise pickle.UnpicklingError(f"it asks for codec {codec!r}")
        return super().__new__(cls, text.encode("latin1"))

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("bytes have no state")


# The unpickler written in Python: to the one in C, five bytes can say that they need a table of 64 GiB.
class _ArrayUnpickler(pickle._Unpickler):
    """Builds what stands for numpy arrays, and plain containers, and nothing else; any other name is refused."""

    NAMES: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _StoredArray,
        ("numpy._core.multiarray", "_reconstruct"): _StoredArray,
        ("numpy", "dtype"): _StoredType,
        # Only ever an argument of _reconstruct.
        ("numpy", "ndarray"): None,
        ("_codecs", "encode"): _StoredBytes,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.NAMES[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no image file needs") from None


def load_arrays(data: bytes, name: str) -> dict[str, Any]:
    """The dictionary in a pickled CIFAR batch, read without being able to run anything it may contain.

    Raises FFError when the pickle asks for anything but numpy arrays and plain containers, or is none.
    """
    try:
        content = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
        if isinstance(content, dict):
            content = {key: v.array() if isinstance(v, _StoredArray) else v for key, v in content.items()}
    except Exception as error:
        # A hostile or damaged pickle can fail in any way; all of them mean the same to the user.
        raise FFError(f"{name} is not a CIFAR10 batch: {error}; fetch it again") from error
    if not isinstance(content, dict) or "data" not in content or "labels" not in content:
        raise FFError(f"{name} is not a CIFAR10 batch: no data and labels in it; fetch it again")
    return content
