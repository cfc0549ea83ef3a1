"""`ff prepare`."""

import argparse
import sys

from ff.arguments import add_settings, execution_of
from ff.data.registry import DATASETS
from ff.errors import FFError
from ff.imports import heavy_imports
from ff.settings import ExecutionConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ff prepare`."""
    parser.add_argument("datasets", nargs="+", metavar="DATASET", help=f"one or more of {', '.join(DATASETS)}")
    add_settings(parser, ExecutionConfig, ("data_dir", "prepared_dir", "verify", "download"))


def run(args: argparse.Namespace) -> None:
    """Download, check and prepare data sets."""
    unknown = sorted(set(args.datasets) - set(DATASETS))
    if unknown:
        raise FFError(f"unknown data set {unknown[0]!r}; known: {', '.join(DATASETS)}")
    execution = execution_of(args)
    with heavy_imports():
        from ff.data.prepared import prepare, prepared_path

    for name in args.datasets:
        prepared = prepare(name, execution.data_dir, execution.prepared_dir, execution.verify, execution.download)
        for warning in prepared.warnings:
            print(f"ff: warning: {warning}", file=sys.stderr)
        path = prepared_path(name, execution.prepared_dir)
        print(f"{name}: {len(prepared.train.labels)} training and {len(prepared.test.labels)} test images in {path}")
