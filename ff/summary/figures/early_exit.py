"""Early exit: what accuracy is kept for which share of the work and of the time, beside network cuts."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ff.summary.figures import style
from ff.summary.spread import pick

RULES = {
    "logit": style.Look(style.BLUE, "o", "-", ""),
    "probability": style.Look(style.VERMILION, "^", "--", ""),
}
CUT = style.Look(style.BLACK, "s", "none", "")
COSTS = (
    ("macs_saved_share_vs_full", "MACs (% of full depth)"),
    ("time_saved_share_vs_full_batch_1", "time at batch 1 (% of full depth)"),
    ("time_saved_share_vs_full_batch_512", "time at batch 512 (% of full depth)"),
)
MOST_NETWORKS = 3
MOST_COST = 200


@style.styled
def trade_off(frame: pd.DataFrame) -> Figure:
    """Test accuracy against MACs and against measured time, k swept, one row per dataset and network.

    `frame`: the table early_exit. Points are means over seeds at one k; bands reach from the smallest to
    the largest seed; rings mark k = 1, the published choice. Squares are the network cut after layer 1..L;
    the line goes through the reference cut (or cuts, where seeds differ): left of it exits save something.
    """
    title = "Early exit and network cuts: accuracy against work and against time"
    frame = frame[frame["split"] == "test"] if len(frame) else frame
    frame = frame.dropna(subset=["accuracy", "macs_saved_share_vs_full"]) if len(frame) else frame
    if frame.empty:
        return style.empty(title, "no run has an early-exit evaluation yet: early_exit.csv is missing")
    recipe = style.main_recipe(frame["recipe"])
    frame = frame[frame["recipe"] == recipe]
    nets, datasets = style.networks(frame["layers"]), style.unique(frame["dataset"])
    # One layer leaves nothing to exit from; such a network would be a single point.
    deep = [label for label in nets.order if any(n.count("-") > 1 for n, t in nets.label.items() if t == label)]
    chosen = pick(deep or nets.order, MOST_NETWORKS if len(datasets) < 3 else 1)
    rows = [(dataset, label) for dataset in datasets for label in chosen]
    figure, grid = style.panels(len(rows), len(COSTS), width=3.1, height=2.1, sharey="row")
    counts, beyond = [], False
    for (dataset, label), row in zip(rows, grid, strict=True):
        names = [name for name, text in nets.label.items() if text == label]
        cell = frame[(frame["dataset"] == dataset) & frame["layers"].isin(names)]
        counts.append(cell["seed"].nunique())
        for (column, text), ax in zip(COSTS, row, strict=True):
            if cell.empty or cell[column].isna().all():
                style.say(ax, "no finished run" if cell.empty else "time was not measured for this run")
                continue
            for rule, look in RULES.items():
                part = cell[cell["rule"] == rule].dropna(subset=[column])
                if part.empty:
                    continue
                by_k = part.groupby("k")
                # The median over seeds: a time that another process disturbed would pull a mean anywhere.
                cost = 100 * (1 - by_k[column].median())
                accuracy = 100 * by_k["accuracy"].mean()
                ax.plot(cost, accuracy, color=look.colour, marker=look.marker, linestyle=look.line, markersize=3.5)
                low, high = 100 * by_k["accuracy"].min(), 100 * by_k["accuracy"].max()
                order = cost.sort_values().index
                ax.fill_between(cost[order], low[order], high[order], color=look.colour, alpha=0.15, lw=0)
                if 1.0 in cost.index:
                    ring = {"mfc": "none", "mec": look.colour, "mew": 1.3, "linestyle": "none"}
                    ax.plot([cost[1.0]], [accuracy[1.0]], marker="o", markersize=10, **ring)
            _draw_cuts(ax, cell[cell["rule"] == "static"], column)
            if ax.dataLim.xmax > MOST_COST:
                ax.set_xlim(max(0, ax.dataLim.xmin - 5), MOST_COST)
                beyond = True
            ax.margins(y=0.12)
            ax.axvline(100, color=style.GREY, lw=0.8, linestyle=":")
            ax.set_title(f"{dataset}, {cell['layers'].iloc[0]}")
            ax.set_xlabel(text)
            ax.xaxis.set_major_locator(MaxNLocator(nbins=4))
        row[0].set_ylabel("test accuracy (%)")
    legend = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.line, label=f"rule on {rule}")
        for rule, look in RULES.items()
        if rule in set(frame["rule"])
    ]
    legend.append(Line2D([], [], marker="o", mfc="none", mec=style.BLACK, linestyle="none", ms=9, label="k = 1"))
    dark: dict[str, Any] = {"color": CUT.colour, "lw": 1}
    legend.append(Line2D([], [], marker=CUT.marker, linestyle="none", label="network cut after layer", **dark))
    legend.append(Line2D([], [], linestyle="--", label="cheapest cut as accurate on validation", **dark))
    ks = frame["k"]
    note = (
        f"Recipe {recipe}; each mark is one k from {ks.min():g} to {ks.max():g}, thresholds from validation; "
        f"cost: median, accuracy: mean over seeds ({style.seeds_text(counts)}), bands: smallest to largest "
        "seed. Left is cheaper; the dotted line is full depth, the dashed one the cheapest network cut that is as "
        "accurate as full depth on validation (within 0.1 points): an exit to the right of it saves nothing. Samples "
        "that left were really dropped from the batch; every answer was timed alone."
    )
    if beyond:
        note += f" Points beyond {MOST_COST} % lie outside the panels."
    note += style.left_out(nets.order, chosen, "early_exit")
    return style.finish(figure, title, note, legend)


def _draw_cuts(ax, cuts: pd.DataFrame, column: str) -> None:
    """A square with its depth for each network cut, and a line at each one that serves as the reference."""
    for depth, part in cuts.dropna(subset=[column]).groupby("depth"):
        cost, accuracy = 100 * (1 - part[column].median()), 100 * part["accuracy"]
        middle = accuracy.mean()
        reach = [[middle - accuracy.min()], [accuracy.max() - middle]]
        ax.errorbar([cost], [middle], yerr=reach, color=CUT.colour, marker=CUT.marker, markersize=5, lw=1, zorder=4)
        ax.annotate(f"{depth:.0f}", (cost, middle), (5, 4), textcoords="offset points", fontsize=8, weight="bold")
        if part["is_reference_cut"].any():
            ax.axvline(cost, color=CUT.colour, lw=1, linestyle="--", zorder=1)
