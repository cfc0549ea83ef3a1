"""Which model a file of a run folder came from, so that files of two models are never mixed.

A model's stamp is a hash of its config and of its weights (`ff.learn.checkpoint`). It stands in the header of
model.safetensors, as `run.model` in every JSON file of the folder (hardware.json: `model`) and in the column `model`
of every CSV file. Reading it imports no torch.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ff.errors import FFError
from ff.files import read_about, read_json
from ff.settings import RunConfig

if TYPE_CHECKING:
    from ff.documents.values import Run

COLUMN = "model"


def identify(config: RunConfig, model: str) -> "Run":
    """The `run` block that each JSON file of a run folder begins with; `model` is the stamp of its model."""
    return {
        "name": config.name,
        "dataset": config.dataset,
        "layers": config.layers_name,
        "recipe": config.recipe,
        "seed": config.seed,
        "model": model,
    }


def model_of(folder: str | os.PathLike) -> str | None:
    """The stamp of the run's model; of metrics.json where the weights are not kept; None where neither says."""
    weights, metrics = Path(folder) / "model.safetensors", Path(folder) / "metrics.json"
    try:
        return stamp_of(read_about(weights) if weights.exists() else read_json(metrics))
    except FFError:
        return None


def stamp_of(document: Any) -> str | None:
    """The stamp that a JSON document of a run folder carries; None where it carries none."""
    if not isinstance(document, Mapping):
        return None
    run = document.get("run")
    stamp = run.get("model") if isinstance(run, Mapping) else document.get("model")
    return stamp if isinstance(stamp, str) else None


def stamp_of_rows(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The stamp in the rows of a CSV file of a run folder; None where there is no row or no stamp."""
    stamp = rows[-1].get(COLUMN) if rows else None
    return stamp if isinstance(stamp, str) and stamp else None


def why_stale(stamp: str | None, model: str | None) -> str | None:
    """Why a file with `stamp` is no result of `model`, the run's own; None where it is one, or no model is known."""
    if model is None or stamp == model:
        return None
    return f"stale: it belongs to {f'model {stamp}' if stamp else 'an unnamed model'}, the run now holds model {model}"
