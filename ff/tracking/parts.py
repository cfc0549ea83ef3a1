"""What lies in a results folder and can be mirrored, and the note that it was.

What was mirrored is noted in `<results>/.tracked/`, outside of what the DAG declares, with a digest of the files.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ff.errors import FFError
from ff.tracking.session import Access

TRAINING_FILES = (
    "model.safetensors",
    "metrics.json",
    "history.csv",
    "phases.csv",
    "hardware.csv",
    "hardware.json",
)


@dataclass(frozen=True)
class Part:
    """One W&B run's worth of files: `kind` is train, evaluation or variance of a run folder, or figures of a root."""

    kind: str
    folder: Path

    @property
    def files(self) -> list[Path]:
        """The files that it mirrors, in a fixed order; empty when there is nothing of this kind."""
        if self.kind == "figures":
            found = [*self.folder.glob("figures/*"), *self.folder.glob("summary/*.csv")]
        elif self.kind == "variance":
            found = [*self.folder.glob("variance/*.csv"), *self.folder.glob("variance/*.json")]
        elif self.kind == "evaluation":
            wanted = ("evaluation.json", "early_exit.json", "early_exit.csv", "distributions.csv")
            found = [self.folder / name for name in wanted] if (self.folder / "evaluation.json").is_file() else []
        else:
            found = [self.folder / name for name in TRAINING_FILES] if (self.folder / "metrics.json").is_file() else []
        return sorted(path for path in found if path.is_file() and not path.name.startswith("."))

    @property
    def root(self) -> Path:
        """The results folder: four levels above a run folder <dataset>/<layers>/<recipe>/seed<seed>."""
        if self.kind == "figures" or not self.folder.name.startswith("seed") or len(self.folder.parents) < 4:
            return self.folder
        return self.folder.parents[3]

    @property
    def marker(self) -> Path:
        """Where it is noted that this part was mirrored; outside of the run folder and of all declared outputs."""
        return self.root / ".tracked" / self.folder.relative_to(self.root) / f"{self.kind}.json"

    def digest(self) -> str:
        """A hash of names and contents of its files."""
        whole = hashlib.sha256()
        for path in self.files:
            with open(path, "rb") as file:
                whole.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return whole.hexdigest()


def find_parts(results: str | os.PathLike) -> list[Part]:
    """Everything below `results` that can be mirrored: each run folder's parts, then the figures."""
    results = Path(results).resolve()
    if not results.is_dir():
        raise FFError(f"no results folder {results}; train something first or name another folder")
    parts = []
    for path in sorted(results.rglob("metrics.json")):
        if not any(piece.startswith(".") for piece in path.relative_to(results).parts):
            parts += [Part(kind, path.parent) for kind in ("train", "evaluation", "variance")]
    # A collection (the demo) has its tables and figures in a folder of its own beside the runs.
    parts += [Part("figures", folder) for folder in (results, *sorted(results.iterdir())) if folder.is_dir()]
    return [part for part in parts if part.files]


def note_of(part: Part, run_id: str, access: Access, target: Mapping[str, Any], run: Any) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "digest": part.digest(),
        "mode": access.mode,
        "base_url": access.base_url,
        "project": target["project"],
        "entity": target.get("entity"),
        "directory": str(Path(run.settings.sync_dir).resolve()),
        "url": run.url if access.mode == "online" else None,
        "files": [str(path.relative_to(part.folder)) for path in part.files],
    }


def is_mirrored(note: Mapping[str, Any], digest: str, access: Access, target: Mapping[str, Any]) -> bool:
    """Whether `note` says that these very files are where this call would put them."""
    same = note.get("digest") == digest and note.get("project") == target["project"]
    if not same or access.mode == "offline" or note.get("mode") == "online":
        return same and (access.mode == "offline" or note.get("base_url") == access.base_url)
    # Written offline, and `wandb sync` has uploaded it since: it left this file beside the run.
    return any(Path(note.get("directory") or "-").glob("*.synced"))
