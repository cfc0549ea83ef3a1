"""Trained models of a W&B sweep as run folders, for `ff evaluate --from-wandb`.

Model artifacts that `ff` uploaded hold the files of a run folder. Each is fetched into a folder of its own,
checked, and only then moved to where the DAG looks for it. Only safetensors are accepted: the published code
stored pickles, and loading a pickle runs whatever code it holds.
"""

import dataclasses
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from ff.errors import FFError
from ff.files import read_json
from ff.layout import HARDWARE_FILES, TRAIN_FILES
from ff.learn.staging import begin, carry_on, publish
from ff.stamps import model_of, stamp_of, why_stale
from ff.tracking.session import Access, redacted, resolve_access, unreachable, used_environment, within

SPEC = re.compile(r"(?:https?://[^/]+/)?([^/\s]+)/([^/\s]+)/(sweeps|runs)/([^/\s?]+)/?")
REQUIRED = ("model.safetensors", "metrics.json")
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin")
FETCH_S = 600.0


def parse_spec(spec: str) -> tuple[str, str, str, str]:
    """`ENTITY/PROJECT/sweeps/ID` (also `runs`, also a whole URL) as (entity, project, kind, id)."""
    match = SPEC.fullmatch(spec.strip())
    if not match:
        raise FFError(f"{spec!r} names no sweep; write it as ENTITY/PROJECT/sweeps/ID, as in the sweep's address")
    return match.group(1), match.group(2), match.group(3), match.group(4)


def fetch_models(spec: str, directory: str | os.PathLike, api: Any = None) -> list[Path]:
    """Fetch the models of a sweep into `directory`/<dataset>/<layers>/<recipe>/seed<seed>/; returns those folders.

    Runs without a usable model are passed over with a line on stderr. A folder that holds the very same model is left
    alone; a model whose folder holds another one, since their settings or devices differed, goes below
    `directory`/<run id>/. `api` stands for `wandb.Api()`. Raises FFError when the sweep cannot be had and when none of
    its runs has a usable model.
    """
    parse_spec(spec)
    access = resolve_access("auto")
    if api is None:
        if not access.key:
            raise FFError(f"fetching {spec} needs WANDB_API_KEY in the environment or in .env")
        problem = unreachable(access)
        if problem:
            raise FFError(f"{problem}; fetch {spec} when W&B can be reached")
        import wandb

    with used_environment(dataclasses.replace(access, mode="online"), "."):
        return _fetch_all(spec, api or wandb.Api(timeout=30), Path(directory), access)


def _fetch_all(spec: str, api: Any, directory: Path, access: Access) -> list[Path]:
    entity, project, kind, identifier = parse_spec(spec)
    path = f"{entity}/{project}/{identifier}"
    try:
        runs = within(FETCH_S, lambda: list(api.sweep(path).runs) if kind == "sweeps" else [api.run(path)])
    except Exception as error:
        reason = redacted(error, access).strip().splitlines() or [type(error).__name__]
        raise FFError(f"W&B has no {spec} for this key: {reason[0]}") from None
    folders: list[Path] = []
    for run in runs:
        try:
            folder = _fetch_run(run, directory)
        except _Unusable as error:
            print(f"ff: run {run.id} is passed over: {redacted(error, access)}", file=sys.stderr)
            continue
        if folder not in folders:
            folders.append(folder)
    if not folders:
        raise FFError(f"no run of {spec} has a model that ff can use; its {len(runs)} runs are listed above")
    return folders


class _Unusable(Exception):
    """Why a run's model is not taken."""


def _fetch_run(run: Any, directory: Path) -> Path:
    models = [artifact for artifact in run.logged_artifacts() if artifact.type == "model"]
    if not models:
        raise _Unusable("it has no artifact of type model")
    directory.mkdir(parents=True, exist_ok=True)
    # Beside its destination, so that moving it there is a rename.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=directory) as temporary:
        try:
            downloaded = Path(within(FETCH_S, lambda: models[-1].download(root=temporary)))
        except Exception as error:
            raise _Unusable(f"its model cannot be fetched ({type(error).__name__}: {error})") from None
        return _place(downloaded, dict(models[-1].metadata or {}), directory, run.id)


def _place(downloaded: Path, metadata: dict[str, Any], directory: Path, run_id: str) -> Path:
    """Check a downloaded artifact and move its files to their run folder."""
    names = {path.name for path in downloaded.rglob("*") if path.is_file()}
    if "model.safetensors" not in names:
        pickled = sorted(name for name in names if Path(name).suffix in _PICKLES or "." not in name)
        raise _Unusable(
            f"its model is a pickle ({pickled[0]}), which ff does not load"
            if pickled
            else "its artifact holds no model.safetensors"
        )
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise _Unusable(f"its artifact lacks {missing[0]}")
    from ff.learn import checkpoint

    try:
        meta = checkpoint.load(downloaded / "model.safetensors")[1]
        config, metrics = checkpoint.config(meta), read_json(downloaded / "metrics.json")
    except (FFError, KeyError, TypeError, ValueError) as error:
        raise _Unusable(f"its model is damaged ({error})") from None
    stated = {
        "dataset": config.dataset,
        "layers": list(config.layers),
        "recipe": config.recipe,
        "seed": config.seed,
    }
    for name, value in stated.items():
        if name in metadata and metadata[name] != value:
            raise _Unusable(f"its metadata says {name} {metadata[name]}, its model {value}")
    stale = why_stale(stamp_of(metrics), meta["model"])
    if stale:
        raise _Unusable(f"its metrics.json is {stale}")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", run_id):
        raise _Unusable("its id is no name for a folder")
    for folder in (directory / config.name, directory / run_id / config.name):
        carry_on(folder)
        if not (folder / "model.safetensors").is_file():
            break
        if model_of(folder) == meta["model"]:
            return folder
    else:
        raise _Unusable(f"{folder} holds another model")
    staged = begin(folder)
    for name in (*TRAIN_FILES, *HARDWARE_FILES):
        if (downloaded / name).is_file():
            # Made anew, not moved: as outputs of the DAG they must be newer than the data they were trained on.
            shutil.copyfile(downloaded / name, staged / name)
    publish(folder)
    return folder
