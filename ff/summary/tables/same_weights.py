"""Seeds that are none: runs of a cell that hold the same weights."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from ff.errors import FFError
from ff.layout import RunKey

SAMPLE_BYTES = 4096
"""So much of each model is read first; the whole only where that is the same."""


def check_seeds(results_root: str | Path, runs: Iterable[RunKey]) -> None:
    """Raise FFError where two runs that differ in their seed alone hold the same weights, byte by byte.

    A seed draws the first weights, the validation images and the order of the others, so two of them never end the
    same: it is one run that was counted twice, and intervals over seeds would be of fewer than they say. Runs whose
    weights are not kept cannot be looked at.
    """
    found: dict[tuple[str, bytes], RunKey] = {}
    alike: dict[tuple[str, bytes], list[RunKey]] = {}
    for run in runs:
        sample = _tensor_bytes(run.folder(results_root) / "model.safetensors", SAMPLE_BYTES)
        if sample is None:
            continue
        first = found.setdefault((run.cell, sample), run)
        if first != run:
            alike.setdefault((run.cell, sample), [first]).append(run)
    for several in alike.values():
        whole: dict[bytes, RunKey] = {}
        for run in several:
            first = whole.setdefault(_digest(run.folder(results_root) / "model.safetensors"), run)
            if first != run:
                raise FFError(
                    f"{first.name} and {run.name} hold the same weights, byte by byte: they are one run, not two "
                    "seeds; delete both folders and train them again, each with its own seed"
                )


def _tensor_bytes(path: Path, most: int) -> bytes | None:
    """The first bytes of the tensors of a safetensors file: what follows its header, whose length its first 8 say."""
    try:
        with open(path, "rb") as file:
            file.seek(8 + int.from_bytes(file.read(8), "little"))
            return file.read(most) or None
    except (OSError, OverflowError):
        return None


def _digest(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        return hashlib.file_digest(file, "sha256").digest()
