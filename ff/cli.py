"""The command line: `ff train | evaluate | measure | figures | prepare | sweep | track | monitor | doctor`.

Each command's work is in a module of its own and imported when it is called, so that `ff monitor` starts without
torch and a training starts without pandas.
"""

import argparse
import dataclasses
import itertools
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ff import __version__
from ff.arguments import (
    SETTING_NAMES,
    Parser,
    add_config,
    add_monitor_switch,
    add_options,
    add_settings,
    config_file,
    execution_of,
    options_of_file,
    settings_of,
)
from ff.data.registry import DATASETS
from ff.errors import FFError
from ff.learn.recipes import RecipeSettings, make_run_config
from ff.settings import ExecutionConfig, MeasureConfig, RunConfig

AXES = ("dataset", "layers", "recipe", "seed")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0: done, 1: an error that was explained, 2: wrong usage, 130: interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parser(argv).parse_args(argv)
        if getattr(args, "config", None) is not None:
            _check_names(args.config)
        return args.run(args) or 0
    except FFError as error:
        print(f"ff: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "ff: interrupted; a training goes on from its last epoch when it is started again",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:
        # The reader of our output is gone (`| head`); nothing is left to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all commands, with the arguments of the called one only: its module is imported now."""
    command = argv[0] if argv else ""
    parser = Parser(prog="ff", description="Forward-Forward networks: train, evaluate, measure.")
    parser.add_argument("--version", action="version", version=f"ff {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (help, source) in COMMANDS.items():
        chosen = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
        if name == command:
            if isinstance(source, str):
                module = import_module(source)
                source = (module.add_arguments, module.run)
            add_arguments, run = source
            add_arguments(chosen)
            chosen.set_defaults(run=run)
            if command in CONFIGURABLE:
                chosen.set_defaults(**options_of_file(chosen, argv[1:]))
    return parser


def _check_names(path: str) -> None:
    """Raise FFError for a name in a --config file that is neither a setting nor an option of a command.

    One file may serve all commands.
    """
    known = set(SETTING_NAMES)
    for name in CONFIGURABLE:
        parser = argparse.ArgumentParser()
        COMMANDS[name][1][0](parser)
        known |= {action.dest for action in parser._actions} - {"config", "help"}
    unknown = sorted(set(config_file(path)[0]) - known)
    if unknown:
        raise FFError(f"unknown setting {unknown[0]!r} in {path}; known: {', '.join(sorted(known))}")


def _say(text: str) -> None:
    print(f"ff: {text}", file=sys.stderr, flush=True)


# -- train ----


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_settings(parser.add_argument_group("run"), RunConfig)
    execution = parser.add_argument_group("execution")
    add_settings(execution, ExecutionConfig)
    add_monitor_switch(execution)
    add_settings(parser.add_argument_group("recipe (overrides of the named recipe)"), RecipeSettings)
    parser.add_argument("--no-wandb", action="store_true", help="do not mirror this run to Weights & Biases")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a finished result, once the new one is complete"
    )


def _train(args: argparse.Namespace) -> int:
    values, recipes = settings_of(args, (RunConfig, ExecutionConfig, RecipeSettings))
    execution = execution_of(values)
    names = {field.name for field in dataclasses.fields(ExecutionConfig)}
    config, warnings = make_run_config({k: v for k, v in values.items() if k not in names}, recipes)
    from ff.learn.run import HARDWARE_LOG_STATE, NOTHING, run_folder, standing_result, train
    from ff.learn.trainer import Epoch, history_rows
    from ff.phases import process_start_s
    from ff.progress import Progress
    from ff.tracking.live import agent_run, open_tracker

    agent = agent_run()
    if agent and "out" not in values:
        # Runs of a sweep may differ in settings that are no part of a run's path.
        execution = dataclasses.replace(execution, out=str(Path(execution.out, "sweeps", *filter(None, agent))))
    folder = run_folder(config, execution.out)
    if not args.overwrite and standing_result(folder, config, execution) != NOTHING:
        # Says that it is finished, or refuses: nothing is trained, so there is nothing to mirror.
        train(config, execution, say=_say)
        _print_result(config.name, folder)
        return 0
    mode = "disabled" if args.no_wandb else "auto"
    log = folder / HARDWARE_LOG_STATE
    tracker = open_tracker(mode, execution.project, config.as_dict(), hardware_log=log)

    def on_epoch(epoch: Epoch, total: int) -> None:
        progress.epoch(epoch, total)
        tracker.epoch(history_rows([epoch], 0)[0])

    with Progress(config.name) as progress, tracker:
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
        _say(f"warning: {warning}")
    _print_result(config.name, folder)
    return 0


def _print_result(name: str, folder: Path) -> None:
    from ff.files import read_json

    final, seconds = (read_json(folder / "metrics.json")[key] for key in ("final", "seconds"))
    goodness = final["test_goodness_accuracy"]
    by_goodness = f", {goodness:.2%} (goodness)" if goodness is not None else ""
    accuracy = f"test accuracy {final['test_accuracy']:.2%} (head){by_goodness}"
    print(f"{name}: {accuracy}; {seconds['total']:.1f} s; {folder}")


# -- prepare ----


def _prepare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("datasets", nargs="+", metavar="DATASET", help=f"one or more of {', '.join(DATASETS)}")
    add_settings(parser, ExecutionConfig, ("data_dir", "prepared_dir", "verify", "download"))


def _prepare(args: argparse.Namespace) -> int:
    unknown = sorted(set(args.datasets) - set(DATASETS))
    if unknown:
        raise FFError(f"unknown data set {unknown[0]!r}; known: {', '.join(DATASETS)}")
    values, _ = settings_of(args, (ExecutionConfig,))
    execution = execution_of(values)
    from ff.data.prepared import prepare, prepared_path

    for name in args.datasets:
        prepared = prepare(name, execution.data_dir, execution.prepared_dir, execution.verify, execution.download)
        for warning in prepared.warnings:
            _say(f"warning: {warning}")
        path = prepared_path(name, execution.prepared_dir)
        print(f"{name}: {len(prepared.train.labels)} training and {len(prepared.test.labels)} test images in {path}")
    return 0


# -- evaluate, measure ----


def _runs_arguments(parser: argparse.ArgumentParser, without: Sequence[str] = ()) -> None:
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN", help="run folder, such as results/MNIST/784-100/ff/seed0"
    )
    add_config(parser, " and, where no RUN is given, those that name the runs: dataset, layers, recipe, seed")
    names = ("device", "no_cuda", "threads", "data_dir", "prepared_dir", "out", "verify", "download")
    add_settings(parser, ExecutionConfig, [name for name in names if name not in without])


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    _runs_arguments(parser)
    parser.add_argument("--early-exit", action="store_true", help="also the early-exit curve and its operating point")
    parser.add_argument(
        "--from-wandb",
        metavar="ENTITY/PROJECT/sweeps/ID",
        help="fetch the models of a W&B sweep into the results folder first, and evaluate them",
    )


