"""Every setting once: its name, type, default, range and help, for the command line, the DAG and metrics.json.

`RunConfig` is what is asked of one training run. Its `settings` are those of a learning rule (`ff.learn.rules` holds
them, `ff.learn.recipes` the recipes, which are named blocks of them). What the numbers depend on (`identity`) is kept
apart from where and how a run is carried out (`ExecutionConfig`), so that moving a run to another folder or watching
its hardware does not make it another run.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from ff.data.registry import DATASETS
from ff.errors import FFError
from ff.layout import RunKey

# Far beyond anything useful, and small enough that its square is a float32.
LARGEST = 1e6


def setting(default: Any, help: str, **limits: Any) -> Any:
    """A dataclass field; limits are `choices`, `minimum`, `maximum` (both inclusive) and `above` (exclusive), of texts
    `pattern` and `shortest`; those of a tuple are its items', but for `fewest` of them (by default 1)."""
    return field(default=default, metadata={"help": help, **limits})


def setting_of(kind: type, name: str, **changes: Any) -> Any:
    """Setting `name` of another settings dataclass, with a new `default`, `help` or limits."""
    [found] = [f for f in dataclasses.fields(kind) if f.name == name]
    return setting(**{"default": found.default, **found.metadata, **changes})


@dataclass(frozen=True)
class RunConfig:
    """One training run: what its numbers depend on."""

    dataset: str = setting("MNIST", "data set", choices=DATASETS)
    layers: tuple[int, ...] = setting(
        (784, 100, 100, 100), "input size and the width of each FF layer, separated by commas"
    )
    recipe: str = setting("ff", "named block of a learning rule's settings")
    seed: int = setting(0, "seed of weights, data order, negatives and validation split", minimum=0, maximum=2**63 - 1)
    rep_epochs: int = setting(10, "epochs in which the FF layers learn", minimum=0)
    softmax_epochs: int = setting(10, "epochs in which the softmax heads learn", minimum=0)
    train_batch_size: int = setting(256, "samples in a training mini-batch", minimum=1)
    test_batch_size: int = setting(512, "samples in an evaluation mini-batch", minimum=1)
    val_size: int = setting(10000, "training samples held out for validation, drawn with the seed", minimum=0)
    precision: str = setting(
        "float32",
        "number format of the matrix products; tf32: float32 whose products a CUDA device may round to 10 bits; auto: "
        "bfloat16 where it is faster and was shown to be as accurate, else float32",
        choices=("float32", "bfloat16", "float64", "tf32", "auto"),
    )
    # A learning rule's Settings.
    settings: Any = field(kw_only=True)

    @property
    def classes(self) -> int:
        """Number of classes of the data set."""
        return len(DATASETS[self.dataset].classes)

    @property
    def key(self) -> RunKey:
        """What names the run."""
        return RunKey.of(vars(self))

    @property
    def layers_name(self) -> str:
        """The resolved layers as they stand in a path: 784-200-200-10."""
        return self.key.layers

    @property
    def name(self) -> str:
        """The run's folder below the results folder."""
        return self.key.name

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as metrics.json holds them; `layers` written as on the command line."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "settings"}
        values["layers"] = ",".join(map(str, self.layers))
        return values | {"recipe_settings": dataclasses.asdict(self.settings)}

    def identity(self) -> str:
        """A short hash of everything that the trained weights depend on, but for code and data."""
        text = json.dumps(self.as_dict() | {"test_batch_size": None}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ExecutionConfig:
    """Where and how a run is carried out; none of it is meant to change a number beyond rounding."""

    device: str = setting("auto", "auto, cpu, cuda or cuda:N")
    no_cuda: bool = setting(False, "stay on the CPU")
    cuda_graph: bool = setting(
        False, "launch each training step on a CUDA device as one graph; not yet run on a device"
    )
    threads: int = setting(0, "CPU threads, 0: as many as the process may use", minimum=0, maximum=1024)
    # Empty: the prepared set that is there will do, whatever it was made from.
    data_dir: str = setting("data", "torchvision-style data root (else FF_DATA_DIR, else --config)")
    prepared_dir: str = setting("data/prepared", "where prepared data sets are kept")
    out: str = setting("results", "results folder; the run gets a folder of its own in it")
    verify: bool = setting(True, "accept the official data files only; false: any, with a warning in metrics.json")
    download: bool = setting(True, "fetch official data files that are missing")
    # In a job of the workflow also `service`: a process beside the job records.
    sidecar: str = setting(
        "inline",
        "who records hardware.csv and hardware.json: the run itself (inline) or nobody (off)",
        choices=("inline", "off"),
    )
    hw_interval_ms: int = setting(500, "interval of the hardware samples", minimum=10, maximum=3_600_000)
    idle_s: float = setting(
        5.0,
        "seconds in which idle power is measured before and after, where a sensor can be read",
        minimum=0,
        maximum=3600,
    )
    save_every_s: float = setting(
        2.0,
        "seconds of training that a run which is killed may lose, 0: none but those of its last epoch",
        minimum=0,
        maximum=86400,
    )
    project: str = setting("edgeff", "Weights & Biases project")


@dataclass(frozen=True)
class MeasureConfig:
    """How inference is measured."""

    devices: tuple[str, ...] = setting(
        ("cpu", "cuda"), "one that is not there leaves its reason in the results", choices=("cpu", "cuda")
    )
    batch_sizes: tuple[int, ...] = setting((1, 2, 8, 16, 32, 64, 128, 256, 512), "samples in a batch", minimum=1)
    repeats: int = setting(50, "timed repeats of each batch size", minimum=2)
    single_samples: int = setting(100, "repeats at batch size 1, at least", minimum=100)
    threads: tuple[int | str, ...] = setting(
        (1, "all"), "CPU threads; all: every core it may use", minimum=1, maximum=1024, choices=("all",)
    )
    rounds: int = setting(5, "repeats are dealt to rounds; in each the devices come in a new order", minimum=1)
    energy_windows: int = setting(
        3, "windows of each batch size where there is a power sensor, 0: no energy", minimum=0
    )
    runtimes: tuple[str, ...] = setting(
        ("torch",),
        "what computes; others than torch take exported networks, and one that is not there leaves its reason",
        choices=("torch", "onnxruntime", "onnxruntime-int8", "tensorrt"),
    )
    power_modes: tuple[int, ...] = setting(
        (), "of a Jetson, by nvpmodel's numbers: measured in each of them too", minimum=0, fewest=0
    )
    early_exit_repeats: int = setting(5, "repeats of the times of early exit", minimum=1)


@dataclass(frozen=True)
class WandbConfig:
    """What the target `track` mirrors to."""

    mode: str = setting(
        "auto",
        "auto: online with a key, else offline",
        choices=("auto", "online", "offline", "disabled"),
    )
    project: str = setting_of(ExecutionConfig, "project")
    entity: str | None = setting(None, "Weights & Biases entity")


@dataclass(frozen=True)
class SweepConfig:
    """A W&B sweep in place of grid, train and train_by_*."""

    sweep: str | None = setting(None, "the sweep's file")
    sweep_count: int | None = setting(None, "how many runs of a sweep of method random", minimum=1)
    sweep_seed: int | None = setting(None, "seed of the draws of method random", minimum=0)
    sweep_out: str | None = setting(None, "its results folder, by default results/sweeps/FILE-HASH", shortest=1)


@dataclass(frozen=True)
class WorkflowConfig:
    """Where things are and how jobs run: keys of the workflow's configuration beside grid, training and measurement."""

    results: str = setting("results", "results folder", shortest=1)
    data_dir: str = setting_of(
        ExecutionConfig,
        "data_dir",
        help="torchvision-style data root; FF_DATA_DIR wins over it, --config data_dir=... over both",
        shortest=1,
    )
    verify: bool = setting_of(ExecutionConfig, "verify")
    device: str = setting_of(ExecutionConfig, "device", pattern="^(auto|cpu|cuda(:[0-9]+)?)$")
    threads: int = setting(1, "CPU threads of a training", minimum=1)
    group_seeds: str | bool = setting(
        "auto",
        "seeds of a cell that share a job: all of them (true), none (false); auto: a few, where that is faster",
        choices=("auto",),
    )
    sidecar: str = setting(
        "auto",
        "who records the hardware: a process beside the job (service), the job itself (inline), nobody (off); "
        "auto: service on a board, else inline",
        choices=("auto", "service", "inline", "off"),
    )
    hw_interval_ms: int = setting_of(ExecutionConfig, "hw_interval_ms")
    idle_s: float = setting_of(ExecutionConfig, "idle_s")


def parse_layers(value: Any) -> tuple[int, ...]:
    """`"784,200,10"`, `"784-200-10"` or a sequence of numbers as a tuple of widths."""
    parts = re.split(r"[,\-]", value) if isinstance(value, str) else value
    try:
        layers = tuple(_whole(part) for part in parts)
    except (TypeError, ValueError):
        raise FFError(
            f'layers must be numbers separated by commas such as "784,200,200,10", not {shown(value)}'
        ) from None
    if len(layers) < 2 or min(layers) < 1 or max(layers) > LARGEST:
        raise FFError(
            f"layers needs an input size and at least one layer, each from 1 to {LARGEST:.0f}, not {shown(value)}"
        )
    return layers


def resolve_layers(dataset: str, layers: tuple[int, ...]) -> tuple[tuple[int, ...], str | None]:
    """Layers whose first entry fits the data set, and a warning where it had to be changed.

    Layers that are written for the default data set go with any: a grid may pair `784,...` with a colour data set,
    whose input becomes 3072. Any other mismatch raises FFError.
    """
    size = DATASETS[dataset].input_size
    if layers[0] == size:
        return layers, None
    if layers[0] == DATASETS[RunConfig.dataset].input_size:
        warning = f"{dataset} images have {size} values: the input size {layers[0]} of the layers became {size}"
        return (size, *layers[1:]), warning
    raise FFError(
        f"layers begin with {layers[0]}, but {dataset} images have {size} values; "
        f'write layers as "{",".join(map(str, (size, *layers[1:])))}"'
    )


def checked(kind: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`values` converted to the field types of dataclass `kind` and held against each field's limits."""
    fields = {f.name: f for f in dataclasses.fields(kind) if f.metadata}
    unknown = sorted(set(values) - set(fields), key=str)
    if unknown:
        raise FFError(f"unknown setting {shown(unknown[0])} ({where}); known: {', '.join(fields)}")
    types = get_type_hints(kind)
    return {name: _convert(fields[name], types[name], value, where) for name, value in values.items()}


def with_present_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with the published switch enable_hw_monitor, true or false, as sidecar: inline or off."""
    values = dict(values)
    if "enable_hw_monitor" in values:
        if "sidecar" in values:
            raise FFError("enable_hw_monitor is the published name of sidecar; give one of them")
        switch = values.pop("enable_hw_monitor")
        try:
            values["sidecar"] = "inline" if parse_bool(switch) else "off"
        except ValueError:
            raise FFError(f"setting 'enable_hw_monitor' must be true or false, not {shown(switch)}") from None
    return values


def _convert(setting: dataclasses.Field, kind: type, value: Any, where: str) -> Any:
    limits, name = setting.metadata, setting.name
    try:
        if kind is bool:
            value = parse_bool(value)
        elif kind is int:
            value = _whole(value)
        elif kind is float:
            if isinstance(value, bool):
                raise ValueError
            value = float(value)
        elif kind is str:
            # YAML reads a bare off as false.
            value = "off" if value is False and "off" in limits.get("choices", ()) else str(value)
    except (TypeError, ValueError, OverflowError):
        raise FFError(f"setting {name!r} ({where}) must be of type {kind.__name__}, not {shown(value)}") from None
    if "choices" in limits and value not in limits["choices"]:
        raise FFError(f"setting {name!r} ({where}) is {shown(value)}; allowed: {', '.join(limits['choices'])}")
    if "minimum" in limits and not value >= limits["minimum"]:
        raise FFError(f"setting {name!r} ({where}) is {shown(value)}; it must be at least {limits['minimum']}")
    if "above" in limits and not limits["above"] < value < float("inf"):
        raise FFError(f"setting {name!r} ({where}) is {value}; it must be finite and above {limits['above']}")
    if "maximum" in limits and not value <= limits["maximum"]:
        raise FFError(f"setting {name!r} ({where}) is {shown(value)}; it must be at most {limits['maximum']}")
    return value


def _whole(value: Any) -> int:
    """A whole number given as number or text; ValueError for true, false and anything with a fraction."""
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    return int(value)


def shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:
        # Python writes no number of more than 4300 digits.
        text = "a very large number"
    return text if len(text) <= 80 else f"{text[:77]}..."


def parse_bool(value: Any) -> bool:
    """true/false as YAML, a shell or a W&B agent writes them; ValueError for anything else."""
    if isinstance(value, bool):
        return value
    words = {
        "true": True,
        "yes": True,
        "1": True,
        "on": True,
        "false": False,
        "no": False,
        "0": False,
        "off": False,
    }
    if str(value).lower() not in words:
        raise ValueError(value)
    return words[str(value).lower()]
