"""Every setting once: its name, type, default, range and help, for the command line, the DAG and metrics.json.

`RunConfig` is what is asked of one training run. Its `recipe` names a block of `RecipeSettings`; each of them can
be overridden. What the numbers depend on (`identity`) is kept apart from where and how a run is carried out
(`ExecutionConfig`), so that moving a run to another folder or watching its hardware does not make it another run.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ff.errors import FFError

DATASETS = ("MNIST", "FMNIST", "SVHN", "CIFAR10", "DIGITS")
INPUT_SIZE = {"MNIST": 784, "FMNIST": 784, "SVHN": 3072, "CIFAR10": 3072, "DIGITS": 784}
CLASS_COUNT = 10
# Far beyond anything useful, and small enough that its square is a float32.
LARGEST = 1e6


def _setting(default: Any, help: str, **limits: Any) -> Any:
    """A dataclass field; limits are `choices`, `minimum`, `maximum` (both inclusive) and `above` (exclusive)."""
    return field(default=default, metadata={"help": help, **limits})


@dataclass(frozen=True)
class RecipeSettings:
    """How a network learns. The defaults are the recipe `ff`."""

    method: str = _setting("forward-forward", "how layers learn", choices=("forward-forward", "backprop"))
    normalisation: str = _setting(
        "rms", "scale of each layer's input: mean square 1 (rms) or length 1 (unit)", choices=("rms", "unit")
    )
    loss: str = _setting(
        "symba",
        "goodness loss: softplus(-alpha (g+ - g-)) (symba) or softplus(threshold -+ g) (threshold)",
        choices=("symba", "threshold"),
    )
    alpha: float = _setting(2.0, "steepness of the symba loss", above=0, maximum=LARGEST)
    threshold: float = _setting(2.0, "goodness threshold of the threshold loss", above=0, maximum=LARGEST)
    negatives: str = _setting(
        "hard",
        "wrong labels drawn evenly (uniform) or from the softmax of hardness x the first layer's goodness (hard)",
        choices=("uniform", "hard"),
    )
    hardness: float = _setting(4.0, "inverse temperature of the draw of hard negatives", above=0, maximum=LARGEST)
    learning_rate: float = _setting(0.01, "Adam's learning rate of the layers", above=0, maximum=1e30)
    head_learning_rate: float = _setting(0.01, "Adam's learning rate of the heads", above=0, maximum=1e30)
    schedule: str = _setting(
        "linear",
        "learning rate over each phase: down to 0 (linear) or constant",
        choices=("linear", "constant"),
    )
    overlay_value: float = _setting(10.0, "value of the label's pixel", above=0, maximum=LARGEST)
    neutral_value: float = _setting(0.1, "value of all ten label pixels of a neutral input", above=0, maximum=LARGEST)


RECIPES: dict[str, RecipeSettings] = {
    "ff": RecipeSettings(),
    # The settings of the published EdgeFF code.
    "edgeff": RecipeSettings(
        normalisation="unit",
        loss="threshold",
        negatives="uniform",
        learning_rate=0.03,
        head_learning_rate=0.03,
        schedule="constant",
    ),
    # The control: the same network, the same data order and epochs, trained by backpropagation.
    "bp": RecipeSettings(method="backprop", learning_rate=0.001, head_learning_rate=0.001),
}


@dataclass(frozen=True)
class RunConfig:
    """One training run: what its numbers depend on."""

    dataset: str = _setting("MNIST", "data set", choices=DATASETS)
    layers: tuple[int, ...] = _setting(
        (784, 100, 100, 100), "input size and the width of each FF layer, separated by commas"
    )
    recipe: str = _setting("ff", f"named block of settings: {', '.join(RECIPES)}")
    seed: int = _setting(0, "seed of weights, data order, negatives and validation split", minimum=0, maximum=2**63 - 1)
    rep_epochs: int = _setting(10, "epochs in which the FF layers learn", minimum=0)
    softmax_epochs: int = _setting(10, "epochs in which the softmax heads learn", minimum=0)
    train_batch_size: int = _setting(256, "samples in a training mini-batch", minimum=1)
    test_batch_size: int = _setting(512, "samples in an evaluation mini-batch", minimum=1)
    val_size: int = _setting(10000, "training samples held out for validation, drawn with the seed", minimum=0)
    precision: str = _setting(
        "float32", "number format of the matrix products", choices=("float32", "bfloat16", "float64")
    )
    settings: RecipeSettings = RECIPES["ff"]

    @property
    def layers_name(self) -> str:
        """The resolved layers as they stand in a path: 784-200-200-10."""
        return "-".join(map(str, self.layers))

    @property
    def name(self) -> str:
        """The run's folder below the results folder."""
        return f"{self.dataset}/{self.layers_name}/{self.recipe}/seed{self.seed}"

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

    device: str = _setting("auto", "auto, cpu, cuda or cuda:N")
    no_cuda: bool = _setting(False, "stay on the CPU")
    threads: int = _setting(0, "CPU threads, 0: as many as the process may use", minimum=0, maximum=1024)
    # Empty: the prepared set that is there will do, whatever it was made from.
    data_dir: str = _setting("data", "torchvision-style data root (else FF_DATA_DIR, else --config)")
    prepared_dir: str = _setting("data/prepared", "where prepared data sets are kept")
    out: str = _setting("results", "results folder; the run gets a folder of its own in it")
    verify: bool = _setting(True, "accept the official data files only; false: any, with a warning in metrics.json")
    download: bool = _setting(True, "fetch official data files that are missing")
    # In a job of the workflow also `service`: a process beside the job records.
    sidecar: str = _setting(
        "inline",
        "who records hardware.csv and hardware.json: the run itself (inline) or nobody (off)",
        choices=("inline", "off"),
    )
    hw_interval_ms: int = _setting(500, "interval of the hardware samples", minimum=10, maximum=3_600_000)
    idle_s: float = _setting(
        5.0,
        "seconds in which idle power is measured before and after, where a sensor can be read",
        minimum=0,
        maximum=3600,
    )
    project: str = _setting("edgeff", "Weights & Biases project")


