"""Heat maps by network and batch size: latency, memory, energy and power of each place, and the speed-up of a GPU."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ff.summary.figures import style
from ff.summary.figures.places import (
    PATHS,
    deployed,
    places,
    span,
    threads_text,
    why_no_column,
    why_nothing_to_compare,
    why_unmeasured,
)
from ff.summary.spread import pick

MOST_NETWORKS, MOST_ROWS = 24, 32
"""Networks in one panel, and in all panels below each other."""


@style.styled
def speedup(frame: pd.DataFrame, devices: pd.DataFrame) -> Figure:
    """CPU time divided by GPU time by network and batch size, one panel per dataset and number of CPU threads; hatched
    where the CPU is faster.

    `frame`: the table speedup. Bold numbers have an interval that leaves out 1.
    """
    title = "Speed-up of the GPU over the CPU"
    frame = frame[frame["path"] == "deploy"].dropna(subset=["speedup"]) if len(frame) else frame
    if frame.empty:
        return style.empty(title, why_nothing_to_compare(devices))
    frame, nets, chosen = _room(frame[frame["recipe"] == style.main_recipe(frame["recipe"])])
    panels = list(frame.groupby(["dataset", "device", "cpu_threads"], sort=False))
    batches = sorted(int(b) for b in frame["batch_size"].unique())
    across = min(max(2, len(frame.groupby(["device", "cpu_threads"]))), 3)
    size = _size(5.0 if across < 3 else 4.2, chosen)
    figure, axes = style.wrapped(len(panels), across, **size)
    norm = LogNorm(*_ends(frame["speedup"]))
    for ((dataset, device, threads), cell), ax in zip(panels, axes, strict=True):
        cell = cell.assign(net=cell["layers"].map(nets.label))
        values = cell.pivot_table(index="net", columns="batch_size", values="speedup", aggfunc="mean")
        values = values.reindex(index=chosen, columns=batches)
        low = cell.pivot_table(index="net", columns="batch_size", values="low", aggfunc="min").reindex_like(values)
        high = cell.pivot_table(index="net", columns="batch_size", values="high", aggfunc="max").reindex_like(values)
        sure = ((low > 1) | (high < 1)).to_numpy()
        image = _cells(ax, values, norm, nets, bold=sure, hatch=values.to_numpy() < 1)
        ax.set_title(f"{dataset}, {device} against {threads_text(threads)} of the CPU")
    bar = figure.colorbar(image, ax=axes, label="speed-up (CPU time / GPU time)", shrink=0.9)
    _plain_bar(bar, log=True)
    ns, methods = frame["n"], style.unique(frame["method"])
    legend = [Patch(facecolor="#00224e", edgecolor="white", hatch="////", label="CPU faster (below 1)")]
    note = (
        f"{PATHS['deploy'].capitalize()}, each batch waited for. Bold: the 95 % interval leaves out 1 (n = {span(ns)}; "
        f"{', '.join(methods)}). The end-to-end figures with the transfer are in speedup.csv."
    )
    note += style.left_out(nets.order, chosen, "speedup")
    return style.finish(figure, title, note, legend)


def latency_heatmap(latency: pd.DataFrame, devices: pd.DataFrame) -> Figure:
    """Median latency of a batch (ms) by network and batch size."""
    return heatmap(latency, devices, "median_ms", "Latency of a batch", "median latency of a batch (ms)")


def memory_heatmap(latency: pd.DataFrame, devices: pd.DataFrame) -> Figure:
    """Peak memory (MB) by network and batch size."""
    return heatmap(latency, devices, "peak_memory_mb", "Peak memory of inference", "peak memory (MB)")


def energy_heatmap(energy: pd.DataFrame, devices: pd.DataFrame) -> Figure:
    """Energy per sample above idle (mJ) by network and batch size, of the table inference_energy."""
    return heatmap(
        energy[energy["is_total"] == 1],
        devices,
        "net_mj_per_sample",
        "Energy per sample, net of idle",
        "net energy (mJ/sample)",
    )


def power_heatmap(energy: pd.DataFrame, devices: pd.DataFrame) -> Figure:
    """Mean power during the energy windows (mW) by network and batch size, of the table inference_energy."""
    return heatmap(energy[energy["is_total"] == 1], devices, "power_mw", "Power during inference", "power (mW)")


@style.styled
def heatmap(table: pd.DataFrame, devices: pd.DataFrame, column: str, title: str, unit: str) -> Figure:
    """`column` of a table (latency, inference_energy) by network and batch size, one column per place, one row per
    dataset (mean over seeds)."""
    frame = deployed(table).dropna(subset=[column])
    if frame.empty and not (len(devices) and devices["available"].any()):
        return style.empty(title, why_unmeasured(devices))
    if frame.empty:
        return style.empty(title, why_no_column(column, devices))
    datasets, columns = style.unique(frame["dataset"]), places(deployed(table), devices)
    frame, nets, chosen = _room(frame)
    batches = sorted(int(b) for b in frame["batch_size"].unique())
    size = _size(4.8 if len(columns) < 3 else 4.2, chosen)
    figure, grid = style.panels(len(datasets), len(columns), **size)
    positive = (frame[column] > 0).all()
    norm = LogNorm(*_ends(frame[column])) if positive else Normalize(*_ends(frame[column]))
    image: Any = None
    for dataset, row in zip(datasets, grid, strict=True):
        for place, ax in zip(columns, row, strict=True):
            cell = place.of(frame[frame["dataset"] == dataset])
            if cell.empty:
                style.say(ax, place.why_not(devices, why_no_column(column, devices)))
                continue
            cell = cell.assign(net=cell["layers"].map(nets.label))
            values = cell.pivot_table(index="net", columns="batch_size", values=column, aggfunc="mean")
            image = _cells(ax, values.reindex(index=chosen, columns=batches), norm, nets)
            ax.set_title(f"{dataset}, {place.title(devices)}")
    bar = figure.colorbar(image, ax=[ax for row in grid for ax in row], label=unit, shrink=0.9)
    _plain_bar(bar, log=positive)
    seeds = frame.groupby(["dataset", "layers", "device", "threads", "batch_size"])["seed"].nunique()
    note = (
        f"{PATHS['deploy'].capitalize()}; mean over seeds ({style.seeds_text(seeds)}) of each run's value. "
        "Intervals are in the tables latency.csv and inference_energy.csv. Empty cells were not measured."
    )
    note += style.left_out(nets.order, chosen, "latency" if "path" in table else "inference_energy")
    return style.finish(figure, title, note)


def _room(frame: pd.DataFrame) -> tuple[pd.DataFrame, style.Networks, list[str]]:
    """The rows of the networks that a heat map has room for, all networks, and the labels of those."""
    nets = style.networks(frame["layers"])
    chosen = pick(nets.order, min(MOST_NETWORKS, MOST_ROWS // frame["dataset"].nunique()))
    return frame[frame["layers"].map(nets.label).isin(chosen)], nets, chosen


def _size(width: float, labels: Sequence[str]) -> dict[str, float]:
    """Size of a panel in inches; long labels take nothing from the cells, whose numbers would run into each other."""
    longest = max(len(label) for label in labels)
    return {"width": width + min(0.08 * max(0, longest - 8), 0.45), "height": max(1.8, 1.0 + 0.3 * len(labels))}


def _cells(ax, values: pd.DataFrame, norm, nets: style.Networks, bold=None, hatch=None):
    """Cells with their numbers; `bold`, `hatch`: of which cells, `[networks, batch sizes]`."""
    image = ax.imshow(np.ma.masked_invalid(values.to_numpy(float)), cmap="cividis", norm=norm, aspect="auto")
    for (i, j), value in np.ndenumerate(values.to_numpy(float)):
        if np.isnan(value):
            continue
        colour = style.cell_text_colour(image.cmap(norm(value)))
        weight = "bold" if bold is not None and bold[i, j] else "normal"
        # Where the cell is hatched its own colour behind the number keeps it readable; elsewhere it would only cover
        # what the number beside it has no room for in its own cell.
        hatched = hatch is not None and hatch[i, j]
        ground = {"facecolor": image.cmap(norm(value)), "edgecolor": "none", "pad": 0.6} if hatched else None
        middle = {"ha": "center", "va": "center", "fontsize": 7, "zorder": 3}
        ax.text(j, i, style.two_figures(value), **middle, color=colour, weight=weight, bbox=ground)
        if hatched:
            corner = (j - 0.5, i - 0.5)
            ax.add_patch(Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor="#ffffffaa", lw=0))
    ax.set_xticks(range(len(values.columns)), [str(batch) for batch in values.columns])
    ax.set_yticks(range(len(values.index)), values.index)
    ax.set_xlabel("batch size (samples)")
    ax.set_ylabel(nets.axis.replace(" in the network ", "\nin ").replace(" (layers", "\n(layers"))
    ax.grid(False)
    return image


def _ends(values: pd.Series) -> tuple[float, float]:
    """Ends of a colour scale; a little apart where all values are equal."""
    low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low * 0.9, high * 1.1 + (high == 0))


def _plain_bar(bar, log: bool) -> None:
    if log:
        bar.ax.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=9))
        bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: style.short(value)))
