"""The sections of the page below the results: their tables, what is missing, and where the results come from."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ff import statistics
from ff.errors import FFError
from ff.files import read_json
from ff.layout import RunKey, sizes
from ff.learn.rules import RULES
from ff.summary.recipe_order import place
from ff.summary.report.blocks import (
    MOST_ROWS,
    Absent,
    Block,
    Column,
    Facts,
    Link,
    Table,
    interval,
    links,
    table,
    words,
)
from ff.summary.report.numbers import decimals, plural, points
from ff.summary.report.sentences import best_on_validation
from ff.summary.tables.early_exit import EXIT_BATCHES
from ff.summary.tables.rows import KEYS
from ff.summary.tables.runs import machine_name
from ff.summary.tables.scoreboard import SEPARATOR

MOST_MACHINES = 5
MOST_NAMES = 6
MOST_WARNINGS = 20
CELL = ["dataset", "layers", "recipe"]

Tables = Mapping[str, pd.DataFrame]


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows by dataset as they came, then by network size, then in the order of recipes."""
    if frame.empty:
        return frame
    datasets, networks = frame["dataset"].unique(), sorted(frame["layers"].unique(), key=sizes)
    keys = {"_d": frame["dataset"].map(_places(datasets)), "_l": frame["layers"].map(_places(networks))}
    by = ["_d", "_l"]
    if "recipe" in frame:
        keys["_r"] = frame["recipe"].map(_places(sorted(frame["recipe"].unique(), key=place)))
        by.append("_r")
    return frame.assign(**keys).sort_values(by, kind="stable").drop(columns=by)