def parse_layers(value: Any) -> tuple[int, ...]:
    """`"784,200,10"`, `"784-200-10"` or a sequence of numbers as a tuple of widths."""
    parts = re.split(r"[,\-]", value) if isinstance(value, str) else value
    try:
        layers = tuple(_whole(part) for part in parts)
    except (TypeError, ValueError):
        raise FFError(
            f'layers must be numbers separated by commas such as "784,200,200,10", not {_shown(value)}'
        ) from None
    if len(layers) < 2 or min(layers) < 1 or max(layers) > LARGEST:
        raise FFError(
            f"layers needs an input size and at least one layer, each from 1 to {LARGEST:.0f}, not {_shown(value)}"
        )
    return layers


def resolve_layers(dataset: str, layers: tuple[int, ...]) -> tuple[tuple[int, ...], str | None]:
    """Layers whose first entry fits the data set, and a warning where it had to be changed.

    A grid may pair `784,...` with a colour data set: its input becomes 3072. Any other mismatch raises FFError.
    """
    size = INPUT_SIZE[dataset]
    if layers[0] == size:
        return layers, None
    if layers[0] == 784 and size == 3072:
        return (
            size,
            *layers[1:],
        ), f"{dataset} images have {size} values: the input size 784 of the layers became {size}"
    raise FFError(
        f"layers begin with {layers[0]}, but {dataset} images have {size} values; "
        f'write layers as "{",".join(map(str, (size, *layers[1:])))}"'
    )


def resolve_recipe(
    name: str,
    overrides: Mapping[str, Any] | None = None,
    recipes: Mapping[str, Mapping[str, Any]] | None = None,
) -> RecipeSettings:
    """The settings of recipe `name`: built in, or a block of `recipes` (`base:` names what it starts from)."""
    if not isinstance(recipes or {}, Mapping):
        raise FFError(f"recipes must be named blocks of settings, not {_shown(recipes)}")
    block = (recipes or {}).get(name) or {}
    if not isinstance(block, Mapping):
        raise FFError(f"recipe {_shown(name)} must be a block of settings, not {_shown(block)}")
    block = dict(block)
    base = block.pop("base", name if name in RECIPES else "ff")
    if name not in RECIPES and name not in (recipes or {}):
        known = sorted({*RECIPES, *(recipes or {})})
        raise FFError(f"unknown recipe {_shown(name)}; known recipes: {', '.join(known)}")
    if not isinstance(base, str) or base not in RECIPES:
        raise FFError(f"recipe {_shown(name)} starts from unknown base {_shown(base)}; bases are: {', '.join(RECIPES)}")
    changes = block | dict(overrides or {})
    return dataclasses.replace(RECIPES[base], **checked(RecipeSettings, changes, f"recipe {name}"))