def _named_runs(args: argparse.Namespace) -> list[Path]:
    """The run folders of the command line; without any, those that the --config file names, in lists or one."""
    if args.runs:
        return args.runs
    values, recipes = settings_of(args, (RunConfig, ExecutionConfig, RecipeSettings))
    if not {"dataset", "layers", "seed"} & set(values):
        raise FFError(
            "no run named; give run folders, such as results/MNIST/784-200-200-10/ff/seed0, or a --config file with "
            "dataset, layers and seed"
        )
    execution = execution_of(values)
    axes = {name: values.pop(name) for name in AXES if name in values}
    lists = [value if _several(name, value) else [value] for name, value in axes.items()]
    fixed = {name: value for name, value in values.items() if name not in vars(execution)}
    cells = [dict(zip(axes, cell, strict=True)) for cell in itertools.product(*lists)]
    return [Path(execution.out) / make_run_config(fixed | cell, recipes)[0].name for cell in cells]


def _several(axis: str, value: Any) -> bool:
    """Whether a file gives several data sets, networks, recipes or seeds; one network may be a list of numbers."""
    return isinstance(value, list) and (axis != "layers" or not all(str(width).isdigit() for width in value))


def _opened_runs(args: argparse.Namespace, execution: ExecutionConfig):
    """Each run folder of the command line with its checkpoint's config and opened data set."""
    from ff.data.prepared import open_or_prepare
    from ff.learn import checkpoint

    for folder in args.runs:
        config = checkpoint.config(checkpoint.load(folder / "model.safetensors")[1])
        prepared = open_or_prepare(
            config.dataset, execution.data_dir, execution.prepared_dir, execution.verify, execution.download
        )
        yield folder, config, prepared


