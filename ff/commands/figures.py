"""`ff figures`."""

import argparse
from pathlib import Path

from ff.arguments import execution_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ff figures`."""
    parser.add_argument("results", nargs="?", type=Path, help="results folder [results]")
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file of another command: its setting `out`, or `results`"
    )


def run(args: argparse.Namespace) -> None:
    """Write tables, figures and the report of a results folder."""
    from ff.summary.report import write_everything

    print(f"report: {write_everything(args.results or Path(execution_of(args).out))}")
