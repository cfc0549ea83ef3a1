"""Latency and throughput of inference: distributions by network, and samples per second by batch size."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.mlab import GaussianKDE
from matplotlib.ticker import LogLocator

from ff.summary.figures import style
from ff.summary.figures.frames import MOST_SAMPLED
from ff.summary.figures.places import PATHS, deployed, places, span, why_unmeasured
from ff.summary.figures.style import matte
from ff.summary.spread import pick

MOST_NETWORKS = 4
MOST_LINES = 8
"""Networks in one panel of lines: each needs a colour, marker and line style of its own."""
LONGEST_TITLE = 37
"""Letters that have room above a histogram."""


@style.styled
def latency_violins(samples: pd.DataFrame, devices: pd.DataFrame) -> Figure:
    """Latency of one batch by network as violins, one column per place (device and CPU threads), one row per batch
    size (smallest, largest).

    `samples`: dataset, layers, recipe, seed and the columns of variance/{device}.csv; `devices`: the table
    devices, for the reason why one is missing. The violin is cut at the 1st and 99th percentile; the bar
    reaches from the 5th to the 95th, the white dot is the median.
    """
    title = "Latency of one batch by network"
    samples = samples[samples["path"] == "deploy"] if len(samples) else samples
    if samples.empty:
        return style.empty(title, why_unmeasured(devices))
    dataset, samples = _one_dataset(samples)
    nets, drawn = _networks(samples, devices)
    batches = sorted({int(samples["batch_size"].min()), int(samples["batch_size"].max())})
    columns = places(samples, devices)
    wide = min(max(3.2, 0.6 * len(drawn) + 1), 5.2 if len(columns) < 3 else 4.2)
    figure, grid = style.panels(len(batches), len(columns), width=wide, height=2.5)
    counts = []
    for batch, row in zip(batches, grid, strict=True):
        for place, ax in zip(columns, row, strict=True):
            part = place.of(samples[samples["batch_size"] == batch])
            if part.empty:
                style.say(ax, place.why_not(devices))
                continue
            for layers, cell in part.groupby("layers", sort=False):
                values = cell["latency_ms"].dropna().to_numpy()
                counts.append(len(values))
                _violin(ax, drawn.index(nets.label[layers]), values, place.look)
            _wide_axis(ax)
            ax.set_title(f"{place.title(devices)}, batch {batch}")
            ax.set_ylabel("latency of a batch (ms)")
            style.category_axis(ax, drawn, nets.axis)
    note = (
        f"{dataset}, {PATHS['deploy']}; repeats of all seeds together, n = {span(counts)} a violin. Violin: "
        "1st to 99th percentile; bar: 5th to 95th; white dot: median. Each panel has its own axis."
    )
    note += style.left_out(nets.order, drawn, "latency")
    return style.finish(figure, title, note)


def _violin(ax, x: float, values: np.ndarray, look: style.Look) -> None:
    low, high = np.percentile(values, [1, 99])
    core = values[(values >= low) & (values <= high)]
    if len(core) > 2 and np.ptp(core) > 0:
        # Density of the logarithm: latencies are skewed, and the axis is logarithmic where they spread
        # widely.
        at = np.linspace(np.log(core.min()), np.log(core.max()), 120)
        density = GaussianKDE(np.log(core))(at)
        half = 0.4 * density / density.max()
        ax.fill_betweenx(
            np.exp(at), x - half, x + half, facecolor=matte(look.colour, 0.45), edgecolor=look.colour, lw=0.8
        )
    summary = np.percentile(values, [5, 50, 95])
    ax.plot([x, x], summary[[0, 2]], color="black", lw=1.6, solid_capstyle="butt")
    ax.plot([x], [summary[1]], marker="o", ms=4.5, mfc="white", mec="black", mew=1, linestyle="none")


@style.styled
def latency_histogram(samples: pd.DataFrame, devices: pd.DataFrame) -> Figure:
    """Latency of single samples (batch 1), one column per network (at most four), one row per place."""
    title = "Latency of single samples (batch 1)"
    if len(samples):
        samples = samples[(samples["batch_size"] == 1) & (samples["path"] == "deploy")].dropna(subset=["latency_ms"])
    if samples.empty:
        return style.empty(title, why_unmeasured(devices))
    dataset, samples = _one_dataset(samples)
    nets, read = _networks(samples, devices)
    chosen, rows = pick(read, MOST_NETWORKS), places(samples, devices)
    figure, grid = style.panels(len(rows), len(chosen), width=2.7, height=2.0)
    counts, outside = [], []
    for place, row in zip(rows, grid, strict=True):
        for label, ax in zip(chosen, row, strict=True):
            names = [name for name, text in nets.label.items() if text == label]
            cell = place.of(samples[samples["layers"].isin(names)])
            if cell.empty:
                style.say(ax, place.why_not(devices))
                continue
            values = cell["latency_ms"].to_numpy()
            counts.append(len(values))
            p5, median, p95 = np.percentile(values, [5, 50, 95])
            shown = values[values <= p95 + (p95 - p5)]
            outside.append(1 - len(shown) / len(values))
            ax.hist(shown, bins=min(40, max(8, len(shown) // 8)), color=place.look.colour, alpha=0.55)
            ax.axvline(median, color="black", lw=1.6)
            for value in (p5, p95):
                ax.axvline(value, color="black", lw=1.1, linestyle="--")
            name, value = f"{place.label}, {label}:", f"{style.short(median)} ms"
            ax.set_title(f"{name} {value}" if len(name) + len(value) < LONGEST_TITLE else f"{name}\n{value}")
            ax.set_xlabel("latency (ms)")
        row[0].set_ylabel("timed samples (count)")
    legend = [
        Line2D([], [], color="black", lw=1.6, label="median"),
        Line2D([], [], color="black", lw=1.1, linestyle="--", label="5th and 95th percentile"),
    ]
    note = (
        f"{dataset}, {PATHS['deploy']}; n = {span(counts)} timed samples a panel, seeds together; up to "
        f"{100 * max(outside):.0f} % of them are slower than the panel shows. The number in each title is "
        "the median."
    )
    note += style.left_out(nets.order, chosen, "latency")
    return style.finish(figure, title, note, legend)


@style.styled
def throughput(latency: pd.DataFrame, devices: pd.DataFrame) -> Figure:
    """Samples per second against batch size, one column per place, one row per dataset, one line per network.

    `latency`: the table latency. Drawn is queued throughput: medians over windows (mean over seeds), bars their 95 %
    intervals.
    """
    title = "Queued throughput against batch size"
    frame = deployed(latency)
    frame = frame.dropna(subset=["throughput_queued_per_s"]) if len(frame) else frame
    if frame.empty:
        return style.empty(title, why_unmeasured(devices))
    datasets, columns = style.unique(frame["dataset"]), places(frame, devices)
    nets = style.networks(frame["layers"])
    figure, grid = style.panels(len(datasets), len(columns), width=4.2, height=2.6, sharey="row")
    chosen = pick(nets.order, MOST_LINES)
    looks = style.looks(chosen)
    counts = []
    for dataset, row in zip(datasets, grid, strict=True):
        for place, ax in zip(columns, row, strict=True):
            part = place.of(frame[frame["dataset"] == dataset])
            part = part[part["layers"].map(nets.label).isin(chosen)]
            if part.empty:
                style.say(ax, place.why_not(devices))
                continue
            for layers, cell in part.groupby("layers", sort=False):
                look = looks[nets.label[layers]]
                by_batch = cell.groupby("batch_size")
                rate = by_batch["throughput_queued_per_s"].mean()
                low = by_batch["throughput_queued_low_per_s"].min()
                high = by_batch["throughput_queued_high_per_s"].max()
                error = np.nan_to_num(np.maximum([rate - low, high - rate], 0))
                counts += list(by_batch["seed"].nunique())
                line = {"color": look.colour, "marker": look.marker, "linestyle": look.line, "ms": 4}
                ax.errorbar(rate.index, rate, error, capsize=2, elinewidth=0.9, **line)
            style.batch_axis(ax, sorted(part["batch_size"].unique()))
            ax.set_title(f"{dataset}, {place.title(devices)}")
        _wide_axis(row[0])
        row[0].set_ylabel("queued throughput (samples/s)")
    legend = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.line, label=name)
        for name, look in looks.items()
    ]
    note = (
        f"{PATHS['deploy'].capitalize()}; batches handed over back to back, one wait at the end. Median over windows, "
        f"mean over seeds ({style.seeds_text(counts)}); bars: widest 95 % bootstrap interval of the seeds' medians. "
        f"Throughput with a wait after each batch is in latency.csv. Legend: {nets.axis}."
    )
    note += style.left_out(nets.order, chosen, "latency")
    return style.finish(figure, title, note, legend)


def _wide_axis(ax) -> None:
    """A logarithmic y axis where values differ by more than a factor of 3; below that it would lack ticks."""
    together = [*ax.get_shared_y_axes().get_siblings(ax)]
    limits = [each.dataLim.intervaly for each in together if np.isfinite(each.dataLim.intervaly).all()]
    if not limits:
        return
    low, high = np.min(limits), np.max(limits)
    if not 0 < low * 3 < high:
        return
    ax.set_yscale("log")
    style.plain_log(ax.yaxis)
    if high / low < 30:
        ax.yaxis.set_major_locator(LogLocator(10, subs=(1, 1.5, 2, 3, 5, 7)))


def _networks(samples: pd.DataFrame, devices: pd.DataFrame) -> tuple[style.Networks, list[str]]:
    """All networks that were measured, and the labels of those that raw samples were read of."""
    nets = style.networks(samples["layers"])
    if len(nets.order) < MOST_SAMPLED:
        return nets, nets.order
    first = samples.iloc[0]
    same = (devices["dataset"] == first["dataset"]) & (devices["recipe"] == first["recipe"])
    measured = devices.loc[same & (devices["available"] == 1), "layers"]
    read = style.unique(samples["layers"])
    nets = style.networks([*read, *measured])
    return nets, [label for label in nets.order if label in {nets.label[name] for name in read}]


def _one_dataset(samples: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    dataset = samples["dataset"].iloc[0]
    samples = samples[samples["dataset"] == dataset]
    return dataset, samples[samples["recipe"] == style.main_recipe(samples["recipe"])]
