"""`ff trials`."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ff trials`."""
    parser.add_argument("results", nargs="?", type=Path, default=Path("study"), help="results folder [study]")
    parser.add_argument("--csv", type=Path, help="where the table of trials goes [RESULTS/trials.csv]")


def run(args: argparse.Namespace) -> None:
    """Write the trials of a search and say what it chooses."""
    from ff.layout import find_runs
    from ff.summary.tables import write_table
    from ff.summary.trials import choices, trials, warnings

    frame = trials(args.results, find_runs(args.results))
    path = args.csv or args.results / "trials.csv"
    write_table(frame, path)
    chosen = choices(frame)
    for choice in chosen:
        print(
            f"{choice.dataset}, {choice.layers}, {choice.rule}: {choice.recipe}, "
            f"{100 * choice.val_accuracy:.2f} % on validation "
            f"(mean of {choice.seeds} seed{'s' * (choice.seeds != 1)}, best of {choice.trials})"
        )
    for warning in warnings(frame, chosen):
        print(f"note: {warning}")
    print(f"trials: {path}")
