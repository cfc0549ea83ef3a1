"""Distributions: goodness of positive, negative and neutral inputs; confidence of right and wrong answers."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ff.summary.figures import style

GROUPS = {
    "positive": style.Look(style.BLUE, "o", "-", ""),
    "negative": style.Look(style.VERMILION, "^", "--", "///"),
    "neutral": style.Look(style.BLACK, "s", ":", ""),
    "right": style.Look(style.BLUE, "o", "-", ""),
    "wrong": style.Look(style.VERMILION, "^", "--", "///"),
}
AXIS = {
    "goodness": "goodness (mean square activity)",
    "confidence_probability": "largest probability (0 to 1)",
    "confidence_logit": "largest logit (no unit)",
}
TITLE = {
    "goodness": "Goodness of positive, negative and neutral inputs",
    "confidence_probability": "Confidence (probability) of right and wrong answers",
    "confidence_logit": "Confidence (logit) of right and wrong answers",
}


def goodness(frame: pd.DataFrame) -> Figure:
    """Goodness per layer; see `distribution` for the frame."""
    return distribution(frame, "goodness")


def confidence_probability(frame: pd.DataFrame) -> Figure:
    """Largest head probability per layer, right beside wrong answers."""
    return distribution(frame, "confidence_probability")


def confidence_logit(frame: pd.DataFrame) -> Figure:
    """Largest head logit per layer, right beside wrong answers."""
    return distribution(frame, "confidence_logit")


@style.styled
def distribution(frame: pd.DataFrame, kind: str) -> Figure:
    """Histograms, one row per layer, one column per dataset; each group's bars sum to 100 %.

    `frame`: dataset, layers, recipe, seed and the columns of distributions.csv, one run a dataset, one split.
    """
    frame = frame[frame["kind"] == kind] if len(frame) else frame
    if frame.empty:
        what = "of a Forward-Forward recipe " if kind == "goodness" else ""
        return style.empty(TITLE[kind], f"no run {what}has been evaluated yet: distributions.csv is missing")
    datasets = style.unique(frame["dataset"])
    depths = sorted(int(depth) for depth in frame["depth"].unique())
    figure, grid = style.panels(len(depths), len(datasets), width=3.0, height=1.7)
    present = [group for group in GROUPS if group in set(frame["group"])]
    for depth, row in zip(depths, grid, strict=True):
        for dataset, ax in zip(datasets, row, strict=True):
            cell = frame[(frame["dataset"] == dataset) & (frame["depth"] == depth)]
            if cell.empty:
                style.say(ax, f"this network has no layer {depth}")
                continue
            low, high = _range(cell)
            merge = _merge(cell, low, high)
            for group in present:
                _steps(ax, cell[cell["group"] == group].sort_values("bin_low"), GROUPS[group], merge)
            ax.set_xlim(low, high)
            ax.set_ylim(bottom=0)
            ax.set_xlabel(AXIS[kind])
            ax.set_ylabel("samples (%)")
            first = cell.iloc[0]
            title = f"layer {depth}" if depth != depths[0] else f"{dataset}, {first['layers']}\nlayer {depth}"
            ax.set_title(title)
    legend = [
        Patch(
            facecolor=style.matte(GROUPS[group].colour),
            edgecolor=GROUPS[group].colour,
            linestyle=GROUPS[group].line,
            hatch=GROUPS[group].hatch,
            label=group,
        )
        for group in present
    ]
    first = frame.iloc[0]
    corner = frame[(frame["depth"] == depths[0]) & (frame["dataset"] == datasets[0])]
    sizes = corner.groupby("group", sort=False)["count"].sum()
    numbers = ", ".join(f"{int(sizes[group])} {group}" for group in present if group in sizes)
    runs = ", ".join(
        f"{name} seed {seed}" for name, seed in frame.groupby("dataset", sort=False)["seed"].first().items()
    )
    note = (
        f"Split {first['split']}, recipe {first['recipe']}, {runs}; n = {numbers} samples in the first "
        "panel; each group adds up to 100 %, no interval."
    )
    return style.finish(figure, TITLE[kind], note, legend)


def _steps(ax, bars: pd.DataFrame, look: style.Look, merge: int) -> None:
    total = bars["count"].sum()
    if not total:
        return
    starts = np.arange(0, len(bars), merge)
    edges = np.append(bars["bin_low"].to_numpy()[starts], bars["bin_high"].iloc[-1])
    share = 100 * np.add.reduceat(bars["count"].to_numpy(), starts) / total
    matte = style.matte(look.colour)
    ax.stairs(share, edges, fill=True, facecolor=matte, edgecolor=look.colour, lw=0, hatch=look.hatch)
    ax.stairs(share, edges, color=look.colour, linestyle=look.line, lw=1.3)


def _merge(cell: pd.DataFrame, low: float, high: float) -> int:
    """How many neighbouring bins to draw as one: about as many bars in sight as the root of the sample count."""
    sizes = cell.groupby("group")["count"].sum()
    in_sight = cell[(cell["bin_high"] > low) & (cell["bin_low"] < high)].groupby("group").size().max()
    wanted = min(60.0, max(12.0, float(np.sqrt(sizes[sizes > 0].median()))))
    return max(1, round(in_sight / wanted))


def _range(cell: pd.DataFrame) -> tuple[float, float]:
    """From the first to the last bin that holds at least 0.1 % of its group, so that a far tail hides nothing else."""
    total = cell.groupby("group")["count"].transform("sum")
    full = cell[cell["count"] >= 0.001 * total.where(total > 0)]
    full = full if len(full) else cell
    low, high = full["bin_low"].min(), full["bin_high"].max()
    pad = 0.02 * (high - low)
    return low - pad, high + pad
