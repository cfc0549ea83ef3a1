"""Training curves: the goodness gap of each layer, and validation accuracy."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ff.summary.figures import style
from ff.summary.spread import pick

MOST_NETWORKS = 4
MOST_ROWS = 4


@style.styled
def goodness_gap(frame: pd.DataFrame) -> Figure:
    """Goodness of positives minus goodness of negatives by epoch, one line per layer, one panel per dataset and
    network.

    `frame`: the table history. Lines are means over seeds, bands reach from the smallest to the largest seed.
    """
    title = "Goodness gap during training"
    depths = [int(c.rsplit("_", 1)[1]) for c in frame.columns if c.startswith("goodness_positive_")]
    # Other phases, and other learning rules, have no goodness of positives.
    frame = frame.dropna(subset=[f"goodness_positive_{depth}" for depth in depths], how="all") if depths else frame
    if frame.empty or not depths:
        return style.empty(title, "no run of a Forward-Forward recipe has a training history yet")
    gaps = {depth: frame[f"goodness_positive_{depth}"] - frame[f"goodness_negative_{depth}"] for depth in depths}
    frame = frame.assign(**{f"gap_{depth}": gap for depth, gap in gaps.items()})
    depths = [depth for depth in sorted(depths) if frame[f"gap_{depth}"].notna().any()]
    nets = style.networks(frame["layers"])
    chosen = pick(nets.order, MOST_NETWORKS)
    datasets, recipes = style.unique(frame["dataset"]), list(style.recipe_looks(frame["recipe"]))
    if len(datasets) * len(recipes) > MOST_ROWS:
        recipes = recipes[:1]
    rows = [(dataset, recipe) for dataset in datasets for recipe in recipes]
    figure, grid = style.panels(len(rows), len(chosen), width=2.6, height=2.0, sharex=True, sharey="row")
    look_of = style.looks(depths)
    counts = []
    for (dataset, recipe), row in zip(rows, grid, strict=True):
        for label, ax in zip(chosen, row, strict=True):
            names = [name for name, text in nets.label.items() if text == label]
            cell = frame[(frame["dataset"] == dataset) & (frame["recipe"] == recipe) & frame["layers"].isin(names)]
            if cell.empty:
                style.say(ax, "no finished run")
                continue
            counts.append(cell["seed"].nunique())
            for depth, look in look_of.items():
                _band(ax, cell.groupby("epoch")[f"gap_{depth}"], look)
            ax.axhline(0, color=style.GREY, lw=0.8)
            ax.set_title(f"{dataset}, {recipe}, {label}")
        row[0].set_ylabel("goodness gap\n(mean square activity)")
    for ax in grid[-1]:
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    legend = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.line, label=f"layer {depth}")
        for depth, look in look_of.items()
    ]
    note = (
        "Gap: goodness of positive minus goodness of negative samples, above 0 where a layer tells them "
        f"apart. Lines: mean over seeds ({style.seeds_text(counts)}); bands: smallest to largest seed."
        + style.left_out(nets.order, chosen, "history")
    )
    return style.finish(figure, title, note, legend)


@style.styled
def validation_accuracy(frame: pd.DataFrame) -> Figure:
    """Validation accuracy by epoch over all phases, one line per recipe, one panel per dataset and network.

    `frame`: the table history. A dotted line marks where a phase follows another.
    """
    title = "Validation accuracy during training"
    frame = frame.dropna(subset=["validation_accuracy"]) if len(frame) else frame
    if frame.empty:
        return style.empty(title, "no run has a training history with validation accuracy yet")
    keys = ["dataset", "layers", "recipe", "seed"]
    lasts = frame.groupby([*keys, "phase"], sort=False)["epoch"].max()
    before = (lasts.groupby(keys, sort=False).cumsum() - lasts).rename("before").reset_index()
    frame = frame.merge(before, on=[*keys, "phase"])
    frame["at"] = frame["epoch"] + frame["before"]
    nets = style.networks(frame["layers"])
    chosen, datasets = pick(nets.order, MOST_NETWORKS), style.unique(frame["dataset"])
    recipes = style.recipe_looks(frame["recipe"])
    figure, grid = style.panels(len(datasets), len(chosen), width=2.6, height=2.0, sharex=True, sharey="row")
    counts = []
    for dataset, row in zip(datasets, grid, strict=True):
        for label, ax in zip(chosen, row, strict=True):
            names = [name for name, text in nets.label.items() if text == label]
            panel = frame[(frame["dataset"] == dataset) & frame["layers"].isin(names)]
            if panel.empty:
                style.say(ax, "no finished run")
                continue
            for recipe, look in recipes.items():
                cell = panel[panel["recipe"] == recipe]
                if cell.empty:
                    continue
                counts.append(cell["seed"].nunique())
                # Each phase is a line of its own: they are scored by different readouts.
                for _, part in cell.groupby("phase"):
                    _band(ax, (100 * part["validation_accuracy"]).groupby(part["at"]), look)
            for change in panel.loc[panel["before"] > 0, "before"].unique():
                ax.axvline(change + 0.5, color=style.GREY, lw=0.9, linestyle=":")
            ax.set_title(f"{dataset}, {label}")
        row[0].set_ylabel("validation accuracy (%)")
    for ax in grid[-1]:
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    legend = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.line, label=recipe)
        for recipe, look in recipes.items()
    ]
    note = (
        "Left of the dotted line the layers learn and the goodness readout is scored; right of it the heads "
        "learn and are scored; backprop has one phase. An epoch is scored on a part of the validation split, the last "
        "one of a phase on all of it. Lines: mean over seeds "
        f"({style.seeds_text(counts)}); bands: smallest to largest seed."
        + style.left_out(nets.order, chosen, "history")
    )
    return style.finish(figure, title, note, legend)


def _band(ax, groups, look: style.Look) -> None:
    mean, low, high = groups.mean().dropna(), groups.min().dropna(), groups.max().dropna()
    every = max(1, len(mean) // 8)
    ax.plot(
        mean.index,
        mean,
        color=look.colour,
        linestyle=look.line,
        marker=look.marker,
        markevery=every,
        markersize=4,
    )
    ax.fill_between(low.index, low, high, color=look.colour, alpha=0.18, lw=0)
