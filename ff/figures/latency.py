"""Inference measurements: latency, throughput, speed-up, and heat maps by network and batch size."""

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.mlab import GaussianKDE
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ff import statistics
from ff.figures import style
from ff.figures.style import matte

DEVICES = {"cpu": style.Look(style.VERMILION, "o", "-", ""), "cuda": style.Look(style.BLUE, "s", "--", "///")}
PATHS = {
    "deploy": "head readout, inputs already on the device",
    "end_to_end": "end to end with the transfer of the inputs",
}
NOT_MEASURED = "no run has been measured yet: variance/*.csv is missing"
MOST_NETWORKS = 4


@style.styled
def latency_violins(samples: pd.DataFrame, devices: pd.DataFrame) -> Figure:
    """Latency of one batch by network as violins, one column a device, one row a batch size (smallest,
    largest).

    `samples`: dataset, layers, recipe, seed and the columns of variance/{device}.csv; `devices`: the table
    devices, for the reason why one is missing. The violin is cut at the 1st and 99th percentile; the bar
    reaches from the 5th to the 95th, the white dot is the median.
    """
    title = "Latency of one batch by network"
    samples = samples[samples["path"] == "deploy"] if len(samples) else samples
    if samples.empty:
        return style.empty(title, _why_unmeasured(devices))
    dataset, samples = _one_dataset(samples)
    nets = style.networks(samples["layers"])
    batches = sorted({int(samples["batch_size"].min()), int(samples["batch_size"].max())})
    columns = _device_columns(samples, devices)
    wide = min(max(3.2, 0.6 * len(nets.order) + 1), 5.2)
    figure, grid = style.panels(len(batches), len(columns), width=wide, height=2.5)
    counts = []
    for batch, row in zip(batches, grid, strict=True):
        for device, ax in zip(columns, row, strict=True):
            part = samples[(samples["device"] == device) & (samples["batch_size"] == batch)]
            if part.empty:
                style.say(ax, f"{device}: {_why_device(device, devices)}")
                continue
            look = DEVICES.get(device, style.Look(style.GREEN, "D", "-.", ""))
            for layers, cell in part.groupby("layers", sort=False):
                values = cell["latency_ms"].dropna().to_numpy()
                counts.append(len(values))
                _violin(ax, nets.order.index(nets.label[layers]), values, look)
            _wide_axis(ax)
            ax.set_title(f"{_device_name(device, devices)}, batch {batch}")
            ax.set_ylabel("latency of a batch (ms)")
            style.category_axis(ax, nets.order, nets.axis)
    note = (
        f"{dataset}, {PATHS['deploy']}; repeats of all seeds together, n = {_span(counts)} a violin. Violin: "
        "1st to 99th percentile; bar: 5th to 95th; white dot: median. Each panel has its own axis."
    )
    return style.finish(figure, title, note)


