"""Run folders in, tidy data frames out: one function a table, and `write_all` for `results/summary/*.csv`.

Every function takes the results folder and an explicit list of runs. A run that is missing, failed or
unreadable gives no rows and never stops the others; `missing` lists each file that is not there, with the
reason. Files that a run need not have (measurements, hardware log, early exit) are read where they exist.
What was not measured is an empty cell, never 0. docs/tables.md describes every column.

Each run's files are read once per table and only rows are kept, so memory grows with the tables, not the
folders.

A file that belongs to another model than the run now holds (`ff.stamps`) is left out like one that is missing.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ff import statistics
from ff.errors import FFError
from ff.files import read_csv, read_json, write_through
from ff.job_log import cause
from ff.layout import RunKey
from ff.learn.rules import PHASES, READOUTS
from ff.stamps import COLUMN, model_of, stamp_of, stamp_of_rows, why_stale
from ff.summary.recipe_order import controls_of, place


def _columns(names: str) -> tuple[str, ...]:
    return tuple(names.split())


KEYS = _columns("dataset layers recipe seed")
EXPECTED = (
    "metrics.json",
    "history.csv",
    "hardware.json",
    "evaluation.json",
    "early_exit.json",
    "variance/cpu.json",
)
"""Files that `missing` looks for in a run folder unless told otherwise."""
NOT_DEVICES = ("agreement", "hardware")


class _Rows:
    """Rows collected by column, so that hundreds of thousands of rows cost a list cell each and no dict."""

    def __init__(self, columns: Sequence[str]):
        self.columns: dict[str, list] = {column: [] for column in columns}

    def add(self, run: RunKey | Sequence, values: Mapping[str, Any]) -> None:
        for key, value in zip(KEYS, run, strict=False):
            self.columns[key].append(value)
        for column, cells in self.columns.items():
            if column not in KEYS:
                cells.append(values.get(column))

    def frame(self) -> pd.DataFrame:
        frame = pd.DataFrame(self.columns)
        for column in frame.columns:
            # A column without a single measurement would be of type object; it is numeric in every other
            # grid.
            if frame[column].dtype == object and frame[column].isna().all():
                frame[column] = frame[column].astype("float64")
        return frame


def _json(run: RunKey, results_root: str | Path, name: str) -> dict | None:
    path = run.folder(results_root) / name
    if not path.is_file():
        return None
    try:
        content = read_json(path)
    except FFError:
        return None
    if not isinstance(content, dict) or why_stale(stamp_of(content), model_of(run.folder(results_root))):
        return None
    return content


def _csv(run: RunKey, results_root: str | Path, name: str) -> pd.DataFrame | None:
    return read_run_csv(run.folder(results_root), name)


def read_run_csv(folder: Path, name: str) -> pd.DataFrame | None:
    """The rows of a CSV file of a run folder without their stamp; None where there are none of the run's own model."""
    try:
        frame = pd.read_csv(folder / name, dtype={COLUMN: "str"})
    except (OSError, ValueError):  # pandas' EmptyDataError and ParserError are ValueErrors
        return None
    if not len(frame) or why_stale(stamp_of_rows(frame.tail(1).to_dict("records")), model_of(folder)):
        return None
    return frame.drop(columns=COLUMN, errors="ignore")


def _stack_csv(results_root: str | Path, runs: Iterable[RunKey], name: str, columns: Sequence[str]) -> pd.DataFrame:
    """The CSV `name` of all runs below each other, keys in front; columns beyond `columns` follow as they
    come."""
    frames, order = [], list(KEYS) + [column for column in columns if column not in KEYS]
    for run in runs:
        frame = _csv(run, results_root, name)
        if frame is None:
            continue
        for position, (key, value) in enumerate(zip(KEYS, run, strict=True)):
            frame.insert(position, key, value)
        frames.append(frame)
        order += [column for column in frame.columns if column not in order]
    if not frames:
        return pd.DataFrame(columns=order)
    # Columns without any number are dropped before stacking (pandas would guess their type) and come back
    # empty.
    return pd.concat([f.dropna(axis=1, how="all") for f in frames], ignore_index=True).reindex(columns=order)


# ---------------------------------------------------------------------------------------------- accuracy

ACCURACY = KEYS + _columns("split readout depth is_last n accuracy low high method macro_f1 error")
ACCURACY_SUMMARY = _columns(
    "dataset layers recipe split readout n_seeds n_images mean low high method total_low total_high total_method "
    "bootstrap_low bootstrap_high"
)
RECIPES = _columns("dataset layers readout recipe_a recipe_b n_pairs difference_points low high method seeds_left_out")


