"""The data frames that figures take: summary tables, and raw samples of the runs that a figure shows.

Where a figure has room for one network per dataset, it is the one that is best on validation (mean over seeds
of the main recipe): nothing is chosen on the test set.
"""

import contextlib
import functools
from pathlib import Path
from typing import Any

import pandas as pd

from ff.errors import FFError
from ff.files import read_json
from ff.layout import MEASURE_FOLDER, RunKey
from ff.learn.readouts import at_full_depth
from ff.stamps import model_of, stamp_of, why_stale
from ff.summary.figures.style import main_recipe, networks
from ff.summary.spread import pick
from ff.summary.tables import read_table
from ff.summary.tables.rows import KEYS
from ff.summary.tables.run_files import RunFiles

MOST_SEEDS = 3
"""Raw latency samples are drawn from at most this many seeds of a cell: violins gain nothing from more."""
MOST_SAMPLED = 12
"""Raw latency samples are read of at most this many networks: a figure has no room for more."""


def load(name: str, summary_dir: Path, results_root: Path):
    """A summary table by its name, or the raw frame `raw:NAME` by the function of that name here."""
    if not name.startswith("raw:"):
        return table(summary_dir, name)
    return RAW[name.removeprefix("raw:")](summary_dir, results_root)


def table(summary_dir: Path, name: str) -> pd.DataFrame:
    """A summary table. The figures of a family are drawn by one process and share tables, which are large."""
    path = summary_dir / f"{name}.csv"
    try:
        facts = path.stat()
    except OSError:
        return read_table(summary_dir, name)  # which says what is wrong
    return _table(summary_dir, name, facts.st_ino, facts.st_mtime_ns)


@functools.lru_cache(maxsize=3)
def _table(summary_dir: Path, name: str, inode: int, changed_ns: int) -> pd.DataFrame:
    return read_table(summary_dir, name)


def runs_of(summary_dir: Path) -> list[RunKey]:
    """The finished runs, from the table runs."""
    runs = table(summary_dir, "runs")
    return [RunKey(*row) for row in runs[runs["finished"] == 1][list(KEYS)].itertuples(index=False, name=None)]


def best_cells(summary_dir: Path) -> list[list[RunKey]]:
    """Per dataset the runs (seeds) of the network of the main recipe that is best on validation."""
    accuracy = table(summary_dir, "accuracy")
    accuracy = accuracy[(accuracy["is_last"] == 1) & (accuracy["readout"] == "head")]
    cells = []
    for dataset, part in accuracy.groupby("dataset", sort=False):
        recipe = main_recipe(part["recipe"])
        own = part[(part["recipe"] == recipe) & (part["split"] == "val")]
        if own.empty:
            continue
        layers = own.groupby("layers", sort=False)["accuracy"].mean().idxmax()
        seeds = own[own["layers"] == layers]["seed"].drop_duplicates()
        cells.append([RunKey(dataset, layers, recipe, int(seed)) for seed in seeds])
    return cells


def confusion(summary_dir: Path, results_root: Path) -> pd.DataFrame:
    """Counts of the heads on test at full depth, summed over seeds: dataset, layers, recipe, seeds, readout, true,
    predicted, count."""
    rows = []
    for cell in best_cells(summary_dir):
        total, seeds = None, 0
        names: list[Any] = []
        for run in cell:
            content = _evaluation(run, results_root)
            found = at_full_depth(content.get("readouts", [])).get(("test", "head"))
            if found is None:
                continue
            counts = pd.DataFrame(found["confusion"])
            total = counts if total is None else total + counts
            names = content.get("classes") or list(range(len(counts)))
            seeds += 1
        if total is not None:
            base = (*cell[0][:3], seeds, "head")
            for i, true in enumerate(names):
                rows += [(*base, str(true), str(names[j]), int(total.iat[i, j])) for j in range(len(names))]
    columns = ["dataset", "layers", "recipe", "seeds", "readout", "true", "predicted", "count"]
    return pd.DataFrame(rows, columns=columns)


def distributions(summary_dir: Path, results_root: Path) -> pd.DataFrame:
    """distributions.csv on test of the first seed of each dataset's best network, with the run's keys."""
    frames = []
    for cell in best_cells(summary_dir):
        for run in cell:
            frame = RunFiles(run, results_root).csv("distributions.csv")
            if frame is not None:
                frame = frame[frame["split"] == "test"]
                frames.append(_with_keys(frame, run))
                break
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=[*KEYS, "kind"])


