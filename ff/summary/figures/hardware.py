"""The hardware trace of one job: power, load, memory and temperature over time, with its phases shaded."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ff.summary.figures import style
from ff.summary.figures.energy import NO_SENSOR, PHASES

MOST_POINTS = 1500
MOST_LINES = 8
PANELS: tuple[tuple[str | None, dict[str, str], str, float, str], ...] = (
    ("power_mw.", {}, "power (W)", 1e-3, NO_SENSOR),
    (
        None,
        {"cpu_percent": "CPU", "gpu_percent": "GPU", "emc_percent": "memory bus"},
        "load (%)",
        1,
        "no load was read",
    ),
    (
        None,
        {"ram_used_mb": "RAM used", "swap_used_mb": "swap used"},
        "memory (MB)",
        1,
        "no memory use was read",
    ),
    ("temperature_c.", {}, "temperature (°C)", 1, "no temperature sensor could be read on this machine"),
)


@style.styled
def trace(samples: pd.DataFrame, phases: pd.DataFrame, name: str = "") -> Figure:
    """Four stacked panels over the job's time.

    `samples`: the columns of hardware.csv; `phases`: phase, start_monotonic_s, end_monotonic_s
    (phases.csv); `name`: what job it is. Time 0 is the first sample or phase mark.
    """
    title = "Hardware trace of a job" + (f": {name}" if name else "")
    if samples.empty:
        return style.empty(title, "no job has a hardware log: it was switched off, or hardware.csv is missing")
    # The machine's total and its parts come from several sources: one line a column, empty cells left out.
    samples = samples.sort_values("monotonic_s")
    starts = [samples["monotonic_s"].min(), *(phases["start_monotonic_s"] if len(phases) else [])]
    zero = min(starts)
    figure, grid = style.panels(len(PANELS), 1, width=8.4, height=1.35, sharex=True)
    looks = _phase_looks(phases)
    most, left_out = 1, []
    for (prefix, named, unit, scale, reason), (ax,) in zip(PANELS, grid, strict=True):
        columns = dict(named)
        if prefix:
            columns = {column: column.removeprefix(prefix) for column in samples.columns if column.startswith(prefix)}
        columns = {c: text for c, text in columns.items() if c in samples and samples[c].notna().any()}
        if not columns:
            style.say(ax, reason, 70)
            continue
        if len(columns) > MOST_LINES:
            means = samples[list(columns)].mean().sort_values(ascending=False)
            left_out += [columns[c] for c in means.index[MOST_LINES:]]
            columns = {c: columns[c] for c in means.index[:MOST_LINES]}
        for (column, text), look in zip(columns.items(), style.looks(columns.values()).values(), strict=False):
            line, each = _thinned(samples, column)
            most = max(most, each)
            every = max(1, len(line) // 12)
            ax.plot(
                line["monotonic_s"] - zero,
                line[column] * scale,
                color=look.colour,
                linestyle=look.line,
                marker=look.marker,
                markevery=every,
                markersize=3.5,
                lw=1.2,
                label=text,
            )
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7.5, handlelength=2.4)
        ax.set_ylabel(unit)
        ax.margins(y=0.12)
        if unit != "temperature (°C)":
            ax.set_ylim(bottom=0)
        for phase in phases.itertuples():
            look = looks[phase.phase]
            ends = phase.start_monotonic_s - zero, phase.end_monotonic_s - zero
            ax.axvspan(*ends, facecolor=look.colour, alpha=0.13, lw=0)
            for end in ends:
                ax.axvline(end, color=style.GREY, lw=0.6, linestyle=":")
        ax.grid(False, axis="x")
    # The panels share their time axis; its labels stand below the last panel that has data.
    drawn = [ax for (ax,) in grid if ax.axison]
    if drawn:
        drawn[-1].tick_params(labelbottom=True)
        drawn[-1].set_xlabel("time (s)")
    seconds = phases.assign(s=phases["end_monotonic_s"] - phases["start_monotonic_s"]) if len(phases) else phases
    lasted = seconds.groupby("phase", sort=False)["s"].sum() if len(phases) else {}
    legend = [
        Patch(
            facecolor=style.matte(look.colour),
            edgecolor=style.GREY,
            label=f"{phase} {style.short(lasted[phase])} s",
        )
        for phase, look in looks.items()
    ]
    sources = ", ".join(style.unique(samples["source"].dropna())) if "source" in samples else "unknown"
    note = "Shaded: phases, with the seconds each lasted (training with the validation after each epoch). "
    note += f"n = {len(samples)} samples from {sources}; "
    note += "raw readings, no interval." if most == 1 else f"each point the mean of {most} readings, no interval."
    if left_out:
        note += f" Not drawn for room: {', '.join(left_out)}."
    if not len(phases):
        note += " The job left no phase marks."
    return style.finish(figure, title, note, legend)


def _thinned(samples: pd.DataFrame, column: str) -> tuple[pd.DataFrame, int]:
    """Means of consecutive readings, so that a day's log stays a small file; how many readings make a
    point."""
    line = samples[["monotonic_s", column]].dropna()
    each = -(-len(line) // MOST_POINTS)
    if each <= 1:
        return line, 1
    groups = pd.Series(range(len(line)), index=line.index) // each
    return line.groupby(groups).mean(), each


def _phase_looks(phases: pd.DataFrame) -> dict[str, style.Look]:
    names = style.unique(phases["phase"]) if len(phases) else []
    return style.looks(names, PHASES)
