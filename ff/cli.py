"""The command line: `ff COMMAND`, with the commands below.

Each command is a module of its own and imported when it is called, so that `ff monitor` starts without torch and a
training starts without pandas.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from ff import __version__
from ff.arguments import SETTING_NAMES, Parser, config_file, options_of_file
from ff.errors import FFError

# What each does, and the module with its `add_arguments` and `run`.
COMMANDS = {
    "train": ("train one network and write its run folder", "ff.commands.train"),
    "prepare": ("download, check and prepare data sets", "ff.commands.prepare"),
    "evaluate": ("score trained runs: every split, readout and depth; early exit", "ff.commands.evaluate"),
    "measure": ("measure latency, throughput and energy of trained runs", "ff.commands.measure"),
    "export": ("export trained runs to ONNX, and check that they answer alike", "ff.commands.export"),
    "figures": ("write tables, figures and the report of a results folder", "ff.commands.figures"),
    "trials": ("gather a search's trials and choose by validation", "ff.commands.trials"),
    "sweep": ("run a W&B sweep file, with or without W&B", "ff.tracking.sweeps.command"),
    "track": ("mirror finished runs to Weights & Biases", "ff.tracking.upload"),
    "monitor": ("watch the hardware, or replay a tegrastats log", "ff.hardware.monitor"),
    "doctor": ("say what this machine has and whether training can run", "ff.doctor"),
}
# Beside train, they take a --config file.
CONFIGURABLE = ("evaluate", "measure", "export", "figures")


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
            "ff: interrupted; a training goes on from its last saved state when it is started again",
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
    for name, (help, module) in COMMANDS.items():
        chosen = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
        if name == command:
            called = import_module(module)
            called.add_arguments(chosen)
            chosen.set_defaults(run=called.run)
            if name in CONFIGURABLE:
                chosen.set_defaults(**options_of_file(chosen, argv[1:]))
    return parser


def _check_names(path: str) -> None:
    """Raise FFError for a name in a --config file that is neither a setting nor an option of a command.

    One file may serve all commands.
    """
    known = set(SETTING_NAMES)
    for name in CONFIGURABLE:
        parser = argparse.ArgumentParser()
        import_module(COMMANDS[name][1]).add_arguments(parser)
        known |= {action.dest for action in parser._actions} - {"config", "help"}
    unknown = sorted(set(config_file(path)[0]) - known)
    if unknown:
        raise FFError(f"unknown setting {unknown[0]!r} in {path}; known: {', '.join(sorted(known))}")
