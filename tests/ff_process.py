"""How a test starts the command `ff` of this checkout in a process of its own."""

import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def ff_command(*arguments: object) -> list[str]:
    """The command line of `ff ARGUMENTS`: what its console script does, also where that is not installed."""
    return [sys.executable, "-c", "import sys; from ff.cli import main; sys.exit(main())", *map(str, arguments)]


def ff_environment(**values: str) -> dict[str, str]:
    """The environment of a process that runs `ff` of this checkout."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "WANDB_MODE": "disabled", **values}
