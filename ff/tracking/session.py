"""Where Weights & Biases is, with which key, and a run opened there without a prompt, a hang or a leak.

The key comes from WANDB_API_KEY in the environment, from the same name in a `.env` file, or from what `wandb
login` left in the netrc file. It is kept out of `repr`, and `redacted` takes it out of any text that leaves
this module. Nothing here imports wandb before it is needed.
"""

import dataclasses
import importlib.util
import json
import netrc
import os
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ff.errors import FFError

MODES = ("auto", "online", "offline", "disabled")
DEFAULT_URL = "https://api.wandb.ai"
REACH_S = 4.0
INIT_S = 8.0
FINISH_S = 60.0

# W&B's own names for modes, as people have them in WANDB_MODE.
_MODE_WORDS = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}


@dataclass(frozen=True)
class Access:
    """How this process may use W&B: `mode` is online, offline or disabled, `reason` says why in a few words.

    `warning` is set where that is less than what was asked for.
    """

    mode: str
    reason: str
    key: str | None = field(default=None, repr=False)
    base_url: str = DEFAULT_URL
    entity: str | None = None
    project: str | None = None
    warning: str | None = None

    def offline(self, reason: str) -> "Access":
        """The same access after W&B turned out to be out of reach."""
        return dataclasses.replace(self, mode="offline", reason=reason)


def resolve_access(mode: str = "auto", folder: str | os.PathLike | None = None) -> Access:
    """Decide the mode. `auto`: WANDB_MODE if set, else online with a key and offline without one.

    `folder` is where the search for `.env` begins (default: the working directory). Where `online` was asked for and is
    not possible, the access is a lesser one with a warning. Raises FFError for an unknown mode; never asks for
    anything.
    """
    if mode not in MODES:
        raise FFError(f"unknown W&B mode {mode!r}; allowed: {', '.join(MODES)}")
    values = dotenv_settings(folder) | {name: text for name, text in os.environ.items() if name.startswith("WANDB_")}
    base_url = (values.get("WANDB_BASE_URL") or DEFAULT_URL).rstrip("/")
    key = (values.get("WANDB_API_KEY") or "").strip() or _netrc_key(base_url)
    why = "asked for"
    if mode == "auto":
        word = (values.get("WANDB_MODE") or "").lower()
        if values.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes"):
            mode, why = "disabled", "WANDB_DISABLED is set"
        elif word in _MODE_WORDS:
            mode, why = _MODE_WORDS[word], f"WANDB_MODE is {word}"
        elif key:
            mode, why = "online", "an API key was found"
        else:
            mode, why = "offline", "no WANDB_API_KEY in the environment or in .env"
    asked, warning = mode, None
    if mode != "disabled" and importlib.util.find_spec("wandb") is None:
        mode, why = "disabled", "wandb is not installed"
    if mode == "online" and not key:
        mode, why = "offline", "online needs WANDB_API_KEY in the environment or in .env, and there is none"
    if asked == "online" != mode:
        warning = f"W&B mode online was asked for, but {why}"
    entity, project = values.get("WANDB_ENTITY") or None, values.get("WANDB_PROJECT") or None
    return Access(mode, why, key, base_url, entity, project, warning)


def dotenv_settings(folder: str | os.PathLike | None = None) -> dict[str, str]:
    """The WANDB_* lines of the nearest `.env`, from `folder` up to the project's root (where `.git` is)."""
    start = Path(folder or ".").resolve()
    parents = [start, *start.parents]
    roots = [i for i, parent in enumerate(parents) if (parent / ".git").exists()]
    for parent in parents[: roots[0] + 1 if roots else 1]:
        path = parent / ".env"
        if path.is_file():
            # Without python-dotenv the file is not read; a run must not end because of that.
            with suppress(ImportError):
                from dotenv import dotenv_values

                return {name: text for name, text in dotenv_values(path).items() if name.startswith("WANDB_") and text}
    return {}


def _netrc_key(base_url: str) -> str | None:
    try:
        path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
        entry = netrc.netrc(str(path)).authenticators(urllib.parse.urlsplit(base_url).hostname or "")
    except (OSError, RuntimeError, netrc.NetrcParseError):
        return None
    return entry[2] if entry else None


def redacted(text: object, access: Access) -> str:
    """`text` without the key, for anything that is printed or stored."""
    return str(text).replace(access.key, "(key)") if access.key else str(text)


def within(seconds: float, function: Callable[[], Any]) -> Any:
    """`function()`, or TimeoutError after `seconds`: for calls whose own time limit cannot be trusted (DNS)."""
    outcome: list[tuple[bool, Any]] = []

    def call() -> None:
        try:
            outcome.append((True, function()))
        except BaseException as error:
            outcome.append((False, error))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:g} s")
    good, value = outcome[0]
    if not good:
        raise value
    return value


