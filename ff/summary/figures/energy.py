"""Energy of training: per rail and phase, and against accuracy."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ff import statistics
from ff.learn.rules import RULES
from ff.phases import START
from ff.summary.figures import style
from ff.summary.spread import pick

LEARNING = (style.Look(style.BLUE, "o", "-", ""), style.Look(style.ORANGE, "o", "-", "///"))
"""Looks of the first and the second phase of a learning rule."""
PHASES = {
    "load": style.Look("#bbbbbb", "o", "-", ""),
    **{phase: look for rule in RULES.values() for phase, look in zip(rule.PHASES, LEARNING, strict=False)},
    "validation": style.Look(style.SKY, "o", "-", "xxx"),
    "evaluation": style.Look(style.GREEN, "o", "-", "..."),
    "write": style.Look(style.PURPLE, "o", "-", "---"),
}
RUN = ("dataset", "layers", "recipe", "seed")
NO_SENSOR = "no power sensor could be read on this machine, so no energy was measured"
MOST_NETWORKS = 4


@style.styled
def rails(frame: pd.DataFrame, missing: pd.DataFrame) -> Figure:
    """Gross energy of training per rail, stacked by phase, one column per network (at most four), one
    row per dataset.

    `frame`: the table energy; `missing`: the table missing, for the reason where there is no sensor. A rail of a run
    counts where all phases of the run were measured on it.
    """
    title = "Energy of training by rail and phase"
    frame = _whole_runs(frame) if len(frame) else frame
    if frame.empty:
        return style.empty(title, why_no_energy(missing))
    recipe = style.main_recipe(frame["recipe"])
    frame = frame[frame["recipe"] == recipe]
    nets, datasets = style.networks(frame["layers"]), style.unique(frame["dataset"])
    chosen, names = pick(nets.order, MOST_NETWORKS), style.unique(frame["rail"])
    phases = [phase for phase in PHASES if phase in set(frame["phase"])]
    extra = [phase for phase in style.unique(frame["phase"]) if phase not in PHASES]
    looks = {**{phase: PHASES[phase] for phase in phases}, **style.looks(extra)}
    wide = max(2.4, 0.42 * len(names) + 1.2)
    figure, grid = style.panels(len(datasets), len(chosen), width=wide, height=2.5, sharey="row")
    counts, methods = [], []
    for dataset, row in zip(datasets, grid, strict=True):
        for label, ax in zip(chosen, row, strict=True):
            layers = [name for name, text in nets.label.items() if text == label]
            cell = frame[(frame["dataset"] == dataset) & frame["layers"].isin(layers)]
            if cell.empty:
                style.say(ax, "no energy was measured for this network")
                continue
            by_rail = cell.pivot_table(index="rail", columns="phase", values="gross_mj", aggfunc="sum", sort=False)
            seeds = cell.groupby("rail")["seed"].nunique()
            bottom = np.zeros(len(names))
            for phase, look in looks.items():
                height = np.array([_joule(by_rail, rail, phase, seeds) for rail in names])
                style_of = {"color": look.colour, "hatch": look.hatch, "edgecolor": "white", "linewidth": 0.5}
                ax.bar(range(len(names)), height, bottom=bottom, width=0.7, **style_of)
                bottom += height
            for x, rail in enumerate(names):
                totals = cell[cell["rail"] == rail].groupby("seed")["gross_mj"].sum() / 1000
                interval = statistics.mean_interval(totals)
                counts.append(interval.n)
                if interval.estimate is not None and interval.reach and sum(interval.reach) > 0:
                    methods.append(interval.method)
                    below, above = interval.reach
                    error = [[min(below, interval.estimate)], [above]]
                    ax.errorbar(x, interval.estimate, error, color="black", capsize=3, lw=1)
            marked = set(cell.loc[cell["shared"] == 1, "rail"])
            style.category_axis(ax, [f"{rail}*" if rail in marked else str(rail) for rail in names], None)
            ax.set_title(f"{dataset}, {label}")
        row[0].set_ylabel("gross energy of a run (J)")
    for ax in grid[-1]:
        ax.set_xlabel("power rail")
    legend = [
        Patch(facecolor=look.colour, hatch=look.hatch, edgecolor="white", label=phase) for phase, look in looks.items()
    ]
    bars = (
        f"bars: 95 % interval over seeds ({', '.join(style.unique(methods))})"
        if methods
        else "no interval, as one seed has none or all agree"
    )
    note = (
        f"Recipe {recipe}; mean over seeds ({style.seeds_text(counts)}); {bars}. Rails overlap where one "
        "feeds another: do not add them up. Energy net of idle is in energy.csv."
    )
    note += _said_of_shared(frame, "*")
    note += style.left_out(nets.order, chosen, "energy")
    return style.finish(figure, title, note, legend)


def _whole_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of training's rails, those of runs left out of which a phase was not measured: the rest would pass for
    the whole. The start of the program is no phase of the run."""
    frame = frame[(frame["job"] == "train") & (frame["is_total"] == 0) & (frame["phase"] != START)]
    measured = frame["gross_mj"].notna().groupby([frame[key] for key in (*RUN, "rail")]).transform("all")
    return frame[measured]


