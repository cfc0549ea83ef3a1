"""results/report.html: one self-contained page with the question, the results, every figure, and what is
missing.

No network, no script: images are data URIs, the style is in the page, and a content policy in the page
forbids everything else. It reads the summary tables and the saved figures, never the models, so writing it
takes seconds. Sentences are computed from the tables, with intervals; what is named "best" is best on
validation.
"""

import base64
import datetime
import html
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ff import statistics
from ff.assess.early_exit_text import verdict
from ff.errors import FFError
from ff.files import read_json, write_text
from ff.layout import TABLES, RunKey, find_runs, sizes
from ff.summary.figures import FIGURES, FigureSpec
from ff.summary.recipe_order import controls_of, is_control, place
from ff.summary.tables import (
    KEYS,
    machine_name,
    read_table,
    write_all,
)

LARGEST_SVG = 350_000
"""A figure whose SVG is larger (bytes) is embedded as PNG, to keep the page quick to open on a phone."""
MOST_MACHINES = 5
EXIT_BATCHES = (1, 32, 512)
"""Batch sizes at which early exit is timed (`ff.assess.early_exit.TIMED_BATCHES`, whose import would bring torch)."""
LONG_TEXT = 40
"""Cells with more letters than this may be broken into lines; names such as 784-200-200-10 may not."""
FAMILY_TITLES = {
    "accuracy": "Accuracy",
    "training": "Training",
    "distributions": "Goodness and confidence",
    "early_exit": "Early exit",
    "latency": "Inference time and memory",
    "energy": "Energy",
    "hardware": "Hardware",
}
DEFAULT_QUESTION = "How well do networks trained with the Forward-Forward algorithm do, and at what cost?"


def write_report(
    results_root: str | Path,
    summary_dir: str | Path,
    figures_dir: str | Path,
    out_path: str | Path,
    question: str = DEFAULT_QUESTION,
    title: str = "Forward-Forward experiments",
    figures: Iterable[str] | None = None,
    written_at: str | None = None,
) -> Path:
    """Write the report and return its path.

    `figures`: names to show (default: all of `ff.summary.figures.FIGURES`); each is looked for as
    `figures_dir/NAME.svg` and `.png`, and one that is not there is named in the page. `written_at`: the
    date shown (default: now, UTC). Raises FFError when a summary table or a name is missing.
    """
    tables = {name: read_table(summary_dir, name) for name in TABLES}
    names = list(FIGURES) if figures is None else list(figures)
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        raise FFError(f"there is no figure called {unknown[0]!r}; the figures are: {', '.join(FIGURES)}")
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    with controls_of(tables["runs"]):
        page = _page(tables, Path(results_root), Path(figures_dir), names, question, title, written_at or now)
    write_text(out_path, page)
    return Path(out_path)


def write_everything(
    results_root: str | Path,
    runs: Iterable[RunKey] | None = None,
    question: str = DEFAULT_QUESTION,
    train_log: str | None = None,
) -> Path:
    """Tables, all figures and the report of a results folder, where the workflow puts them; returns the
    page's path.

    `runs`: what is expected (default: every run folder that is there).
    """
    from ff.summary.figures import build, save

    root = Path(results_root)
    runs = find_runs(root) if runs is None else list(runs)
    if not runs:
        raise FFError(f"there is no run folder below {root}; train a network first or name another folder")
    write_all(root, runs, root / "summary", train_log=train_log)
    for name in FIGURES:
        save(build(name, root / "summary", root), root / "figures" / name)
    return write_report(root, root / "summary", root / "figures", root / "report.html", question)


# ------------------------------------------------------------------------------------------ key sentences


