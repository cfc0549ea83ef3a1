"""Accuracy figures: by network and recipe, by depth, and the confusion matrix."""

import numpy as np
import pandas as pd
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ff import statistics
from ff.summary.figures import style
from ff.summary.spread import pick


@style.styled
def accuracy(frame: pd.DataFrame) -> Figure:
    """Test accuracy of the heads at full depth by network, one colour and marker per recipe, one panel per
    dataset.

    `frame`: the table accuracy. Small hollow marks are seeds, where there are few networks; the filled mark is their
    mean with its interval over seeds (bar with ends) and over seeds and images (longer, thin line).
    """
    title = "Test accuracy by network and recipe (head readout)"
    frame = frame[(frame["is_last"] == 1) & (frame["split"] == "test") & (frame["readout"] == "head")]
    frame = frame.dropna(subset=["accuracy"])
    if frame.empty:
        return style.empty(title, "no finished run has a test accuracy of the head readout yet")
    datasets, recipes = style.unique(frame["dataset"]), style.recipe_looks(frame["recipe"])
    nets = style.networks(frame["layers"])
    # Two or three recipes stand side by side in a third of the distance between networks, more in up to 0.7.
    step = min(0.26, 0.75 / len(recipes))
    wide = max(3.6, 0.25 * len(nets.order) * len(recipes) + 1.0)
    # With many networks a dataset has the whole width, marks are small, and seeds are left to their interval.
    many = len(nets.order) > style.MOST_LABELS
    columns, most, size = (1, 10.4, 3.0) if many else (2, 5.2, 5.5)
    figure, axes = style.wrapped(len(datasets), columns, width=min(wide, most), height=2.8)
    counts, methods = [], []
    for dataset, ax in zip(datasets, axes, strict=True):
        for number, (recipe, look) in enumerate(recipes.items()):
            shift = (number - (len(recipes) - 1) / 2) * step
            cells = frame[(frame["dataset"] == dataset) & (frame["recipe"] == recipe)]
            for layers, cell in cells.groupby("layers", sort=False):
                x = nets.order.index(nets.label[layers]) + shift
                mean = 100 * cell["accuracy"].mean()
                interval = statistics.share_interval(cell["accuracy"])
                total = statistics.share_total_interval(cell["accuracy"], cell["n"].min())
                counts.append(interval.n)
                methods += [interval.method, total.method]
                seeds = {"marker": look.marker, "color": look.colour, "linestyle": "none"}
                if total.low is not None and total.high is not None:
                    ax.vlines(x, 100 * total.low, 100 * total.high, color=look.colour, lw=0.6)
                if interval.reach is not None and many:
                    below, above = interval.reach
                    ax.vlines(x, mean - 100 * below, mean + 100 * above, color=look.colour, lw=1.4)
                elif interval.reach is not None:
                    values = 100 * cell["accuracy"]
                    ax.plot([x - step * 0.35] * interval.n, values, **seeds, mfc="none", ms=3, mew=0.7)
                    bar = 100 * np.maximum(np.reshape(interval.reach, (2, 1)), 0)
                    ax.errorbar(x, mean, bar, color=look.colour, capsize=2.5, lw=1.4)
                ax.plot([x], [mean], **seeds, ms=size, mec="white", mew=0 if many else 0.5)
        low, high = ax.dataLim.intervaly
        low, high = low - 0.06 * (high - low), high + 0.06 * (high - low)
        if high - low < 2:
            # At least two points high, so that a single value or close seeds do not look like a cliff.
            low, high = (low + high) / 2 - 1, (low + high) / 2 + 1
        ax.set_ylim(max(low, 0), min(high, 100))
        ax.set(title=dataset, ylabel="test accuracy (%)")
        style.category_axis(ax, nets.order, nets.axis)
    legend = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle="none", label=recipe)
        for recipe, look in recipes.items()
    ]
    single = "single seeds are in accuracy.csv" if many else "hollow: single seeds"
    note = f"Filled: mean, {style.seeds_text(counts)}; {single}. {_bars_text(methods)}"
    return style.finish(figure, title, note, legend)


def _bars_text(methods: list[str]) -> str:
    """What bars and thin lines are, of the methods of the intervals drawn."""
    bars = "Bars: none, as one seed has no interval over seeds"
    if statistics.METHOD_EQUAL in methods:
        bars = "Bars: none, as all seeds agree"
    if statistics.METHOD_SEEDS in methods:
        bars = f"Bars: 95 % interval over seeds ({statistics.METHOD_SEEDS})"
    thin = [name for name in (statistics.METHOD_TOTAL, statistics.METHOD_IMAGES) if name in methods]
    return f"{bars}; thin lines: 95 % interval over seeds and images ({', '.join(thin)})." if thin else f"{bars}."


