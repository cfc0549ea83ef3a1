"""The scoreboard: recipes side by side, by data set and network, in accuracy and in what it costs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ff.summary.figures import style
from ff.summary.recipe_order import place

MOST_ROWS = 8
"""With more data sets times networks than these, each data set is shown with one network."""
MOST_RECIPES = 8
"""Of more recipes on a network, each learning rule is shown with the one that is best on validation."""


class Measure(NamedTuple):
    """A column of panels: of the table scoreboard what is drawn, with its ends, times a factor, in a unit."""

    column: str
    low: str | None
    high: str | None
    factor: float
    unit: str
    absent: str


MEASURES = (
    Measure("accuracy", "low", "high", 100, "test accuracy (%)", "no test accuracy"),
    Measure("macs_train_epoch", None, None, 1e-9, "MACs of an epoch (10⁹)", "not counted"),
    Measure(
        "seconds_train",
        "seconds_train_low",
        "seconds_train_high",
        1,
        "training time (s)",
        "not measured",
    ),
    Measure("peak_memory_mb", None, None, 1, "peak memory (MB)", "not measured"),
    Measure(
        "energy_gross_mj",
        "energy_gross_low_mj",
        "energy_gross_high_mj",
        1e-3,
        "gross energy (J)",
        "no power sensor was read",
    ),
)


@style.styled
def scoreboard(frame: pd.DataFrame) -> Figure:
    """Accuracy, MACs, time, memory and energy of each recipe, a row a data set and network, a column a measure.

    `frame`: the table scoreboard. Accuracy is a mark with its interval over seeds; costs are bars from 0.
    """
    title = "Scoreboard: what each recipe reaches, and at what cost"
    frame = frame.dropna(subset=["accuracy"]) if len(frame) else frame
    if frame.empty:
        return style.empty(title, "no finished run has a test accuracy yet")
    networks, left_out = _networks(frame)
    shown = [_recipes(frame, *network) for network in networks]
    measures = _measures(pd.concat(shown))
    looks = style.recipe_looks(pd.concat(shown)["recipe"])
    heights = [0.75 + 0.27 * len(part) for part in shown]
    figure = Figure(figsize=(2.25 * len(measures) + 1.2, sum(heights) + 1.3), layout="constrained")
    grid = figure.subplots(len(shown), len(measures), squeeze=False, height_ratios=heights)
    for (dataset, layers), part, axes in zip(networks, shown, grid, strict=True):
        for measure, ax in zip(measures, axes, strict=True):
            _panel(ax, part, measure, looks)
        axes[0].set_yticks(range(len(part)), part["recipe"])
        axes[0].tick_params(axis="y", length=0)
        # Over the row, so that a long name has room.
        axes[0].set_title(f"{dataset}, {layers}", weight="bold")
    for ax, measure in zip(grid[-1], measures, strict=True):
        ax.set_xlabel(measure.unit)
    return style.finish(figure, title, _note(pd.concat(shown), left_out))


def _networks(frame: pd.DataFrame) -> tuple[list[tuple[str, str]], int]:
    """The data sets and networks with room in the figure, and of how many there is none."""
    every = list(frame.groupby(["dataset", "layers"], sort=False))
    if len(every) <= MOST_ROWS:
        return [key for key, _ in every], 0
    best: dict[str, tuple[tuple, tuple[str, str]]] = {}
    for key, part in every:
        # Where most recipes can be held against each other, and of these networks the best on validation.
        worth = (part["recipe"].nunique(), part["val_accuracy"].mean())
        if key[0] not in best or worth > best[key[0]][0]:
            best[key[0]] = worth, key
    chosen = [key for _, key in best.values()][:MOST_ROWS]
    return chosen, len(every) - len(chosen)


def _recipes(frame: pd.DataFrame, dataset: str, layers: str) -> pd.DataFrame:
    part = frame[(frame["dataset"] == dataset) & (frame["layers"] == layers)]
    if len(part) > MOST_RECIPES:
        rules = part["rule"].fillna(part["recipe"])
        part = part.loc[part["val_accuracy"].fillna(0).groupby(rules).idxmax()]
    return part.loc[sorted(part.index, key=lambda index: place(part.at[index, "recipe"]))]


def _measures(frame: pd.DataFrame) -> list[Measure]:
    """The columns; memory is that of the device where it is known of every recipe, so that like stands beside like."""
    if frame["peak_memory_device_mb"].isna().any():
        return list(MEASURES)
    return [
        measure._replace(column="peak_memory_device_mb", unit="peak memory, device (MB)")
        if measure.column == "peak_memory_mb"
        else measure
        for measure in MEASURES
    ]


def _panel(ax: Any, part: pd.DataFrame, measure: Measure, looks: dict[str, style.Look]) -> None:
    values = measure.factor * part[measure.column].to_numpy(float)
    ax.set_ylim(len(part) - 0.4, -0.6)
    ax.set_yticks([])
    ax.grid(False, axis="y")
    if np.isnan(values).all():
        style.say(ax, measure.absent, 14)
        return
    ends = [
        np.full(len(part), np.nan) if name is None else measure.factor * part[name].to_numpy(float)
        for name in (measure.low, measure.high)
    ]
    is_share = measure.column == "accuracy"
    for y, (recipe, value, low, high) in enumerate(zip(part["recipe"], values, *ends, strict=True)):
        look = looks[recipe]
        if np.isnan(value):
            ax.text(0.02, y, "–", transform=ax.get_yaxis_transform(), va="center", fontsize=8)
            continue
        if is_share:
            ax.plot([value], [y], marker=look.marker, color=look.colour, linestyle="none", mec="white", mew=0.5)
        else:
            ax.barh([y], [value], 0.62, color=look.colour, hatch=look.hatch, edgecolor="white", linewidth=0.5)
        if not np.isnan(low):
            ax.plot([low, high], [y, y], color=look.colour if is_share else "black", lw=1.4 if is_share else 1.0)
    _numbers(ax, part, values, np.fmax(values, ends[1]), is_share)


def _numbers(ax: Any, part: pd.DataFrame, values: np.ndarray, right: np.ndarray, is_share: bool) -> None:
    """Each value beside its mark or bar, and room for it on the axis."""
    write: Callable[[float], str] = (lambda value: f"{value:.2f}") if is_share else style.two_figures
    low, high = (ax.dataLim.x0, np.nanmax(right)) if is_share else (0.0, float(np.nanmax(right)))
    width = max(high - low, 0.5 if is_share else 1e-9)
    ax.set_xlim(low - 0.08 * width if is_share else 0, high + 0.55 * width)
    ax.locator_params(axis="x", nbins=4)
    if is_share:
        ax.set_xticks([tick for tick in ax.get_xticks() if ax.get_xlim()[0] <= tick <= min(ax.get_xlim()[1], 100)])
    for y, value in enumerate(values):
        if not np.isnan(value):
            text = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
            ax.annotate(write(value), (right[y], y), **text)


def _note(frame: pd.DataFrame, left_out: int) -> str:
    readouts = ", ".join(style.unique(frame["readout"]))
    note = (
        f"Means over seeds ({style.seeds_text(frame['n_seeds'])}) of the {readouts} readout at full depth on test. "
        "Lines: 95 % interval over seeds (energy of one seed: over the parts of its run); none where one seed was "
        "measured or all agree. MACs: weight products of one epoch of the phase in which the layers learn. Time: "
        "learning alone, without loading, validation and scoring. Costs of seeds that were trained together are shared "
        "out, but for memory. Differences to the control and the runs behind each row are in scoreboard.csv."
    )
    if frame["energy_shared"].fillna(0).any():
        note += " Something else ran on the device in some runs, and its energy is in there."
    if left_out:
        note += f" Not drawn for room: {left_out} networks; scoreboard.csv has them."
    return note
