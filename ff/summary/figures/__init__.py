"""All figures by name: what draws each, which tables and files it needs, its caption and alternative text.

This module imports neither matplotlib nor pandas, so a Snakefile can enumerate `FIGURES` for nothing;
`build` loads what one figure needs. Each figure function takes data frames and returns a matplotlib Figure.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ff.errors import FFError
from ff.layout import MEASURE_FOLDER
from ff.summary.figures import captions

if TYPE_CHECKING:
    from matplotlib.figure import Figure


CAPTIONS = Path(captions.__file__).parent


class FigureSpec(NamedTuple):
    """One figure. `function` is `module:name` below ff.summary.figures; `frames` are its arguments in order.

    A frame is the name of a summary table, or `raw:NAME`, read from the run folders by `ff.summary.figures.frames`;
    `run_files` names the files that such a frame reads, below each run folder; MEASURE_FOLDER: the timing samples.
    """

    name: str
    family: str
    function: str
    frames: tuple[str, ...]
    run_files: tuple[str, ...]
    title: str
    alt: str

    @property
    def caption(self) -> str:
        """What the figure shows: the text of captions/{name}.rst, a file since Snakemake's own report takes files."""
        return " ".join((CAPTIONS / f"{self.name}.rst").read_text(encoding="utf-8").split())

    @property
    def tables(self) -> tuple[str, ...]:
        """Summary tables that the figure needs; runs says how recipes learned, raw frames choose runs by accuracy."""
        direct = [name for name in self.frames if not name.startswith("raw:")]
        chosen = ["accuracy"] if self.run_files else []
        return tuple(dict.fromkeys([*direct, "runs", *chosen]))