@style.styled
def accuracy_depth(frame: pd.DataFrame) -> Figure:
    """Accuracy of both readouts when only layers 1..k answer, one panel per dataset, main recipe, largest
    network."""
    title = "Test accuracy by depth"
    frame = frame[frame["split"] == "test"].dropna(subset=["accuracy"])
    if frame.empty:
        return style.empty(title, "no finished run has a test accuracy yet")
    recipe = style.main_recipe(frame["recipe"])
    frame = frame[frame["recipe"] == recipe]
    nets = style.networks(frame["layers"])
    chosen = pick(nets.order, 4)
    datasets = style.unique(frame["dataset"])
    figure, grid = style.panels(len(datasets), len(chosen), width=2.6, height=2.1, sharey="row")
    readouts = style.looks(["head", "goodness"])
    counts = []
    for dataset, row in zip(datasets, grid, strict=True):
        for label, ax in zip(chosen, row, strict=True):
            names = [name for name, text in nets.label.items() if text == label]
            cell = frame[(frame["dataset"] == dataset) & frame["layers"].isin(names)]
            for readout, look in readouts.items():
                part = cell[cell["readout"] == readout]
                if part.empty:
                    continue
                by_depth = part.groupby("depth")["accuracy"]
                mean, low, high = 100 * by_depth.mean(), 100 * by_depth.min(), 100 * by_depth.max()
                counts += list(by_depth.count())
                ax.plot(mean.index, mean, color=look.colour, marker=look.marker, linestyle=look.line)
                ax.fill_between(mean.index, low, high, color=look.colour, alpha=0.18, lw=0)
            if cell.empty:
                style.say(ax, "no finished run")
                continue
            ax.set_xticks(range(1, int(cell["depth"].max()) + 1))
            ax.set_title(f"{dataset}, {label}")
            ax.set_xlabel("layers used")
        row[0].set_ylabel("test accuracy (%)")
    legend = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.line, label=f"{readout} readout")
        for readout, look in readouts.items()
    ]
    seeds = style.seeds_text(counts)
    note = f"Recipe {recipe}; lines: mean over seeds ({seeds}); bands: smallest to largest seed."
    note += style.left_out(nets.order, chosen, "accuracy")
    return style.finish(figure, title, note, legend)


@style.styled
def confusion(frame: pd.DataFrame) -> Figure:
    """Confusion matrix in per cent of each true class, one panel per dataset.

    `frame`: dataset, layers, recipe, seeds, readout, true, predicted (class names), count (summed over seeds).
    """
    title = "Confusion on test"
    if frame.empty:
        return style.empty(title, "no run has been evaluated yet: evaluation.json is missing")
    datasets = style.unique(frame["dataset"])
    figure, axes = style.wrapped(len(datasets), 2, width=4.6, height=3.9, minimum=5.6)
    norm = PowerNorm(0.4, vmin=0, vmax=100)
    for dataset, ax in zip(datasets, axes, strict=True):
        cell = frame[frame["dataset"] == dataset]
        classes = style.unique(cell["true"])
        table = cell.pivot_table(index="true", columns="predicted", values="count", aggfunc="sum", sort=False)
        table = table.reindex(index=classes, columns=classes).fillna(0)
        sums = table.sum(axis=1)
        share = (100 * table.div(sums.where(sums > 0), axis=0)).to_numpy()
        image = ax.imshow(share, cmap="cividis", norm=norm, aspect="auto")
        for i, j in np.ndindex(share.shape):
            value = share[i, j]
            if np.isnan(value) or value < 0.05:
                continue
            text = f"{value:.1f}" if value < 10 or value > 99 else f"{value:.0f}"
            colour = style.cell_text_colour(image.cmap(norm(value)))
            ax.text(j, i, text.replace("100.0", "100"), ha="center", va="center", fontsize=6.5, color=colour)
        turn = max(len(str(name)) for name in classes) > 2
        style.category_axis(ax, [str(name) for name in classes], "predicted class", turn)
        ax.set_xlim(-0.5, len(classes) - 0.5)
        ax.set_yticks(range(len(classes)), [str(name) for name in classes])
        ax.set_ylabel("true class")
        ax.grid(False)
        first = cell.iloc[0]
        ax.set_title(f"{dataset}, {first['layers']}, {first['recipe']}")
    figure.colorbar(image, ax=axes, label="share of the true class (%)", shrink=0.7, ticks=[0, 1, 5, 10, 25, 50, 100])
    images = frame.groupby("dataset")["count"].sum()
    seeds = style.seeds_text(frame["seeds"])
    note = (
        f"{str(frame['readout'].iloc[0]).capitalize()} readout at full depth; counts summed over seeds "
        f"({seeds}; n = {', '.join(f'{int(n)} answers for {name}' for name, n in images.items())}); cells "
        "below 0.05 % are left empty; the colour scale is stretched at its lower end."
    )
    return style.finish(figure, title, note)