def _evaluate(args: argparse.Namespace) -> int:
    if args.from_wandb:
        from ff.tracking.fetch import fetch_models

        out = execution_of(settings_of(args, (ExecutionConfig,))[0]).out
        args.runs += fetch_models(args.from_wandb, Path(out))
    args.runs = _named_runs(args)
    execution = execution_of(settings_of(args, (ExecutionConfig,))[0])
    import torch

    from ff.assess.early_exit import run_early_exit
    from ff.assess.evaluation import run_evaluation
    from ff.files import read_json
    from ff.learn.devices import choose_device

    if execution.threads:
        torch.set_num_threads(execution.threads)
    device = choose_device(execution)
    for folder, config, prepared in _opened_runs(args, execution):
        run_evaluation(folder, prepared, device)
        for row in read_json(folder / "evaluation.json")["readouts"]:
            if row["depth"] == len(config.layers) - 1:
                print(
                    f"{config.name}: {row['split']} {row['readout']}: accuracy {row['accuracy']:.2%}, "
                    f"macro-F1 {row['macro_f1']:.4f} (n = {row['n']})"
                )
        if args.early_exit:
            run_early_exit(folder, prepared, device)
            print(f"{config.name}: {_operating_point(read_json(folder / 'early_exit.json'))}")
    return 0


def _operating_point(content: dict[str, Any]) -> str:
    from ff.assess.early_exit_text import verdict

    if not content["available"]:
        return f"early exit: {content['reason']}"
    point, cuts, cut_depth = content["operating_point"], content["static_cuts"], content["reference_cut"]["depth"]
    test, cut, full = point["test"], cuts[cut_depth - 1]["test"], cuts[-1]["test"]
    where = f"a network cut after layer {cut_depth}" if cut_depth < len(cuts) else "full depth"
    if point["rule"] == "none":
        text = "early exit: no threshold takes fewer MACs than full depth and is as accurate on validation"
        if cut_depth == len(cuts):
            return f"{text}, nor does a network cut: nothing is saved; test accuracy {full['accuracy']:.2%}"
        return f"{text}, but {where} does, at {cut['accuracy']:.2%} on test; {_costs(cut, 'full depth', full, 'full')}"
    lost = verdict(where, test["macs_saved_share_vs_cut"], list(_times_saved(test, "cut").values()))
    return (
        f"early exit (rule {point['rule']}, k = {point['k']:g}; {point['choice']}): {lost + '; ' if lost else ''}"
        f"test accuracy {test['accuracy']:.2%}, {test['mean_layers']:.2f} layers on average; "
        f"{_costs(test, f'the cheapest cut as accurate on validation, after layer {cut_depth}', cut, 'cut')}; "
        f"{_costs(test, 'full depth', full, 'full')}"
    )


def _times_saved(row: dict[str, Any], base: str) -> dict[str, float]:
    return {size: row[f"time_saved_share_vs_{base}_batch_{size}"] for size in ("1", "32", "512")}


def _costs(row: dict[str, Any], name: str, base: dict[str, Any], base_key: str) -> str:
    """How much more (+) or less a test row takes than the row `base`."""
    # 0 less something: what is equal costs +0.00 %, not -0.00 %.
    more = {size: f"{0 - saved:+.1%}" for size, saved in _times_saved(row, base_key).items()}
    return (
        f"against {name} ({base['accuracy']:.2%}): {0 - row[f'macs_saved_share_vs_{base_key}']:+.2%} MACs, "
        f"{' / '.join(more.values())} time at batch {' / '.join(more)}"
    )


