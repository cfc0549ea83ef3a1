"""Exported networks: time in each runtime against the batch size."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ff.summary.figures import style
from ff.summary.figures.deployed import RUNTIMES

MOST_NETWORKS = 3
TITLE = "Runtimes: time per image against batch size"


@style.styled
def time_by_runtime(frame: pd.DataFrame) -> Figure:
    """Milliseconds per image against batch size, a column for each number of CPU threads, a row for each data set and
    network, a line for each runtime.

    `frame`: the table runtimes. Medians over repeats, mean over seeds, bars the widest interval of a seed's median.
    """
    frame = frame[frame["available"] == 1] if len(frame) else frame
    if frame.empty:
        return style.empty(TITLE, "no run was measured in other runtimes: set measure.runtimes (docs/edge.md)")
    recipe = style.main_recipe(frame["recipe"])
    # Rows of what was not there have neither, so both came as fractions.
    frame = frame[frame["recipe"] == recipe].astype({"batch_size": int, "threads": int})
    nets, datasets = style.networks(frame["layers"]), style.unique(frame["dataset"])
    chosen = style.pick(nets.order, MOST_NETWORKS if len(datasets) < 3 else 1)
    rows = [(dataset, label) for dataset in datasets for label in chosen]
    places = sorted(set(zip(frame["device"], frame["threads"], strict=True)))
    figure, grid = style.panels(len(rows), len(places), sharey="row")
    counts: list[int] = []
    for (dataset, label), row in zip(rows, grid, strict=True):
        names = [name for name, text in nets.label.items() if text == label]
        cell = frame[(frame["dataset"] == dataset) & frame["layers"].isin(names)]
        for (device, threads), ax in zip(places, row, strict=True):
            part = cell[(cell["device"] == device) & (cell["threads"] == threads)]
            if part.empty:
                style.say(ax, "no finished run")
                continue
            counts.append(part["seed"].nunique())
            for runtime, look in RUNTIMES.items():
                _draw(ax, part[part["runtime"] == runtime], look)
            style.batch_axis(ax, sorted(part["batch_size"].unique()))
            ax.set_yscale("log")
            style.plain_log(ax.yaxis)
            ax.set_title(f"{dataset}, {cell['layers'].iloc[0]}, {device}, {threads} thread{'s' * (threads > 1)}")
        row[0].set_ylabel("time per image (ms)")
    there = set(frame["runtime"])
    legend = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.line, label=name)
        for name, look in RUNTIMES.items()
        if name in there
    ]
    note = (
        f"Recipe {recipe}; uint8 images in host memory to classes there, full depth, measured in the same rounds. "
        f"Median over repeats, mean over seeds ({style.seeds_text(counts)}); bars: widest 95 % bootstrap interval of "
        "the seeds' medians. Memory, energy, file size and accuracy by runtime are in runtimes.csv."
    )
    left = [label for label in nets.order if label not in chosen]
    return style.finish(figure, TITLE, note + (f" Not drawn for room: {', '.join(left)}." if left else ""), legend)


def _draw(ax, part: pd.DataFrame, look: style.Look) -> None:
    if part.empty:
        return
    by_batch = part.groupby("batch_size")
    time, low, high = by_batch["median_ms"].mean(), by_batch["low_ms"].min(), by_batch["high_ms"].max()
    reach = [((time - low) / time.index).clip(lower=0).fillna(0), ((high - time) / time.index).clip(lower=0).fillna(0)]
    line = {"color": look.colour, "marker": look.marker, "linestyle": look.line, "ms": 4}
    ax.errorbar(time.index, time / time.index, reach, capsize=2, elinewidth=0.9, **line)
