"""All figures by name: what draws each, which tables and files it needs, its caption and alternative text.

This module imports neither matplotlib nor pandas, so a Snakefile can enumerate `FIGURES` for nothing;
`build` loads what one figure needs. Each figure function takes data frames and returns a matplotlib Figure.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ff.errors import FFError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FigureSpec(NamedTuple):
    """One figure. `function` is `module:name` below ff.summary.figures; `frames` are its arguments in order.

    A frame is the name of a summary table, or `raw:NAME`, read from the run folders by `ff.summary.figures.frames`;
    `run_files` names the files that such a frame reads, below each run folder.
    """

    family: str
    function: str
    frames: tuple[str, ...]
    run_files: tuple[str, ...]
    title: str
    caption: str
    alt: str

    @property
    def tables(self) -> tuple[str, ...]:
        """Summary tables that the figure needs; runs says how recipes learned, raw frames choose runs by accuracy."""
        direct = [name for name in self.frames if not name.startswith("raw:")]
        chosen = ["accuracy"] if self.run_files else []
        return tuple(dict.fromkeys([*direct, "runs", *chosen]))


FIGURES: dict[str, FigureSpec] = {
    "accuracy": FigureSpec(
        "accuracy",
        "accuracy:accuracy",
        ("accuracy",),
        (),
        "Accuracy by network and recipe",
        "Test accuracy of the head readout at full depth. Hollow marks are single seeds, filled marks their "
        "mean, bars its 95 % interval over seeds, thin lines that over seeds and test images (one seed: over images "
        "alone).",
        "Dot plot of test accuracy in per cent by network, one panel a dataset, one colour and marker a recipe.",
    ),
    "accuracy_depth": FigureSpec(
        "accuracy",
        "accuracy:accuracy_depth",
        ("accuracy",),
        (),
        "Accuracy by depth",
        "Test accuracy of the head and of the goodness readout when only the first layers answer. Bands "
        "reach from the smallest to the largest seed.",
        "Line plots of test accuracy in per cent against the number of layers used, one line a readout.",
    ),
    "confusion": FigureSpec(
        "accuracy",
        "accuracy:confusion",
        ("raw:confusion",),
        ("evaluation.json",),
        "Confusion on test",
        "Share of each true class that was answered as each class, summed over seeds, for the network that "
        "is best on validation.",
        "Matrix of true against predicted classes, one panel a dataset, with the share in per cent in each cell.",
    ),
    "goodness_gap": FigureSpec(
        "training",
        "training:goodness_gap",
        ("history",),
        (),
        "Goodness gap during training",
        "Mean goodness of positive minus mean goodness of negative samples, by layer and epoch. Bands reach "
        "from the smallest to the largest seed.",
        "Line plots of the goodness gap against the epoch, one line a layer, one panel a dataset and network.",
    ),
    "validation_accuracy": FigureSpec(
        "training",
        "training:validation_accuracy",
        ("history",),
        (),
        "Validation accuracy during training",
        "Accuracy on the validation set by epoch: first while the layers learn (goodness readout), then "
        "while the heads learn (head readout). Bands reach from the smallest to the largest seed.",
        "Line plots of validation accuracy in per cent against the epoch, one line a recipe.",
    ),
    "goodness_distributions": FigureSpec(
        "distributions",
        "distributions:goodness",
        ("raw:distributions",),
        ("distributions.csv",),
        "Goodness of positive, negative and neutral inputs",
        "How goodness is distributed over test inputs with the true label, a wrong label and the neutral "
        "label, by layer, for the network that is best on validation.",
        "Histograms of goodness for positive, negative and neutral inputs, one row a layer, one column a dataset.",
    ),
    "confidence_probability": FigureSpec(
        "distributions",
        "distributions:confidence_probability",
        ("raw:distributions",),
        ("distributions.csv",),
        "Confidence of right and wrong answers (probability)",
        "How the largest probability of each head is distributed over right and wrong answers on test.",
        "Histograms of the largest probability for right and wrong answers, one row a layer, one column a dataset.",
    ),
    "confidence_logit": FigureSpec(
        "distributions",
        "distributions:confidence_logit",
        ("raw:distributions",),
        ("distributions.csv",),
        "Confidence of right and wrong answers (logit)",
        "How the largest logit of each head, on which the exit rule works, is distributed over right and "
        "wrong answers on test.",
        "Histograms of the largest logit for right and wrong answers, one row a layer, one column a dataset.",
    ),
    "early_exit": FigureSpec(
        "early_exit",
        "early_exit:trade_off",
        ("early_exit",),
        (),
        "Early exit and network cuts: accuracy against work and time",
        "Test accuracy kept when samples may leave at an earlier layer, against the multiply-accumulates "
        "and against the measured time that this takes, for a swept threshold. Squares are the network cut "
        "after each layer; an exit to the right of the dashed line, the cheapest cut that is as accurate on "
        "validation, saves nothing. Thresholds come from validation; samples that left are really dropped "
        "from the batch. Rings mark k = 1.",
        "Curves of test accuracy in per cent against cost in per cent of full depth, one line an exit rule, and "
        "a square for each network cut.",
    ),
    "latency_violins": FigureSpec(
        "latency",
        "latency:latency_violins",
        ("raw:latency_samples", "devices"),
        ("variance",),
        "Latency of one batch by network",
        "Distribution of the measured latency of a whole batch, inputs already on the device, head readout. "
        "The bar reaches from the 5th to the 95th percentile, the white dot is the median.",
        "Violin plots of latency in milliseconds by network, one column a device, one row a batch size.",
    ),
    "latency_histogram": FigureSpec(
        "latency",
        "latency:latency_histogram",
        ("raw:latency_samples", "devices"),
        ("variance",),
        "Latency of single samples",
        "Measured latency of single samples (batch 1), with median, 5th and 95th percentile.",
        "Histograms of latency in milliseconds at batch size 1, one column a network, one row a device.",
    ),
    "throughput": FigureSpec(
        "latency",
        "latency:throughput",
        ("latency", "devices"),
        (),
        "Queued throughput against batch size",
        "Samples per second when batches are handed over back to back, inputs already on the device: median over "
        "windows, with the 95 % bootstrap interval of the median. On the CPU with each number of threads.",
        "Line plots of throughput in samples per second against batch size, one line a network, one column a device.",
    ),
    "speedup": FigureSpec(
        "latency",
        "heatmaps:speedup",
        ("speedup", "devices"),
        (),
        "Speed-up of the GPU over the CPU",
        "CPU time divided by GPU time for the same batch, each batch waited for, against one CPU thread and against "
        "all. Bold: the 95 % interval leaves out 1; hatched: the CPU is faster.",
        "Heat map of the speed-up by network and batch size, one panel a dataset and number of CPU threads, with the "
        "factor in each cell.",
    ),
    "latency_heatmap": FigureSpec(
        "latency",
        "heatmaps:latency_heatmap",
        ("latency", "devices"),
        (),
        "Latency by network and batch size",
        "Median latency of a whole batch in milliseconds, mean over seeds.",
        "Heat map of latency in milliseconds by network and batch size, one column a device.",
    ),
    "memory_heatmap": FigureSpec(
        "latency",
        "heatmaps:memory_heatmap",
        ("latency", "devices"),
        (),
        "Peak memory by network and batch size",
        "Peak memory of inference in MB, mean over seeds.",
        "Heat map of peak memory in MB by network and batch size, one column a device.",
    ),
    "energy_heatmap": FigureSpec(
        "energy",
        "heatmaps:energy_heatmap",
        ("inference_energy", "devices"),
        (),
        "Energy per sample by network and batch size",
        "Energy of one inference in mJ above what the idle machine takes, mean over seeds; gross energy, rails "
        "and intervals are in inference_energy.csv.",
        "Heat map of energy per sample in millijoules by network and batch size, one column a device.",
    ),
    "power_heatmap": FigureSpec(
        "energy",
        "heatmaps:power_heatmap",
        ("inference_energy", "devices"),
        (),
        "Power by network and batch size",
        "Mean power in mW while batches of this size were worked on without a pause, idle power included.",
        "Heat map of power in milliwatts by network and batch size, one column a device.",
    ),
    "energy_rails": FigureSpec(
        "energy",
        "energy:rails",
        ("energy", "missing"),
        (),
        "Energy of training by rail and phase",
        "Gross energy of a training run on each power rail, stacked by phase, mean over seeds. Rails "
        "overlap where one feeds another, so they do not add up.",
        "Stacked bars of energy in joules by power rail, one colour and hatch a phase, one panel a network.",
    ),
    "energy_accuracy": FigureSpec(
        "energy",
        "energy:energy_accuracy",
        ("training", "accuracy", "missing"),
        (),
        "Accuracy against energy of training",
        "Test accuracy against the gross energy of the training run. Hollow marks are single seeds, filled "
        "marks their means.",
        "Scatter plot of test accuracy in per cent against training energy in joules, one marker a recipe.",
    ),
    "hardware_trace": FigureSpec(
        "hardware",
        "hardware:trace",
        ("raw:hardware_samples", "raw:hardware_phases", "raw:hardware_name"),
        ("hardware.csv", "phases.csv"),
        "Hardware trace of a job",
        "Power, load, memory and temperature during one training job, with its phases shaded.",
        "Four line plots over time in seconds: power, load, memory and temperature, with the phases shaded.",
    ),
}

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