def _said_of_shared(frame: pd.DataFrame, mark: str) -> str:
    """A sentence on the runs that shared their device; nothing where none did."""
    runs = frame.groupby(list(RUN))["shared"].max()
    count = int((runs == 1).sum())
    return f" {mark} In {count} of {len(runs)} runs something else ran on the device: its energy is in there." * (
        count > 0
    )


def _joule(by_rail: pd.DataFrame, rail: str, phase: str, seeds: pd.Series) -> float:
    if rail not in by_rail.index or phase not in by_rail.columns:
        return 0.0
    value = by_rail.loc[rail, phase]
    return 0.0 if np.isnan(value) else float(value) / 1000 / seeds[rail]


@style.styled
def energy_accuracy(training: pd.DataFrame, accuracy: pd.DataFrame, missing: pd.DataFrame) -> Figure:
    """Test accuracy against the energy of training, one mark per network and recipe, one panel per
    dataset.

    `training`, `accuracy`: the tables of that name. Small hollow marks are seeds, filled ones their means; a cross is a
    seed whose device was shared.
    """
    title = "Test accuracy against energy of training"
    keys = list(RUN)
    known = training.dropna(subset=["energy_gross_mj"]) if len(training) else training
    if known.empty:
        return style.empty(title, why_no_energy(missing))
    last = accuracy[(accuracy["is_last"] == 1) & (accuracy["split"] == "test") & (accuracy["readout"] == "head")]
    frame = known.merge(last[[*keys, "accuracy"]], on=keys).dropna(subset=["accuracy"])
    if frame.empty:
        return style.empty(title, "no run has both a measured energy and a test accuracy")
    frame = frame.assign(joule=frame["energy_gross_mj"] / 1000, percent=100 * frame["accuracy"])
    datasets, recipes = style.unique(frame["dataset"]), style.recipe_looks(frame["recipe"])
    nets = style.networks(frame["layers"])
    figure, axes = style.wrapped(len(datasets), 2, width=4.6, height=3.0)
    many = len(nets.order) > style.MOST_LABELS
    counts = []
    for dataset, ax in zip(datasets, axes, strict=True):
        for recipe, look in recipes.items():
            part = frame[(frame["dataset"] == dataset) & (frame["recipe"] == recipe)]
            means = part.groupby("layers", sort=False)[["joule", "percent"]].mean()
            means = means.loc[sorted(means.index, key=lambda name: nets.order.index(nets.label[name]))]
            counts += list(part.groupby("layers")["seed"].nunique())
            mark = {"color": look.colour, "marker": look.marker, "linestyle": "none"}
            if not many:
                alone = part["shared"] != 1
                ax.plot(part["joule"][alone], part["percent"][alone], **mark, mfc="none", ms=3, mew=0.6)
                ax.plot(part["joule"][~alone], part["percent"][~alone], **{**mark, "marker": "x"}, ms=4, mew=0.8)
            ax.plot(
                means["joule"],
                means["percent"],
                **{**mark, "linestyle": look.line},
                lw=0.9,
                ms=4 if many else 6,
                mec="white",
            )
            if recipe == next(iter(recipes)):
                _label_ends(ax, means, nets)
        spread = frame.loc[frame["dataset"] == dataset, "joule"]
        if spread.max() > 5 * spread.min() > 0:
            ax.set_xscale("log")
            style.plain_log(ax.xaxis)
        ax.margins(x=0.15, y=0.15)
        ax.set(title=dataset, xlabel="gross energy of a training run (J)", ylabel="test accuracy (%)")
    legend = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.line, lw=0.9, label=recipe)
        for recipe, look in recipes.items()
    ]
    single = "single seeds are in training.csv" if many else "hollow: single seeds (no interval)"
    note = (
        f"Filled: mean over seeds ({style.seeds_text(counts)}); {single}; head "
        "readout; lines join networks of one recipe in order of size, the numbers are the smallest and the "
        f"largest: {nets.axis}."
    )
    note += _said_of_shared(frame, "" if many else "Crosses:")
    return style.finish(figure, title, note, legend)


def _label_ends(ax, means: pd.DataFrame, nets: style.Networks) -> None:
    ends = means.iloc[[0, -1]] if len(means) > 1 else means
    for number, (layers, row) in enumerate(ends.iterrows()):
        offset = {"xytext": (0, -11), "textcoords": "offset points", "ha": "right" if number else "left"}
        ax.annotate(nets.label[layers], (row["joule"], row["percent"]), fontsize=7, **offset)


def why_no_energy(missing: pd.DataFrame) -> str:
    """The reason from the table missing (which sources were tried), else the general one."""
    rows = missing[missing["file"] == "hardware.json"]["reason"].dropna() if len(missing) else []
    tried = [row.partition("(")[2].removesuffix(")") for row in rows]
    return next((f"{NO_SENSOR} ({text})" for text in tried if text), NO_SENSOR)