def accuracy(results_root: str | Path, runs: Iterable[RunKey]) -> pd.DataFrame:
    """A row per run, split, readout and depth; `accuracy`, `macro_f1`, `error` are shares (0 to 1).

    `low`, `high`: Wilson's 95 % interval over the `n` images. Training images have none: the network was fitted to
    them, so that they say nothing about others.
    """
    rows = _Rows(ACCURACY)
    for run in runs:
        metrics = _json(run, results_root, "metrics.json") or {}
        for result in metrics.get("results", []):
            ends = {}
            if result.get("split") != "train":
                interval = statistics.wilson_interval(result.get("accuracy"), result.get("n"))
                ends = {"low": interval.low, "high": interval.high, "method": interval.method}
            rows.add(run, {**result, **ends, "is_last": int(result.get("depth") == run.depth)})
    return rows.frame()


def accuracy_summary(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds at full depth with two 95 % intervals, none of which leaves 0 to 1.

    `low`, `high`: over seeds, on these very images (`ff.statistics.share_interval`). `total_low`, `total_high`: over
    seeds and images (`share_total_interval`), what a new seed on new images may give; with one seed over images
    alone, and for training images none. `n_images`: of the seed with the fewest.
    """
    rows = []
    last = accuracy[accuracy["is_last"] == 1]
    for key, cell in last.groupby(["dataset", "layers", "recipe", "split", "readout"], sort=False):
        shares, images = cell["accuracy"], cell["n"].min()
        seeds, bootstrap = statistics.share_interval(shares), statistics.bootstrap_mean(shares)
        total = (None, None, None)
        if key[3] != "train":
            total = statistics.share_total_interval(shares, images)[2:]
        rows.append((*key, seeds.n, images, *seeds[1:], *total, bootstrap.low, bootstrap.high))
    return _typed(pd.DataFrame(rows, columns=list(ACCURACY_SUMMARY)))


def recipes(accuracy: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """Each pair of recipes on the same dataset, layers and readout, paired over the seeds that both have.

    `difference_points` is recipe_a - recipe_b in percentage points at full depth, positive where a is better. Its
    interval is over seeds, on these very images.
    """
    rows = []
    last = accuracy[(accuracy["is_last"] == 1) & (accuracy["split"] == split)]
    for key, cell in last.groupby(["dataset", "layers", "readout"], sort=False):
        by_recipe = {
            recipe: dict(zip(part["seed"], 100 * part["accuracy"], strict=True))
            for recipe, part in cell.groupby("recipe", sort=False)
        }
        names = sorted(by_recipe, key=place)
        for position, first in enumerate(names):
            for second in names[position + 1 :]:
                a, b = by_recipe[first], by_recipe[second]
                interval = statistics.paired_difference(a, b, at_most=100)
                rows.append((*key, first, second, *interval, len(a.keys() ^ b.keys())))
    return _typed(pd.DataFrame(rows, columns=list(RECIPES)))


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    for column in frame.columns:
        if frame[column].dtype == object and frame[column].isna().all():
            frame[column] = frame[column].astype("float64")
    return frame


# ---------------------------------------------------------------------------------------------- training

TRAINING = KEYS + _columns(
    "shared_by_seeds parameters seconds_import seconds_load "
    + " ".join(f"seconds_{phase}" for phase in PHASES)
    + " seconds_validation seconds_evaluation seconds_write seconds_idle seconds_other seconds_total "
    + " ".join(f"samples_per_s_{phase}" for phase in PHASES)
    + " peak_memory_mb peak_memory_device_mb macs_train_step "
    + " ".join(f"macs_{readout}_readout" for readout in READOUTS)
    + " energy_gross_mj energy_net_mj energy_seconds "
    "energy_gross_low_mj energy_gross_high_mj energy_net_low_mj energy_net_high_mj energy_method shared"
)
HISTORY = KEYS + _columns(
    "shared_by_seeds phase epoch loss validation_accuracy validation_readout learning_rate seconds validation_seconds"
)
LAYERS = KEYS + _columns(
    "depth width sparsity dead_units goodness_positive_mean goodness_negative_mean goodness_neutral_mean "
    "separation_auc paired_share"
)
RUNS = KEYS + _columns("method finished started_at git_commit git_dirty python torch machine warnings")


def training(results_root: str | Path, runs: Iterable[RunKey]) -> pd.DataFrame:
    """A row per finished run: seconds per phase, samples/s, peak memory (MB), MACs, energy (mJ, all phases).

    Energy is that of the whole run (`ff.hardware.attribution`), and missing where one of its phases was not
    measured; `energy_seconds` says how long they lasted. `shared` is 1 where something else ran on the device. Seeds
    that were trained as one group share its seconds and its energy in equal parts (`shared_by_seeds` says how many
    they are). Memory is not shared out: it is the group's peak. Neither is samples/s: the group's samples in the
    group's seconds.
    """
    rows = _Rows(TRAINING)
    for run in runs:
        metrics = _json(run, results_root, "metrics.json")
        if metrics is None:
            continue
        seconds, rates = metrics.get("seconds") or {}, metrics.get("samples_per_s") or {}
        memory, macs = metrics.get("peak_memory_mb") or {}, metrics.get("macs_per_sample") or {}
        values = {f"seconds_{phase}": value for phase, value in seconds.items()}
        values |= {f"samples_per_s_{phase}": value for phase, value in rates.items()}
        values |= {f"macs_{kind}": value for kind, value in macs.items()}
        values |= {"peak_memory_mb": memory.get("host"), "peak_memory_device_mb": memory.get("device")}
        hardware = _json(run, results_root, "hardware.json") or {}
        values |= _run_energy(hardware.get("run_energy") or {})
        shared = shared_by_seeds(metrics)
        rows.add(
            run, {**_each_seeds(values, shared), "shared_by_seeds": shared, "parameters": metrics.get("parameters")}
        )
    return _flagged(rows.frame(), "shared")


def shared_by_seeds(metrics: Mapping[str, Any] | None) -> int:
    """How many seeds shared the seconds, the memory and the energy that a run's files give: 1 for a run of its
    own."""
    return int((metrics or {}).get("shared_by_seeds") or 1)


def _each_seeds(values: Mapping[str, Any], shared: int) -> dict[str, Any]:
    """`values` with the seconds and the energy (mJ) of a group divided by its seeds; all others as they are."""
    return {
        key: value / shared if _COST.search(key) and isinstance(value, (int, float)) else value
        for key, value in values.items()
    }


_COST = re.compile(r"(^|_)(seconds|mj)(_|$)")


def _flagged(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """The frame with true, false and not known in `column` as 1, 0 and nothing."""
    return frame.assign(**{column: frame[column].map({True: 1, False: 0}).astype("Int64")})


def _run_energy(run: Mapping[str, Any]) -> dict[str, Any]:
    total = run.get("total")
    if not total:
        return {}
    numbers = {f"energy_{name}": value for name, value in total.items() if name.endswith("_mj")}
    about = {"energy_seconds": run.get("seconds"), "energy_method": total.get("method")}
    return {**numbers, **about, "shared": total.get("shared")}


def history(results_root: str | Path, runs: Iterable[RunKey]) -> pd.DataFrame:
    """A row per run, phase and epoch: history.csv of all runs (goodness columns of the deepest network
    last). Seconds of a group are each seed's equal part."""
    runs = list(runs)
    frame = _stack_csv(results_root, runs, "history.csv", HISTORY)
    counts = {run: shared_by_seeds(_json(run, results_root, "metrics.json")) for run in runs}
    frame["shared_by_seeds"] = [counts[RunKey(*row)] for row in frame[list(KEYS)].itertuples(index=False)]
    for column in ("seconds", "validation_seconds"):
        frame[column] = frame[column] / frame["shared_by_seeds"]
    return frame


def layers(results_root: str | Path, runs: Iterable[RunKey]) -> pd.DataFrame:
    """A row per run and Forward-Forward layer: sparsity, dead units, mean goodness, AUC of
    positive/negative."""
    rows = _Rows(LAYERS)
    for run in runs:
        for layer in (_json(run, results_root, "evaluation.json") or {}).get("layers", []):
            goodness = layer.get("goodness") or {}
            means = {f"goodness_{group}_mean": (part or {}).get("mean") for group, part in goodness.items()}
            rows.add(run, {**layer, **means})
    return rows.frame()


def provenance(results_root: str | Path, runs: Iterable[RunKey]) -> pd.DataFrame:
    """A row per expected run: how it learned (method), finished (1) or not (0), commit, versions, machine, warnings
    joined with '; '."""
    rows = _Rows(RUNS)
    for run in runs:
        metrics = _json(run, results_root, "metrics.json")
        facts = (metrics or {}).get("provenance") or {}
        dirty = facts.get("git_dirty")
        rows.add(
            run,
            {
                **{key: facts.get(key) for key in ("started_at", "git_commit", "python")},
                "method": (((metrics or {}).get("config") or {}).get("recipe_settings") or {}).get("method"),
                "finished": int(metrics is not None),
                "git_dirty": None if dirty is None else int(dirty),
                "torch": (facts.get("packages") or {}).get("torch"),
                "machine": machine_name(facts.get("machine") or {}),
                "warnings": "; ".join(map(str, facts.get("warnings") or [])) or None,
            },
        )
    return rows.frame()


def machine_name(machine: Mapping[str, Any]) -> str | None:
    """The names in a machine description (`ff.hardware.machine.describe`): board, CPU, GPUs."""
    found = []
    for key in ("model", "cpu", "gpus"):
        value = machine.get(key)
        if isinstance(value, Mapping):
            value = value.get("name") or value.get("model")
        if isinstance(value, Sequence) and not isinstance(value, str):
            value = ", ".join(str(v.get("name", v)) if isinstance(v, Mapping) else str(v) for v in value)
        if value and str(value) not in found:
            found.append(str(value))
    return ", ".join(found) or None


# -------------------------------------------------------------------------------------------- early exit

EARLY_EXIT = KEYS + _columns(
    "rule k depth is_reference_cut threshold split n accuracy macro_f1 mean_layers macs_ff macs_heads macs_total "
    "macs_saved_share_vs_cut macs_saved_share_vs_full time_ms_batch_1 time_ms_batch_32 time_ms_batch_512 "
    "time_saved_share_vs_cut_batch_1 time_saved_share_vs_cut_batch_32 time_saved_share_vs_cut_batch_512 "
    "time_saved_share_vs_full_batch_1 time_saved_share_vs_full_batch_32 time_saved_share_vs_full_batch_512"
)
EXIT_BATCHES = (1, 32, 512)
"""Batch sizes at which early exit is timed (`ff.assess.early_exit.TIMED_BATCHES`, whose import would bring torch)."""
OPERATING_POINTS = KEYS + _columns(
    "rule k choice cut_depth val_accuracy val_cut_accuracy val_full_accuracy test_accuracy test_cut_accuracy "
    "test_full_accuracy change_points_vs_cut change_points_vs_full test_macro_f1 mean_layers macs_total "
    "macs_saved_share_vs_cut macs_saved_share_vs_full "
    "time_saved_share_vs_cut_batch_1 time_saved_share_vs_cut_batch_32 time_saved_share_vs_cut_batch_512 "
    "time_saved_share_vs_full_batch_1 time_saved_share_vs_full_batch_32 time_saved_share_vs_full_batch_512"
)


def early_exit(results_root: str | Path, runs: Iterable[RunKey]) -> pd.DataFrame:
    """A row per run, split and network cut (rule `static`), and per run, split, exit rule and k: early_exit.csv
    of all runs (share_exit_* columns last)."""
    return _stack_csv(results_root, runs, "early_exit.csv", EARLY_EXIT)


def operating_points(results_root: str | Path, runs: Iterable[RunKey]) -> pd.DataFrame:
    """A row per run: the operating point chosen on validation, and what it gives on test, against the cheapest
    network cut that is as accurate on validation (`cut`, after layer `cut_depth`) and against full depth.

    `change_points_vs_*` is early exit minus the other on test, in percentage points.
    """
    rows = _Rows(OPERATING_POINTS)
    for run in runs:
        content = _json(run, results_root, "early_exit.json") or {}
        point, reference, cuts = (content.get(key) for key in ("operating_point", "reference_cut", "static_cuts"))
        if not (point and reference and cuts):
            continue
        # Early exit, cut and full depth come from one file, so from the same logits and timed passes.
        compared = {"": point, "cut_": cuts[reference["depth"] - 1], "full_": cuts[-1]}
        accuracies = {
            f"{split}_{name}accuracy": part[split]["accuracy"]
            for split in ("val", "test")
            for name, part in compared.items()
        }
        reached = accuracies["test_accuracy"]
        rows.add(
            run,
            {
                **{key: point["test"].get(key) for key in OPERATING_POINTS if key not in KEYS},
                **{key: point.get(key) for key in ("rule", "k", "choice")},
                **accuracies,
                "change_points_vs_cut": 100 * (reached - accuracies["test_cut_accuracy"]),
                "change_points_vs_full": 100 * (reached - accuracies["test_full_accuracy"]),
                "cut_depth": reference["depth"],
                "test_macro_f1": point["test"]["macro_f1"],
            },
        )
    return rows.frame()


# ------------------------------------------------------------------------------------------- measurement

LATENCY = KEYS + _columns(
    "device threads path batch_size n_repeats median_ms p5_ms p95_ms low_ms high_ms method "
    "throughput_synchronised_per_s throughput_synchronised_low_per_s throughput_synchronised_high_per_s "
    "throughput_queued_per_s throughput_queued_low_per_s throughput_queued_high_per_s n_queued_windows peak_memory_mb"
)
INFERENCE_ENERGY = KEYS + _columns(
    "device threads batch_size rail is_total n_windows gross_mj_per_sample gross_low gross_high net_mj_per_sample "
    "net_low net_high method power_mw idle_mw idle_low_mw idle_high_mw shared"
)
DEVICES = KEYS + _columns(
    "device name kind available reason threads governor_before power_mode_before temperature_before_c "
    "temperature_after_c power_source power_reason"
)
SPEEDUP = _columns("dataset layers recipe path device cpu_threads batch_size speedup low high n method")
GPU_WINS = _columns("dataset layers recipe path device cpu_threads batch_size reason")
AGREEMENT = KEYS + _columns(
    "devices available reason n same_predictions_share max_logit_difference n_differing largest_differing_margin"
)
ENERGY = KEYS + _columns("job phase rail is_total gross_mj net_mj seconds shared_by_seeds")
ENERGY += _columns("gross_low_mj gross_high_mj net_low_mj net_high_mj method shared")


def _device_files(results_root: str | Path, runs: Iterable[RunKey]) -> Iterator[tuple[RunKey, str, dict]]:
    for run in runs:
        for path in sorted((run.folder(results_root) / "variance").glob("*.json")):
            if path.stem not in NOT_DEVICES:
                content = _json(run, results_root, f"variance/{path.name}")
                if content is not None:
                    yield run, path.stem, content


def latency(results_root: str | Path, runs: Iterable[RunKey]) -> pd.DataFrame:
    """A row per run, device, CPU threads, path and batch size: milliseconds per batch, samples/s, memory.

    Synchronised throughput waits for each batch before the next is handed over; queued throughput hands them over
    back to back (deploy path only).
    """
    rows = _Rows(LATENCY)
    for run, device, content in _device_files(results_root, runs):
        for batch in content.get("batches") or []:
            time, queued = batch.get("latency_ms") or {}, batch.get("throughput_queued_per_s") or {}
            kept = ("threads", "path", "batch_size", "n_repeats", "peak_memory_mb")
            rows.add(
                run,
                {
                    **{key: batch.get(key) for key in kept},
                    **{f"{key}_ms": time.get(key) for key in ("median", "p5", "p95", "low", "high")},
                    **_throughput("synchronised", batch.get("throughput_synchronised_per_s") or {}),
                    **_throughput("queued", queued),
                    "n_queued_windows": len(queued["windows"]) if queued.get("windows") else None,
                    "device": device,
                    "method": time.get("method"),
                },
            )
    return rows.frame()


def _throughput(kind: str, rate: Mapping[str, Any]) -> dict[str, Any]:
    ends = {f"throughput_{kind}_{end}_per_s": rate.get(end) for end in ("low", "high")}
    return {f"throughput_{kind}_per_s": rate.get("median"), **ends}


def inference_energy(results_root: str | Path, runs: Iterable[RunKey]) -> pd.DataFrame:
    """A row per run, device, CPU threads, batch size and rail: mJ per sample, mean over windows with its interval.

    `is_total` 1 marks the row of the whole machine, as in `energy`.
    """
    rows = _Rows(INFERENCE_ENERGY)
    for run, device, content in _device_files(results_root, runs):
        for batch in content.get("batches") or []:
            used = batch.get("energy") or {}
            for is_total, part in [(0, part) for part in (used.get("rails") or {}).values()] + [(1, used.get("total"))]:
                if part:
                    base = {"device": device, **{key: batch.get(key) for key in ("threads", "batch_size")}}
                    base |= {"rail": part.get("rail"), "is_total": is_total, "shared": _one_text(used.get("shared"))}
                    rows.add(run, base | _energy_cells(part))
    return rows.frame()


def _energy_cells(part: Mapping[str, Any]) -> dict[str, Any]:
    gross, net = part.get("gross_mj_per_sample") or {}, part.get("net_mj_per_sample") or {}
    idle = part.get("idle_mw") or {}
    return {
        "n_windows": gross.get("n"),
        "method": gross.get("method"),
        **{"gross_mj_per_sample": gross.get("mean"), "gross_low": gross.get("low"), "gross_high": gross.get("high")},
        **{"net_mj_per_sample": net.get("mean"), "net_low": net.get("low"), "net_high": net.get("high")},
        "power_mw": (part.get("power_mw") or {}).get("mean"),
        **{"idle_mw": idle.get("mean"), "idle_low_mw": idle.get("low"), "idle_high_mw": idle.get("high")},
    }


def devices(results_root: str | Path, runs: Iterable[RunKey]) -> pd.DataFrame:
    """A row per run and device that was asked for; `available` 0 with the reason where it does not exist."""
    rows = _Rows(DEVICES)
    for run, device, content in _device_files(results_root, runs):
        facts, conditions = content.get("device") or {}, content.get("conditions") or {}
        before, after = conditions.get("before") or {}, conditions.get("after") or {}
        rows.add(
            run,
            {
                **{key: facts.get(key) for key in ("name", "kind", "reason")},
                "device": device,
                "available": int(bool(facts.get("available"))),
                "threads": _one_text(conditions.get("threads")),
                "governor_before": _one_text(before.get("governor")),
                "power_mode_before": _one_text(before.get("power_mode")),
                "temperature_before_c": _hottest(before.get("temperature_c")),
                "temperature_after_c": _hottest(after.get("temperature_c")),
                "power_source": (conditions.get("power") or {}).get("source"),
                "power_reason": (conditions.get("power") or {}).get("reason"),
            },
        )
    return rows.frame()


def _one_text(value: Any) -> str | None:
    if isinstance(value, Mapping):
        value = sorted({str(part) for part in value.values()})
    if isinstance(value, (list, tuple)):
        value = ", ".join(str(part) for part in value)
    return None if value in (None, "") else str(value)


def _hottest(value: Any) -> float | None:
    if isinstance(value, Mapping):
        numbers = [part for part in value.values() if isinstance(part, (int, float))]
        return max(numbers, default=None)
    return value if isinstance(value, (int, float)) else None


def speedup(results_root: str | Path, runs: Iterable[RunKey], latency: pd.DataFrame) -> pd.DataFrame:
    """CPU time divided by the other device's time (> 1: the GPU is faster) per dataset, layers, recipe, path, batch
    size and number of CPU threads that the CPU worked with.

    With several seeds: geometric mean of the seeds' ratios of medians, t interval on the logarithms (`n` =
    seeds). With one: ratio of the two medians, bootstrap over the raw repeats of both (`n` = repeats).
    """
    folders = {tuple(run): run for run in runs}
    cell = ["dataset", "layers", "recipe", "path", "batch_size"]
    cpu = latency[latency["device"] == "cpu"]
    other = latency[latency["device"] != "cpu"]
    pairs = other.merge(cpu, on=[*cell, "seed"], suffixes=("", "_cpu"))
    pairs = pairs[(pairs["median_ms"] > 0) & (pairs["median_ms_cpu"] > 0)]
    rows = []
    for key, part in pairs.groupby([*cell, "device", "threads_cpu"], sort=False):
        dataset, layer_text, recipe, path, batch_size, device, threads = key
        if len(part) > 1:
            interval = statistics.geometric_mean_interval(part["median_ms_cpu"] / part["median_ms"])
            interval = interval._replace(method=f"{interval.method} on log ratios of {interval.n} seeds")
        else:
            run = folders[(dataset, layer_text, recipe, part["seed"].iloc[0])]
            interval = _speedup_of_run(results_root, run, path, batch_size, device, threads)
            if interval.estimate is None:
                ratio = float(part["median_ms_cpu"].iloc[0] / part["median_ms"].iloc[0])
                interval = statistics.Interval(1, ratio, None, None, statistics.METHOD_SINGLE)
        rows.append((*key[:4], device, threads, batch_size, *interval[1:4], interval.n, interval.method))
    return _typed(pd.DataFrame(rows, columns=list(SPEEDUP)))


def _speedup_of_run(
    results_root, run: RunKey, path: str, batch_size: int, device: str, cpu_threads: int
) -> statistics.Interval:
    samples = []
    for name in ("cpu", device):
        frame = _csv(run, results_root, f"variance/{name}.csv")
        if frame is None:
            return statistics.median_ratio([], [])
        chosen = frame[(frame["path"] == path) & (frame["batch_size"] == batch_size)]
        if name == "cpu":
            chosen = chosen[chosen["threads"] == cpu_threads]
        samples.append(chosen["latency_ms"])
    interval = statistics.median_ratio(*samples)
    return interval._replace(method=f"{interval.method} over repeats of one seed")


def gpu_wins(speedup: pd.DataFrame, latency: pd.DataFrame) -> pd.DataFrame:
    """The smallest measured batch size from which on the GPU is faster for certain, per network, path and number of
    CPU threads that it is compared with.

    "For certain" means that the lower end of the speed-up's interval (the speed-up itself where there is no
    interval) is above 1 at that batch size and at every larger one. Empty with a reason where there is none.
    """
    rows = []
    cell = ["dataset", "layers", "recipe", "path"]
    for key, part in speedup.groupby([*cell, "device", "cpu_threads"], sort=False):
        part = part.sort_values("batch_size", ascending=False)
        wins = part["low"].fillna(part["speedup"]) > 1
        streak = part["batch_size"][wins.cummin()]
        reason = None if len(streak) else "the largest batch measured is not faster for certain"
        rows.append((*key, streak.min() if len(streak) else None, reason))
    have = {row[:4] for row in rows}
    for key in latency[cell].drop_duplicates().itertuples(index=False, name=None):
        if key not in have:
            rows.append((*key, None, None, None, "no second device was measured"))
    return _typed(pd.DataFrame(rows, columns=list(GPU_WINS)))


def agreement(results_root: str | Path, runs: Iterable[RunKey]) -> pd.DataFrame:
    """A row per run: do the devices predict the same (share 0 to 1), largest logit difference, or why
    unknown."""
    rows = _Rows(AGREEMENT)
    for run in runs:
        content = _json(run, results_root, "variance/agreement.json")
        if content is None:
            continue
        differing = content.get("differing") or []
        margins = [value for row in differing for key, value in row.items() if key.startswith("margin_")]
        rows.add(
            run,
            {
                **{key: content.get(key) for key in AGREEMENT if key not in KEYS},
                "devices": "+".join(content.get("devices") or []),
                "available": int(bool(content.get("available"))),
                "n_differing": len(differing) if content.get("available") else None,
                "largest_differing_margin": max(margins, default=None),
            },
        )
    return rows.frame()


def energy(results_root: str | Path, runs: Iterable[RunKey]) -> pd.DataFrame:
    """A row per run, job (train, measure), phase and rail, in mJ; `is_total` 1 marks the whole machine's row.

    Idle windows are no phases here. `shared` is 1 where something else ran on what the rail feeds. Totals name the rail
    that they were read from, or "sum of rails": adding them to the rails counts twice. The training of a group is
    shared out equally among its seeds; a measurement is of one run.
    """
    rows = _Rows(ENERGY)
    for run in runs:
        trained_by = shared_by_seeds(_json(run, results_root, "metrics.json"))
        for job, name, shared in (("train", "hardware.json", trained_by), ("measure", "variance/hardware.json", 1)):
            phases = (_json(run, results_root, name) or {}).get("energy") or {}
            for phase, part in phases.items():
                base = {"job": job, "phase": phase, "seconds": part.get("seconds")}
                base = {**_each_seeds(base, shared), "shared_by_seeds": shared}
                for rail, values in (part.get("rails") or {}).items():
                    rows.add(run, {**base, **_each_seeds(values or {}, shared), "rail": rail, "is_total": 0})
                total = part.get("total")
                if total:
                    rows.add(run, {**base, **_each_seeds(total, shared), "is_total": 1})
    return _flagged(rows.frame(), "shared")


# ----------------------------------------------------------------------------------------------- missing

MISSING = KEYS + _columns("file reason")


def missing(
    results_root: str | Path,
    runs: Iterable[RunKey],
    expected: Sequence[str] = EXPECTED,
    train_log: str | None = None,
) -> pd.DataFrame:
    """A row per expected file that is absent, unreadable or says itself that it measured nothing, with the
    reason.

    `train_log`: path pattern of the training logs, `logs/train/{dataset}/{layers}/{recipe}/seed{seed}.log`;
    the last error in the log is the reason why a run is missing.
    """
    rows = _Rows(MISSING)
    for run in runs:
        folder = run.folder(results_root)
        model = model_of(folder)
        reason = _why_absent(folder / "metrics.json", model)
        if not (folder / "metrics.json").is_file():
            reason = _why_untrained(run, train_log)
        if reason is not None:
            # One row says it all: everything else of the run follows from its training.
            rows.add(run, {"file": "metrics.json", "reason": reason})
            continue
        wanted = list(expected)
        wanted += [f"variance/{path.name}" for path in sorted((folder / "variance").glob("*.json"))]
        for name in dict.fromkeys(wanted):
            reason = _why_absent(folder / name, model)
            if reason is not None:
                rows.add(run, {"file": name, "reason": reason})
    return rows.frame()


def _why_untrained(run: RunKey, train_log: str | None) -> str:
    why = cause(train_log.format(**run._asdict())) if train_log is not None else None
    if why is not None:
        return f"training failed: {why[:300]}"
    return "not trained: the job was killed, was not started or is still running"


def _why_absent(path: Path, model: str | None) -> str | None:
    if not path.is_file():
        return "the file is not there: its job failed, was not asked for or has not run yet"
    if path.suffix != ".json":
        rows = read_csv(path)
        return why_stale(stamp_of_rows(rows), model) if rows else "the file is empty"
    try:
        content = read_json(path)
    except FFError as error:
        return str(error)
    if not isinstance(content, Mapping):
        return f"{path} is not a JSON object; delete it and run again"
    if stale := why_stale(stamp_of(content), model):
        return stale
    if path.name == "hardware.json":
        return _why_no_energy(content)
    facts = content.get("device", content)
    if isinstance(facts, Mapping) and facts.get("available") is False:
        return facts.get("reason") or "not available on this machine"
    return None


def _why_no_energy(content: Mapping[str, Any]) -> str | None:
    """Why the energy of the whole run is not known; None where it is."""
    if (content.get("run_energy") or {}).get("total"):
        return None
    phases = content.get("energy") or {}
    if any(phase.get("total") for phase in phases.values()):
        wanted = (content.get("run_energy") or {}).get("phases") or phases
        gone = [name for name in wanted if not phases[name].get("total")]
        return f"the run's energy is not known: it was not measured of the phases {', '.join(gone)}"
    sources = (content.get("sources") or {}).get("missing") or []
    reasons = "; ".join(f"{source.get('source')}: {source.get('reason')}" for source in sources)
    return "no energy was measured" + (f" ({reasons})" if reasons else "")


# ------------------------------------------------------------------------------------------------ writing


def write_all(
    results_root: str | Path,
    runs: Iterable[RunKey],
    out_dir: str | Path,
    expected: Sequence[str] = EXPECTED,
    train_log: str | None = None,
) -> dict[str, pd.DataFrame]:
    """Build every table and write it as `out_dir/NAME.csv`; returns them by name. Never fails for a missing
    run."""
    runs = [RunKey(*run) for run in runs]
    tables: dict[str, pd.DataFrame] = {"runs": provenance(results_root, runs)}
    tables["accuracy"] = accuracy(results_root, runs)
    tables["accuracy_summary"] = accuracy_summary(tables["accuracy"])
    with controls_of(tables["runs"]):
        tables["recipes"] = recipes(tables["accuracy"])
    measured: Sequence[Callable] = (latency, devices, agreement, energy, inference_energy)
    for build in (training, history, layers, early_exit, operating_points, *measured):
        tables[build.__name__] = build(results_root, runs)
    tables["speedup"] = speedup(results_root, runs, tables["latency"])
    tables["gpu_wins"] = gpu_wins(tables["speedup"], tables["latency"])
    tables["missing"] = missing(results_root, runs, expected, train_log)
    for name, frame in tables.items():
        write_table(frame, Path(out_dir) / f"{name}.csv")
    return tables


def write_table(frame: pd.DataFrame, path: str | Path) -> None:
    """Write `frame` as CSV, whole or not at all; what is missing becomes an empty cell."""
    write_through(path, lambda temporary: frame.to_csv(temporary, index=False, lineterminator="\n"))


def read_table(summary_dir: str | Path, name: str) -> pd.DataFrame:
    """Read a table that `write_all` wrote. FFError names the file where it is missing or damaged."""
    path = Path(summary_dir) / f"{name}.csv"
    try:
        return pd.read_csv(path)
    except OSError as error:
        raise FFError(f"cannot read {path}: {error.strerror}; write the tables first") from error
    except ValueError as error:
        raise FFError(f"{path} is not a table ({error}); delete it and write the tables again") from error
