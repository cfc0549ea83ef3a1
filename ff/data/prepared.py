"""Prepared data sets: one `{dataset}.safetensors` with uint8 images and labels of both official parts.

`prepare` makes it of the raw files, and later jobs memory-map it. Files that are not the official bytes are read only
on request (`verify=False`), and then by readers that cannot run code.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ff.data.download import fetch, in_one_line
from ff.data.images import Part
from ff.data.prepared_header import missing, unverified
from ff.data.raw_files import (
    data_folder,
    describe,
    find,
    missing_files,
    not_found,
    recorded,
    unofficial_files,
    wanted_source,
)
from ff.data.readers import READERS
from ff.data.registry import DATASETS, Facts
from ff.errors import FFError
from ff.files import write_tensors


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
        return DATASETS[self.name]


def prepared_path(name: str, prepared_dir: str | os.PathLike = "data/prepared") -> Path:
    """Where the prepared set of `name` lies."""
    return Path(prepared_dir) / f"{name}.safetensors"


def open_prepared(path: str | os.PathLike, verify: bool = True) -> Prepared:
    """Memory-map a prepared set; FFError when it is missing, damaged, or unverified while `verify` asks otherwise."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {})["ff"])
            train = Part(file.get_tensor("train_images"), file.get_tensor("train_labels"))
            test = Part(file.get_tensor("test_images"), file.get_tensor("test_labels"))
        name, content, verified, warnings = (meta[key] for key in ("dataset", "content", "verified", "warnings"))
        for part in (train, test):
            _check_part(name, part)
    except FileNotFoundError:
        raise missing(path) from None
    except (SafetensorError, FFError, KeyError, TypeError, ValueError, OSError) as error:
        raise FFError(f"{path} is not a prepared data set ({error}); delete it and run: ff prepare") from error
    prepared = Prepared(name, train, test, content, verified, warnings)
    _check_prepared(path, prepared, name, verify)
    return prepared


def _check_prepared(path: str | os.PathLike, prepared: Prepared, name: str, verify: bool) -> None:
    if prepared.name != name:
        raise FFError(f"{path} holds {prepared.name}, not {name}; delete it and run: ff prepare {name}")
    if verify and not prepared.verified:
        raise unverified(path)


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
    source, (train, test), warnings = _read_raw(name, folder, verify, download, recorded(path))
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
    facts = DATASETS[name]
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


class Status(NamedTuple):
    """What is there of a data set."""

    folder: Path  # where raw files are looked for
    missing: list[str]  # raw files
    prepared: bool
    refused: str | None  # why a training, as it is set by default, would not take what is there


def status(name: str, data_dir: str | None = None, prepared_dir: str | os.PathLike = "data/prepared") -> Status:
    """What is there of data set `name`, with the checks that a training makes.

    Raw files are held against their MD5 for that, unless there is a prepared set; missing ones would be fetched.
    """
    folder, path = data_folder(data_dir), prepared_path(name, prepared_dir)
    refused = None
    try:
        if path.exists():
            _check_prepared(path, open_prepared(path, verify=False), name, verify=True)
        else:
            unofficial_files(name, folder, describe(name, folder), verify=True)
    except FFError as error:
        refused = str(error)
    return Status(folder, missing_files(name, folder), path.exists(), refused)


def _check_part(name: str, part: Part) -> None:
    facts = DATASETS[name]
    count = len(part.labels)
    if part.images.dtype != torch.uint8 or tuple(part.images.shape) != (count, *facts.shape) or count == 0:
        raise FFError(
            f"{name}: images of shape {tuple(part.images.shape)} do not fit {count} labels; fetch the files again"
        )
    if part.labels.dtype != torch.uint8 or part.labels.dim() != 1:
        raise FFError(f"{name}: its labels are no list of small numbers; fetch the files again")
    highest, classes = int(part.labels.max()), len(facts.classes)
    if highest >= classes:
        raise FFError(f"{name}: label {highest} is none of the {classes} classes; fetch the files again")


def _read_raw(
    name: str, folder: Path, verify: bool, download: bool, known: dict[str, Any] | None
) -> tuple[dict[str, Any], tuple[Part, Part], list[str]]:
    """The description of the raw files, the two parts they hold, and a warning for each thing that is wrong there."""
    files, reader = DATASETS[name].files, READERS[DATASETS[name].reader]
    if download and missing_files(name, folder):
        fetch(name, folder)
    missing = missing_files(name, folder)
    # Some of several training files can do on request; test images, and any training images at all, must be there.
    some = reader.any_training_files and files[-1] not in missing and len(missing) < len(files) - 1
    if missing and (verify or not some):
        raise not_found(name, folder, missing)
    source = describe(name, folder, known)
    unofficial = unofficial_files(name, folder, source, verify)
    warnings = []
    if unofficial:
        warnings.append(f"{name}: not the official bytes: {', '.join(path.name for path in unofficial)}")
    if missing:
        warnings.append(f"{name}: without {', '.join(Path(file).name for file in missing)}")
    try:
        return source, reader.read([path for file in files if (path := find(folder, file))]), warnings
    except FFError as error:
        raise FFError(f"{name}: {error}") from error
    except ImportError as error:
        advice = "pip install -c constraints.txt -e ."
        raise FFError(f"{name} cannot be read here ({error}); install what ff needs with: {advice}") from error
    except Exception as error:
        # Damaged files make the libraries that read them fail in any way (assert, struct, zlib, their own types).
        why = in_one_line(error)
        raise FFError(f"{name}: the files below {folder} cannot be read ({why}); fetch them again") from error