def _violin(ax, x: float, values: np.ndarray, look: style.Look) -> None:
    low, high = np.percentile(values, [1, 99])
    core = values[(values >= low) & (values <= high)]
    if len(core) > 2 and np.ptp(core) > 0:
        # Density of the logarithm: latencies are skewed, and the axis is logarithmic where they spread
        # widely.
        at = np.linspace(*np.log(core[[core.argmin(), core.argmax()]]), 120)
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
    """Latency of single samples (batch 1), a column a network (at most four), a row a device."""
    title = "Latency of single samples (batch 1)"
    if len(samples):
        samples = samples[(samples["batch_size"] == 1) & (samples["path"] == "deploy")].dropna(subset=["latency_ms"])
    if samples.empty:
        return style.empty(title, _why_unmeasured(devices))
    dataset, samples = _one_dataset(samples)
    nets = style.networks(samples["layers"])
    chosen, rows = style.pick(nets.order, MOST_NETWORKS), _device_columns(samples, devices)
    figure, grid = style.panels(len(rows), len(chosen), width=2.7, height=2.0)
    counts, outside = [], []
    for device, row in zip(rows, grid, strict=True):
        for label, ax in zip(chosen, row, strict=True):
            names = [name for name, text in nets.label.items() if text == label]
            cell = samples[(samples["device"] == device) & samples["layers"].isin(names)]
            if cell.empty:
                style.say(ax, f"{device}: {_why_device(device, devices)}")
                continue
            values = cell["latency_ms"].to_numpy()
            counts.append(len(values))
            p5, median, p95 = (statistics.percentile(values, share) for share in (5, 50, 95))
            look = DEVICES.get(device, style.Look(style.GREEN, "D", "-.", ""))
            shown = values[values <= p95 + (p95 - p5)]
            outside.append(1 - len(shown) / len(values))
            ax.hist(shown, bins=min(40, max(8, len(shown) // 8)), color=look.colour, alpha=0.55)
            ax.axvline(median, color="black", lw=1.6)
            for value in (p5, p95):
                ax.axvline(value, color="black", lw=1.1, linestyle="--")
            ax.set_title(f"{device}, {label}: {style.short(median)} ms")
            ax.set_xlabel("latency (ms)")
        row[0].set_ylabel("timed samples (count)")
    legend = [
        Line2D([], [], color="black", lw=1.6, label="median"),
        Line2D([], [], color="black", lw=1.1, linestyle="--", label="5th and 95th percentile"),
    ]
    note = (
        f"{dataset}, {PATHS['deploy']}; n = {_span(counts)} timed samples a panel, seeds together; up to "
        f"{100 * max(outside):.0f} % of them are slower than the panel shows. The number in each title is "
        "the median."
    )
    if len(chosen) < len(nets.order):
        note += f" Not drawn for room: {', '.join(label for label in nets.order if label not in chosen)}."
    return style.finish(figure, title, note, legend)


@style.styled
def throughput(latency: pd.DataFrame, devices: pd.DataFrame) -> Figure:
    """Samples per second against batch size, a column a device, a row a dataset, a line a network.

    `latency`: the table latency. Points are medians over repeats (mean over seeds), bars their 95 %
    intervals.
    """
    title = "Throughput against batch size"
    frame = _main(latency)
    if frame.empty:
        return style.empty(title, _why_unmeasured(devices))
    datasets, columns = style.unique(frame["dataset"]), _device_columns(frame, devices)
    nets = style.networks(frame["layers"])
    figure, grid = style.panels(len(datasets), len(columns), width=4.2, height=2.6, sharey="row")
    looks = style.looks(nets.order)
    counts = []
    for dataset, row in zip(datasets, grid, strict=True):
        for device, ax in zip(columns, row, strict=True):
            part = frame[(frame["dataset"] == dataset) & (frame["device"] == device)]
            if part.empty:
                style.say(ax, f"{device}: {_why_device(device, devices)}")
                continue
            for layers, cell in part.groupby("layers", sort=False):
                look = looks[nets.label[layers]]
                by_batch = cell.groupby("batch_size")
                rate = by_batch["throughput_per_s"].mean()
                low, high = by_batch["throughput_low_per_s"].min(), by_batch["throughput_high_per_s"].max()
                error = np.nan_to_num(np.maximum([rate - low, high - rate], 0))
                counts += list(by_batch["seed"].nunique())
                line = {"color": look.colour, "marker": look.marker, "linestyle": look.line, "ms": 4}
                ax.errorbar(rate.index, rate, error, capsize=2, elinewidth=0.9, **line)
            style.batch_axis(ax, sorted(part["batch_size"].unique()))
            ax.set_title(f"{dataset}, {_device_name(device, devices)}")
        _wide_axis(row[0])
        row[0].set_ylabel("throughput (samples/s)")
    legend = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.line, label=name)
        for name, look in looks.items()
    ]
    note = (
        f"{PATHS['deploy'].capitalize()}. Median over repeats, mean over seeds ({style.seeds_text(counts)}); "
        f"bars: widest 95 % bootstrap interval of the seeds' medians. Legend: {nets.axis}."
    )
    return style.finish(figure, title, note, legend)


@style.styled
def speedup(frame: pd.DataFrame, devices: pd.DataFrame) -> Figure:
    """CPU time divided by GPU time by network and batch size; hatched where the CPU is faster.

    `frame`: the table speedup. Bold numbers have an interval that leaves out 1.
    """
    title = "Speed-up of the GPU over the CPU"
    frame = frame[frame["path"] == "deploy"].dropna(subset=["speedup"]) if len(frame) else frame
    if frame.empty:
        gone = devices[devices["available"] == 0] if len(devices) else devices
        if len(gone):
            first = gone.iloc[0]
            return style.empty(title, f"nothing to compare: {first['device']}: {first['reason']}")
        return style.empty(title, f"nothing to compare: {NOT_MEASURED}")
    frame = frame[frame["recipe"] == style.main_recipe(frame["recipe"])]
    datasets, nets = style.unique(frame["dataset"]), style.networks(frame["layers"])
    batches = sorted(int(b) for b in frame["batch_size"].unique())
    figure, axes = style.wrapped(len(datasets), 2, width=5.0, height=max(1.8, 1.0 + 0.3 * len(nets.order)))
    norm = LogNorm(*_ends(frame["speedup"]))
    for dataset, ax in zip(datasets, axes, strict=True):
        cell = frame[frame["dataset"] == dataset].assign(net=lambda part: part["layers"].map(nets.label))
        values = cell.pivot_table(index="net", columns="batch_size", values="speedup", aggfunc="mean")
        values = values.reindex(index=nets.order, columns=batches)
        low = cell.pivot_table(index="net", columns="batch_size", values="low", aggfunc="min").reindex_like(values)
        high = cell.pivot_table(index="net", columns="batch_size", values="high", aggfunc="max").reindex_like(values)
        sure = ((low > 1) | (high < 1)).to_numpy()
        image = _cells(ax, values, norm, nets, bold=sure)
        for i, j in np.argwhere(values.to_numpy() < 1):
            corner = (j - 0.5, i - 0.5)
            ax.add_patch(Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor="#ffffffaa", lw=0))
        ax.set_title(dataset)
    bar = figure.colorbar(image, ax=axes, label="speed-up (CPU time / GPU time)", shrink=0.9)
    _plain_bar(bar, log=True)
    ns, methods = frame["n"], style.unique(frame["method"])
    legend = [Patch(facecolor="#00224e", edgecolor="white", hatch="////", label="CPU faster (below 1)")]
    note = (
        f"{PATHS['deploy'].capitalize()}. Bold: the 95 % interval leaves out 1 (n = {_span(ns)}; "
        f"{', '.join(methods)}). The end-to-end figures with the transfer are in speedup.csv."
    )
    return style.finish(figure, title, note, legend)


