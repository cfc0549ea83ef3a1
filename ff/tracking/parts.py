"""What lies in a results folder and can be mirrored, and the note that it was.

Files that belong to another model than their run now holds (`ff.stamps`) are left out. What was mirrored is noted in
`<results>/.tracked/`, outside of what the DAG declares, with a digest of the files.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ff.errors import FFError
from ff.files import read_csv, read_json
from ff.layout import EARLY_EXIT_FILES, EVALUATE_FILES, HARDWARE_FILES, MEASURE_FOLDER, TRAIN_FILES, results_of
from ff.stamps import COLUMN, model_of, stamp_of, stamp_of_rows, why_stale
from ff.tracking.session import Access

# In the results folder of a sweep: which one it is of.
SWEEP_NOTE = "sweep.json"
_PATTERNS = {
    "train": (*TRAIN_FILES, *HARDWARE_FILES),
    "evaluation": (*EVALUATE_FILES, *EARLY_EXIT_FILES),
    "variance": (f"{MEASURE_FOLDER}*.csv", f"{MEASURE_FOLDER}*.json"),
    "figures": ("figures/*", "summary/*.csv"),
}


@dataclass(frozen=True)
class Part:
    """One W&B run's worth of files: `kind` is train, evaluation or variance of a run folder, or figures of a root."""

    kind: str
    folder: Path

    @cached_property
    def model(self) -> str | None:
        """The stamp of the model that the run folder holds."""
        return None if self.kind == "figures" else model_of(self.folder)

    @cached_property
    def stale(self) -> dict[str, str]:
        """{file: why it is left out} of the files that belong to another model."""
        reasons = {self._name(path): self._why_stale(path) for path in self._present()}
        return {name: reason for name, reason in reasons.items() if reason}

    @cached_property
    def files(self) -> list[Path]:
        """The files that it mirrors, in a fixed order; empty when there is nothing of this kind."""
        return [path for path in self._present() if self._name(path) not in self.stale]

    def document(self, name: str) -> dict[str, Any] | None:
        """The content of a JSON file; None where it is absent or left out. FFError where it cannot be read."""
        path = self.folder / name
        if path not in self.files:
            return None
        content = read_json(path)
        if not isinstance(content, dict):
            raise FFError(f"{path} is not a JSON object; delete it and run again")
        return content

    def rows(self, name: str) -> list[dict[str, str]]:
        """The rows of a CSV file without their stamp; [] where it is absent or left out."""
        path = self.folder / name
        if path not in self.files:
            return []
        return [{column: cell for column, cell in row.items() if column != COLUMN} for row in read_csv(path)]

    @property
    def root(self) -> Path:
        """The results folder; for a folder elsewhere that is no run's by its name, that folder."""
        return results_of(self.folder) or self.folder

    @property
    def sweep(self) -> str | None:
        """The name of the sweep that the results folder is of; None for the grid's."""
        of_sweep = (self.root / SWEEP_NOTE).is_file() or self.root.parent.name == "sweeps"
        return self.root.name if of_sweep else None

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

    def _present(self) -> list[Path]:
        found = {path for pattern in _PATTERNS[self.kind] for path in self.folder.glob(pattern)}
        return sorted(path for path in found if path.is_file() and not path.name.startswith("."))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _why_stale(self, path: Path) -> str | None:
        try:
            if self.model is not None and path.suffix == ".json":
                return why_stale(stamp_of(read_json(path)), self.model)
            if self.model is not None and path.suffix == ".csv":
                rows = read_csv(path)
                return why_stale(stamp_of_rows(rows), self.model) if rows else None
        except FFError:
            # What cannot be read is no other model's; whoever needs it says what is wrong with it.
            pass
        return None


def find_parts(results: str | os.PathLike) -> list[Part]:
    """Everything below `results` that may hold something to mirror: each run folder's parts, then the figures."""
    results = Path(results).resolve()
    if not results.is_dir():
        raise FFError(f"no results folder {results}; train something first or name another folder")
    parts = []
    for path in sorted(results.rglob("metrics.json")):
        if not _hidden(path, results):
            parts += [Part(kind, path.parent) for kind in ("train", "evaluation", "variance")]
    # Collections (the demo) and sweeps have tables and figures of their own, in a folder below.
    pages = {path.parent for name in ("figures", "summary") for path in results.rglob(name)}
    return parts + [Part("figures", folder) for folder in sorted(pages) if not _hidden(folder, results)]


def _hidden(path: Path, results: Path) -> bool:
    return any(piece.startswith(".") for piece in path.relative_to(results).parts)


def note_of(part: Part, run_id: str, access: Access, target: Mapping[str, Any], run: Any) -> dict[str, Any]:
    """The note that `part` is mirrored as W&B run `run_id`: with these very files, there and then."""
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
