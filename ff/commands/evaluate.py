"""`ff evaluate`."""

import argparse
from pathlib import Path

from ff.arguments import execution_of
from ff.commands.runs import add_run_arguments, named_runs, opened_runs
from ff.imports import heavy_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ff evaluate`."""
    add_run_arguments(parser)
    parser.add_argument("--early-exit", action="store_true", help="also the early-exit curve and its operating point")
    parser.add_argument(
        "--from-wandb",
        metavar="ENTITY/PROJECT/sweeps/ID",
        help="fetch the models of a W&B sweep into the results folder first, and evaluate them",
    )


def run(args: argparse.Namespace) -> None:
    """Score trained runs and print the scores at full depth, and what early exit saves."""
    if args.from_wandb:
        from ff.tracking.fetch import fetch_models

        args.runs += fetch_models(args.from_wandb, Path(execution_of(args).out))
    folders, execution = named_runs(args), execution_of(args)
    with heavy_imports():
        import torch

        from ff.assess.early_exit import run_early_exit
        from ff.assess.early_exit_text import operating_point
        from ff.assess.evaluation import run_evaluation
        from ff.files import read_json
        from ff.learn.devices import choose_device

    if execution.threads:
        torch.set_num_threads(execution.threads)
    device = choose_device(execution)
    for folder, config, prepared in opened_runs(folders, execution):
        run_evaluation(folder, prepared, device)
        for row in read_json(folder / "evaluation.json")["readouts"]:
            if row["depth"] == len(config.layers) - 1:
                print(
                    f"{config.name}: {row['split']} {row['readout']}: accuracy {row['accuracy']:.2%}, "
                    f"macro-F1 {row['macro_f1']:.4f} (n = {row['n']})"
                )
        if args.early_exit:
            run_early_exit(folder, prepared, device)
            print(f"{config.name}: {operating_point(read_json(folder / 'early_exit.json'))}")