def make_run_config(
    values: Mapping[str, Any], recipes: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[RunConfig, list[str]]:
    """A checked RunConfig of plain values (command line, YAML, grid cell), and the warnings that go with it.

    `values` may hold RunConfig settings and recipe settings side by side. Raises FFError naming the setting and
    what is allowed.
    """
    recipe_names = {f.name for f in dataclasses.fields(RecipeSettings)}
    overrides = {key: value for key, value in values.items() if key in recipe_names}
    rest = {key: value for key, value in values.items() if key not in recipe_names}
    if "layers" in rest:
        rest["layers"] = parse_layers(rest["layers"])
    config = RunConfig(**checked(RunConfig, rest, "run"))
    # The name is a folder's, and must not be "..".
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.]*", config.recipe):
        raise FFError(
            f"recipe name {_shown(config.recipe)} must begin with a letter, digit or '_' and go on with these or '.'"
        )
    if config.rep_epochs + config.softmax_epochs == 0:
        raise FFError("rep_epochs and softmax_epochs are both 0: nothing would be trained; give one of them at least 1")
    layers, warning = resolve_layers(config.dataset, config.layers)
    settings = resolve_recipe(config.recipe, overrides, recipes)
    config = dataclasses.replace(config, layers=layers, settings=settings)
    block = (recipes or {}).get(config.recipe) or {}
    return config, [*([warning] if warning else []), *_without_effect(config, {**block, **overrides})]


def _without_effect(config: RunConfig, given: Mapping[str, Any]) -> list[str]:
    """A warning for what was asked for and changes nothing, or leaves a readout that was never trained."""
    settings, warnings = config.settings, []
    unused = {
        "alpha": settings.loss != "symba" and f"loss {settings.loss} has no alpha",
        "threshold": settings.loss != "threshold" and f"loss {settings.loss} has no threshold",
        "hardness": settings.negatives != "hard" and f"negatives {settings.negatives} are drawn evenly",
    }
    if settings.method == "backprop":
        unused = dict.fromkeys(
            ("loss", "alpha", "threshold", "negatives", "hardness", "overlay_value"), "method backprop does not use it"
        )
    elif config.softmax_epochs == 0:
        warnings.append("softmax_epochs is 0: the heads stay untrained, so the head readout only guesses")
    elif config.rep_epochs == 0:
        warnings.append("rep_epochs is 0: the layers stay random, so the goodness readout only guesses")
    useless = {name: why for name, why in unused.items() if name in given and why}
    return [*warnings, *(f"{name} has no effect on recipe {config.recipe}: {why}" for name, why in useless.items())]


def run_config_of(values: Mapping[str, Any]) -> RunConfig:
    """The RunConfig that `as_dict` gave, as metrics.json, checkpoints and the DAG's params hold it."""
    plain = {key: value for key, value in values.items() if key != "recipe_settings"}
    return make_run_config(plain | dict(values["recipe_settings"]), recipes={values["recipe"]: {}})[0]


def checked(kind: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`values` converted to the field types of dataclass `kind` and held against each field's limits."""
    fields = {f.name: f for f in dataclasses.fields(kind) if f.name != "settings"}
    unknown = sorted(set(values) - set(fields), key=str)
    if unknown:
        raise FFError(f"unknown setting {_shown(unknown[0])} ({where}); known: {', '.join(fields)}")
    return {name: _convert(fields[name], value, where) for name, value in values.items()}


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
            raise FFError(f"setting 'enable_hw_monitor' must be true or false, not {_shown(switch)}") from None
    return values


def _convert(setting: dataclasses.Field, value: Any, where: str) -> Any:
    limits, kind, name = setting.metadata, setting.type, setting.name
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
        raise FFError(f"setting {name!r} ({where}) must be of type {kind.__name__}, not {_shown(value)}") from None
    if "choices" in limits and value not in limits["choices"]:
        raise FFError(f"setting {name!r} ({where}) is {_shown(value)}; allowed: {', '.join(limits['choices'])}")
    if "minimum" in limits and not value >= limits["minimum"]:
        raise FFError(f"setting {name!r} ({where}) is {_shown(value)}; it must be at least {limits['minimum']}")
    if "above" in limits and not limits["above"] < value < float("inf"):
        raise FFError(f"setting {name!r} ({where}) is {value}; it must be finite and above {limits['above']}")
    if "maximum" in limits and not value <= limits["maximum"]:
        raise FFError(f"setting {name!r} ({where}) is {_shown(value)}; it must be at most {limits['maximum']}")
    return value


def _whole(value: Any) -> int:
    """A whole number given as number or text; ValueError for true, false and anything with a fraction."""
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    return int(value)


def _shown(value: Any) -> str:
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