def _places(names: Iterable[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def best_cells(tables: Tables) -> set[tuple]:
    """Data set, network and recipe of what the sentences of the page are about: those that a table always shows."""
    summary = tables["accuracy_summary"]
    best = [best_on_validation(summary, dataset) for dataset in summary["dataset"].drop_duplicates()]
    return {tuple(row[CELL]) for row in best if row is not None}


# -- scoreboard ----


def scoreboard(tables: Tables) -> list[Block]:
    """What each recipe reaches and costs, with the runs that say so."""
    rows = [
        (
            *(r.dataset, r.layers, r.recipe, r.readout, r.accuracy, (r.low, r.high), r.control, r.difference_points),
            *((r.difference_low, r.difference_high), r.macs_train_epoch, r.macs_inference, r.seconds_train),
            *(r.peak_memory_mb, r.peak_memory_device_mb, r.energy_gross_mj, _links(r.runs)),
        )
        for r in in_order(tables["scoreboard"]).itertuples()
    ]
    shares = decimals(".2f", 100)
    columns = [
        *words("dataset", "network", "recipe", "readout"),
        Column("test accuracy (%)", shares),
        interval("95 % interval over seeds (%)", shares),
        *words("control"),
        Column("minus control (points)", points),
        interval("95 % interval (points)", points),
        Column("MACs of a training epoch (10⁹)", decimals(",.1f", 1e-9)),
        Column("MACs of an inference (10³)", decimals(",.0f", 1e-3)),
        Column("training (s)", decimals(",.1f")),
        Column("peak memory (MB)", decimals(",.0f")),
        Column("of the device (MB)", decimals(",.0f")),
        Column("gross energy of a run (J)", decimals(",.1f", 1e-3)),
        links("runs, by seed"),
    ]
    note = (
        "Means over seeds at full depth, of the readout that the learning rule names first. The difference to the "
        "control is paired over seeds; of several controls it is the one that is best on validation. Time is that of "
        "learning alone. Intervals of time and energy are in scoreboard.csv, everything else of a run behind its seed."
    )
    caption, best = "Scoreboard", best_cells(tables)
    return [table(caption, columns, rows, note, "scoreboard", otherwise="no finished run", best=best)]


def _links(names: str) -> tuple[Link, ...]:
    keys = [RunKey.parse(name) for name in names.split(SEPARATOR)]
    return tuple(Link(str(key.seed), f"{key.name}/metrics.json") for key in keys)


# -- accuracy ----


def accuracy(tables: Tables) -> list[Block]:
    """Test accuracy at full depth, and recipes compared."""
    return [_test_accuracy(tables), _recipes(tables)]


def _test_accuracy(tables: Tables) -> Block:
    summary = in_order(tables["accuracy_summary"])
    test = summary[summary["split"] == "test"]
    rows = [
        (
            *(r.dataset, r.layers, r.recipe, r.readout, r.n_seeds, r.n_images, r.mean),
            *((r.low, r.high), r.method, (r.total_low, r.total_high), r.total_method),
        )
        for r in test.itertuples()
    ]
    shares = decimals(".2f", 100)
    columns = [
        *words("dataset", "network", "recipe", "readout"),
        Column("seeds"),
        Column("test images", decimals(",.0f")),
        Column("test accuracy (%)", shares),
        interval("95 % interval over seeds (%)", shares),
        *words("method"),
        interval("95 % interval over seeds and images (%)", shares),
        *words("method"),
    ]
    note = (
        "Means over seeds. Over seeds: on these very images; over seeds and images: what a new seed on new images may "
        "give, with one seed over images alone."
    )
    caption, otherwise = "Test accuracy at full depth", "no finished run"
    return table(caption, columns, rows, note, "accuracy_summary", otherwise=otherwise, best=best_cells(tables))


def _recipes(tables: Tables) -> Block:
    pairs = in_order(tables["recipes"])
    rows = [
        (
            *(r.dataset, r.layers, r.readout, f"{r.recipe_a} minus {r.recipe_b}", r.n_pairs),
            *(r.difference_points, (r.low, r.high), r.method),
        )
        for r in pairs.itertuples()
    ]
    columns = [
        *words("dataset", "network", "readout", "recipes"),
        Column("pairs"),
        Column("difference (points)", points),
        interval("95 % interval (points)", points),
        *words("method"),
    ]
    note = (
        "On test, only seeds that both recipes have; an interval without 0 is a clear difference. It is over seeds, on "
        "these very images."
    )
    caption, otherwise = "Recipes compared, paired over seeds", "fewer than two recipes"
    best = {cell[:2] for cell in best_cells(tables)}
    return table(caption, columns, rows, note, "recipes", otherwise=otherwise, keys=2, best=best)


# -- training ----


def training(tables: Tables) -> list[Block]:
    """What training cost."""
    rows = []
    for key, cell in in_order(tables["training"]).groupby(CELL, sort=False):
        means = cell.mean(numeric_only=True)
        together = ", ".join(f"{count:.0f}" for count in sorted(cell["shared_by_seeds"].unique()))
        # Layers learn in the first phase of a rule.
        speed = means[[f"samples_per_s_{rule.PHASES[0]}" for rule in RULES.values()]].max()
        costs = means[["peak_memory_mb", "energy_gross_mj", "energy_net_mj"]]
        about = (*key, len(cell), together, means["parameters"], means["seconds_total"])
        rows.append((*about, speed, *costs, _runs_that_shared(cell["shared"])))
    columns = [
        *words("dataset", "network", "recipe"),
        Column("seeds"),
        Column("trained together"),
        Column("parameters", decimals(",.0f")),
        Column("time (s)", decimals(",.1f")),
        Column("training (samples/s)", decimals(",.0f")),
        Column("peak memory (MB)", decimals(",.0f")),
        Column("gross energy (J)", decimals(",.1f", 1e-3)),
        Column("net energy (J)", decimals(",.1f", 1e-3)),
        *words("device shared"),
    ]
    note = (
        "Means over seeds; – was not measured. Net energy is above idle; intervals are in training.csv. Seeds that "
        "were trained together share time and energy in equal parts; peak memory and samples/s are those of all. "
        "Energy of a device that was shared is that of all who shared it."
    )
    caption, otherwise = "Cost of training", "no finished run"
    return [table(caption, columns, rows, note, "training", otherwise=otherwise, best=best_cells(tables))]


def _runs_that_shared(shared: pd.Series) -> str | None:
    known = shared.dropna()
    return f"{int((known == 1).sum())} of {len(known)} runs" if len(known) else None


# -- early exit ----

CUT_NOTE = (
    "The cut is the cheapest network of fewer layers, with one head, that is as accurate on validation as the point "
    "must be. What early exit does not save against it, it does not save at all."
)


def early_exit(tables: Tables) -> list[Block]:
    """Early exit against the reference cut and against full depth, and every cut."""
    frame = in_order(tables["operating_points"])
    if frame.empty:
        return [
            Absent("Early-exit operating points", "no run has an operating point"),
            *_deployed(tables["deployed"], ()),
        ]
    choice = frame["choice"].iloc[0]
    chosen = f"Rule and k chosen on validation ({choice}), reported on test; means over seeds; negative: costs more."
    best = best_cells(tables)
    return [
        _exit_against(frame, "cut", "Early exit against a network cut", f"{CUT_NOTE} {chosen}", best),
        _exit_against(frame, "full", "Early exit against full depth", chosen, best),
        _cuts(tables["early_exit"], best),
        *_deployed(tables["deployed"], best),
    ]


def _exit_against(frame: pd.DataFrame, base: str, caption: str, note: str, best: Collection[tuple]) -> Block:
    rows = []
    for key, cell in frame.groupby(CELL, sort=False):
        change = statistics.mean_interval(cell[f"change_points_vs_{base}"])
        macs = statistics.mean_interval(cell[f"macs_saved_share_vs_{base}"])
        times = [cell[f"time_saved_share_vs_{base}_batch_{batch}"].mean() for batch in EXIT_BATCHES]
        ks = ", ".join(dict.fromkeys(_rule(row.rule, row.k) for row in cell.itertuples()))
        depths = ", ".join(str(depth) for depth in sorted(set(cell["cut_depth"])))
        accuracies = [cell["test_accuracy"].mean(), cell[f"test_{base}_accuracy"].mean()]
        row = [*key, len(cell), ks, *[depths] * (base == "cut"), *accuracies, change.estimate, change[2:4]]
        rows.append([*row, macs.estimate, macs[2:4], *times])
    name, shares = {"cut": "cut", "full": "full depth"}[base], decimals(".2f", 100)
    columns = [
        *words("dataset", "network", "recipe"),
        Column("seeds"),
        *words("rule, k"),
        *words("cut after layer") * (base == "cut"),
        *(Column(f"{what}: test accuracy (%)", shares) for what in ("exit", name)),
        Column("change (points)", points),
        interval("95 % interval", points),
        Column("MACs saved (%)", shares),
        interval("95 % interval", shares),
        *(Column(f"time saved, batch {batch} (%)", decimals(".1f", 100)) for batch in EXIT_BATCHES),
    ]
    return table(caption, columns, rows, note, "operating_points", best=best)


def _rule(rule: str, k: float) -> str:
    return "no early exit" if pd.isna(k) else f"{rule} {k:g}"


def _cuts(frame: pd.DataFrame, best: Collection[tuple]) -> Block:
    """Every network cut, so that the reader can choose another reference."""
    rows = []
    cuts = in_order(frame[frame["rule"] == "static"])
    costs = ["macs_saved_share_vs_full", *(f"time_saved_share_vs_full_batch_{batch}" for batch in EXIT_BATCHES)]
    for key, cell in cuts.groupby([*CELL, "depth"], sort=False):
        val, test = (cell[cell["split"] == split] for split in ("val", "test"))
        row = [*key[:3], f"{key[3]:.0f}", len(test), val["accuracy"].mean(), test["accuracy"].mean()]
        rows.append([*row, int(test["is_reference_cut"].sum()), *(1 - test[column].mean() for column in costs)])
    times = (f"time, batch {batch}" for batch in EXIT_BATCHES)
    columns = [
        *words("dataset", "network", "recipe"),
        Column("cut after layer"),
        Column("seeds"),
        *(Column(f"{split} accuracy (%)", decimals(".2f", 100)) for split in ("validation", "test")),
        Column("seeds that take it as the cut"),
        *(Column(f"{what} (% of full depth)", decimals(".1f", 100)) for what in ("MACs", *times)),
    ]
    note = "Layers 1 to d answer by head d alone; the last is full depth."
    return table("Network cuts", columns, rows, note, "early_exit", best=best)


def _deployed(frame: pd.DataFrame, best: Collection[tuple]) -> list[Block]:
    """Early exit in each runtime against the cut that is as accurate there, and runtimes that were not there."""
    if frame.empty:
        return []
    frame = in_order(frame)
    gone = frame[frame["available"] == 0].drop_duplicates(["device", "runtime"])
    absent: list[Block] = [Absent(f"{row.runtime} on {row.device}", row.reason) for row in gone.itertuples()]
    ways = frame[(frame["path"] == "exit") | (frame["is_reference_cut"] == 1)]
    rows = []
    for key, cell in ways.groupby([*CELL, "device", "runtime", "batch_size", "path"], sort=False):
        ratios = [statistics.mean_interval(cell[f"time_vs_{base}"]).estimate for base in ("cut", "full")]
        depths = ", ".join(f"{depth:.0f}" for depth in sorted(set(cell["depth"].dropna()))) or "leaves early"
        rows.append([*key[:6], depths, cell["test_accuracy"].mean(), cell["time_ms"].mean(), *ratios, len(cell)])
    columns = [
        *words("dataset", "network", "recipe", "device", "runtime"),
        Column("batch size", decimals(".0f")),
        *words("cut after layer"),
        Column("test accuracy (%)", decimals(".2f", 100)),
        Column("time per image (ms)", decimals(".3g")),
        *(Column(f"time, share of {name}'s (%)", decimals(".0f", 100)) for name in ("the cut", "full depth")),
        Column("seeds"),
    ]
    note = (
        "The cut is the cheapest one that is as accurate as full depth on validation, in that runtime. Means over "
        "seeds; every way and its intervals are in deployed.csv."
    )
    return [table("Early exit as it is deployed", columns, rows, note, "deployed", best=best), *absent]


# -- inference: time and energy ----


def latency(tables: Tables) -> list[Block]:
    """Time of inference, devices that could not be measured, and where the GPU starts to win."""
    rows = []
    times = ["median_ms", "p5_ms", "p95_ms"]
    rates = ["throughput_synchronised_per_s", "throughput_queued_per_s"]
    for key, cell in in_order(tables["latency"]).groupby([*CELL, "device", "threads", "path"], sort=False):
        for batch in sorted({cell["batch_size"].min(), cell["batch_size"].max()}):
            part = cell[cell["batch_size"] == batch]
            ends = (part["low_ms"].min(), part["high_ms"].max())
            rows.append((*key, batch, *part[times].mean(), ends, *part[rates].mean(), len(part)))
    columns = [
        *words("dataset", "network", "recipe", "device"),
        Column("CPU threads"),
        *words("path"),
        Column("batch size"),
        *(Column(f"{name} (ms)", decimals(".4g")) for name in ("median", "p5", "p95")),
        interval("95 % interval of the median (ms)", decimals(".4g")),
        Column("samples/s, each batch waited for", decimals(",.0f")),
        Column("samples/s, queued", decimals(",.0f")),
        Column("seeds"),
    ]
    note = (
        "Latency of a whole batch, smallest and largest batch size (all are in latency.csv). Means over "
        "seeds; the interval is the widest bootstrap interval of a seed's median. deploy: inputs already on "
        "the device; end_to_end: with their transfer. Queued: batches handed over back to back, one wait at the end; "
        "a path that ends in host memory waits for each batch and has none."
    )
    best, otherwise = best_cells(tables), "no run has been measured"
    blocks: list[Block] = [table("Inference time", columns, rows, note, "latency", otherwise=otherwise, best=best)]
    gone = tables["devices"][tables["devices"]["available"] == 0].drop_duplicates("device")
    blocks += [Absent(f"{row.device} was not measured", row.reason) for row in gone.itertuples()]
    wins = in_order(tables["gpu_wins"].dropna(subset=["batch_size"]))
    if len(wins):
        rows = list(wins[[*CELL, "device", "path", "cpu_threads", "batch_size"]].itertuples(index=False, name=None))
        columns = [
            *words("dataset", "network", "recipe", "device", "path"),
            Column("against CPU threads", decimals(".0f")),
            Column("faster than the CPU from batch size", decimals(".0f")),
        ]
        note = "The interval of the speed-up lies above 1 at this batch size and at every larger one."
        blocks.append(table("Where the GPU starts to win", columns, rows, note, "gpu_wins", best=best))
    agreement = tables["agreement"][tables["agreement"]["available"] == 1]
    if len(agreement):
        blocks.append(
            f"CPU and GPU give the same prediction for {100 * agreement['same_predictions_share'].min():.3f} % or more "
            f"of the test samples ({len(agreement)} runs); the largest difference of a logit is "
            f"{agreement['max_logit_difference'].max():.2g}."
        )
    return blocks


def energy(tables: Tables) -> list[Block]:
    """Energy of inference."""
    frame = tables["inference_energy"].dropna(subset=["gross_mj_per_sample"])
    frame = in_order(frame[frame["is_total"] == 1])
    rows = []
    for key, cell in frame.groupby([*CELL, "device", "threads", "rail"], sort=False):
        for batch in sorted({cell["batch_size"].min(), cell["batch_size"].max()}):
            part = cell[cell["batch_size"] == batch]
            power, idle, gross, net = part[["power_mw", "idle_mw", "gross_mj_per_sample", "net_mj_per_sample"]].mean()
            ends = [(part[f"{kind}_low"].min(), part[f"{kind}_high"].max()) for kind in ("gross", "net")]
            windows = int(part["n_windows"].min())
            rows.append((*key[:5], batch, key[5], power, idle, gross, ends[0], net, ends[1], windows, len(part)))
    columns = [
        *words("dataset", "network", "recipe", "device"),
        Column("CPU threads"),
        Column("batch size"),
        *words("rail"),
        Column("power (W)", decimals(".2f", 1e-3)),
        Column("idle (W)", decimals(".2f", 1e-3)),
        Column("gross (mJ/sample)", decimals(".3g")),
        interval("95 % interval", decimals(".3g")),
        Column("net (mJ/sample)", decimals(".3g")),
        interval("95 % interval", decimals(".3g")),
        Column("windows"),
        Column("seeds"),
    ]
    note = (
        "Net is above idle, which has windows of its own; smallest and largest batch size. Means over seeds; the "
        "interval is the widest of a seed's (Student t over its windows). Each rail is in inference_energy.csv."
    )
    caption, otherwise = "Energy of inference", "no power sensor could be read"
    return [table(caption, columns, rows, note, "inference_energy", otherwise=otherwise, best=best_cells(tables))]


class Family(NamedTuple):
    """The section of a family of figures: its title, and what stands below the figures."""

    title: str
    blocks: Callable[[Tables], list[Block]] | None = None


# The first stands above the sentences of the page.
FAMILIES = {
    "scoreboard": Family("Scoreboard", scoreboard),
    "accuracy": Family("Accuracy", accuracy),
    "training": Family("Training", training),
    "distributions": Family("Goodness and confidence"),
    "early_exit": Family("Early exit", early_exit),
    "latency": Family("Inference time and memory", latency),
    "energy": Family("Energy", energy),
    "hardware": Family("Hardware"),
}

# -- what is missing, and provenance ----


def missing(frame: pd.DataFrame) -> list[Block]:
    """The files that are not there, by file and reason, those of most runs first where they are many."""
    if frame.empty:
        return ["Nothing: every run that was asked for has all its files."]
    rows = []
    for (file, reason), part in frame.groupby(["file", "reason"], sort=False):
        names = [RunKey(*key).name for key in part[list(KEYS)].itertuples(index=False, name=None)]
        rows.append((file, reason, len(names), _some(names)))
    columns = [*words("file", "reason"), Column("runs"), *words("which")]
    note, left_out = "One row a run and file is in missing.csv.", ""
    if len(rows) > MOST_ROWS:
        left_out = f"{MOST_ROWS:,} of {len(rows):,} rows are shown: those of most runs."
        rows = sorted(rows, key=lambda row: -row[2])[:MOST_ROWS]
    shown = table("Missing files", columns, rows, note, "missing")
    return [shown._replace(left_out=left_out) if isinstance(shown, Table) else shown]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def provenance(runs: pd.DataFrame, results_root: Path, written_at: str) -> list[Block]:
    """Commits, dates and warnings of the finished runs, and the machines that made them."""
    finished = runs[runs["finished"] == 1]
    if finished.empty:
        return [f"No run has finished. Page written {written_at}."]
    dirty = int(finished["git_dirty"].fillna(0).sum())
    commits = finished["git_commit"].fillna("unknown").value_counts(sort=False)
    started = finished["started_at"].dropna()
    warnings = finished["warnings"].dropna().value_counts(sort=False)
    facts = [
        ("git commit", _some([f"{commit} ({plural(n, 'run')})" for commit, n in commits.items()])),
        ("uncommitted changes", f"in {dirty} of {len(finished)} runs" if dirty else "none"),
        ("runs started", f"{started.min()} to {started.max()}" if len(started) else "unknown"),
        ("page written", written_at),
        *(("warning", f"{text} ({plural(n, 'run')})") for text, n in warnings.iloc[:MOST_WARNINGS].items()),
    ]
    if len(warnings) > MOST_WARNINGS:
        facts.append(("warnings", f"{len(warnings) - MOST_WARNINGS:,} more are in runs.csv"))
    return [Facts(None, facts), *_machines(finished, results_root)]


def _machines(finished: pd.DataFrame, results_root: Path) -> list[Block]:
    """The different machines, with Python and packages, of the first runs."""
    found: dict[str, Block] = {}
    for row in finished[list(KEYS)].itertuples(index=False, name=None):
        if len(found) == MOST_MACHINES:
            break
        try:
            facts = read_json(RunKey(*row).folder(results_root) / "metrics.json").get("provenance") or {}
        except FFError:
            continue
        machine, packages, python = facts.get("machine") or {}, facts.get("packages") or {}, facts.get("python")
        name = machine_name(machine)
        identity = json.dumps([name, packages, python], sort_keys=True, default=str)
        pairs = [*_known(machine), ("python", python), ("packages", packages)]
        found.setdefault(identity, Facts(name or "Machine", [(key, _flat(value)) for key, value in pairs]))
    return list(found.values())


def _known(facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in facts.items() if value is not None and value != [] and value != {}]


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_flat(part)}" for key, part in _known(value)) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(_flat(part) for part in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else str(value)