def _measure_arguments(parser: argparse.ArgumentParser) -> None:
    _runs_arguments(parser, without=("threads",))
    parser.add_argument(
        "--devices",
        nargs="+",
        metavar="DEVICE",
        help="what to measure on: cpu, cuda, cuda:N. Precedence: --no-cuda, then --devices, then --device; a device "
        "that is named must be there [cpu, and cuda where there is one]",
    )
    add_options(parser, MeasureConfig, ("threads", "batch_sizes", "repeats", "energy_windows"))


def _measure(args: argparse.Namespace) -> int:
    try:
        batch_sizes = [int(size) for size in args.batch_sizes.split(",")]
    except ValueError:
        raise FFError(f"--batch-sizes must be numbers separated by commas, not {args.batch_sizes!r}") from None
    threads = args.threads.split(",")
    del args.threads  # a setting of training by that name is a single number
    args.runs = _named_runs(args)
    execution = execution_of(settings_of(args, (ExecutionConfig,))[0])
    from ff.files import read_json
    from ff.measure.agreement import run_agreement
    from ff.measure.devices import choose_devices, file_stem
    from ff.measure.protocol import Times
    from ff.measure.run import run_measurement

    devices = choose_devices(args.devices, execution.device, execution.no_cuda)
    for folder, config, prepared in _opened_runs(args, execution):
        times = Times(args.repeats)
        run_measurement(folder, prepared, devices, threads, batch_sizes, times, args.energy_windows)
        if len(devices) > 1:
            run_agreement(folder, prepared, devices)
        for device in devices:
            content = read_json(folder / "variance" / f"{file_stem(device)}.json")
            if not content["device"]["available"]:
                print(f"{config.name}: {device}: not measured: {content['device']['reason']}")
            for row in content["batches"]:
                print(f"{config.name}: {device} {_measured(row)}")
    return 0


def _measured(row: dict[str, Any]) -> str:
    """What was measured of one path and batch size, in a line."""
    time, queued, energy = row["latency_ms"], row["throughput_queued_per_s"], row["energy"]
    text = (
        f"({row['threads']} CPU thread{'s' * (row['threads'] > 1)}) {row['path']}, batch {row['batch_size']}: median "
        f"{time['median']:.3f} ms (p5 {time['p5']:.3f}, p95 {time['p95']:.3f}), "
        f"{row['throughput_synchronised_per_s']['median']:.0f} samples/s synchronised"
    )
    if queued:
        text += f", {queued['median']:.0f} samples/s queued"
    if energy and energy["total"]:
        gross, net = energy["total"]["gross_mj_per_sample"], energy["total"]["net_mj_per_sample"]
        text += f", {gross['mean']:.3g} mJ a sample" + (f" ({net['mean']:.3g} mJ above idle)" if net else "")
    return text


# -- figures ----


def _figures_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="?", type=Path, help="results folder [results]")
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file of another command: its setting `out`, or `results`"
    )


def _figures(args: argparse.Namespace) -> int:
    from ff.summary.report import write_everything

    page = write_everything(args.results or Path(execution_of(settings_of(args, (ExecutionConfig,))[0]).out))
    print(f"report: {page}")
    return 0


# Beside train, they take a --config file.
CONFIGURABLE = ("evaluate", "measure", "figures")
COMMANDS: dict[str, tuple[str, Any]] = {
    "train": ("train one network and write its run folder", (_train_arguments, _train)),
    "prepare": ("download, check and prepare data sets", (_prepare_arguments, _prepare)),
    "evaluate": (
        "score trained runs: every split, readout and depth; early exit",
        (_evaluate_arguments, _evaluate),
    ),
    "measure": ("measure latency, throughput and energy of trained runs", (_measure_arguments, _measure)),
    "figures": ("write tables, figures and the report of a results folder", (_figures_arguments, _figures)),
    "sweep": ("run a W&B sweep file, with or without W&B", "ff.tracking.sweeps.command"),
    "track": ("mirror finished runs to Weights & Biases", "ff.tracking.upload"),
    "monitor": ("watch the hardware, or replay a tegrastats log", "ff.hardware.monitor"),
    "doctor": ("say what this machine has and whether training can run", "ff.doctor"),
}
