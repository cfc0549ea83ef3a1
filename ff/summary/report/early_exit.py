"""The section on early exit: against network cuts and full depth, every cut, and how it is deployed."""

from collections.abc import Collection

import pandas as pd

from ff import statistics
from ff.summary.report.blocks import Absent, Block, Column, interval, table, words
from ff.summary.report.cells import CELL, Tables, best_cells, in_order
from ff.summary.report.numbers import decimals, points
from ff.summary.tables.early_exit import EXIT_BATCHES

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