def latency_heatmap(latency: pd.DataFrame, devices: pd.DataFrame) -> Figure:
    """Median latency of a batch (ms) by network and batch size."""
    return heatmap(latency, devices, "median_ms", "Latency of a batch", "median latency of a batch (ms)")


def memory_heatmap(latency: pd.DataFrame, devices: pd.DataFrame) -> Figure:
    """Peak memory (MB) by network and batch size."""
    return heatmap(latency, devices, "peak_memory_mb", "Peak memory of inference", "peak memory (MB)")


def energy_heatmap(latency: pd.DataFrame, devices: pd.DataFrame) -> Figure:
    """Energy per sample above idle (mJ) by network and batch size."""
    return heatmap(latency, devices, "net_mj_per_sample", "Energy per sample, net of idle", "net energy (mJ/sample)")


def power_heatmap(latency: pd.DataFrame, devices: pd.DataFrame) -> Figure:
    """Mean power during the energy window (mW) by network and batch size."""
    return heatmap(latency, devices, "power_mw", "Power during inference", "power (mW)")


@style.styled
def heatmap(latency: pd.DataFrame, devices: pd.DataFrame, column: str, title: str, unit: str) -> Figure:
    """`column` of the table latency by network and batch size, a column a device, a row a dataset (mean
    over seeds)."""
    if _main(latency).empty:
        return style.empty(title, _why_unmeasured(devices))
    frame = _main(latency).dropna(subset=[column])
    if frame.empty:
        return style.empty(title, _why_no_column(column, devices))
    datasets, columns = style.unique(frame["dataset"]), _device_columns(_main(latency), devices)
    nets = style.networks(frame["layers"])
    batches = sorted(int(b) for b in frame["batch_size"].unique())
    figure, grid = style.panels(len(datasets), len(columns), width=4.8, height=max(1.8, 1.0 + 0.3 * len(nets.order)))
    positive = (frame[column] > 0).all()
    norm = LogNorm(*_ends(frame[column])) if positive else Normalize(*_ends(frame[column]))
    image = None
    for dataset, row in zip(datasets, grid, strict=True):
        for device, ax in zip(columns, row, strict=True):
            cell = frame[(frame["dataset"] == dataset) & (frame["device"] == device)]
            if cell.empty:
                style.say(ax, f"{device}: {_why_device(device, devices, _why_no_column(column, devices))}")
                continue
            cell = cell.assign(net=cell["layers"].map(nets.label))
            values = cell.pivot_table(index="net", columns="batch_size", values=column, aggfunc="mean")
            image = _cells(ax, values.reindex(index=nets.order, columns=batches), norm, nets)
            ax.set_title(f"{dataset}, {_device_name(device, devices)}")
    bar = figure.colorbar(image, ax=[ax for row in grid for ax in row], label=unit, shrink=0.9)
    _plain_bar(bar, log=positive)
    seeds = frame.groupby(["dataset", "layers", "device", "batch_size"])["seed"].nunique()
    note = (
        f"{PATHS['deploy'].capitalize()}; mean over seeds ({style.seeds_text(seeds)}) of each run's value. "
        "Intervals are in latency.csv. Empty cells were not measured."
    )
    return style.finish(figure, title, note)