def unreachable(access: Access, seconds: float = REACH_S) -> str | None:
    """None when the server answers a GraphQL request at all, else why not; takes at most `seconds`.

    wandb's own client retries for up to 90 s before it says so, which is why the question is asked first.
    """
    query = json.dumps({"query": "query { serverInfo { cliVersionInfo } }"}).encode()
    request = urllib.request.Request(
        f"{access.base_url}/graphql", query, {"Content-Type": "application/json", "User-Agent": "ff"}
    )

    def ask() -> None:
        try:
            urllib.request.urlopen(request, timeout=seconds).close()
        except urllib.error.HTTPError as error:
            # Any answer will do: a server that wants a key is a server that can be reached.
            error.close()

    try:
        within(seconds, ask)
    except (OSError, ValueError, TimeoutError) as error:
        reason = getattr(error, "reason", None) or error
        return redacted(f"{access.base_url} cannot be reached ({reason})", access)
    return None


def environment(access: Access, directory: str | os.PathLike) -> dict[str, str]:
    """The environment for a child process that talks to W&B; its files stay below `directory`/wandb.

    By default wandb stages artifacts in the home folder; an offline run must keep its files until it is
    uploaded.
    """
    folder = Path(directory).resolve() / "wandb"
    values = dict(os.environ)
    values.setdefault("WANDB_DATA_DIR", str(folder / "staging"))
    values.setdefault("WANDB_CACHE_DIR", str(folder / "cache"))
    values.setdefault("WANDB_CONFIG_DIR", str(folder / "config"))
    values |= {"WANDB_BASE_URL": access.base_url, "WANDB_SILENT": "true", "WANDB_MODE": access.mode}
    values.pop("WANDB_API_KEY", None)
    if access.key:
        values["WANDB_API_KEY"] = access.key
    if access.entity:
        values["WANDB_ENTITY"] = access.entity
    return values


@contextmanager
def used_environment(access: Access, directory: str | os.PathLike) -> Iterator[None]:
    """Make `environment` this process's own for the enclosed block.

    What an agent has set for its own run is hidden: wandb would take its id for ours.
    """
    before = dict(os.environ)
    wanted = environment(access, directory)
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        wanted.pop(name, None)
    try:
        os.environ.clear()
        os.environ.update(wanted)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def open_run(
    access: Access,
    *,
    run_id: str,
    project: str,
    name: str,
    group: str,
    job_type: str,
    tags: list[str],
    config: Mapping[str, Any],
    directory: str | os.PathLike,
) -> tuple[Any, Access, str | None]:
    """Open (or resume) W&B run `run_id`: (run, the access really used, warning or None).

    When W&B cannot be reached within a few seconds the run is opened offline, with a warning. Raises FFError
    only when the offline run cannot be written either. Expects the process to have `environment`.
    """
    warning = None
    if access.mode == "online":
        warning = unreachable(access)
        if warning:
            access = access.offline(warning)
    import wandb

    def start(mode: Literal["online", "offline"]) -> Any:
        Path(directory).mkdir(parents=True, exist_ok=True)
        return wandb.init(
            id=run_id,
            project=project,
            entity=access.entity,
            name=name,
            group=group,
            job_type=job_type,
            tags=tags,
            dir=str(directory),
            mode=mode,
            resume="allow",
            reinit="finish_previous",
            settings=wandb.Settings(
                # A login that fails must not ask, and what a run does is recorded by ff itself: console capture, code,
                # git and wandb's own sampling of the machine would only cost time.
                silent=True,
                console="off",
                init_timeout=INIT_S,
                login_timeout=REACH_S,
                finish_timeout=FINISH_S,
                finish_timeout_raises=True,
                x_disable_stats=True,
                x_disable_meta=True,
                host="",
                x_save_requirements=False,
                disable_git=True,
                disable_code=True,
                save_code=False,
                disable_job_creation=True,
                program="ff",
            ),
        )

    run: Any = None
    if access.mode == "online":
        try:
            run = start("online")
        except Exception as error:
            warning = redacted(f"W&B did not open the run ({_first_line(error)})", access)
            access = access.offline(warning)
            # The service still holds the run's id; without it the offline run would be refused.
            wandb.teardown(1)
    if run is None:
        try:
            run = start("offline")
        except Exception as error:
            raise FFError(
                redacted(f"cannot write an offline W&B run in {directory} ({_first_line(error)})", access)
            ) from None
    run.config.update(dict(config), allow_val_change=True)
    if warning:
        warning = f"{warning}; the run is kept offline in {Path(directory) / 'wandb'}: `ff track` uploads it later"
    return run, access, warning


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
