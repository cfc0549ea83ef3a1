"""One look for all figures: colours, markers, sizes, labels, legends, notes, empty figures, saving.

Readable in grey and for colour-blind eyes: the Okabe-Ito colours (Okabe & Ito 2008, jfly.uni-koeln.de/color) are never
the only difference - each comes with its own marker, line style and hatch - and heat maps use cividis, whose lightness
rises steadily, with the number written in each cell.

Figures are made without pyplot: no global state, no display, and a shorter import. The style is applied in a
context, so that importing this package changes nothing for a user's own plots.
"""

import functools
import io
import textwrap
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import matplotlib
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator
from matplotlib.typing import LineStyleType

from ff.files import write_bytes
from ff.learn.recipes import RECIPES
from ff.summary.recipe_order import is_control, place
from ff.summary.spread import pick

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, BROWN = "#777777", "#8B4513"

RC: dict[Any, Any] = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "hatch.linewidth": 0.6,
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "svg.hashsalt": "ff",
    "svg.fonttype": "path",
}


MOST_NAMES = 8
"""More networks than these are counted in a note, not named."""
MOST_LABELS = 30
"""A category axis with more labels than these shows some of them, evenly spread."""


class Look(NamedTuple):
    """How one kind of thing is drawn everywhere."""

    colour: str
    marker: str
    line: LineStyleType
    hatch: str


_LOOKS = (
    Look(BLUE, "o", "-", ""),
    Look(ORANGE, "^", "--", "///"),
    Look(GREEN, "D", "-.", "\\\\\\"),
    Look(PURPLE, "v", (0, (5, 1, 1, 1, 1, 1)), "xxx"),
    Look(VERMILION, "P", (0, (3, 1)), "---"),
    Look(SKY, "X", (0, (1, 1)), "+++"),
    Look(YELLOW, "*", (0, (8, 2)), "ooo"),
    Look(BROWN, "h", (0, (3, 1, 1, 1)), "**"),
    Look(BLACK, "s", ":", "..."),
)
_IN_ORDER = sorted(RECIPES, key=place)
RECIPE_LOOKS = dict(zip([name for name in _IN_ORDER if not is_control(name)], _LOOKS[:-1], strict=False))
# Controls are black in every figure, however many rules there are.
RECIPE_LOOKS |= {name: _LOOKS[-1] for name in _IN_ORDER if is_control(name)}


Name = TypeVar("Name", bound=Hashable)


def looks(names: Iterable[Name], fixed: Mapping[Name, Look] | None = None) -> dict[Name, Look]:
    """A look for each name, in order: the fixed ones where they exist, else the next ones that are free."""
    fixed = fixed or {}
    names = list(names)
    free = [look for look in _LOOKS if look not in [fixed[name] for name in names if name in fixed]] or list(_LOOKS)
    others = [name for name in names if name not in fixed]
    given = {name: free[index % len(free)] for index, name in enumerate(others)}
    return {name: fixed.get(name) or given[name] for name in names}


