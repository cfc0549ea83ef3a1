"""A sweep on W&B: created there, and the agent that runs it."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from ff.errors import FFError
from ff.settings import ExecutionConfig
from ff.tracking.session import redacted, resolve_access, unreachable, used_environment
from ff.tracking.sweeps.checking import check
from ff.tracking.sweeps.files import load, parameters


def uploadable(path: str | os.PathLike) -> dict[str, Any]:
    """The sweep for W&B's server: `ff train` in place of the file's program, flags in its spelling."""
    sweep = load(path)
    upload = {name: value for name, value in sweep.items() if name not in ("program", "command", "parameters")}
    upload["program"] = "ff"
    upload["command"] = ["${env}", "ff", "train", "${args}"]
    upload["parameters"] = {name.replace("_", "-"): entry for name, entry in parameters(sweep).items()}
    return upload


def create(
    path: str | os.PathLike, project: str | None = None, entity: str | None = None, client: Any = None
) -> tuple[str, str]:
    """Create the sweep on W&B: (its id, the path PROJECT/ID or ENTITY/PROJECT/ID that an agent takes).

    `client` stands for the module wandb. Raises FFError when the file is wrong, when there is no key, and when W&B
    cannot be reached, each within seconds.
    """
    found = check(path)
    if found.problems:
        raise FFError(f"sweep file {path}: {found.problems[0]}; `ff sweep --check {path}` lists everything")
    sweep = load(path)
    access = resolve_access("auto")
    project = project or sweep.get("project") or access.project or ExecutionConfig.project
    entity = entity or sweep.get("entity") or access.entity
    if client is None:
        if not access.key:
            raise FFError(
                "a sweep on W&B needs WANDB_API_KEY in the environment or in .env; without an account run it "
                f"with `ff sweep {path} --local`"
            )
        problem = unreachable(access)
        if problem:
            raise FFError(f"{problem}; try again later, or run the sweep with `ff sweep {path} --local`")
        import wandb as client
    try:
        with used_environment(dataclasses.replace(access, mode="online"), "."):
            sweep_id = client.sweep(uploadable(path), entity=entity, project=project)
    except Exception as error:
        reason = redacted(error, access).strip().splitlines() or [type(error).__name__]
        raise FFError(f"W&B did not take the sweep {path}: {reason[0]}") from None
    return sweep_id, "/".join(filter(None, [entity, project, sweep_id]))


def agent_command(sweep_path: str, count: int | None = None) -> list[str]:
    """The command that runs an agent of a sweep in this Python."""
    limit = ["--count", str(count)] if count else []
    return [sys.executable, "-m", "wandb", "agent", *limit, sweep_path]


def agent_environment() -> dict[str, str]:
    """This environment, with the folder of this Python's `ff` first in the search path."""
    return os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