_SPECS = (
    FigureSpec(
        "scoreboard",
        "scoreboard",
        "scoreboard:scoreboard",
        ("scoreboard",),
        (),
        "Scoreboard",
        "For each data set and network one row of panels: test accuracy in per cent, multiply-accumulates, training "
        "time in seconds, peak memory in MB and energy in joules, one mark or bar a recipe.",
    ),
    FigureSpec(
        "accuracy",
        "accuracy",
        "accuracy:accuracy",
        ("accuracy",),
        (),
        "Accuracy by network and recipe",
        "Dot plot of test accuracy in per cent by network, one panel a dataset, one colour and marker a recipe.",
    ),
    FigureSpec(
        "accuracy_depth",
        "accuracy",
        "accuracy:accuracy_depth",
        ("accuracy",),
        (),
        "Accuracy by depth",
        "Line plots of test accuracy in per cent against the number of layers used, one line a readout.",
    ),
    FigureSpec(
        "confusion",
        "accuracy",
        "accuracy:confusion",
        ("raw:confusion",),
        ("evaluation.json",),
        "Confusion on test",
        "Matrix of true against predicted classes, one panel a dataset, with the share in per cent in each cell.",
    ),
    FigureSpec(
        "goodness_gap",
        "training",
        "training:goodness_gap",
        ("history",),
        (),
        "Goodness gap during training",
        "Line plots of the goodness gap against the epoch, one line a layer, one panel a dataset and network.",
    ),
    FigureSpec(
        "validation_accuracy",
        "training",
        "training:validation_accuracy",
        ("history",),
        (),
        "Validation accuracy during training",
        "Line plots of validation accuracy in per cent against the epoch, one line a recipe.",
    ),
    FigureSpec(
        "goodness_distributions",
        "distributions",
        "distributions:goodness",
        ("raw:distributions",),
        ("distributions.csv",),
        "Goodness of positive, negative and neutral inputs",
        "Histograms of goodness for positive, negative and neutral inputs, one row a layer, one column a dataset.",
    ),
    FigureSpec(
        "confidence_probability",
        "distributions",
        "distributions:confidence_probability",
        ("raw:distributions",),
        ("distributions.csv",),
        "Confidence of right and wrong answers (probability)",
        "Histograms of the largest probability for right and wrong answers, one row a layer, one column a dataset.",
    ),
    FigureSpec(
        "confidence_logit",
        "distributions",
        "distributions:confidence_logit",
        ("raw:distributions",),
        ("distributions.csv",),
        "Confidence of right and wrong answers (logit)",
        "Histograms of the largest logit for right and wrong answers, one row a layer, one column a dataset.",
    ),
    FigureSpec(
        "early_exit",
        "early_exit",
        "early_exit:trade_off",
        ("early_exit",),
        (),
        "Early exit and network cuts: accuracy against work and time",
        "Curves of test accuracy in per cent against cost in per cent of full depth, one line an exit rule, and "
        "a square for each network cut.",
    ),
    FigureSpec(
        "deployed",
        "early_exit",
        "deployed:accuracy_latency",
        ("deployed",),
        (),
        "Deployed: accuracy against latency",
        "Plots of test accuracy in per cent against time per image in milliseconds, one line a runtime through its "
        "network cuts, and a hollow mark for its early exit.",
    ),
    FigureSpec(
        "runtimes",
        "latency",
        "runtimes:time_by_runtime",
        ("runtimes",),
        (),
        "Runtimes: time per image",
        "Line plots of time per image in milliseconds against batch size, one line a runtime, one column a number of "
        "threads.",
    ),
    FigureSpec(
        "latency_violins",
        "latency",
        "latency:latency_violins",
        ("raw:latency_samples", "devices"),
        (MEASURE_FOLDER,),
        "Latency of one batch by network",
        "Violin plots of latency in milliseconds by network, one column a device, one row a batch size.",
    ),
    FigureSpec(
        "latency_histogram",
        "latency",
        "latency:latency_histogram",
        ("raw:latency_samples", "devices"),
        (MEASURE_FOLDER,),
        "Latency of single samples",
        "Histograms of latency in milliseconds at batch size 1, one column a network, one row a device.",
    ),
    FigureSpec(
        "throughput",
        "latency",
        "latency:throughput",
        ("latency", "devices"),
        (),
        "Queued throughput against batch size",
        "Line plots of throughput in samples per second against batch size, one line a network, one column a device.",
    ),
    FigureSpec(
        "speedup",
        "latency",
        "heatmaps:speedup",
        ("speedup", "devices"),
        (),
        "Speed-up of the GPU over the CPU",
        "Heat map of the speed-up by network and batch size, one panel a dataset and number of CPU threads, with the "
        "factor in each cell.",
    ),
    FigureSpec(
        "latency_heatmap",
        "latency",
        "heatmaps:latency_heatmap",
        ("latency", "devices"),
        (),
        "Latency by network and batch size",
        "Heat map of latency in milliseconds by network and batch size, one column a device.",
    ),
    FigureSpec(
        "memory_heatmap",
        "latency",
        "heatmaps:memory_heatmap",
        ("latency", "devices"),
        (),
        "Peak memory by network and batch size",
        "Heat map of peak memory in MB by network and batch size, one column a device.",
    ),
    FigureSpec(
        "energy_heatmap",
        "energy",
        "heatmaps:energy_heatmap",
        ("inference_energy", "devices"),
        (),
        "Energy per sample by network and batch size",
        "Heat map of energy per sample in millijoules by network and batch size, one column a device.",
    ),
    FigureSpec(
        "power_heatmap",
        "energy",
        "heatmaps:power_heatmap",
        ("inference_energy", "devices"),
        (),
        "Power by network and batch size",
        "Heat map of power in milliwatts by network and batch size, one column a device.",
    ),
    FigureSpec(
        "energy_rails",
        "energy",
        "energy:rails",
        ("energy", "missing"),
        (),
        "Energy of training by rail and phase",
        "Stacked bars of energy in joules by power rail, one colour and hatch a phase, one panel a network.",
    ),
    FigureSpec(
        "energy_accuracy",
        "energy",
        "energy:energy_accuracy",
        ("training", "accuracy", "missing"),
        (),
        "Accuracy against energy of training",
        "Scatter plot of test accuracy in per cent against training energy in joules, one marker a recipe.",
    ),
    FigureSpec(
        "hardware_trace",
        "hardware",
        "hardware:trace",
        ("raw:hardware_samples", "raw:hardware_phases", "raw:hardware_name"),
        ("hardware.csv", "phases.csv"),
        "Hardware trace of a job",
        "Four line plots over time in seconds: power, load, memory and temperature, with the phases shaded.",
    ),
)
FIGURES: dict[str, FigureSpec] = {spec.name: spec for spec in _SPECS}
FAMILIES = tuple(dict.fromkeys(spec.family for spec in FIGURES.values()))


def build(name: str, summary_dir: str | Path, results_root: str | Path) -> "Figure":
    """Draw figure `name` from the summary tables and, where it needs raw samples, from the run folders.

    Several calls in one process share the imports. FFError for an unknown name or a missing table.
    """
    if name not in FIGURES:
        raise FFError(f"there is no figure called {name!r}; the figures are: {', '.join(FIGURES)}")
    spec = FIGURES[name]
    from ff.summary.figures.frames import load
    from ff.summary.recipe_order import controls_of

    module, function = spec.function.split(":")
    draw = getattr(importlib.import_module(f"ff.summary.figures.{module}"), function)
    summary, results = Path(summary_dir), Path(results_root)
    with controls_of(load("runs", summary, results)):
        return draw(*(load(frame, summary, results) for frame in spec.frames))


def save(figure: "Figure", path_without_suffix: str | Path) -> tuple[Path, Path]:
    """Write PATH.png and PATH.svg, each whole or not at all; the same data give the same bytes."""
    from ff.summary.figures import style

    return style.save(figure, path_without_suffix)
