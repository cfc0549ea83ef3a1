"""Files of run folders, read where they are there, whole, and of the model that the run now holds (`ff.stamps`)."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from ff.errors import FFError
from ff.files import read_json
from ff.layout import MEASURE_FOLDER, RunKey
from ff.stamps import COLUMN, model_of, stamp_of, stamp_of_rows, why_stale
from ff.summary.tables.rows import KEYS

NOT_DEVICES = ("agreement", "hardware")


def run_json(run: RunKey, results_root: str | Path, name: str) -> dict | None:
    """A JSON file of a run; None where there is none of the run's own model."""
    folder = run.folder(results_root)
    if not (folder / name).is_file():
        return None
    try:
        content = read_json(folder / name)
    except FFError:
        return None
    if not isinstance(content, dict) or why_stale(stamp_of(content), model_of(folder)):
        return None
    return content


def run_csv(run: RunKey, results_root: str | Path, name: str) -> pd.DataFrame | None:
    """The rows of a CSV file of a run without their stamp; None where there are none of the run's own model."""
    folder = run.folder(results_root)
    try:
        frame = pd.read_csv(folder / name, dtype={COLUMN: "str"})
    except (OSError, ValueError):  # pandas' EmptyDataError and ParserError are ValueErrors
        return None
    if not len(frame) or why_stale(stamp_of_rows(frame.tail(1).to_dict("records")), model_of(folder)):
        return None
    return frame.drop(columns=COLUMN, errors="ignore")


def device_files(results_root: str | Path, runs: Iterable[RunKey]) -> Iterator[tuple[RunKey, str, dict]]:
    """The measurement of each run on each device: run, device, content."""
    for run in runs:
        for path in sorted((run.folder(results_root) / MEASURE_FOLDER).glob("*.json")):
            if path.stem not in NOT_DEVICES:
                content = run_json(run, results_root, MEASURE_FOLDER + path.name)
                if content is not None:
                    yield run, path.stem, content


def stacked_csv(results_root: str | Path, runs: Iterable[RunKey], name: str, columns: Sequence[str]) -> pd.DataFrame:
    """The CSV `name` of all runs below each other, keys in front; columns beyond `columns` follow as they come."""
    frames, order = [], list(columns)
    for run in runs:
        frame = run_csv(run, results_root, name)
        if frame is None:
            continue
        for position, (key, value) in enumerate(zip(KEYS, run, strict=True)):
            frame.insert(position, key, value)
        frames.append(frame)
        order += [column for column in frame.columns if column not in order]
    if not frames:
        return pd.DataFrame(columns=order)
    # Columns without any number are dropped before stacking (pandas would guess their type) and come back empty.
    return pd.concat([f.dropna(axis=1, how="all") for f in frames], ignore_index=True).reindex(columns=order)
