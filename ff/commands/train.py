"""`ff train`."""

import argparse
import dataclasses
from pathlib import Path

from ff.arguments import add_config, add_monitor_switch, add_settings, execution_of, settings_of
from ff.imports import heavy_imports
from ff.learn.recipes import RECIPES, RecipeSettings, make_run_config
from ff.settings import ExecutionConfig, RunConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ff train`: every setting of a run, of its execution and of recipes."""
    add_config(parser)
    add_settings(parser.add_argument_group("run"), RunConfig)
    execution = parser.add_argument_group("execution")
    add_settings(execution, ExecutionConfig)
    add_monitor_switch(execution)
    add_settings(
        parser.add_argument_group(f"recipe (overrides of the named one of {', '.join(RECIPES)}, or of --config)"),
        RecipeSettings,
    )
    parser.add_argument("--no-wandb", action="store_true", help="do not mirror this run to Weights & Biases")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a finished result, once the new one is complete"
    )


def run(args: argparse.Namespace) -> None:
    """Train a network, mirror it to W&B where that is set up, and print its test accuracy."""
    execution, given = execution_of(args), settings_of(args, (ExecutionConfig,))[0]
    config, warnings = make_run_config(*settings_of(args, (RunConfig, RecipeSettings)))
    with heavy_imports():
        from ff.learn.run import HARDWARE_LOG_STATE, NOTHING, run_folder, standing_result, train
        from ff.learn.trainer import Epoch, history_rows
    from ff.phases import process_start_s
    from ff.progress import Progress
    from ff.tracking.live import agent_run, open_tracker

    agent = agent_run()
    if agent and "out" not in given:
        # Runs of a sweep may differ in settings that are no part of a run's path.
        execution = dataclasses.replace(execution, out=str(Path(execution.out, "sweeps", *filter(None, agent))))
    folder, progress = run_folder(config, execution.out), Progress(config.name)
    if not args.overwrite and standing_result(folder, config, execution) != NOTHING:
        # Says that it is finished, or refuses: nothing is trained, so there is nothing to mirror.
        train(config, execution, say=progress.say)
        _print_result(config.name, folder)
        return
    mode = "disabled" if args.no_wandb else "auto"
    log = folder / HARDWARE_LOG_STATE
    tracker = open_tracker(mode, execution.project, config.as_dict(), hardware_log=log)

    def on_epoch(epoch: Epoch, total: int) -> None:
        progress.epoch(epoch, total)
        tracker.epoch(history_rows([epoch], 0)[0])

    with progress, tracker:
        train(
            config,
            execution,
            warnings=warnings,
            say=progress.say,
            on_epoch=on_epoch,
            overwrite=args.overwrite,
            started_s=process_start_s(),
        )
        tracker.finish(folder)
    for warning in tracker.warnings:
        progress.say(f"warning: {warning}")
    _print_result(config.name, folder)


def _print_result(name: str, folder: Path) -> None:
    from ff.files import read_json

    final, seconds = (read_json(folder / "metrics.json")[key] for key in ("final", "seconds"))
    goodness = final["test_goodness_accuracy"]
    by_goodness = f", {goodness:.2%} (goodness)" if goodness is not None else ""
    accuracy = f"test accuracy {final['test_accuracy']:.2%} (head){by_goodness}"
    print(f"{name}: {accuracy}; {seconds['total']:.1f} s; {folder}")