def key_results(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """The result sentences, plain text, each with its interval or the reason why it has none."""
    sentences = [_runs_sentence(tables["runs"])]
    for part in (
        _accuracy_sentences,
        _recipe_sentences,
        _early_exit_sentences,
        _speed_sentences,
        _energy_sentences,
    ):
        sentences += part(tables)
    return sentences


def _runs_sentence(runs: pd.DataFrame) -> str:
    finished = int(runs["finished"].sum()) if len(runs) else 0
    text = f"{finished} of {len(runs)} expected run{'s' * (len(runs) != 1)} finished"
    return f"{text}." if finished == len(runs) else f"{text}; the section Missing says why the others are not here."


def best_on_validation(summary: pd.DataFrame, dataset: str) -> pd.Series | None:
    """The row (split val, head) of the network and recipe with the best mean validation accuracy; controls are left
    out where there is anything else."""
    rows = summary[(summary["dataset"] == dataset) & (summary["split"] == "val") & (summary["readout"] == "head")]
    control = rows["recipe"].map(is_control).astype(bool)
    rows = rows if control.all() else rows[~control]
    rows = rows.dropna(subset=["mean"])
    return rows.loc[rows["mean"].idxmax()] if len(rows) else None


def _accuracy_sentences(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    summary, sentences = tables["accuracy_summary"], []
    for dataset in summary["dataset"].drop_duplicates():
        best = best_on_validation(summary, dataset)
        if best is None:
            continue
        same = (summary["dataset"] == dataset) & (summary["layers"] == best["layers"])
        test = summary[same & (summary["recipe"] == best["recipe"]) & (summary["split"] == "test")]
        for row in test[test["readout"] == "head"].itertuples():
            ends = f"{_interval(row.low, row.high, _percent, row.n_seeds, 'seed', row.method)}; {_over_images(row)}"
            what = f"the Forward-Forward network that is best on validation, {row.layers} with recipe {row.recipe},"
            if is_control(row.recipe):
                what = f"{row.layers} trained by backprop ({row.recipe})"
            sentences.append(f"{dataset}: {what} reaches a test accuracy of {_percent(row.mean)} ({ends}).")
    return sentences


def _over_images(row: Any) -> str:
    """The interval over seeds and test images of a row of accuracy_summary; with one seed over images alone."""
    what = "over seeds and test images" if row.n_seeds > 1 else "over test images"
    if pd.isna(row.total_low):
        return f"no interval {what}"
    return f"{what} {_percent(row.total_low)} to {_percent(row.total_high)}, {int(row.n_images):,} images"


def _recipe_sentences(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    frame, sentences = tables["recipes"], []
    summary = tables["accuracy_summary"]
    for dataset in frame["dataset"].drop_duplicates():
        best = best_on_validation(summary, dataset)
        if best is None:
            continue
        rows = frame[(frame["dataset"] == dataset) & (frame["layers"] == best["layers"]) & (frame["readout"] == "head")]
        for row in rows.itertuples():
            if best["recipe"] not in (row.recipe_a, row.recipe_b) or pd.isna(row.difference_points):
                continue
            a, b, sign = row.recipe_a, row.recipe_b, 1
            if best["recipe"] == b:
                a, b, sign = b, a, -1
            difference = sign * row.difference_points
            ends = sorted((sign * row.low, sign * row.high)) if pd.notna(row.low) else (None, None)
            word = "above" if difference > 0 else "below"
            size = f"{abs(difference):.2f} points {word}" if round(abs(difference), 2) else "level with"
            interval = _interval(*ends, _points, row.n_pairs, "pair", row.method)
            clear = ""
            if ends[0] is not None and ends[0] <= 0 <= ends[1] and ends[0] != ends[1]:
                clear = " The interval holds 0: the difference is not clear."
            sentences.append(
                f"{dataset}, {row.layers}: recipe {a} is {size} {b} on test (paired over seeds; {interval}).{clear}"
            )
    return sentences


def _early_exit_sentences(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    frame, sentences = tables["operating_points"], []
    for dataset, part in frame.groupby("dataset", sort=False):
        best = best_on_validation(tables["accuracy_summary"], dataset)
        if best is None:
            continue
        cell = part[(part["layers"] == best["layers"]) & (part["recipe"] == best["recipe"])]
        if len(cell):
            sentences.append(f"{dataset}, {best['layers']}, {best['recipe']}: {_exit_against_cut(cell)}")
    return sentences


def _exit_against_cut(cell: pd.DataFrame) -> str:
    """What early exit wins over the reference cut, and over full depth: rows of operating_points, one a seed."""
    where = f"a network cut after layer {_cut_depths(cell)}"
    macs = cell["macs_saved_share_vs_cut"]
    times = [cell[f"time_saved_share_vs_cut_batch_{batch}"].mean() for batch in EXIT_BATCHES]
    winners = int((macs > 0).sum())
    lost = verdict(where, macs.mean(), times)
    if lost is None:
        text = "early exit at the point chosen on validation saves MACs over "
        text += f"{where}, the cheapest that is as accurate on validation"
    else:
        text = f"{lost}{' on average' * (winners > 0)}"
    if 0 < winners < len(cell):
        text += f" ({winners} of {len(cell)} seeds save MACs)"
    return f"{text}. Against that cut it {_exit_costs(cell, 'cut')}; against full depth it {_exit_costs(cell, 'full')}."


def _cut_depths(cell: pd.DataFrame) -> str:
    """`1`, or where seeds differ `1 (2 seeds), after layer 2 (1 seed)`; full depth is called so."""
    whole = cell["layers"].iloc[0].count("-")
    counts = cell["cut_depth"].value_counts().sort_index()
    texts = []
    for depth, n in counts.items():
        notes = ["full depth"] * (depth == whole) + [f"{n} seed{'s' * (n != 1)}"] * (len(counts) > 1)
        texts.append(f"{depth} ({', '.join(notes)})" if notes else str(depth))
    return ", after layer ".join(texts)


def _exit_costs(cell: pd.DataFrame, base: str) -> str:
    texts = []
    for column, what in (
        (f"macs_saved_share_vs_{base}", "MACs"),
        (f"time_saved_share_vs_{base}_batch_512", "measured time at batch 512"),
    ):
        saved = statistics.mean_interval(cell[column])
        ends = _interval(saved.low, saved.high, _percent, saved.n, "seed", saved.method)
        if saved.estimate >= 0:
            texts.append(f"saves {_percent(saved.estimate)} of the {what} ({ends})")
        else:
            texts.append(f"takes {_percent(-saved.estimate)} more {what} (saved: {ends})")
    change = statistics.mean_interval(cell[f"change_points_vs_{base}"])
    ends = _interval(change.low, change.high, _points, change.n, "seed", change.method)
    return f"{', '.join(texts)}, and changes test accuracy by {_points(change.estimate)} points ({ends})"


def _speed_sentences(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    latency, devices, sentences = tables["latency"], tables["devices"], []
    deploy = latency[latency["path"] == "deploy"]
    if len(deploy):
        for kind, how in (("queued", "batches queued"), ("synchronised", "each batch waited for")):
            rate = deploy[f"throughput_{kind}_per_s"].astype(float)
            if rate.notna().any():
                row = deploy.loc[rate.idxmax()]
                sentences.append(
                    f"The highest throughput measured with {how} is {rate.max():,.0f} samples/s on {_place(row)} "
                    f"({row['dataset']}, {row['layers']}, batch {row['batch_size']})."
                )
    speedup = tables["speedup"]
    speedup = speedup[speedup["path"] == "deploy"].dropna(subset=["speedup"])
    for threads, part in speedup.groupby("cpu_threads"):
        row = part.loc[part["speedup"].idxmax()]
        unit = "seed" if "seeds" in str(row["method"]) else "repeat"
        ends = _interval(row["low"], row["high"], lambda value: f"{value:.1f}", row["n"], unit, row["method"])
        sentences.append(
            f"The largest speed-up of {row['device']} over {_threads(threads)} of the CPU is {row['speedup']:.1f} "
            f"times ({ends}; {row['dataset']}, {row['layers']}, batch {row['batch_size']})."
        )
        wins = tables["gpu_wins"]
        wins = wins[(wins["path"] == "deploy") & (wins["cpu_threads"] == threads)]["batch_size"].dropna()
        if len(wins):
            span = f"{wins.min():.0f}" if wins.min() == wins.max() else f"{wins.min():.0f} to {wins.max():.0f}"
            sentences.append(
                f"The GPU is faster than {_threads(threads)} of the CPU for certain from batch size {span} on, by "
                "network."
            )
    for row in devices[devices["available"] == 0].drop_duplicates("device").itertuples():
        sentences.append(f"Nothing was measured on {row.device}: {row.reason}.")
    return sentences


def _place(row: Mapping[str, Any]) -> str:
    """Where a row was measured: `cuda`, or `4 threads of the CPU`."""
    return row["device"] if row["device"] != "cpu" else f"{_threads(row['threads'])} of the CPU"


def _threads(threads: int) -> str:
    return f"{int(threads)} thread{'s' * (int(threads) != 1)}"


def _energy_sentences(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    training = tables["training"].dropna(subset=["energy_gross_mj"])
    if training.empty:
        return ["No energy was measured: no run has readings of a power sensor."]
    sentences = []
    for dataset, part in training.groupby("dataset", sort=False):
        best = best_on_validation(tables["accuracy_summary"], dataset)
        if best is None:
            continue
        cell = part[(part["layers"] == best["layers"]) & (part["recipe"] == best["recipe"])]
        gross, net = _energy_interval(cell, "gross"), _energy_interval(cell, "net")
        if gross.estimate is None:
            continue
        text = f"{dataset}, {best['layers']}, {best['recipe']}: a training run takes {_joules(gross, 'gross')}"
        text += f", {_joules(net, 'above idle')}." if net.estimate is not None else "; idle was not measured."
        shared = int((cell["shared"] == 1).sum())
        if shared:
            text += f" In {shared} of {len(cell)} runs something else ran on the device, and its energy is in there."
        together = int(cell["shared_by_seeds"].max())
        if together > 1:
            text += f" This is its equal part of what the {together} seeds trained together took."
        sentences.append(text)
    return sentences


def _energy_interval(cell: pd.DataFrame, kind: str) -> statistics.Interval:
    """Energy of a run in J, its mean and interval over seeds; over the windows of the run where there is one seed."""
    joules = cell[f"energy_{kind}_mj"] / 1000
    interval = statistics.mean_interval(joules, at_least=0 if kind == "gross" else -math.inf)
    if interval.n != 1:
        return interval
    row = cell[joules.notna()].iloc[0]
    low, high = (row[f"energy_{kind}_{end}_mj"] / 1000 for end in ("low", "high"))
    return interval._replace(low=low, high=high, method=f"{row['energy_method']} over the parts of the run")


def _joules(energy: statistics.Interval, kind: str) -> str:
    ends = _interval(energy.low, energy.high, lambda value: f"{value:,.0f}", energy.n, "seed", energy.method)
    return f"{energy.estimate:,.0f} J {kind} ({ends})"


def _percent(value: float) -> str:
    text = f"{100 * value:.2f}".replace("-", "\N{MINUS SIGN}")
    return f"{text}\N{NO-BREAK SPACE}%"


def _points(value: float) -> str:
    # A minus sign, and no "-0.00".
    text = f"{value:+.2f}"
    return text.replace("-0.00", "0.00").replace("+0.00", "0.00").replace("-", "\N{MINUS SIGN}")


def _interval(low: Any, high: Any, show: Callable[[float], str], n: Any, unit: str, method: str) -> str:
    count = f"{int(n)} {unit}{'s' * (int(n) != 1)}"
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return f"{count}, no interval"
    if low == high:
        return f"{count}, all equal"
    return f"95 % interval {show(low)} to {show(high)}, {method}, {count}"


# ----------------------------------------------------------------------------------------------- HTML bits


class Column(NamedTuple):
    """A column of a table in the page: its header (with unit) and how a row's value is written."""

    header: str
    show: Callable[[Any], str]
    number: bool = True


def _text(value: Any) -> str:
    return "–" if value is None or (not isinstance(value, str) and pd.isna(value)) else str(value)


def _number(pattern: str, factor: float = 1.0) -> Callable[[Any], str]:
    def show(value: Any) -> str:
        return "–" if value is None or pd.isna(value) else format(factor * float(value), pattern)

    return show


def _range(pattern: str, factor: float = 1.0) -> Callable[[Any], str]:
    one = _number(pattern, factor)

    def show(pair: Any) -> str:
        low, high = pair
        return "–" if pd.isna(low) or pd.isna(high) else f"{one(low)} to {one(high)}"

    return show


def _words(name: str) -> Column:
    return Column(name, _text, False)


def _table(caption: str, columns: Sequence[Column], rows: Iterable[Sequence[Any]], note: str = "") -> str:
    """A table in a box of its own that scrolls sideways (and down when it is long), with a header that
    stays."""
    rows = list(rows)
    if not rows:
        return f"<p class='none'>{html.escape(caption)}: {html.escape(note or 'no rows')}.</p>"
    head = "".join(
        f"<th scope='col'{' class=n' if column.number else ''}>{html.escape(column.header)}</th>" for column in columns
    )
    body = []
    for row in rows:
        cells = []
        for column, value in zip(columns, row, strict=True):
            text = column.show(value)
            kind = " class=n" if column.number else " class=long" if len(text) > LONG_TEXT else ""
            cells.append(f"<td{kind}>{html.escape(text)}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    escaped = html.escape(caption, quote=True)
    note = f"<p class='note'>{html.escape(note)}</p>" if note else ""
    return (
        "<div class='scroll' role='region' tabindex='0' "
        f"aria-label='{escaped}'><table><caption>{escaped}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>{note}"
    )


class _Image(NamedTuple):
    uri: str
    width_px: int


def _image(base: Path) -> _Image | None:
    """The SVG, or the PNG where the SVG is missing or large, as a data URI; None where neither exists.

    The width is that of the figure at 100 CSS pixels an inch, so that letters have the same size in all
    figures.
    """
    svg, png = base.parent / f"{base.name}.svg", base.parent / f"{base.name}.png"
    if svg.is_file() and (svg.stat().st_size <= LARGEST_SVG or not png.is_file()):
        data = svg.read_bytes()
        points = re.search(rb'<svg[^>]*? width="([0-9.]+)pt"', data)
        width = float(points[1]) / 72 if points else 8
        return _Image(f"data:image/svg+xml;base64,{base64.b64encode(data).decode()}", round(100 * width))
    if png.is_file():
        data = png.read_bytes()
        # Width in pixels: bytes 16 to 19 of a PNG; figures are saved at 150 dots per inch.
        width = int.from_bytes(data[16:20], "big") / 150
        return _Image(f"data:image/png;base64,{base64.b64encode(data).decode()}", round(100 * width))
    return None


def _figure(name: str, spec: FigureSpec, figures_dir: Path) -> str:
    source = _image(figures_dir / name)
    caption = f"<figcaption><b>{html.escape(spec.title)}.</b> {html.escape(spec.caption)}</figcaption>"
    if source is None:
        return f"<figure id='figure-{name}'><p class='none'>This figure was not made.</p>{caption}</figure>"
    return (
        f"<figure id='figure-{name}'><div class='scroll picture' role='region' tabindex='0' "
        f"aria-label='{html.escape(spec.title, quote=True)}'><img src='{source.uri}' "
        f"width='{source.width_px}' alt='{html.escape(spec.alt, quote=True)}'></div>{caption}</figure>"
    )


def _definitions(pairs: Iterable[tuple[str, Any]]) -> str:
    items = "".join(f"<dt>{html.escape(str(key))}</dt><dd>{html.escape(_flat(value))}</dd>" for key, value in pairs)
    return f"<dl>{items}</dl>" if items else ""


def _known(facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in facts.items() if value is not None and value != [] and value != {}]


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_flat(part)}" for key, part in _known(value)) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(_flat(part) for part in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else str(value)


# ---------------------------------------------------------------------------------------------- the tables


def _in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows by dataset as they came, then by network size, then ff, own recipes, edgeff, bp."""
    if frame.empty:
        return frame
    datasets = {name: place for place, name in enumerate(frame["dataset"].drop_duplicates())}
    keys = {"_d": frame["dataset"].map(datasets), "_l": frame["layers"].map(sizes)}
    by = ["_d", "_l"]
    if "recipe" in frame:
        keys["_r"] = frame["recipe"].map(place)
        by.append("_r")
    return frame.assign(**keys).sort_values(by, kind="stable").drop(columns=by)


def _accuracy_tables(tables: Mapping[str, pd.DataFrame]) -> str:
    summary = _in_order(tables["accuracy_summary"])
    test = summary[summary["split"] == "test"]
    rows = [
        (
            *(r.dataset, r.layers, r.recipe, r.readout, r.n_seeds, r.n_images, r.mean),
            *((r.low, r.high), r.method, (r.total_low, r.total_high), r.total_method),
        )
        for r in test.itertuples()
    ]
    columns = [_words("dataset"), _words("network"), _words("recipe"), _words("readout")]
    columns += [Column("seeds", _text), Column("test images", _number(",.0f"))]
    columns += [Column("test accuracy (%)", _number(".2f", 100))]
    columns += [Column("95 % interval over seeds (%)", _range(".2f", 100)), _words("method")]
    columns += [Column("95 % interval over seeds and images (%)", _range(".2f", 100)), _words("method")]
    note = (
        "Means over seeds. Over seeds: on these very images; over seeds and images: what a new seed on new images may "
        "give, with one seed over images alone."
    )
    first = _table("Test accuracy at full depth", columns, rows, note if rows else "no finished run")
    pairs = _in_order(tables["recipes"])
    rows = [
        (
            r.dataset,
            r.layers,
            r.readout,
            f"{r.recipe_a} minus {r.recipe_b}",
            r.n_pairs,
            r.difference_points,
            (r.low, r.high),
            r.method,
        )
        for r in pairs.itertuples()
    ]
    columns = [
        _words("dataset"),
        _words("network"),
        _words("readout"),
        _words("recipes"),
        Column("pairs", _text),
    ]
    columns += [Column("difference (points)", lambda value: "–" if pd.isna(value) else _points(value))]
    columns += [Column("95 % interval (points)", _signed_range), _words("method")]
    note = (
        "On test, only seeds that both recipes have; an interval without 0 is a clear difference. It is over seeds, on "
        "these very images."
    )
    second = _table("Recipes compared, paired over seeds", columns, rows, note if rows else "fewer than two recipes")
    return first + second


def _signed_range(pair: Any) -> str:
    low, high = pair
    return "–" if pd.isna(low) or pd.isna(high) else f"{_points(low)} to {_points(high)}"


def _training_tables(tables: Mapping[str, pd.DataFrame]) -> str:
    rows = []
    frame = _in_order(tables["training"])
    for key, cell in frame.groupby(["dataset", "layers", "recipe"], sort=False):
        means = cell.mean(numeric_only=True)
        rows.append(
            (
                *key,
                len(cell),
                ", ".join(f"{count:.0f}" for count in sorted(cell["shared_by_seeds"].unique())),
                means["parameters"],
                means["seconds_total"],
                # Backprop has one phase; the recipes of Forward-Forward train their layers in the first of two.
                means[["samples_per_s_representation", "samples_per_s_backprop"]].max(),
                means["peak_memory_mb"],
                means["energy_gross_mj"],
                means["energy_net_mj"],
                _runs_that_shared(cell["shared"]),
            )
        )
    columns = [_words("dataset"), _words("network"), _words("recipe"), Column("seeds", _text)]
    columns += [Column("trained together", _text)]
    columns += [Column("parameters", _number(",.0f")), Column("time (s)", _number(",.1f"))]
    columns += [Column("training (samples/s)", _number(",.0f")), Column("peak memory (MB)", _number(",.0f"))]
    columns += [
        Column("gross energy (J)", _number(",.1f", 1e-3)),
        Column("net energy (J)", _number(",.1f", 1e-3)),
        _words("device shared"),
    ]
    note = (
        "Means over seeds; – was not measured. Net energy is above idle; intervals are in training.csv. Seeds that "
        "were trained together share time and energy in equal parts; peak memory and samples/s are those of all. "
        "Energy of a device that was shared is that of all who shared it."
    )
    return _table("Cost of training", columns, rows, note if rows else "no finished run")


def _runs_that_shared(shared: pd.Series) -> str | None:
    known = shared.dropna()
    return f"{int((known == 1).sum())} of {len(known)} runs" if len(known) else None


def _early_exit_tables(tables: Mapping[str, pd.DataFrame]) -> str:
    frame = _in_order(tables["operating_points"])
    if frame.empty:
        return _table("Early-exit operating points", [], [], "no run has an operating point")
    choice = frame["choice"].iloc[0]
    chosen = f"Rule and k chosen on validation ({choice}), reported on test; means over seeds; negative: costs more."
    return (
        _exit_table(frame, "cut", "Early exit against a network cut", f"{CUT_NOTE} {chosen}")
        + _exit_table(frame, "full", "Early exit against full depth", chosen)
        + _cut_table(tables["early_exit"])
    )


CUT_NOTE = (
    "The cut is the cheapest network of fewer layers, with one head, that is as accurate on validation as the point "
    "must be. What early exit does not save against it, it does not save at all."
)


def _exit_table(frame: pd.DataFrame, base: str, caption: str, note: str) -> str:
    rows = []
    for key, cell in frame.groupby(["dataset", "layers", "recipe"], sort=False):
        change = statistics.mean_interval(cell[f"change_points_vs_{base}"])
        macs = statistics.mean_interval(cell[f"macs_saved_share_vs_{base}"])
        times = [cell[f"time_saved_share_vs_{base}_batch_{batch}"].mean() for batch in EXIT_BATCHES]
        ks = ", ".join(dict.fromkeys(_rule(row.rule, row.k) for row in cell.itertuples()))
        depths = ", ".join(str(depth) for depth in sorted(set(cell["cut_depth"])))
        accuracies = [cell["test_accuracy"].mean(), cell[f"test_{base}_accuracy"].mean()]
        row = [*key, len(cell), ks, *[depths] * (base == "cut"), *accuracies, change.estimate, change[2:4]]
        rows.append([*row, macs.estimate, macs[2:4], *times])
    name = {"cut": "cut", "full": "full depth"}[base]
    columns = [_words("dataset"), _words("network"), _words("recipe"), Column("seeds", _text), _words("rule, k")]
    columns += [_words("cut after layer")] * (base == "cut")
    columns += [Column(f"{what}: test accuracy (%)", _number(".2f", 100)) for what in ("exit", name)]
    columns += [Column("change (points)", lambda value: "–" if value is None or pd.isna(value) else _points(value))]
    columns += [Column("95 % interval", lambda pair: "–" if None in pair else _signed_range(pair))]
    columns += [Column("MACs saved (%)", _number(".2f", 100))]
    columns += [Column("95 % interval", lambda pair: "–" if None in pair else _range(".2f", 100)(pair))]
    columns += [Column(f"time saved, batch {batch} (%)", _number(".1f", 100)) for batch in EXIT_BATCHES]
    return _table(caption, columns, rows, note)


def _cut_table(early_exit: pd.DataFrame) -> str:
    """Every network cut, so that the reader can choose another reference."""
    rows = []
    cuts = _in_order(early_exit[early_exit["rule"] == "static"])
    for key, cell in cuts.groupby(["dataset", "layers", "recipe", "depth"], sort=False):
        val, test = (cell[cell["split"] == split] for split in ("val", "test"))
        costs = ["macs_saved_share_vs_full"] + [f"time_saved_share_vs_full_batch_{batch}" for batch in EXIT_BATCHES]
        row = [*key[:3], f"{key[3]:.0f}", len(test), val["accuracy"].mean(), test["accuracy"].mean()]
        rows.append([*row, int(test["is_reference_cut"].sum()), *(1 - test[column].mean() for column in costs)])
    times = (f"time, batch {batch}" for batch in EXIT_BATCHES)
    columns = [_words("dataset"), _words("network"), _words("recipe"), Column("cut after layer", _text)]
    columns += [Column("seeds", _text)]
    columns += [Column(f"{split} accuracy (%)", _number(".2f", 100)) for split in ("validation", "test")]
    columns += [Column("seeds that take it as the cut", _text)]
    columns += [Column(f"{what} (% of full depth)", _number(".1f", 100)) for what in ("MACs", *times)]
    return _table("Network cuts", columns, rows, "Layers 1 to d answer by head d alone; the last is full depth.")


def _rule(rule: str, k: float) -> str:
    return "no early exit" if pd.isna(k) else f"{rule} {k:g}"


def _latency_tables(tables: Mapping[str, pd.DataFrame]) -> str:
    latency = _in_order(tables["latency"])
    rows = []
    for key, cell in latency.groupby(["dataset", "layers", "recipe", "device", "threads", "path"], sort=False):
        for batch in sorted({cell["batch_size"].min(), cell["batch_size"].max()}):
            part = cell[cell["batch_size"] == batch]
            rows.append(
                (
                    *key,
                    batch,
                    part["median_ms"].mean(),
                    part["p5_ms"].mean(),
                    part["p95_ms"].mean(),
                    (part["low_ms"].min(), part["high_ms"].max()),
                    part["throughput_synchronised_per_s"].mean(),
                    part["throughput_queued_per_s"].mean(),
                    len(part),
                )
            )
    columns = [_words("dataset"), _words("network"), _words("recipe"), _words("device"), Column("CPU threads", _text)]
    columns += [
        _words("path"),
        Column("batch size", _text),
        Column("median (ms)", _number(".4g")),
        Column("p5 (ms)", _number(".4g")),
    ]
    columns += [Column("p95 (ms)", _number(".4g")), Column("95 % interval of the median (ms)", _range(".4g"))]
    columns += [
        Column("samples/s, each batch waited for", _number(",.0f")),
        Column("samples/s, queued", _number(",.0f")),
    ]
    columns += [Column("seeds", _text)]
    note = (
        "Latency of a whole batch, smallest and largest batch size (all are in latency.csv). Means over "
        "seeds; the interval is the widest bootstrap interval of a seed's median. deploy: inputs already on "
        "the device; end_to_end: with their transfer. Queued: batches handed over back to back, one wait at the end; "
        "a path that ends in host memory waits for each batch and has none."
    )
    text = _table("Inference time", columns, rows, note if rows else "no run has been measured")
    gone = tables["devices"][tables["devices"]["available"] == 0].drop_duplicates("device")
    for row in gone.itertuples():
        text += f"<p class='none'>{html.escape(f'{row.device} was not measured: {row.reason}')}.</p>"
    wins = _in_order(tables["gpu_wins"].dropna(subset=["batch_size"]))
    if len(wins):
        rows = [
            (r.dataset, r.layers, r.recipe, r.device, r.path, r.cpu_threads, r.batch_size) for r in wins.itertuples()
        ]
        columns = [_words("dataset"), _words("network"), _words("recipe"), _words("device"), _words("path")]
        columns += [Column("against CPU threads", _number(".0f"))]
        columns += [Column("faster than the CPU from batch size", _number(".0f"))]
        note = "The interval of the speed-up lies above 1 at this batch size and at every larger one."
        text += _table("Where the GPU starts to win", columns, rows, note)
    agreement = tables["agreement"][tables["agreement"]["available"] == 1]
    if len(agreement):
        share = agreement["same_predictions_share"]
        text += (
            f"<p>CPU and GPU give the same prediction for {100 * share.min():.3f} % or more of the test "
            f"samples ({len(agreement)} runs); the largest difference of a logit is "
            f"{agreement['max_logit_difference'].max():.2g}.</p>"
        )
    return text


def _energy_tables(tables: Mapping[str, pd.DataFrame]) -> str:
    energy = _in_order(tables["inference_energy"].dropna(subset=["gross_mj_per_sample"]))
    rows = []
    for key, cell in energy[energy["is_total"] == 1].groupby(
        ["dataset", "layers", "recipe", "device", "threads", "rail"], sort=False
    ):
        for batch in sorted({cell["batch_size"].min(), cell["batch_size"].max()}):
            part = cell[cell["batch_size"] == batch]
            power, idle, gross, net = part[["power_mw", "idle_mw", "gross_mj_per_sample", "net_mj_per_sample"]].mean()
            ends = [(part[f"{kind}_low"].min(), part[f"{kind}_high"].max()) for kind in ("gross", "net")]
            windows = int(part["n_windows"].min())
            rows.append((*key[:5], batch, key[5], power, idle, gross, ends[0], net, ends[1], windows, len(part)))
    columns = [_words("dataset"), _words("network"), _words("recipe"), _words("device"), Column("CPU threads", _text)]
    columns += [Column("batch size", _text), _words("rail")]
    columns += [Column("power (W)", _number(".2f", 1e-3)), Column("idle (W)", _number(".2f", 1e-3))]
    columns += [Column("gross (mJ/sample)", _number(".3g")), Column("95 % interval", _range(".3g"))]
    columns += [Column("net (mJ/sample)", _number(".3g")), Column("95 % interval", _range(".3g"))]
    columns += [Column("windows", _text), Column("seeds", _text)]
    note = (
        "Net is above idle, which has windows of its own; smallest and largest batch size. Means over seeds; the "
        "interval is the widest of a seed's (Student t over its windows). Each rail is in inference_energy.csv."
    )
    return _table("Energy of inference", columns, rows, note if rows else "no power sensor could be read")


FAMILY_TABLES: dict[str, Callable[[Mapping[str, pd.DataFrame]], str]] = {
    "accuracy": _accuracy_tables,
    "training": _training_tables,
    "early_exit": _early_exit_tables,
    "latency": _latency_tables,
    "energy": _energy_tables,
}


def _missing_section(missing: pd.DataFrame) -> str:
    if missing.empty:
        return "<p>Nothing: every run that was asked for has all its files.</p>"
    rows = []
    for (file, reason), part in missing.groupby(["file", "reason"], sort=False):
        names = [RunKey(r.dataset, r.layers, r.recipe, r.seed).name for r in part.itertuples()]
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        rows.append((file, reason, len(names), shown))
    columns = [_words("file"), _words("reason"), Column("runs", _text), _words("which")]
    return _table("Missing files", columns, rows, "One row a run and file is in missing.csv.")


def _provenance_section(runs: pd.DataFrame, results_root: Path, written_at: str) -> str:
    finished = runs[runs["finished"] == 1]
    if finished.empty:
        return f"<p>No run has finished. Page written {html.escape(written_at)}.</p>"
    dirty = int(finished["git_dirty"].fillna(0).sum())
    commits = finished["git_commit"].fillna("unknown").value_counts(sort=False)
    started = finished["started_at"].dropna()
    facts = [
        ("git commit", ", ".join(f"{commit} ({n} run{'s' * (n != 1)})" for commit, n in commits.items())),
        ("uncommitted changes", f"in {dirty} of {len(finished)} runs" if dirty else "none"),
        ("runs started", f"{started.min()} to {started.max()}" if len(started) else "unknown"),
        ("page written", written_at),
    ]
    warnings = finished["warnings"].dropna().value_counts(sort=False)
    facts += [("warning", f"{text} ({n} run{'s' * (n != 1)})") for text, n in warnings.items()]
    parts = [_definitions(facts)]
    seen = []
    for row in finished[list(KEYS)].itertuples(index=False, name=None):
        if len(seen) == MOST_MACHINES:
            break
        try:
            provenance = read_json(RunKey(*row).folder(results_root) / "metrics.json").get("provenance") or {}
        except FFError:
            continue
        machine, packages = provenance.get("machine") or {}, provenance.get("packages") or {}
        identity = json.dumps([machine_name(machine), packages, provenance.get("python")], sort_keys=True, default=str)
        if identity in seen:
            continue
        seen.append(identity)
        parts.append(f"<h3>{html.escape(machine_name(machine) or 'Machine')}</h3>")
        parts.append(_definitions([*_known(machine), ("python", provenance.get("python")), ("packages", packages)]))
    return "".join(parts)


# -------------------------------------------------------------------------------------------------- the page

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1a1a1a; --soft: #555; --paper: #fff; --line: #d5d5d5; --tint: #f5f6f8; --link: #00558c;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --soft: #adadad; --paper: #16181c; --line: #3a3d44; --tint: #20232a; --link: #7cc4f5; }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: break-word;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif;
}
header, main, footer, nav { max-width: 68rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1.5rem; }
footer { padding-top: 2rem; padding-bottom: 2rem; color: var(--soft); font-size: .9rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.35rem; margin: 2.5rem 0 .75rem; padding-top: .5rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
a { color: var(--link); }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; list-style: none; padding: 0; margin: 1rem 0; }
.question {
  font-size: 1.15rem; border-left: 4px solid var(--link); padding-left: .9rem; margin: 1rem 0;
  white-space: pre-line;
}
.key { padding-left: 1.2rem; }
.key li { margin: .4rem 0; }
.scroll {
  overflow: auto; max-width: 100%; max-height: 34rem; margin: 1rem 0 .25rem;
  border: 1px solid var(--line); border-radius: 6px;
}
table { border-collapse: collapse; font-size: .86rem; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .5rem .6rem; }
th, td { padding: .3rem .6rem; text-align: left; border-top: 1px solid var(--line); white-space: nowrap; }
th { position: sticky; top: 0; background: var(--tint); vertical-align: bottom; }
th, td.long { white-space: normal; }
td.long { min-width: 16rem; }
th.n, td.n { text-align: right; }
tbody tr:nth-child(even) { background: var(--tint); }
.note, figcaption, .none { color: var(--soft); font-size: .9rem; }
.note { margin: .25rem 0 1rem; }
figure { margin: 1.75rem 0; }
.picture { background: #fff; max-height: none; padding: .4rem; }
.picture img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
dl { display: grid; grid-template-columns: minmax(7rem, 13rem) minmax(0, 1fr); gap: .2rem 1rem; font-size: .92rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  h1 { font-size: 1.45rem; }
  .picture img { max-width: 38rem; margin: 0; }
  dl { grid-template-columns: minmax(0, 1fr); }
  dt { margin-top: .4rem; }
}
@media print {
  nav { display: none; }
  body { font-size: 11pt; }
  .scroll { max-height: none; overflow: visible; border: 0; }
  figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
  .picture img { max-width: 100%; }
  table { font-size: 8pt; }
  th, td { white-space: normal; }
}
"""

READING = (
    "Accuracies are means over seeds with two 95 % intervals, both of Wilson's form, which stays within 0 and 100 %: "
    "over seeds, on these very test images; and over seeds and test images, what a new seed on new images may give, "
    "which more seeds cannot make narrower than a test set of that size allows. Recipes are compared on the seeds "
    "that both have; such differences, and other means over fewer than 20 seeds, have Student's t interval, since a "
    "bootstrap of a few values is too narrow, and from 20 on a bootstrap (BCa). Timings are medians over repeats with "
    "a bootstrap interval. Networks and thresholds are chosen on validation data, never on test. What was not "
    "measured is shown as – and never as 0."
)


def _page(
    tables: Mapping[str, pd.DataFrame],
    results_root: Path,
    figures_dir: Path,
    names: Sequence[str],
    question: str,
    title: str,
    written_at: str,
) -> str:
    families = [
        family
        for family in FAMILY_TITLES
        if family in FAMILY_TABLES or any(FIGURES[name].family == family for name in names)
    ]
    ids = [("results", "Results"), *((family, FAMILY_TITLES[family]) for family in families)]
    ids += [("missing", "Missing"), ("provenance", "Machine and provenance")]
    links = "".join(f"<li><a href='#{anchor}'>{html.escape(text)}</a></li>" for anchor, text in ids)
    sentences = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in key_results(tables))
    parts = [
        f"<section id='results'><h2>Results</h2><ul class='key'>{sentences}</ul><p class='note'>{READING}</p></section>"
    ]
    for family in families:
        body = FAMILY_TABLES[family](tables) if family in FAMILY_TABLES else ""
        drawn = "".join(_figure(n, FIGURES[n], figures_dir) for n in names if FIGURES[n].family == family)
        parts.append(f"<section id='{family}'><h2>{html.escape(FAMILY_TITLES[family])}</h2>{drawn}{body}</section>")
    parts.append(f"<section id='missing'><h2>Missing, and why</h2>{_missing_section(tables['missing'])}</section>")
    provenance = _provenance_section(tables["runs"], results_root, written_at)
    parts.append(f"<section id='provenance'><h2>Machine and provenance</h2>{provenance}</section>")
    escaped = html.escape(title)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{escaped}</title>\n"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        # An empty icon in the page: otherwise a browser asks the server for /favicon.ico.
        "<link rel='icon' "
        f"href='data:,'>\n<style>{STYLE}</style></head>\n<body>\n<header><h1>{escaped}</h1><p "
        f"class='question'>{html.escape(question)}</p></header>\n"
        f"<nav aria-label='Sections'><ul>{links}</ul></nav>\n<main>\n" + "\n".join(parts) + "\n</main>\n"
        f"<footer>Written by ff, {html.escape(written_at)}. The tables behind this page are the CSV files in "
        "the summary folder.</footer>\n</body></html>\n"
    )
