"""`ff export`."""

import argparse
from collections.abc import Mapping
from typing import Any

from ff.arguments import execution_of
from ff.commands.runs import add_run_arguments, named_runs, opened_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ff export`."""
    add_run_arguments(parser)
    parser.add_argument("--int8", action="store_true", help="also graphs with int8 products, calibrated on validation")
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing but parity.json: hold the bundle that is there to its answers",
    )


def run(args: argparse.Namespace) -> None:
    """Export trained runs, or check their bundles; print what differs from the trained network."""
    folders, execution = named_runs(args), execution_of(args)
    from ff.export.packages import require

    require()
    import torch

    from ff.export.bundle import check_run, export_run
    from ff.files import read_json
    from ff.layout import EXPORT_FOLDER

    if execution.threads:
        torch.set_num_threads(execution.threads)
    for folder, config, prepared in opened_runs(folders, execution):
        if args.check:
            check_run(folder, prepared)
        else:
            export_run(folder, prepared, args.int8)
        export = folder / EXPORT_FOLDER
        bundle, parity = (read_json(export / f"{name}.json") for name in ("bundle", "parity"))
        sizes = {entry["file"]: entry["bytes"] for entry in bundle["files"]}
        print(f"{config.name}: {export}: full.onnx {sizes['full.onnx'] / 1e6:.2f} MB")
        for what in ("early_exit", "int8"):
            if not bundle[what]["available"]:
                print(f"{config.name}: no {what.replace('_', ' ')}: {bundle[what]['reason']}")
        for path in parity["paths"]:
            print(f"{config.name}: {said(path)}")


def said(path: Mapping[str, Any]) -> str:
    """What parity.json says of a path, in a line."""
    loss, margins = path["accuracy_loss"], [one["margin"] for one in path["different"]]
    text = f"{path['path']} {path['number_format']}: {len(margins)} of {path['n']} test answers differ from torch's"
    if margins:
        text += f" (margins up to {max(margins):.2g})"
    gain, low, high = (0 - 100 * loss[name] for name in ("estimate", "high", "low"))
    return f"{text}; accuracy {path['accuracy']:.2%}, {gain:+.2f} points ({low:+.2f} to {high:+.2f})"
