"""The bundle of a run, `export/` in its folder: graphs, what is known of them, and a program that uses them.

    full.onnx            any batch: the scores after each layer, and the answer
    stage1..L.onnx       a layer each, any batch: for runtimes that save nothing by `If` (TensorRT), and for batches
    early_exit.onnx      one image: leaves at the first layer that is sure, thresholds inside
    *.int8.onnx          the same with int8 products
    run.py, images.npy   answers the eight test images, with onnxruntime and numpy only
    answers.csv          what the trained network answers to each test image
    parity.json          whether the graphs do, and what int8 costs (`ff.export.parity`)
    bundle.json          all of it in one place, with the hash of each file; written last

Each file names the model it came from, and a bundle of another model than the run's is refused (`open_bundle`).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ff import stamps
from ff.assess.early_exit import cut_macs
from ff.assess.exit_rules import chosen_exits
from ff.assess.readings import drawn_rows
from ff.data.prepared import Prepared
from ff.errors import FFError
from ff.export import calibration, graphs, packages, parity, run
from ff.export.files import (
    ANSWERS,
    BUNDLE,
    FLOAT32,
    FORMATS,
    IMAGES,
    INT8,
    PARITY,
    RUN,
    exits_of,
    graph_file,
    open_bundle,
    sha256,
)
from ff.export.sessions import OnnxNetwork
from ff.files import read_json, remove, write_bytes, write_json, write_through
from ff.layout import DEPLOYED_FILES, EXPORT_FOLDER
from ff.learn import checkpoint
from ff.learn.inference import Exits
from ff.learn.network import layer_macs
from ff.learn.recipes import rule_of
from ff.stamps import identify

SCHEMA = 1
EXAMPLES = 8
NO_EXITS = "there is no early_exit.json; run: ff evaluate --early-exit"
NO_SAVING = "no exit takes fewer multiply-accumulates on validation than full depth"
NO_INT8 = "not asked for"
NO_VALIDATION = "the run has no validation split (val_size 0) to calibrate on, and the test split may not"


def export_run(run_folder: str | os.PathLike, prepared: Prepared, int8: bool = True) -> None:
    """Write the bundle of the run in `run_folder` into its folder export/, in place of the one that is there.

    Raises FFError where the extra `edge` is not installed, the run's readout has no graph, early_exit.json belongs to
    another model, or the graphs do not answer as the trained network does; then there is no bundle.
    """
    packages.require()
    run_folder = Path(run_folder)
    network, meta = checkpoint.load(run_folder / "model.safetensors", "cpu")
    config, model = checkpoint.config(meta), meta["model"]
    [rows], [readout, *_] = drawn_rows(config, prepared).val, rule_of(config).READOUTS
    point = _operating_point(run_folder, model)
    exits, folder = point["exits"], run_folder / EXPORT_FOLDER
    _clear(folder)
    source = graphs.Source(network, prepared.facts, readout.name, {"model": model, "run": config.name})
    seen = prepared.train.images[rows[: calibration.IMAGES]].numpy()
    why_no_int8 = NO_INT8 if not int8 else NO_VALIDATION if len(rows) == 0 else None
    largest = None if why_no_int8 else calibration.largest_inputs(source, seen)
    listed = _write_graphs(folder, source, FLOAT32, exits)
    listed += _write_graphs(folder, replace(source, largest=largest), INT8, exits) if largest else []
    expected, scores = parity.reference(network, readout, prepared, exits)
    parity.write_reference(folder, expected, model)
    images = prepared.test.images.numpy()
    shown = _clear_cases(expected)
    write_through(folder / IMAGES, lambda path: _save(path, images[shown]))
    shutil.copyfile(run.__file__, folder / RUN)
    tolerance = parity.TOLERANCE[network.precision] * float(np.abs(scores).max(initial=0))
    formats = [FLOAT32, *([INT8] if largest else [])]
    networks = [OnnxNetwork(folder, network.depth, number_format, exits) for number_format in formats]
    head = {"schema": SCHEMA, "run": identify(config, model)}
    _write_parity(folder, head, networks, expected, images, tolerance)
    for name in (ANSWERS, IMAGES, RUN):
        listed.append({"file": name, "graph": None, "number_format": None} | _facts_of(folder / name))
    document = head | {
        "config": config.as_dict(),
        "readout": readout.name,
        "input": {"name": "image", "type": "uint8", "shape": list(prepared.facts.shape)},
        "labels": list(prepared.facts.classes),
        "normalisation": {"mean": list(prepared.facts.mean), "std": list(prepared.facts.std)},
        "parameters": network.parameter_count(),
        "macs": {
            "layers": layer_macs(config.layers),
            "cuts": cut_macs(config.layers, network.classes, network.heads_see),
        },
        "early_exit": point | {"exits": exits and exits._asdict()},
        "int8": {
            "available": largest is not None,
            "reason": why_no_int8,
            "images": len(seen) if largest else None,
            "method": calibration.METHOD if largest else None,
            "largest_inputs": largest,
        },
        "tolerance": tolerance,
        "examples": {
            "rows": shown.tolist(),
            "labels": expected.labels[shown].tolist(),
            "answers": _examples(networks, expected, images, shown),
        },
        "opset": graphs.OPSET,
        "versions": {name: version(name) for name in ("onnx", "onnxruntime", "torch")},
        "files": listed,
    }
    write_json(folder / BUNDLE, document)
    _check_run(folder, formats)


def check_run(run_folder: str | os.PathLike, prepared: Prepared) -> None:
    """Hold the bundle in `run_folder` against its own answers.csv and examples, and write parity.json anew.

    Raises FFError where the bundle is refused, or its float32 graphs answer otherwise.
    """
    packages.require()
    bundle, folder = open_bundle(run_folder), Path(run_folder, EXPORT_FOLDER)
    if bundle["run"]["dataset"] != prepared.name:
        raise FFError(f"the bundle in {folder} is of {bundle['run']['dataset']}, not of {prepared.name}")
    depth, exits = len(bundle["macs"]["layers"]), exits_of(bundle)
    networks = [OnnxNetwork(folder, depth, number_format, exits) for number_format in formats_of(bundle)]
    expected = parity.read_reference(folder, depth)
    head = {"schema": SCHEMA, "run": bundle["run"]}
    _write_parity(folder, head, networks, expected, prepared.test.images.numpy(), bundle["tolerance"])
    _check_run(folder, formats_of(bundle))


def formats_of(bundle: Mapping[str, Any]) -> list[str]:
    """The number formats that a bundle has graphs in."""
    there = {entry["number_format"] for entry in bundle["files"]}
    return [number_format for number_format in FORMATS if number_format in there]


# -- parts of an export ----


def _operating_point(run_folder: Path, model: str) -> dict[str, Any]:
    path = run_folder / "early_exit.json"
    if not path.exists():
        return {"available": False, "reason": f"{NO_EXITS} {run_folder}", "rule": None, "k": None, "exits": None}
    found = read_json(path)
    stale = stamps.why_stale(stamps.stamp_of(found), model)
    if stale:
        raise FFError(f"{path} is {stale}; run: ff evaluate --early-exit {run_folder}")
    point = found["operating_point"] or {"rule": None, "k": None}
    exits = chosen_exits(found)
    reason = found["reason"] or (None if exits else NO_SAVING)
    return {"available": exits is not None, "reason": reason, "rule": point["rule"], "k": point["k"], "exits": exits}


def _clear(folder: Path) -> None:
    """Take away what an earlier export left, bundle.json first: what names the others must never outlive them."""
    names = (PARITY, ANSWERS, IMAGES, RUN, *(Path(name).name for name in DEPLOYED_FILES))
    for path in (folder / BUNDLE, *folder.glob("*.onnx"), *(folder / name for name in names)):
        remove(path)


def _write_graphs(folder: Path, source: graphs.Source, number_format: str, exits: Exits | None) -> list[dict[str, Any]]:
    """Write the graphs of a number format; their entries for bundle.json."""
    made = {"full": graphs.full(source)}
    made |= {f"stage{layer + 1}": graphs.stage(source, layer) for layer in range(source.network.depth)}
    if exits is not None:
        made["early_exit"] = graphs.early_exit(source, exits)
    entries = []
    for graph, content in made.items():
        name = graph_file(graph, number_format)
        write_bytes(folder / name, content.SerializeToString(deterministic=True))
        entries.append({"file": name, "graph": graph, "number_format": number_format} | _facts_of(folder / name))
    return entries


def _facts_of(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def _clear_cases(expected: parity.Reference) -> np.ndarray:
    """Rows of the test split, spread over it, that are answered clearly: another processor rounds int8 otherwise."""
    margins = expected.margins
    if expected.left_margins is not None:
        margins = np.minimum(margins, expected.left_margins)
    parts = np.array_split(np.arange(len(margins)), min(EXAMPLES, len(margins)))
    return np.array([part[margins[part].argmax()] for part in parts])


def _save(path: Path, images: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, images, allow_pickle=False)


def _write_parity(
    folder: Path,
    head: Mapping[str, Any],
    networks: list[OnnxNetwork],
    expected: parity.Reference,
    images: np.ndarray,
    tolerance: float,
) -> None:
    paths = [path for network in networks for path in parity.compare(expected, network, images, tolerance)]
    about = {"split": "test", "tolerance": tolerance, "onnxruntime": version("onnxruntime")}
    write_json(folder / PARITY, {**head, **about, "paths": paths})


def _examples(
    networks: list[OnnxNetwork], expected: parity.Reference, images: np.ndarray, rows: np.ndarray
) -> dict[str, list[int]]:
    """What each graph that answers must answer to the examples: in float32 what the trained network says."""
    answers = {}
    for network in networks:
        exact = network.number_format == FLOAT32
        given = expected.full.classes[rows] if exact else network.answer(images[rows])
        answers[graph_file("full", network.number_format)] = given.tolist()
        if expected.left is not None:
            one_by_one = [int(network.answer_one(images[row : row + 1]).classes[0]) for row in rows]
            given = expected.left.classes[rows].tolist() if exact else one_by_one
            answers[graph_file("early_exit", network.number_format)] = given
    return answers


def _check_run(folder: Path, formats: list[str]) -> None:
    """Run the bundle's own program, as somebody does who has nothing of ff."""
    for number_format in formats:
        options = ["--int8"] if number_format == INT8 else []
        done = subprocess.run(
            [sys.executable, "-I", folder / RUN, *options], capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise FFError(f"{folder / RUN} does not give the expected answers: {said[-1] if said else done.returncode}")