def _cells(ax, values: pd.DataFrame, norm, nets: style.Networks, bold: np.ndarray | None = None):
    image = ax.imshow(np.ma.masked_invalid(values.to_numpy(float)), cmap="cividis", norm=norm, aspect="auto")
    for (i, j), value in np.ndenumerate(values.to_numpy(float)):
        if np.isnan(value):
            continue
        colour = style.cell_text_colour(image.cmap(norm(value)))
        weight = "bold" if bold is not None and bold[i, j] else "normal"
        # Its own cell's colour behind the number keeps it readable where the cell is hatched.
        ground = {"facecolor": image.cmap(norm(value)), "edgecolor": "none", "pad": 0.6}
        middle = {"ha": "center", "va": "center", "fontsize": 7, "zorder": 3}
        ax.text(j, i, style.two_figures(value), **middle, color=colour, weight=weight, bbox=ground)
    ax.set_xticks(range(len(values.columns)), [str(batch) for batch in values.columns])
    ax.set_yticks(range(len(values.index)), values.index)
    ax.set_xlabel("batch size (samples)")
    ax.set_ylabel(nets.axis.replace(" in the network ", "\nin ").replace(" (layers", "\n(layers"))
    ax.grid(False)
    return image


def _ends(values: pd.Series) -> tuple[float, float]:
    """Ends of a colour scale; a little apart where all values are equal."""
    low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low * 0.9, high * 1.1 + (high == 0))


def _plain_bar(bar, log: bool) -> None:
    if log:
        bar.ax.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=9))
        bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: style.short(value)))


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


def _main(latency: pd.DataFrame) -> pd.DataFrame:
    """The deployed path of one recipe: latency depends on the network, so one recipe stands for all."""
    frame = latency[latency["path"] == "deploy"] if len(latency) else latency
    return frame[frame["recipe"] == style.main_recipe(frame["recipe"])] if len(frame) else frame


def _one_dataset(samples: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    dataset = samples["dataset"].iloc[0]
    samples = samples[samples["dataset"] == dataset]
    return dataset, samples[samples["recipe"] == style.main_recipe(samples["recipe"])]


def _device_columns(frame: pd.DataFrame, devices: pd.DataFrame) -> list[str]:
    """Devices in the frame, then those that were asked for and are missing: their panel says why."""
    named = style.unique(frame["device"]) + (style.unique(devices["device"]) if len(devices) else [])
    return sorted(set(named), key=lambda name: (name != "cpu", name))


def _device_name(device: str, devices: pd.DataFrame) -> str:
    names = devices[(devices["device"] == device)]["name"].dropna() if len(devices) else []
    return f"{device} ({names.iloc[0]})" if len(names) and len(str(names.iloc[0])) <= 34 else device


def _why_device(device: str, devices: pd.DataFrame, otherwise: str = "not measured") -> str:
    reasons = devices[(devices["device"] == device) & (devices["available"] == 0)]["reason"] if len(devices) else []
    reasons = reasons.dropna() if len(reasons) else reasons
    return str(reasons.iloc[0]) if len(reasons) else otherwise


def _why_unmeasured(devices: pd.DataFrame) -> str:
    gone = devices[devices["available"] == 0] if len(devices) else devices
    reasons = (
        [f"{row.device}: {row.reason}" for row in gone.drop_duplicates("device").itertuples()] if len(gone) else []
    )
    return "; ".join([NOT_MEASURED, *reasons])


def _why_no_column(column: str, devices: pd.DataFrame) -> str:
    if column not in ("net_mj_per_sample", "power_mw"):
        return "it was not measured on this machine"
    reasons = devices["power_reason"].dropna() if len(devices) and "power_reason" in devices else []
    tried = f" ({reasons.iloc[0]})" if len(reasons) else ""
    return f"no power sensor could be read on this machine, so energy and power were not measured{tried}"


def _span(counts) -> str:
    counts = [int(count) for count in counts]
    if not counts:
        return "0"
    return str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
