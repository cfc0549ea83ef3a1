"""Exported networks: accuracy against latency in each runtime, with early exit and without."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from ff.summary.figures import style

RUNTIMES = {
    "torch": style.Look(style.BLACK, "s", ":", ""),
    "onnxruntime": style.Look(style.BLUE, "o", "-", ""),
    "onnxruntime-int8": style.Look(style.VERMILION, "^", "--", ""),
    "tensorrt": style.Look(style.GREEN, "D", "-.", ""),
}
BATCHES = (1, 512)
MOST_NETWORKS = 3
TITLE = "Deployed: accuracy against latency, with early exit and without"


@style.styled
def accuracy_latency(frame: pd.DataFrame) -> Figure:
    """Test accuracy against time per image, a column for batch 1 and 512, a row for each data set and network.

    `frame`: the table deployed. Lines go through the network cut after layer 1..L of a runtime; a large hollow mark is
    its early exit. Medians over seeds, bars from the smallest to the largest seed.
    """
    frame = frame[frame["available"] == 1] if len(frame) else frame
    if frame.empty:
        return style.empty(TITLE, "no run was exported and measured: set measure.runtimes (docs/edge.md)")
    recipe = style.main_recipe(frame["recipe"])
    device = "cpu" if "cpu" in set(frame["device"]) else frame["device"].iloc[0]
    frame = frame[(frame["recipe"] == recipe) & (frame["device"] == device)]
    nets, datasets = style.networks(frame["layers"]), style.unique(frame["dataset"])
    chosen = style.pick(nets.order, MOST_NETWORKS if len(datasets) < 3 else 1)
    rows = [(dataset, label) for dataset in datasets for label in chosen]
    figure, grid = style.panels(len(rows), len(BATCHES), height=3.0, sharey="row")
    counts = []
    for (dataset, label), row in zip(rows, grid, strict=True):
        names = [name for name, text in nets.label.items() if text == label]
        cell = frame[(frame["dataset"] == dataset) & frame["layers"].isin(names)]
        counts.append(cell["seed"].nunique())
        for batch, ax in zip(BATCHES, row, strict=True):
            part = cell[cell["batch_size"] == batch]
            if part.empty:
                style.say(ax, "no finished run")
                continue
            for runtime, look in RUNTIMES.items():
                _draw(ax, part[part["runtime"] == runtime], look)
            ax.set_xscale("log")
            style.plain_log(ax.xaxis)
            ax.margins(0.12)
            low, high = ax.get_xlim()
            # Over more than two decades numbers between powers of ten would touch.
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,)))
            ax.set_title(f"{dataset}, {cell['layers'].iloc[0]}, batch {batch}")
            ax.set_xlabel("time per image (ms)")
        row[0].set_ylabel("test accuracy (%)")
    there = [name for name in RUNTIMES if name in set(frame["runtime"])]
    legend = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.line, label=name)
        for name, look in RUNTIMES.items()
        if name in there
    ]
    hollow: dict[str, Any] = {
        "marker": "o",
        "mfc": "none",
        "mec": style.GREY,
        "linestyle": "none",
        "ms": 11,
        "mew": 1.5,
    }
    legend.append(Line2D([], [], label="early exit", **hollow))
    threads = int(frame["threads"].iloc[0])
    note = (
        f"Recipe {recipe}, {device}, {threads} CPU thread{'s' * (threads > 1)} for every runtime. Small marks with "
        "numbers: the network cut after that layer, the last is full depth; a large hollow mark: early exit at the "
        "operating point chosen on validation. An exit is worth something where it lies to the left of the cuts that "
        f"are as accurate. Uint8 image to class; medians over seeds ({style.seeds_text(counts)}), bars: smallest to "
        "largest seed."
    )
    left = [label for label in nets.order if label not in chosen]
    return style.finish(figure, TITLE, note + (f" Not drawn for room: {', '.join(left)}." if left else ""), legend)


def _draw(ax, part: pd.DataFrame, look: style.Look) -> None:
    """A runtime's cuts as a line with their depths, and its exit."""
    cuts, middles = part[part["path"] == "cut"].groupby("depth"), []
    for depth, cut in cuts:
        middles.append(_mark(ax, cut, look, ms=4.5))
        ax.annotate(f"{depth:.0f}", middles[-1], (4, -9), textcoords="offset points", fontsize=7, color=look.colour)
    if middles:
        ax.plot(*zip(*middles, strict=True), color=look.colour, linestyle=look.line, lw=1, zorder=2)
    leaving = part[part["path"] == "exit"]
    if len(leaving):
        _mark(ax, leaving, look, ms=11, mfc="none", mew=1.5)


def _mark(ax, part: pd.DataFrame, look: style.Look, **marker) -> tuple[float, float]:
    time, accuracy = part["time_ms"], 100 * part["test_accuracy"]
    x, y = float(time.median()), float(accuracy.median())
    reach = {"xerr": [[x - time.min()], [time.max() - x]], "yerr": [[y - accuracy.min()], [accuracy.max() - y]]}
    ax.errorbar([x], [y], **reach, color=look.colour, marker=look.marker, lw=0.8, zorder=3, **marker)
    return x, y
