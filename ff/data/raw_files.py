"""The data sets' raw files: where they are looked for, whether they are the official ones, and what a prepared set was
made from.

Imports no torch: the workflow asks at each start whether a prepared set is still what it would make.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ff.data.registry import DATASETS
from ff.errors import FFError
from ff.files import read_about

# What a prepared set is made from where each of its files is the official one.
OFFICIAL = "official"
DEFAULT_FOLDER = Path("data")


def data_folder(command_line: str | None = None, configured: str | None = None) -> Path:
    """The torchvision-style data root: the command line's, else FF_DATA_DIR, else a config file's, else `data`."""
    return Path(command_line or os.environ.get("FF_DATA_DIR") or configured or DEFAULT_FOLDER)


def find(folder: Path, file: str) -> Path | None:
    """`file` below `folder`; SVHN's files may also lie in `folder` itself, where torchvision puts them by default."""
    for path in (folder / file, folder / Path(file).name):
        if path.is_file():
            return path
    return None


def missing_files(name: str, folder: Path) -> list[str]:
    """The raw files of data set `name` that are not below `folder`."""
    return [file for file in DATASETS[name].files if find(folder, file) is None]


def not_found(name: str, folder: Path, missing: Sequence[str], why: str = "") -> FFError:
    """The error that says which files are missing and all that helps."""
    return FFError(
        f"{name}: {', '.join(missing)} not found in {folder.absolute()}{why}; put the official files there or point "
        "--data-dir (FF_DATA_DIR, config data_dir) at a torchvision data folder; "
        "without any files, run the demo: snakemake --cores 1 demo"
    )


def md5_of(path: Path) -> str:
    """The MD5 of a file, which the official ones are published with."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def recorded(path: Path) -> dict[str, Any] | None:
    """What a prepared set says of itself; None where there is none, or one that cannot be read."""
    try:
        about = read_about(path)
    except FFError:
        return None
    # Earlier versions did not record the source; what they call verified is made from the official files.
    return about | ({"source": OFFICIAL} if about.get("verified") and "source" not in about else {})


def describe(name: str, folder: Path, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """The raw files of data set `name` below `folder`, as the prepared set that is made from them records them.

    {source, source_folder, source_files: {file: {md5, bytes, modified_ns}}}: `source` is OFFICIAL or a hash of the
    MD5s. Files that have not changed since the description `known` are not read again.
    """
    place = str(folder.resolve())
    earlier = known.get("source_files", {}) if known and known.get("source_folder") == place else {}
    files = {}
    for file in DATASETS[name].files:
        path = find(folder, file)
        if path is None:
            continue
        stat = path.stat()
        same = {"bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}
        before = earlier.get(file, {})
        files[file] = before if before.items() >= same.items() else {"md5": md5_of(path), **same}
    found = {file: entry["md5"] for file, entry in files.items()}
    return {"source": _source(name, found), "source_folder": place, "source_files": files}


def unofficial_files(name: str, folder: Path, source: dict[str, Any], verify: bool) -> list[Path]:
    """The raw files that are there but not the official bytes; FFError where there are some and `verify` is set.

    `source` is what `describe` says of them.
    """
    expected = _official_md5(name)
    differing = [file for file, entry in source["source_files"].items() if entry["md5"] != expected[file]]
    unofficial = [path for file in differing if (path := find(folder, file)) is not None]
    if verify and unofficial:
        raise FFError(
            f"{name}: {', '.join(map(str, unofficial))} "
            f"{'is' if len(unofficial) == 1 else 'are'} not the official file (MD5 differs); delete it to fetch it "
            "again, or accept it with verify: false (--verify false)"
        )
    return unofficial


def wanted_source(name: str, folder: Path, prepared: Path) -> str:
    """The `source` that the prepared set of `name` must have to be one made from the files below `folder`.

    Files that are missing there would be fetched, so they count as official. Where `folder` is the default `data`
    and holds none of them, nobody has said where the data is: what is prepared will do.
    """
    known = recorded(prepared)
    here = describe(name, folder, known)
    if known is not None and "source" in known:
        unchanged = all(here[key] == known.get(key) for key in ("source_folder", "source_files"))
        unsaid = folder == DEFAULT_FOLDER and not here["source_files"]
        if unchanged or unsaid:
            return known["source"]
    found = {file: entry["md5"] for file, entry in here["source_files"].items()}
    return _source(name, _official_md5(name) | found)


def _official_md5(name: str) -> dict[str, str]:
    return dict(zip(DATASETS[name].files, DATASETS[name].md5, strict=True))


def _source(name: str, found: dict[str, str]) -> str:
    if found == _official_md5(name):
        return OFFICIAL
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:12]
