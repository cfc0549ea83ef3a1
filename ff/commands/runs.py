"""The trained runs that a command is given: run folders, or the settings in a --config file that name them."""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ff.arguments import add_config, add_settings, execution_of, settings_of
from ff.errors import FFError
from ff.learn.recipes import RecipeSettings, make_run_config
from ff.settings import ExecutionConfig, RunConfig

if TYPE_CHECKING:
    from ff.data.prepared import Prepared

AXES = ("dataset", "layers", "recipe", "seed")
EXECUTION = ("device", "no_cuda", "threads", "data_dir", "prepared_dir", "out", "verify", "download")


def add_run_arguments(parser: argparse.ArgumentParser, without: Sequence[str] = ()) -> None:
    """The arguments that name runs, and the settings of how they are read, except those `without`."""
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN", help="run folder, such as results/MNIST/784-100/ff/seed0"
    )
    add_config(parser, " and, where no RUN is given, those that name the runs: dataset, layers, recipe, seed")
    add_settings(parser, ExecutionConfig, [name for name in EXECUTION if name not in without])


def named_runs(args: argparse.Namespace) -> list[Path]:
    """The run folders of the command line; without any, those that the --config file names, in lists or one."""
    if args.runs:
        return args.runs
    values, recipes = settings_of(args, (RunConfig, RecipeSettings))
    if not {"dataset", "layers", "seed"} & set(values):
        raise FFError(
            "no run named; give run folders, such as results/MNIST/784-200-200-10/ff/seed0, or a --config file with "
            "dataset, layers and seed"
        )
    out = Path(execution_of(args).out)
    axes = {name: values.pop(name) for name in AXES if name in values}
    lists = [value if _several(name, value) else [value] for name, value in axes.items()]
    cells = [dict(zip(axes, cell, strict=True)) for cell in itertools.product(*lists)]
    return [out / make_run_config(values | cell, recipes)[0].name for cell in cells]


def _several(axis: str, value: Any) -> bool:
    """Whether a file gives several data sets, networks, recipes or seeds; one network may be a list of numbers."""
    return isinstance(value, list) and (axis != "layers" or not all(str(width).isdigit() for width in value))


def opened_runs(folders: Sequence[Path], execution: ExecutionConfig) -> Iterator[tuple[Path, RunConfig, "Prepared"]]:
    """Each run folder with its checkpoint's config and its data set."""
    from ff.data.prepared import open_or_prepare
    from ff.learn import checkpoint

    for folder in folders:
        config = checkpoint.config(checkpoint.load(folder / "model.safetensors")[1])
        prepared = open_or_prepare(
            config.dataset, execution.data_dir, execution.prepared_dir, execution.verify, execution.download
        )
        yield folder, config, prepared
