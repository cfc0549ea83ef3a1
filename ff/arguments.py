"""Settings as arguments of the command line, and in the YAML file of --config."""

import argparse
import dataclasses
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from ff.data.raw_files import data_folder
from ff.errors import FFError
from ff.learn.recipes import RecipeSettings
from ff.settings import ExecutionConfig, RunConfig, checked, parse_bool, with_present_names

SETTING_NAMES = {
    setting.name
    for kind in (RunConfig, ExecutionConfig, RecipeSettings)
    for setting in dataclasses.fields(kind)
    if setting.metadata
}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"ff: {message}; see: {self.prog} --help\n")


def add_settings(parser: argparse._ActionsContainer, kind: type, names: Collection[str] | None = None) -> None:
    """One option for each field of a settings dataclass, or those `names`; without it, no value is set."""
    for setting in dataclasses.fields(kind):
        if not setting.metadata or (names is not None and setting.name not in names):
            continue
        options: dict[str, Any] = {"dest": setting.name, "default": argparse.SUPPRESS, "help": _help(setting)}
        if setting.type is bool:
            # Bare, or with a value: agents of a sweep pass `--no-cuda=true`.
            options |= {"nargs": "?", "const": True, "type": _boolean, "metavar": "true|false"}
        elif "choices" in setting.metadata:
            options["metavar"] = "|".join(setting.metadata["choices"])
        else:
            options["metavar"] = {"int": "N", "float": "X"}.get(getattr(setting.type, "__name__", ""), "VALUE")
        parser.add_argument(_option(setting), **options)


def add_options(parser: argparse._ActionsContainer, kind: type, names: Sequence[str]) -> None:
    """Options for the fields `names` of a dataclass of numbers and lists of them, with their defaults; a list is one
    text, separated by commas."""
    for setting in dataclasses.fields(kind):
        if setting.name in names and setting.type is int:
            parser.add_argument(_option(setting), type=int, default=setting.default, help=_help(setting))
        elif setting.name in names:
            parser.add_argument(_option(setting), default=_shown(setting.default), metavar="N,...", help=_help(setting))


def _option(setting: dataclasses.Field) -> str:
    return f"--{setting.name.replace('_', '-')}"


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _help(setting: dataclasses.Field) -> str:
    return f"{setting.metadata['help']} [{_shown(setting.default)}]".replace("%", "%%")


def _boolean(text: str) -> bool:
    try:
        return parse_bool(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false") from None


def add_monitor_switch(parser: argparse._ActionsContainer) -> None:
    """--enable-hw-monitor, the published name of --sidecar."""
    parser.add_argument(
        "--enable-hw-monitor",
        dest="sidecar",
        default=argparse.SUPPRESS,
        nargs="?",
        const="true",
        type=lambda text: "inline" if _boolean(text) else "off",
        metavar="true|false",
        help="the published name of --sidecar: true is inline, false off",
    )


def config_file(path: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and recipe blocks of a YAML file; dashes and underscores in names are the same."""
    if path is None:
        return {}, {}
    from ff.files import read_yaml

    content = read_yaml(path, "config file") or {}
    if not isinstance(content, dict):
        raise FFError(f"config file {path} must hold settings as 'name: value'")
    values = with_present_names({str(key).replace("-", "_"): value for key, value in content.items()})
    recipes = values.pop("recipes", None) or {}
    return values, recipes


def settings_of(args: argparse.Namespace, kinds: Sequence[type]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of `kinds` given in --config and on the command line, which wins; and the file's recipe blocks."""
    names = {field.name for kind in kinds for field in dataclasses.fields(kind) if field.metadata}
    values, recipes = config_file(getattr(args, "config", None))
    given = {name: value for name, value in vars(args).items() if name in names}
    if "data_dir" in names:
        in_file = values.get("data_dir")
        given["data_dir"] = str(data_folder(given.get("data_dir"), in_file and str(in_file)))
    return {name: value for name, value in values.items() if name in names} | given, recipes


def execution_of(args: argparse.Namespace) -> ExecutionConfig:
    """The execution settings given in --config and on the command line, checked."""
    return ExecutionConfig(**checked(ExecutionConfig, settings_of(args, (ExecutionConfig,))[0], "run"))


def add_config(parser: argparse._ActionsContainer, more: str = "") -> None:
    """The option --config."""
    parser.add_argument(
        "--config", metavar="FILE", help=f"YAML file with any of these settings{more}; the command line wins"
    )


def options_of_file(parser: argparse.ArgumentParser, argv: Sequence[str]) -> dict[str, Any]:
    """What the --config file in `argv` says of options that are no settings, as the command line would take it."""
    finder = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    finder.add_argument("--config")
    try:
        path = finder.parse_known_args(argv)[0].config
    except argparse.ArgumentError:
        # Without a file; the parser itself says so.
        return {}
    values, _ = config_file(path)
    found = {}
    for action in parser._actions:
        value = values.get(action.dest)
        if value is None or action.dest in (*SETTING_NAMES, "help"):
            continue
        words = [str(word) for word in (value if isinstance(value, list) else [value])]
        if action.nargs == 0:
            if not isinstance(value, bool):
                raise FFError(f"setting {action.dest!r} in {path} is {value!r}; allowed: true, false")
            words = []
        elif action.nargs not in ("+", "*"):
            words = [",".join(words)]
        if value is not False:
            found[action.dest] = getattr(parser.parse_args([*action.option_strings[:1], *words]), action.dest)
    return found
