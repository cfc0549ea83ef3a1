"""Where everything lies: the name of a run, the files that each stage leaves in its folder, tables, figures and logs.

Nothing else joins or splits these paths. Nothing heavy is imported: the workflow reads this at each start.

    results/{dataset}/{layers}/{recipe}/seed{seed}/     a run: TRAIN_FILES, HARDWARE_FILES, EVALUATE_FILES
                                            variance/   its measurement: measure_files, HARDWARE_FILES
    results/{collection}summary/{table}.csv             collection: "" for the grid, "demo/" for the demo
    results/{collection}figures/{figure}.png, .svg
    results/{collection}report.html
    data/prepared/{dataset}.safetensors
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from ff.errors import FFError

# Patterns of a path's parts, for people's paths and for the wildcards of rules.
LAYERS = r"\d+(-\d+)+"
RECIPE = r"[A-Za-z0-9_][A-Za-z0-9_.]*"  # a folder's name, and not ".."
SEED = r"0|[1-9]\d*"

TRAIN_FILES = ("model.safetensors", "metrics.json", "history.csv", "phases.csv")
HARDWARE_FILES = ("hardware.csv", "hardware.json")
EVALUATE_FILES = ("evaluation.json", "distributions.csv")
EARLY_EXIT_FILES = ("early_exit.csv", "early_exit.json")
EXPORT_FOLDER = "export/"
EXPORT_FILES = tuple(EXPORT_FOLDER + name for name in ("bundle.json", "parity.json", "full.onnx", "run.py"))
"""Of the bundle what every network has; bundle.json names the others."""
DEPLOYED_FILES = tuple(EXPORT_FOLDER + name for name in ("deployed.json", "deployed.csv"))
"""Early exit of the exported network, measured."""
SINGLE_STREAM_FILE = "single_stream.json"
MEASURE_FOLDER = "variance/"
POWER_MODES_FOLDER = MEASURE_FOLDER + "power_modes/"
MEASURE_HARDWARE_FILES = tuple(MEASURE_FOLDER + name for name in HARDWARE_FILES)
# Jobs with a hardware log, and the folder within the run's that has their phases.csv and HARDWARE_FILES.
WATCHED = {"train": "", "measure": MEASURE_FOLDER}

TABLES = (
    "scoreboard",
    *("runs", "accuracy", "accuracy_summary", "recipes", "training", "history", "layers", "early_exit"),
    *("operating_points", "latency", "devices", "speedup", "gpu_wins", "agreement", "energy", "inference_energy"),
    *("deployed", "runtimes", "power_modes", "missing"),
)
"""Names of the summary tables."""


class RunKey(NamedTuple):
    """What names a run; `layers` as in its path: `784-200-200-10`, the input size and each layer's width."""

    dataset: str
    layers: str
    recipe: str
    seed: int

    @classmethod
    def parse(cls, path: str) -> "RunKey":
        """The run of a path below the results folder, its own or of a file in it. Raises FFError for any other path."""
        parts = path.split("/")
        if len(parts) < 4:
            raise FFError(f"{path!r} names no run, such as MNIST/784-200-200-10/ff/seed42")
        dataset, layers, recipe, seed = parts[:4]
        if not re.fullmatch(r"\w+", dataset):
            raise FFError(f"there is no data set {dataset!r}")
        if not re.fullmatch(LAYERS, layers):
            raise FFError(f"layers {layers!r} must be numbers joined by '-', as in 784-200-200-10")
        if not re.fullmatch(RECIPE, recipe):
            raise FFError(f"there is no recipe {recipe!r}")
        if not re.fullmatch(f"seed({SEED})", seed):
            raise FFError(f"{seed!r} must be 'seed' and a number, as in seed42")
        return cls(dataset, layers, recipe, int(seed.removeprefix("seed")))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "RunKey":
        """The key of settings that have its parts; `layers` may be numbers, or text with commas between them."""
        layers = values["layers"]
        text = layers.replace(",", "-") if isinstance(layers, str) else "-".join(map(str, layers))
        return cls(values["dataset"], text, values["recipe"], int(values["seed"]))

    @property
    def cell(self) -> str:
        """What runs of several seeds share: the folder that theirs are in."""
        return f"{self.dataset}/{self.layers}/{self.recipe}"

    @property
    def name(self) -> str:
        """The run's folder below the results folder."""
        return f"{self.cell}/seed{self.seed}"

    def folder(self, results: str | os.PathLike) -> Path:
        """The run's folder."""
        return Path(results, self.name)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The input size and the width of each layer."""
        return sizes(self.layers)

    @property
    def depth(self) -> int:
        """How many layers learn: all of `sizes` but the input."""
        return self.layers.count("-")

    @property
    def order(self) -> tuple[Any, ...]:
        """What runs are sorted by: as the key itself, but layers as numbers."""
        return self.dataset, self.sizes, self.recipe, self.seed


# The run that a rule's wildcards name: its paths are patterns.
WILDCARDS = RunKey("{dataset}", "{layers}", "{recipe}", "{seed}")  # type: ignore[arg-type]


def sizes(layers: str) -> tuple[int, ...]:
    """`784-200-10` as (784, 200, 10)."""
    return tuple(int(size) for size in layers.split("-"))


def find_runs(results: str | os.PathLike) -> list[RunKey]:
    """All run folders below `results`, finished or not, by data set, layers (as numbers), recipe and seed."""
    runs = []
    for folder in Path(results).glob("*/*-*/*/seed*"):
        try:
            key = RunKey.parse(folder.relative_to(results).as_posix())
        except FFError:
            continue
        if folder.is_dir():
            runs.append(key)
    return sorted(runs, key=lambda run: run.order)


def files_of(run_folder: str | os.PathLike, folders: Iterable[str]) -> dict[str, int]:
    """The files in those `folders` of a run's, named as in `run_files`, and when each was written, in ns; none without
    a folder."""
    found: dict[str, int] = {}
    for part in folders:
        with suppress(OSError), os.scandir(Path(run_folder, part)) as entries:
            # A link counts as what it leads to, and one that leads nowhere as nothing.
            found |= {f"{part}{entry.name}": entry.stat().st_mtime_ns for entry in entries if entry.is_file()}
    return found


def results_of(folder: Path) -> Path | None:
    """The results folder that a run's folder is in; None for a folder that is no run's."""
    try:
        return folder.parents[3] if RunKey.parse("/".join(folder.parts[-4:])) else None
    except (FFError, IndexError):
        return None


def file_stem(device: str) -> str:
    """What the files of a device are called: `cuda_1` of `cuda:1`."""
    return device.replace(":", "_")


def sample_files(devices: Iterable[str]) -> list[str]:
    """The timing samples of a run's measurement on `devices`."""
    return [f"{MEASURE_FOLDER}{file_stem(device)}.csv" for device in devices]


