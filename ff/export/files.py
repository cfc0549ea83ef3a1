"""The files of a bundle: their names, and the refusal of those that are not what the bundle says."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ff import stamps
from ff.errors import FFError
from ff.files import read_json
from ff.layout import EXPORT_FOLDER
from ff.learn.inference import Exits

BUNDLE, PARITY, RUN, IMAGES, ANSWERS = "bundle.json", "parity.json", "run.py", "images.npy", "answers.csv"
FLOAT32, INT8 = "float32", "int8"
FORMATS = (FLOAT32, INT8)


def graph_file(graph: str, number_format: str = FLOAT32) -> str:
    """`full.onnx`, `full.int8.onnx`."""
    return f"{graph}.onnx" if number_format == FLOAT32 else f"{graph}.{number_format}.onnx"


def sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def open_bundle(run_folder: str | os.PathLike) -> dict[str, Any]:
    """bundle.json of the bundle in a run folder.

    Raises FFError where there is none, where it belongs to another model than the run holds now, or where a file of it
    is missing or was changed after it was exported.
    """
    folder, again = Path(run_folder, EXPORT_FOLDER), f"export it again: ff export {Path(run_folder)}"
    if not (folder / BUNDLE).exists():
        raise FFError(f"there is no bundle in {folder}; run: ff export {Path(run_folder)}")
    bundle = read_json(folder / BUNDLE)
    stale = stamps.why_stale(stamps.stamp_of(bundle), stamps.model_of(run_folder))
    if stale:
        raise FFError(f"the bundle in {folder} is {stale}; {again}")
    for entry in bundle["files"]:
        path = folder / entry["file"]
        if not path.is_file():
            raise FFError(f"the bundle in {folder} lacks its file {entry['file']}; {again}")
        if sha256(path) != entry["sha256"]:
            raise FFError(f"{path} was changed after it was exported; {again}")
    return bundle


def exits_of(bundle: Mapping[str, Any]) -> Exits | None:
    """The exits of a bundle's operating point; None where nobody leaves early."""
    exits = bundle["early_exit"]["exits"]
    if exits is None:
        return None
    return Exits(tuple(exits["thresholds"]), exits["temperatures"] and tuple(exits["temperatures"]))