def recipe_looks(recipes: Iterable[str]) -> dict[str, Look]:
    """Looks of recipes, ordered as `ff.summary.recipe_order` says; a recipe looks the same in every figure."""
    ordered = sorted(set(recipes), key=place)
    return looks(ordered, RECIPE_LOOKS)


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a figure function with the style of this module."""

    @functools.wraps(draw)
    def inner(*args, **kwargs) -> Figure:
        with matplotlib.rc_context(RC):
            return draw(*args, **kwargs)

    return inner


# ------------------------------------------------------------------------------------- networks and datasets


class Networks(NamedTuple):
    """Networks of a grid on one axis: `label[layers]`, labels in order of size, and the axis label."""

    label: dict[str, str]
    order: list[str]
    axis: str


def networks(layers: Iterable[str]) -> Networks:
    """Short labels for networks. The input size is left out, as it follows from the dataset.

    Where the networks differ in one width only (784-W-10 or 784-W-W-10), the label is that width.
    """
    names = list(dict.fromkeys(layers))
    hidden = {name: tuple(int(size) for size in name.split("-")[1:]) for name in names}
    distinct = sorted(set(hidden.values()), key=lambda sizes: (sum(sizes), sizes))
    axis, text = "network (layers after the input)", {sizes: "-".join(map(str, sizes)) for sizes in distinct}
    if len(distinct) > 1 and len({len(sizes) for sizes in distinct}) == 1:
        varying = [i for i in range(len(distinct[0])) if len({sizes[i] for sizes in distinct}) > 1]
        if all(len({sizes[i] for i in varying}) == 1 for sizes in distinct):
            text = {sizes: str(sizes[varying[0]]) for sizes in distinct}
            pattern = ["W" if i in varying else str(size) for i, size in enumerate(distinct[0])]
            axis = f"width W (units) in the network input-{'-'.join(pattern)}"
    return Networks({name: text[hidden[name]] for name in names}, [text[sizes] for sizes in distinct], axis)


def left_out(order: Sequence[str], chosen: Sequence[str], table: str) -> str:
    """A sentence on the networks that a figure has no room for, which the summary table holds; nothing where it has
    room for all. They are named where they are few."""
    left = [label for label in order if label not in chosen]
    if not left:
        return ""
    if len(left) <= MOST_NAMES:
        return f" Not drawn for room: {', '.join(left)}."
    return f" Not drawn for room: {len(left)} of {len(order)} networks, spread over all sizes; {table}.csv has them."


def main_recipe(recipes: Iterable[str]) -> str:
    """The recipe to show where there is room for one."""
    return next(iter(recipe_looks(recipes)))


def unique(values: Iterable) -> list:
    """Values once each, in order of appearance."""
    return list(dict.fromkeys(values))


# ------------------------------------------------------------------------------------------- figure and text


def panels(
    rows: int, columns: int, width: float = 3.6, height: float = 2.6, minimum: float = 6.4, **kwargs
) -> tuple[Figure, list[list]]:
    """A figure of `rows` x `columns` axes, each about `width` x `height` inches; returns it and axes[row][column]."""
    figure = Figure(figsize=(max(columns * width, minimum), rows * height + 1.0), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **kwargs)
    return figure, [list(row) for row in axes]


def wrapped(count: int, columns: int = 2, **kwargs) -> tuple[Figure, list]:
    """A figure of `count` axes in rows of `columns`; returns it and the axes in reading order."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, grid = panels(rows, columns, **kwargs)
    flat = [axes for row in grid for axes in row]
    for spare in flat[count:]:
        spare.remove()
    return figure, flat[:count]