def measure_files(devices: Sequence[str], runtimes: Sequence[str] = (), power_modes: Sequence[int] = ()) -> list[str]:
    """What a run's measurement on `devices` leaves in its folder; `runtimes`: other ones than torch; `power_modes`:
    beside the one that is on."""
    stems = [file_stem(device) for device in devices]
    names = [*(f"{stem}.json" for stem in stems), "phases.csv", "agreement.json"]
    others = [runtime_stem(device, runtime) for device in devices for runtime in runtimes]
    names += [f"{stem}.{kind}" for stem in others for kind in ("csv", "json")]
    found = [*sample_files(devices), *(MEASURE_FOLDER + name for name in names)]
    for mode in power_modes:
        found += [f"{measure_folder(mode)}{stem}.{kind}" for stem in [*stems, *others] for kind in ("csv", "json")]
    return found


def measure_folder(power_mode: int | None = None) -> str:
    """Where a measurement in a power mode is, below a run's folder; None: in the one that is on."""
    return MEASURE_FOLDER if power_mode is None else f"{POWER_MODES_FOLDER}{power_mode}/"


def runtime_stem(device: str, runtime: str) -> str:
    """What the files of an exported network on a device are called, below the measurement's folder."""
    return f"runtimes/{file_stem(device)}_{runtime}"


def run_files(devices: Sequence[str], runtimes: Sequence[str] = (), power_modes: Sequence[int] = ()) -> list[str]:
    """Every file of a run that is measured on `devices`; with other `runtimes` than torch it is exported, too."""
    measured = [*measure_files(devices, runtimes, power_modes), *MEASURE_HARDWARE_FILES]
    exported = [*EXPORT_FILES, *DEPLOYED_FILES] if runtimes else []
    return [*TRAIN_FILES, *HARDWARE_FILES, *EVALUATE_FILES, *EARLY_EXIT_FILES, *measured, *exported]


def prepared_set(dataset: str, folder: str | os.PathLike = "data/prepared") -> str:
    """The prepared set of a data set."""
    return f"{os.fspath(folder)}/{dataset}.safetensors"


def tables(results: str, collection: str = "", names: Iterable[str] = TABLES) -> list[str]:
    """Paths of summary tables."""
    return [f"{results}/{collection}summary/{name}.csv" for name in names]


def figure(results: str, collection: str, name: str, kind: str = "png") -> str:
    """The path of a figure, `kind` png or svg."""
    return f"{results}/{collection}figures/{name}.{kind}"


def report(results: str, collection: str = "") -> str:
    """The path of the report."""
    return f"{results}/{collection}report.html"


def logs_folder(results: str) -> str:
    """Where the logs of a results folder lie: `logs` for the usual `results`, otherwise inside of it.

    So two results folders that one directory fills, one after the other, do not share a log.
    """
    return "logs" if results.rstrip("/") == "results" else f"{results.rstrip('/')}/logs"


def hardware_log(results: str, run: RunKey, job: str) -> str:
    """The hardware samples of a run's job, one of WATCHED."""
    return f"{logs_folder(results)}/hardware/{run.name}/{job}.jsonl"


def watched_folder(log: PurePath) -> str | None:
    """Where, below the results folder, a job keeps its phases and hardware summary, from its hardware log's path below
    `logs/hardware`; None for a file that is no hardware log."""
    try:
        return f"{RunKey.parse(log.as_posix()).name}/{WATCHED[log.stem]}"
    except (FFError, KeyError):
        return None


def job_log(results: str, stage: str, run: RunKey = WILDCARDS) -> str:
    """The log of a run's job; a job for several runs leaves one for each."""
    return f"{logs_folder(results)}/{stage}/{run.name}.log"


def train_log(results: str, run: RunKey = WILDCARDS) -> str:
    """The log of a run's training."""
    return job_log(results, "train", run)
