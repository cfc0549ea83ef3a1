"""The sections of the page: the tables below each family of figures."""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from ff.layout import RunKey
from ff.learn.rules import RULES
from ff.summary.report.blocks import (
    Absent,
    Block,
    Column,
    Link,
    interval,
    links,
    table,
    words,
)
from ff.summary.report.cells import CELL, Tables, best_cells, in_order
from ff.summary.report.early_exit import early_exit
from ff.summary.report.numbers import decimals, points
from ff.summary.tables.scoreboard import SEPARATOR

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