def finish(figure: Figure, title: str, note: str, legend: Sequence = (), columns: int | None = None) -> Figure:
    """Title, legend below the title, and a note below the axes that states n and the interval."""
    inches = figure.get_figwidth()
    title = "\n".join(textwrap.wrap(title, int(inches * 10.5)))
    lines = title.count("\n") + 1
    legend = list(legend)
    rows = 0
    if legend:
        longest = max(len(handle.get_label()) for handle in legend)
        fitting = max(1, int(inches * 12.5 / (longest + 7)))
        columns = min(columns or len(legend), fitting, len(legend))
        rows = -(-len(legend) // columns)
    figure.suptitle(title + "\n" * round(rows * 1.0 + 0.3 * bool(rows)), x=0.008, ha="left", fontsize=11, weight="bold")
    if legend:
        figure.legend(
            handles=legend,
            loc="outside upper left",
            ncols=columns,
            # The distance from the edge, in font sizes: the legend starts below the title's lines.
            borderaxespad=0.4 + 1.55 * lines,
            columnspacing=1.4,
            handlelength=2.6,
            labelspacing=0.3,
        )
    # Smaller letters than the default, in dark grey: it belongs to the figure but is not the first thing to
    # read.
    text = "\n".join(textwrap.wrap(note, int(inches * 16.5)))
    figure.supxlabel(text, x=0.008, ha="left", fontsize=7.5, color="#444444")
    return figure


@styled
def empty(title: str, reason: str) -> Figure:
    """A figure that says why it has no data."""
    figure = Figure(figsize=(6.4, 2.4), layout="constrained")
    axes = figure.subplots()
    say(axes, reason)
    figure.suptitle(title, x=0.008, ha="left", fontsize=11, weight="bold")
    return figure


def say(axes, reason: str, width: int | None = None) -> None:
    """Write in an axes why it holds no data, instead of leaving it blank."""
    axes.set_axis_off()
    inches = axes.figure.get_figwidth() / max(1, axes.get_subplotspec().get_gridspec().ncols)
    text = "\n".join(textwrap.wrap(reason, width or max(18, int(inches * 10))))
    axes.text(
        0.5,
        0.5,
        text,
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=9,
        color="#333333",
        bbox={"boxstyle": "round,pad=0.8", "facecolor": "#f4f4f4", "edgecolor": "#999999"},
    )


def category_axis(axes, labels: Sequence[str], title: str | None, turn: bool | None = None) -> None:
    """Categories 0, 1, ... on the x axis; long labels are turned so that they do not run into each other."""
    axes.set_xlim(-0.6, len(labels) - 0.4)
    shown = pick(labels, MOST_LABELS)
    axes.set_xticks([place for place, label in enumerate(labels) if label in shown], shown)
    labels = shown
    axes.grid(False, axis="x")
    inches = axes.figure.get_figwidth() / max(1, axes.get_subplotspec().get_gridspec().ncols) - 0.8
    if turn or (turn is None and sum(len(label) + 2 for label in labels) > inches * 13):
        axes.tick_params(axis="x", labelrotation=25)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    if title:
        axes.set_xlabel("\n".join(textwrap.wrap(title, max(20, int((inches + 0.8) * 12)))))


def batch_axis(axes, batches: Sequence[int]) -> None:
    """A base-2 logarithmic x axis with a tick at each batch size."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(batches), [str(batch) for batch in batches])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("batch size (samples)")


def plain_log(axis) -> None:
    """Numbers such as 0.5, 20, 3000 on a logarithmic axis instead of powers of ten."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(NullFormatter())


def short(value: float) -> str:
    """A number in about three figures: 0.0123, 4.57, 128, 12k, 3.4M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scale = 1e3 if letter == "k" else size
            return f"{value / scale:.3g}{letter}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def two_figures(value: float) -> str:
    """A number for a small cell: 0.058, 0.29, 5.1, 97, 12k."""
    if abs(value) < 0.1:
        return f"{value:.2g}"
    if abs(value) < 10:
        return f"{value:.{2 if abs(value) < 1 else 1}f}"
    return short(round(value)) if abs(value) < 1e4 else f"{short(value)}"


def seeds_text(seeds: Iterable) -> str:
    """`n = 3 seeds`, or a range where cells differ."""
    counts = sorted(set(seeds))
    if not counts:
        return "n = 0 seeds"
    if len(counts) == 1:
        return f"n = {counts[0]} seed{'s' if counts[0] != 1 else ''}"
    return f"n = {counts[0]} to {counts[-1]} seeds"


def matte(colour: str, strength: float = 0.22) -> tuple[float, float, float, float]:
    """The colour with little strength, for areas under lines."""
    return (*to_rgb(colour), strength)


def cell_text_colour(red_green_blue_alpha: Sequence[float]) -> str:
    """Black or white, whichever reads better on the colour (relative luminance)."""
    red, green, blue = red_green_blue_alpha[:3]
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.5 else "white"


# ---------------------------------------------------------------------------------------------------- saving


def svg_bytes(figure: Figure) -> bytes:
    """The figure as SVG: the same data give the same bytes (fixed ids, no date)."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(RC):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def png_bytes(figure: Figure) -> bytes:
    """The figure as PNG at 150 dots per inch."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(RC):
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def save(figure: Figure, path_without_suffix: str | Path) -> tuple[Path, Path]:
    """Write PATH.png and PATH.svg, each whole or not at all; returns both paths."""
    base = Path(path_without_suffix)
    png, svg = base.parent / f"{base.name}.png", base.parent / f"{base.name}.svg"
    write_bytes(png, png_bytes(figure))
    write_bytes(svg, svg_bytes(figure))
    return png, svg
