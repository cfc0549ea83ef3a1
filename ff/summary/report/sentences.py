"""The key results as sentences, computed from the tables; what is called best is best on validation."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ff import statistics
from ff.assess.early_exit_text import verdict
from ff.summary.recipe_order import is_control
from ff.summary.report.numbers import decimals, interval, percent, plural, points
from ff.summary.tables.early_exit import EXIT_BATCHES
from ff.summary.tables.training import energy_over_seeds


def key_results(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """The result sentences, plain text, each with its interval or the reason why it has none."""
    sentences = [runs_sentence(tables["runs"])]
    for part in (accuracy_sentences, recipe_sentences, early_exit_sentences, speed_sentences, energy_sentences):
        sentences += part(tables)
    return sentences


def best_on_validation(summary: pd.DataFrame, dataset: str) -> pd.Series | None:
    """The row (split val, head) of the network and recipe with the best mean validation accuracy; controls are left
    out where there is anything else."""
    rows = summary[(summary["dataset"] == dataset) & (summary["split"] == "val") & (summary["readout"] == "head")]
    control = rows["recipe"].map(is_control).astype(bool)
    rows = rows if control.all() else rows[~control]
    rows = rows.dropna(subset=["mean"])
    return rows.loc[rows["mean"].idxmax()] if len(rows) else None


def runs_sentence(runs: pd.DataFrame) -> str:
    """How many of the expected runs finished."""
    finished = int(runs["finished"].sum()) if len(runs) else 0
    text = f"{finished} of {plural(len(runs), 'expected run')} finished"
    return f"{text}." if finished == len(runs) else f"{text}; the section Missing says why the others are not here."


def accuracy_sentences(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Per data set the test accuracy of the network and recipe that are best on validation."""
    summary, sentences = tables["accuracy_summary"], []
    for dataset in summary["dataset"].drop_duplicates():
        best = best_on_validation(summary, dataset)
        if best is None:
            continue
        same = (summary["dataset"] == dataset) & (summary["layers"] == best["layers"])
        test = summary[same & (summary["recipe"] == best["recipe"]) & (summary["split"] == "test")]
        for row in test[test["readout"] == "head"].itertuples():
            ends = f"{interval(row.low, row.high, percent, row.n_seeds, 'seed', row.method)}; {_over_images(row)}"
            what = f"the Forward-Forward network that is best on validation, {row.layers} with recipe {row.recipe},"
            if is_control(row.recipe):
                what = f"{row.layers} trained by backprop ({row.recipe})"
            sentences.append(f"{dataset}: {what} reaches a test accuracy of {percent(row.mean)} ({ends}).")
    return sentences


def _over_images(row: Any) -> str:
    """The interval over seeds and test images of a row of accuracy_summary; with one seed over images alone."""
    what = "over seeds and test images" if row.n_seeds > 1 else "over test images"
    if pd.isna(row.total_low):
        return f"no interval {what}"
    return f"{what} {percent(row.total_low)} to {percent(row.total_high)}, {int(row.n_images):,} images"