def latency_samples(summary_dir: Path, results_root: Path) -> pd.DataFrame:
    """Raw repeats of the first dataset and main recipe: keys and the columns of variance/{device}.csv.

    Of many networks some are read, spread over all sizes.
    """
    runs = [run for run in runs_of(summary_dir) if (run.folder(results_root) / MEASURE_FOLDER).is_dir()]
    if not runs:
        return pd.DataFrame(columns=[*KEYS, "device", "path", "batch_size", "latency_ms"])
    recipe = main_recipe(run.recipe for run in runs if run.dataset == runs[0].dataset)
    runs = [run for run in runs if run.dataset == runs[0].dataset and run.recipe == recipe]
    nets = networks(run.layers for run in runs)
    chosen = pick(nets.order, MOST_SAMPLED)
    frames = []
    taken: dict[str, int] = {}
    for run in runs:
        if nets.label[run.layers] not in chosen or taken.get(run.layers, 0) >= MOST_SEEDS:
            continue
        taken[run.layers] = taken.get(run.layers, 0) + 1
        for path in sorted((run.folder(results_root) / MEASURE_FOLDER).glob("*.csv")):
            frame = RunFiles(run, results_root).csv(MEASURE_FOLDER + path.name)
            if frame is not None and "latency_ms" in frame:
                frames.append(_with_keys(frame, run))
    if not frames:
        return pd.DataFrame(columns=[*KEYS, "device", "path", "batch_size", "latency_ms"])
    return pd.concat([frame.dropna(axis=1, how="all") for frame in frames], ignore_index=True)


def _traced(summary_dir: Path, results_root: Path) -> RunKey | None:
    """The run whose hardware log is shown: of those with power readings, else of all, the one with most samples."""
    logs = {run: run.folder(results_root) / "hardware.csv" for run in runs_of(summary_dir)}
    found = []
    for run, path in logs.items():
        with contextlib.suppress(OSError), open(path) as file:
            found.append(("power_mw." in file.readline(), path.stat().st_size, run))
    # The first of equals, so that the choice does not depend on the order of fields in a tuple.
    return max(found, key=lambda entry: entry[:2])[2] if found else None


def hardware_samples(summary_dir: Path, results_root: Path) -> pd.DataFrame:
    """hardware.csv of the run that is shown; empty where no run has one."""
    run = _traced(summary_dir, results_root)
    frame = RunFiles(run, results_root).csv("hardware.csv") if run else None
    return frame if frame is not None else pd.DataFrame()


def hardware_phases(summary_dir: Path, results_root: Path) -> pd.DataFrame:
    """phases.csv of the same run, without marks of another boot than the last one's.

    The epochs of a phase are one span, with the validation after each of them.
    """
    run = _traced(summary_dir, results_root)
    columns = ["phase", "start_monotonic_s", "end_monotonic_s"]
    frame = RunFiles(run, results_root).csv("phases.csv") if run else None
    if frame is None:
        return pd.DataFrame(columns=columns)
    if "boot_id" in frame and frame["boot_id"].notna().any():
        # The monotonic clock starts anew at each boot: marks of an earlier one are on another time axis.
        frame = frame[frame["boot_id"] == frame["boot_id"].dropna().iloc[-1]]
    frame = frame[columns].dropna()
    frame = frame[frame["phase"] != "validation"]
    span = (frame["phase"] != frame["phase"].shift()).cumsum()
    joined = {"phase": "first", "start_monotonic_s": "first", "end_monotonic_s": "last"}
    return frame.groupby(span).agg(joined).reset_index(drop=True)


def hardware_name(summary_dir: Path, results_root: Path) -> str:
    """What job the trace shows."""
    run = _traced(summary_dir, results_root)
    return f"training of {run.dataset}, {run.layers}, {run.recipe}, seed {run.seed}" if run else ""


RAW = {
    function.__name__: function
    for function in (
        confusion,
        distributions,
        latency_samples,
        hardware_samples,
        hardware_phases,
        hardware_name,
    )
}


def _with_keys(frame: pd.DataFrame, run: RunKey) -> pd.DataFrame:
    return frame.assign(**run._asdict())


def _evaluation(run: RunKey, results_root: Path) -> dict:
    folder = run.folder(results_root)
    try:
        content = read_json(folder / "evaluation.json")
    except FFError:
        return {}
    return {} if why_stale(stamp_of(content), model_of(folder)) else content
