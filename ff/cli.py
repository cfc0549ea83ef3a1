"""The command line: `ff train | evaluate | measure | figures | prepare | sweep | track | monitor | doctor`.

Each command's work is in a module of its own and imported when it is called, so that `ff monitor` starts without
torch and a training starts without pandas.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ff import __version__
from ff.config import (
    DATASETS,
    ExecutionConfig,
    RecipeSettings,
    RunConfig,
    checked,
    make_run_config,
    parse_bool,
)
from ff.errors import FFError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0: done, 1: an error that was explained, 2: wrong usage, 130: interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = _parser(argv[0] if argv else "").parse_args(argv)
    try:
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


def _parser(command: str) -> argparse.ArgumentParser:
    """The parser of all commands, with the arguments of `command` only: each module is imported when it is called."""
    parser = argparse.ArgumentParser(prog="ff", description="Forward-Forward networks: train, evaluate, measure.")
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
    return parser


# -- settings as arguments ----


def add_settings(parser: argparse._ActionsContainer, kind: type) -> None:
    """One option for each field of a settings dataclass; without it on the command line, no value is set."""
    for setting in dataclasses.fields(kind):
        if not setting.metadata:
            continue
        default = setting.default
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        options: dict[str, Any] = {
            "dest": setting.name,
            "default": argparse.SUPPRESS,
            "help": f"{setting.metadata['help']} [{str(shown).lower() if setting.type is bool else shown}]".replace(
                "%", "%%"
            ),
        }
        if setting.type is bool:
            # Bare, or with a value: agents of a sweep pass `--no-cuda=true`.
            options |= {"nargs": "?", "const": True, "type": _boolean, "metavar": "true|false"}
        elif "choices" in setting.metadata:
            options["metavar"] = "|".join(setting.metadata["choices"])
        else:
            options["metavar"] = {"int": "N", "float": "X"}.get(getattr(setting.type, "__name__", ""), "VALUE")
        parser.add_argument(f"--{setting.name.replace('_', '-')}", **options)


def _boolean(text: str) -> bool:
    try:
        return parse_bool(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false") from None


def _config_file(path: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and recipe blocks of a YAML file; dashes and underscores in names are the same."""
    if path is None:
        return {}, {}
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text()) or {}
    except OSError as error:
        raise FFError(f"cannot read config file {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FFError(f"config file {path} is not valid YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise FFError(f"config file {path} must hold settings as 'name: value'")
    values = {str(key).replace("-", "_"): value for key, value in content.items()}
    recipes = values.pop("recipes", None) or {}
    return values, recipes


def _settings(args: argparse.Namespace, kinds: Sequence[type]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings given in --config and on the command line, which wins; and the config's recipe blocks."""
    names = {field.name for kind in kinds for field in dataclasses.fields(kind) if field.metadata}
    values, recipes = _config_file(getattr(args, "config", None))
    unknown = sorted(set(values) - names)
    if unknown:
        raise FFError(f"unknown setting {unknown[0]!r} in {args.config}; known: {', '.join(sorted(names))}")
    return values | {name: value for name, value in vars(args).items() if name in names}, recipes


def _execution(values: dict[str, Any]) -> ExecutionConfig:
    names = {field.name for field in dataclasses.fields(ExecutionConfig)}
    chosen = {key: value for key, value in values.items() if key in names}
    if "data_dir" not in chosen and os.environ.get("FF_DATA_DIR"):
        chosen["data_dir"] = os.environ["FF_DATA_DIR"]
    return ExecutionConfig(**checked(ExecutionConfig, chosen, "run"))


def _say(text: str) -> None:
    print(f"ff: {text}", file=sys.stderr, flush=True)


# -- train ----


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of these settings; the command line wins")
    add_settings(parser.add_argument_group("run"), RunConfig)
    add_settings(parser.add_argument_group("execution"), ExecutionConfig)
    add_settings(parser.add_argument_group("recipe (overrides of the named recipe)"), RecipeSettings)
    parser.add_argument("--no-wandb", action="store_true", help="do not mirror this run to Weights & Biases")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a finished result, once the new one is complete"
    )


def _train(args: argparse.Namespace) -> int:
    values, recipes = _settings(args, (RunConfig, ExecutionConfig, RecipeSettings))
    execution = _execution(values)
    names = {field.name for field in dataclasses.fields(ExecutionConfig)}
    config, warnings = make_run_config({k: v for k, v in values.items() if k not in names}, recipes)
    from ff.files import read_json
    from ff.phases import process_start_s
    from ff.progress import Progress
    from ff.run import HARDWARE_LOG_STATE, SAME, run_folder, standing_result, train
    from ff.tracking import open_tracker
    from ff.trainer import Epoch, history_rows

    folder = run_folder(config, execution.out)
    if not args.overwrite and standing_result(folder, config, execution) == SAME:
        train(config, execution, say=_say)
        _print_result(config.name, folder)
        return 0
    mode = "disabled" if args.no_wandb else "auto"
    log = folder / HARDWARE_LOG_STATE
    tracker = open_tracker(mode, execution.project, config.name, config=config.as_dict(), hardware_log=log)

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
        tracker.finish(read_json(folder / "metrics.json"), folder / "model.safetensors")
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
    for name in ("data_dir", "prepared_dir", "verify", "download"):
        add_settings(parser, dataclasses.make_dataclass("Chosen", [_field(ExecutionConfig, name)]))


def _field(kind: type, name: str) -> tuple[str, Any, Any]:
    [found] = [f for f in dataclasses.fields(kind) if f.name == name]
    return name, found.type, dataclasses.field(default=found.default, metadata=found.metadata)


def _prepare(args: argparse.Namespace) -> int:
    unknown = sorted(set(args.datasets) - set(DATASETS))
    if unknown:
        raise FFError(f"unknown data set {unknown[0]!r}; known: {', '.join(DATASETS)}")
    values, _ = _settings(args, (ExecutionConfig,))
    execution = _execution(values)
    from ff.datasets import prepare, prepared_path

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
    for name in ("device", "no_cuda", "threads", "data_dir", "prepared_dir", "verify", "download"):
        if name not in without:
            add_settings(parser, dataclasses.make_dataclass("Chosen", [_field(ExecutionConfig, name)]))


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    _runs_arguments(parser)
    parser.add_argument("--early-exit", action="store_true", help="also the early-exit curve and its operating point")
    parser.add_argument(
        "--from-wandb",
        metavar="ENTITY/PROJECT/sweeps/ID",
        help="fetch the models of a W&B sweep first, and evaluate them",
    )
    parser.add_argument("--out", default="results", help="where models from W&B are put [results]")


def _opened_runs(args: argparse.Namespace, execution: ExecutionConfig):
    """Each run folder of the command line with its checkpoint's config and opened data set."""
    from ff import checkpoint
    from ff.datasets import open_or_prepare

    if not args.runs:
        raise FFError("no run named; give run folders, such as results/MNIST/784-200-200-10/ff/seed0")
    for folder in args.runs:
        config = checkpoint.config(checkpoint.load(folder / "model.safetensors")[1])
        prepared = open_or_prepare(
            config.dataset, execution.data_dir, execution.prepared_dir, execution.verify, execution.download
        )
        yield folder, config, prepared


def _evaluate(args: argparse.Namespace) -> int:
    if args.from_wandb:
        from ff.wandb_fetch import fetch_models

        args.runs += fetch_models(args.from_wandb, Path(args.out))
    execution = _execution(_settings(args, (ExecutionConfig,))[0])
    import torch

    from ff.early_exit import run_early_exit
    from ff.evaluation import run_evaluation
    from ff.files import read_json
    from ff.run import choose_device

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
    from ff.early_exit_text import verdict

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
    more = {size: f"{-saved:+.1%}" for size, saved in _times_saved(row, base_key).items()}
    return (
        f"against {name} ({base['accuracy']:.2%}): {-row[f'macs_saved_share_vs_{base_key}']:+.2%} MACs, "
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
    parser.add_argument(
        "--threads",
        default="1,all",
        metavar="N,...",
        help="CPU threads; all: every core it may use [%(default)s]",
    )
    parser.add_argument("--batch-sizes", default="1,2,8,16,32,64,128,256,512", help="separated by commas [%(default)s]")
    parser.add_argument("--repeats", type=int, default=50, help="timed repeats of each batch size [%(default)s]")
    parser.add_argument(
        "--energy-windows",
        type=int,
        default=3,
        help="windows of each batch size where there is a power sensor, 0: no energy [%(default)s]",
    )


def _measure(args: argparse.Namespace) -> int:
    try:
        batch_sizes = [int(size) for size in args.batch_sizes.split(",")]
    except ValueError:
        raise FFError(f"--batch-sizes must be numbers separated by commas, not {args.batch_sizes!r}") from None
    threads = args.threads.split(",")
    del args.threads  # a setting of training by that name is a single number
    execution = _execution(_settings(args, (ExecutionConfig,))[0])
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
    parser.add_argument("results", nargs="?", default="results", type=Path, help="results folder [results]")


def _figures(args: argparse.Namespace) -> int:
    from ff.report import write_everything

    page = write_everything(args.results)
    print(f"report: {page}")
    return 0


COMMANDS: dict[str, tuple[str, Any]] = {
    "train": ("train one network and write its run folder", (_train_arguments, _train)),
    "prepare": ("download, check and prepare data sets", (_prepare_arguments, _prepare)),
    "evaluate": (
        "score trained runs: every split, readout and depth; early exit",
        (_evaluate_arguments, _evaluate),
    ),
    "measure": ("measure latency, throughput and energy of trained runs", (_measure_arguments, _measure)),
    "figures": ("write tables, figures and the report of a results folder", (_figures_arguments, _figures)),
    "sweep": ("run a W&B sweep file, with or without W&B", "ff.sweeps"),
    "track": ("mirror finished runs to Weights & Biases", "ff.tracking"),
    "monitor": ("watch the hardware, or replay a tegrastats log", "ff.hardware.monitor"),
    "doctor": ("say what this machine has and whether training can run", "ff.doctor"),
}