def recipe_sentences(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Per data set the best recipe against each other one on the best network, paired over seeds."""
    frame, sentences = tables["recipes"], []
    for dataset in frame["dataset"].drop_duplicates():
        best = best_on_validation(tables["accuracy_summary"], dataset)
        if best is None:
            continue
        rows = frame[(frame["dataset"] == dataset) & (frame["layers"] == best["layers"]) & (frame["readout"] == "head")]
        for row in rows.itertuples():
            if best["recipe"] not in (row.recipe_a, row.recipe_b) or pd.isna(row.difference_points):
                continue
            a, b, sign = row.recipe_a, row.recipe_b, 1
            if best["recipe"] == b:
                a, b, sign = b, a, -1
            difference = sign * row.difference_points
            low, high = sorted((sign * row.low, sign * row.high))
            word = "above" if difference > 0 else "below"
            size = f"{abs(difference):.2f} points {word}" if round(abs(difference), 2) else "level with"
            clear = ""
            if low <= 0 <= high and low != high:
                clear = " The interval holds 0: the difference is not clear."
            sentences.append(
                f"{dataset}, {row.layers}: recipe {a} is {size} {b} on test (paired over seeds; "
                f"{interval(low, high, points, row.n_pairs, 'pair', row.method)}).{clear}"
            )
    return sentences


def early_exit_sentences(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Per data set what early exit of the best network and recipe wins over a network cut, and over full depth."""
    sentences = []
    for dataset, part in tables["operating_points"].groupby("dataset", sort=False):
        best = best_on_validation(tables["accuracy_summary"], dataset)
        if best is None:
            continue
        cell = part[(part["layers"] == best["layers"]) & (part["recipe"] == best["recipe"])]
        if len(cell):
            sentences.append(f"{dataset}, {best['layers']}, {best['recipe']}: {_exit_against_cut(cell)}")
    return sentences


def _exit_against_cut(cell: pd.DataFrame) -> str:
    """What early exit wins over the reference cut, and over full depth: rows of operating_points, one per seed."""
    where = f"a network cut after layer {_cut_depths(cell)}"
    macs = cell["macs_saved_share_vs_cut"]
    times = [cell[f"time_saved_share_vs_cut_batch_{batch}"].mean() for batch in EXIT_BATCHES]
    winners = int((macs > 0).sum())
    lost = verdict(where, macs.mean(), times)
    if lost is None:
        text = "early exit at the point chosen on validation saves MACs over "
        text += f"{where}, the cheapest that is as accurate on validation"
    else:
        text = f"{lost}{' on average' * (winners > 0)}"
    if 0 < winners < len(cell):
        text += f" ({winners} of {len(cell)} seeds save MACs)"
    return f"{text}. Against that cut it {_exit_costs(cell, 'cut')}; against full depth it {_exit_costs(cell, 'full')}."


def _cut_depths(cell: pd.DataFrame) -> str:
    """`1`, or where seeds differ `1 (2 seeds), after layer 2 (1 seed)`; full depth is called so."""
    whole = cell["layers"].iloc[0].count("-")
    counts = cell["cut_depth"].value_counts().sort_index()
    texts = []
    for depth, n in counts.items():
        notes = ["full depth"] * (depth == whole) + [plural(n, "seed")] * (len(counts) > 1)
        texts.append(f"{depth} ({', '.join(notes)})" if notes else str(depth))
    return ", after layer ".join(texts)


def _exit_costs(cell: pd.DataFrame, base: str) -> str:
    texts = []
    for column, what in (
        (f"macs_saved_share_vs_{base}", "MACs"),
        (f"time_saved_share_vs_{base}_batch_512", "measured time at batch 512"),
    ):
        saved = statistics.mean_interval(cell[column])
        ends = interval(saved.low, saved.high, percent, saved.n, "seed", saved.method)
        if saved.estimate is None:
            continue
        if saved.estimate >= 0:
            texts.append(f"saves {percent(saved.estimate)} of the {what} ({ends})")
        else:
            texts.append(f"takes {percent(-saved.estimate)} more {what} (saved: {ends})")
    changes = cell[f"change_points_vs_{base}"]
    change = statistics.mean_interval(changes)
    ends = interval(change.low, change.high, points, change.n, "seed", change.method)
    return f"{', '.join(texts)}, and changes test accuracy by {points(changes.mean())} points ({ends})"


def speed_sentences(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """The highest throughputs, the largest speed-ups over the CPU, and which devices could not be measured."""
    latency, devices, sentences = tables["latency"], tables["devices"], []
    deploy = latency[latency["path"] == "deploy"]
    for kind, how in (("queued", "batches queued"), ("synchronised", "each batch waited for")):
        rate = deploy[f"throughput_{kind}_per_s"].astype(float)
        if rate.notna().any():
            row = deploy.loc[rate.idxmax()]
            place = row["device"] if row["device"] != "cpu" else f"{plural(row['threads'], 'thread')} of the CPU"
            sentences.append(
                f"The highest throughput measured with {how} is {rate.max():,.0f} samples/s on {place} "
                f"({row['dataset']}, {row['layers']}, batch {row['batch_size']})."
            )
    speedup = tables["speedup"]
    speedup = speedup[speedup["path"] == "deploy"].dropna(subset=["speedup"])
    for threads, part in speedup.groupby("cpu_threads"):
        cpu = f"{plural(threads, 'thread')} of the CPU"
        row = part.loc[part["speedup"].idxmax()]
        unit = "seed" if "seeds" in str(row["method"]) else "repeat"
        ends = interval(row["low"], row["high"], lambda value: f"{value:.1f}", row["n"], unit, row["method"])
        sentences.append(
            f"The largest speed-up of {row['device']} over {cpu} is {row['speedup']:.1f} times ({ends}; "
            f"{row['dataset']}, {row['layers']}, batch {row['batch_size']})."
        )
        wins = tables["gpu_wins"]
        wins = wins[(wins["path"] == "deploy") & (wins["cpu_threads"] == threads)]["batch_size"].dropna()
        if len(wins):
            span = f"{wins.min():.0f}" if wins.min() == wins.max() else f"{wins.min():.0f} to {wins.max():.0f}"
            sentences.append(f"The GPU is faster than {cpu} for certain from batch size {span} on, by network.")
    for row in devices[devices["available"] == 0].drop_duplicates("device").itertuples():
        sentences.append(f"Nothing was measured on {row.device}: {row.reason}.")
    return sentences


def energy_sentences(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Per data set the energy of a training run of the best network and recipe."""
    training = tables["training"].dropna(subset=["energy_gross_mj"])
    if training.empty:
        return ["No energy was measured: no run has readings of a power sensor."]
    sentences = []
    for dataset, part in training.groupby("dataset", sort=False):
        best = best_on_validation(tables["accuracy_summary"], dataset)
        if best is None:
            continue
        cell = part[(part["layers"] == best["layers"]) & (part["recipe"] == best["recipe"])]
        gross, net = energy_over_seeds(cell, "gross"), energy_over_seeds(cell, "net")
        if gross.estimate is None:
            continue
        text = f"{dataset}, {best['layers']}, {best['recipe']}: a training run takes {_joules(gross, 'gross')}"
        text += f", {_joules(net, 'above idle')}." if net.estimate is not None else "; idle was not measured."
        shared = int((cell["shared"] == 1).sum())
        if shared:
            text += f" In {shared} of {len(cell)} runs something else ran on the device, and its energy is in there."
        together = int(cell["shared_by_seeds"].max())
        if together > 1:
            text += f" This is its equal part of what the {together} seeds trained together took."
        sentences.append(text)
    return sentences


def _joules(energy: statistics.Interval, kind: str) -> str:
    ends = interval(energy.low, energy.high, decimals(",.0f", 1e-3), energy.n, "seed", energy.method)
    return f"{(energy.estimate or 0) / 1000:,.0f} J {kind} ({ends})"
