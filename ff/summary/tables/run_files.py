"""Files of run folders, read where they are there, whole, and of the model that the run now holds (`ff.stamps`)."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ff.errors import FFError
from ff.files import read_json
from ff.layout import MEASURE_FOLDER, RunKey
from ff.stamps import COLUMN, model_of, stamp_of, stamp_of_rows, why_stale
from ff.summary.tables.rows import KEYS

NOT_DEVICES = ("agreement", "hardware")


class RunFiles:
    """The files of one run. A JSON file is read once, however many tables ask for it."""

    def __init__(self, run: RunKey, results_root: str | Path):
        self.run, self.folder = run, run.folder(results_root)
        self._contents: dict[str, Any] = {}

    @cached_property
    def model(self) -> str | None:
        """The stamp of the model that the run now holds."""
        return model_of(self.folder)

    def content(self, name: str) -> Any:
        """What a JSON file says, of whichever model; FFError names the file when it is missing or is not JSON."""
        if name not in self._contents:
            try:
                self._contents[name] = read_json(self.folder / name)
            except FFError as error:
                self._contents[name] = error
        content = self._contents[name]
        if isinstance(content, FFError):
            raise content
        return content

    def json(self, name: str) -> dict | None:
        """A JSON file; None where there is none of the run's own model."""
        try:
            content = self.content(name)
        except FFError:
            return None
        if not isinstance(content, dict) or why_stale(stamp_of(content), self.model):
            return None
        return content

    def csv(self, name: str) -> pd.DataFrame | None:
        """The rows of a CSV file without their stamp; None where there are none of the run's own model."""
        try:
            frame = pd.read_csv(self.folder / name, dtype={COLUMN: "str"})
        except (OSError, ValueError):  # pandas' EmptyDataError and ParserError are ValueErrors
            return None
        if not len(frame) or why_stale(stamp_of_rows(frame.tail(1).to_dict("records")), self.model):
            return None
        return frame.drop(columns=COLUMN, errors="ignore")

    @cached_property
    def measurements(self) -> list[str]:
        """Names of the JSON files that its measurement left, sorted."""
        return [MEASURE_FOLDER + path.name for path in sorted((self.folder / MEASURE_FOLDER).glob("*.json"))]

    def devices(self) -> Iterator[tuple[str, dict]]:
        """Each device that the run was measured on, with the measurement's content."""
        for name in self.measurements:
            device = Path(name).stem
            content = self.json(name) if device not in NOT_DEVICES else None
            if content is not None:
                yield device, content


def files_of(results_root: str | Path, runs: Iterable[RunKey]) -> list[RunFiles]:
    """The files of each run; nothing is read yet."""
    return [RunFiles(run, results_root) for run in runs]


def each_device(runs: Iterable[RunFiles]) -> Iterator[tuple[RunFiles, str, dict]]:
    """The measurement of each run on each device: the run's files, device, content."""
    for files in runs:
        for device, content in files.devices():
            yield files, device, content


class _Rows(NamedTuple):
    """A CSV file of a run's own model as text."""

    files: RunFiles
    header: str
    lines: list[str]


def stacked_csv(runs: Sequence[RunFiles], name: str, columns: Sequence[str]) -> pd.DataFrame:
    """The CSV `name` of all runs below each other, keys in front; columns beyond `columns` follow as they come."""
    texts = [text for files in runs if (text := _text(files, name)) is not None]
    by_header: dict[str, list[_Rows]] = {}
    for text in texts:
        by_header.setdefault(text.header, []).append(text)
    frames = [frame for group in by_header.values() for frame in _read(group, name)]
    order = list(dict.fromkeys([*columns, *(column for frame in frames for column in frame.columns)]))
    if not frames:
        return pd.DataFrame(columns=order)
    # Columns without any number are dropped before stacking (pandas would guess their type) and come back empty.
    stacked = pd.concat([frame.dropna(axis=1, how="all") for frame in frames])
    place = {files.run: number for number, files in enumerate(runs)}
    places = [place[RunKey(*key)] for key in stacked[list(KEYS)].itertuples(index=False, name=None)]
    in_order = np.argsort(places, kind="stable")
    return stacked.iloc[in_order].reset_index(drop=True).reindex(columns=order)


def _text(files: RunFiles, name: str) -> _Rows | None:
    try:
        header, *lines = [line for line in (files.folder / name).read_text().splitlines() if line]
        names, last = csv.reader([header, lines[-1]])
    except (OSError, ValueError, IndexError):  # not there, not text, empty, without rows
        return None
    stamp = stamp_of_rows([dict(zip(names, last, strict=False))])
    return None if why_stale(stamp, files.model) else _Rows(files, header, lines)


def _read(texts: list[_Rows], name: str) -> list[pd.DataFrame]:
    """Frames of files with the same header, keys in front. All at once, since pandas takes as long to begin with a
    file as to read a hundred rows; one by one where that fails, so that a damaged file is the only one left out."""
    body = "\n".join([texts[0].header, *(line for text in texts for line in text.lines)])
    try:
        frame = pd.read_csv(io.StringIO(body), dtype={COLUMN: "str"})
    except ValueError:
        frame = None
    counts = [len(text.lines) for text in texts]
    if frame is None or len(frame) != sum(counts):
        if len(texts) > 1:
            return [frame for text in texts for frame in _read([text], name)]
        return []
    frame = frame.drop(columns=COLUMN, errors="ignore")
    keys = pd.DataFrame([text.files.run for text in texts], columns=list(KEYS)).loc[
        np.repeat(range(len(texts)), counts)
    ]
    for position, key in enumerate(KEYS):
        frame.insert(position, key, keys[key].to_numpy())
    return [frame]
