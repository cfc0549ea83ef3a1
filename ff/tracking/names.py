"""What a file on disk is called on Weights & Biases: pure functions from ff's files to names and values.

Names follow the published EdgeFF project where they mean the same, so that its dashboards keep working; the
table for people is docs/wandb.md. A value that was not measured is left out, it never becomes 0.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ff.learn.readouts import score_name
from ff.learn.rules import READOUTS, RULES

HARDWARE_STEP = "hardware_seconds"
SPLITS = {"train": "train", "val": "validation", "test": "test"}
_SCORES = {"accuracy": "accuracy", "macro_f1": "f1_score", "error": "error"}

_HISTORY = {"validation_accuracy": "sample_val_accuracy", "seconds": "epoch_seconds"}
_HARDWARE = {
    "ram_used_mb": "ram_used_mb",
    "ram_total_mb": "ram_total_mb",
    "gpu_percent": "gpu_usage_percent",
    "cpu_percent": "cpu_avg_percent",
}


def number(value: Any) -> int | float | str | None:
    """A CSV cell as int, float or text; None for an empty one and for what is not finite."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return None
        for kind in (int, float):
            try:
                value = kind(text)
                break
            except ValueError:
                continue
        else:
            return text
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def quantity(value: Any) -> float | None:
    """A CSV cell as a number; None for an empty one, for text and for what is not finite."""
    found = number(value)
    return found if isinstance(found, (int, float)) else None


def present(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` without those that were not measured."""
    return {name: value for name, value in values.items() if value is not None}


def epoch_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of history.csv (text or numbers) as a row of W&B history.

    `phase`, `epoch`, `loss`, `learning_rate` keep their names, `validation_accuracy` is
    `sample_val_accuracy`, `seconds` is `epoch_seconds`, `goodness_positive_2` is `goodness/positive_2`.
    """
    out = {}
    for column, cell in row.items():
        name = _HISTORY.get(column, re.sub(r"^goodness_", "goodness/", column))
        out[name] = number(cell)
    return present(out)


def flattened(sample: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values as one level with dots: {"power_mw": {"VDD_IN": 1}} -> {"power_mw.VDD_IN": 1}, lists
    likewise."""
    out: dict[str, Any] = {}
    for name, value in sample.items():
        if isinstance(value, Mapping):
            out |= flattened(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            out |= flattened({str(index): entry for index, entry in enumerate(value)}, f"{prefix}{name}.")
        else:
            out[f"{prefix}{name}"] = value
    return out


def hardware_row(sample: Mapping[str, Any], start_s: float) -> dict[str, Any]:
    """A hardware sample (row of hardware.csv or of the sidecar's log) as a row of W&B history; {} if it has
    no time.

    `hardware_seconds` counts from `start_s` on the sample's monotonic clock and is the step of all its
    metrics.
    """
    from ff.hardware.summary import flat_row

    values = {name: number(cell) for name, cell in flat_row(dict(sample)).items()}
    time_s = values.pop("monotonic_s", None)
    if not isinstance(time_s, (int, float)):
        return {}
    values.pop("source", None)
    out: dict[str, Any] = {HARDWARE_STEP: time_s - start_s, "hardware/unix_s": values.pop("unix_s", None)}
    temperatures = {}
    for name, value in values.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            continue
        if name.startswith("power_mw."):
            out[f"{name.removeprefix('power_mw.')}_power_mw"] = value
        elif name in _HARDWARE:
            out[_HARDWARE[name]] = value
        else:
            out[f"hardware/{name}"] = value
        if name.startswith("temperature_c."):
            temperatures[name.removeprefix("temperature_c.")] = value
    used, total = out.get("ram_used_mb"), out.get("ram_total_mb")
    if used is not None and total:
        out["ram_usage_percent"] = 100 * used / total
    if temperatures:
        out["temperature_celsius"] = _board_temperature(temperatures)
    return present(out)


def _board_temperature(temperatures: Mapping[str, float]) -> float:
    # The published code reads the first sensor called *temp or Tdiode; boards without one get their hottest
    # sensor.
    for name, value in temperatures.items():
        if name.lower().endswith(("temp", "tdiode")):
            return value
    return max(temperatures.values())


def run_config(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The W&B config of a run from its metrics.json: ff's settings, the published names, where it ran."""
    config = dict(metrics.get("config") or {})
    run = metrics.get("run") or {}
    layers = [int(width) for width in re.split(r"[,\-]", str(config.get("layers") or run.get("layers") or "")) if width]
    if layers:
        config |= {"layers": layers, "width": layers[1] if len(layers) > 1 else 0}
    config["representation_epochs"] = config.get("rep_epochs")
    config["model"] = run.get("model")
    provenance = metrics.get("provenance") or {}
    for name in ("git_commit", "git_dirty", "python", "packages", "machine", "code_hash", "started_at"):
        config[name] = provenance.get(name)
    return present(config)


def labels(config: Mapping[str, Any]) -> dict[str, Any]:
    """Name, group (the cell: data set, layers, recipe) and tags of a run from the `config` of its metrics.json.

    The first tag is how it learned, which its settings say: a recipe of any name may be backpropagation.
    """
    cell = f"{config['dataset']}/{str(config['layers']).replace(',', '-')}/{config['recipe']}"
    method = (config.get("recipe_settings") or {}).get("method")
    tags = [method, str(config["dataset"]).lower(), str(config["recipe"])[:64]]
    return {"name": f"{cell}/seed{config['seed']}", "group": cell[:128], "tags": [tag for tag in tags if tag]}


def run_id(job_type: str, metrics: Mapping[str, Any], sweep: str | None = None) -> str:
    """A W&B run id that is the same whenever the same training is mirrored.

    It depends on the settings of the run, on the machine that it ran on and on the sweep that it was trained for here,
    not on its results: what is trained again updates its run, and the same cell of another machine, or of the grid and
    of a sweep, is a run of its own.
    """
    machine = (metrics.get("provenance") or {}).get("machine") or {}
    config = metrics.get("config") or metrics.get("run") or {}
    return identifier(job_type, config, machine_parts(machine), *([sweep] if sweep else []))


def machine_parts(machine: Mapping[str, Any]) -> list[Any]:
    """What tells machines apart in a run id: board and processors, none of which changes from boot to boot."""
    cpu, gpus = machine.get("cpu") or {}, machine.get("gpus") or []
    return [
        machine.get("model"),
        machine.get("architecture"),
        cpu.get("model"),
        [gpu.get("name") for gpu in gpus],
    ]


def identifier(*parts: Any) -> str:
    """A run id of what identifies the run: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def training_summary(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The summary values of a training run from its metrics.json."""
    out: dict[str, Any] = {}
    for name, value in (metrics.get("final") or {}).items():
        out[f"final/{name}"] = value
    out |= split_scores(metrics.get("results") or [])
    for section in ("seconds", "samples_per_s", "peak_memory_mb", "macs_per_sample"):
        for name, value in flattened(metrics.get(section) or {}).items():
            out[f"{section}/{name}"] = value
    for name in ("parameters", "shared_by_seeds", "resumed_from_epoch"):
        out[name] = metrics.get(name)
    return present({name: number(value) for name, value in out.items()})


def split_scores(readouts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`test/accuracy`, `validation/f1_score`, ... of the deepest head, and `test/goodness_accuracy`, ..."""
    out: dict[str, Any] = {}
    for readout in READOUTS:
        rows = [row for row in readouts if row["readout"] == readout]
        depth = max((row["depth"] for row in rows), default=None)
        for row in rows:
            if row["depth"] == depth and row["split"] in SPLITS:
                for source, target in _SCORES.items():
                    out[f"{SPLITS[row['split']]}/{score_name(target, readout)}"] = row.get(source)
    return present(out)


def energy_summary(hardware: Mapping[str, Any]) -> dict[str, Any]:
    """`energy/<phase>/gross_mj`, `.../net_mj` and the ends of their intervals from hardware.json, where they were
    measured; `energy/run/...` of the whole run, and whether something else ran on the device (`shared`)."""
    out: dict[str, Any] = {}
    parts = dict(hardware.get("energy") or {}) | {"run": hardware.get("run_energy")}
    for phase, energy in parts.items():
        total = (energy or {}).get("total") or {}
        wanted = {name: value for name, value in total.items() if name.endswith("_mj") or name == "shared"}
        out |= {f"energy/{phase}/{name}": value for name, value in wanted.items()}
    return present(out)


def logged_metrics() -> set[str]:
    """Names that every training run logs: what a sweep's `metric` may be."""
    names = {f"final/{split}_accuracy" for split in ("train", "val", "test")}
    names |= {f"{split}/{score}" for split in SPLITS.values() for score in _SCORES.values()}
    parts = ("import", "load", "validation", "evaluation", "write", "idle", "other", "total")
    names |= {f"seconds/{part}" for part in parts}
    names |= {"peak_memory_mb/host", "parameters", "shared_by_seeds"}
    names |= {f"macs_per_sample/{kind}" for kind in ("train_step", "head_readout")}
    names |= {"epoch", "loss", "sample_val_accuracy", "learning_rate", "epoch_seconds", "validation_seconds"}
    return names


def conditional_metrics() -> dict[str, set[str]]:
    """Names that the runs of some learning rules log and those of others do not, with the methods of these runs."""
    names: dict[str, set[str]] = {}
    for rule in RULES.values():
        own = {f"{cost}/{phase}" for cost in ("seconds", "samples_per_s") for phase in rule.PHASES}
        for readout in rule.READOUTS:
            scores = [score_name(score, readout.name) for score in _SCORES.values()]
            own |= {f"{split}/{score}" for split in SPLITS.values() for score in scores}
            own |= {f"final/{split}_{score_name('accuracy', readout.name)}" for split in SPLITS}
            own.add(f"macs_per_sample/{readout.name}_readout")
        for name in own:
            names.setdefault(name, set()).add(rule.NAME)
    return {name: methods for name, methods in names.items() if len(methods) < len(RULES)}


GPU_METRICS = ("peak_memory_mb/device",)
"""Names that runs on a GPU log."""


Table = tuple[list[str], list[list[Any]]]


def table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Rows as (columns, data) with each column of one type, as W&B tables want them; empty cells are None."""
    rows = [dict(row) for row in rows]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    data: list[list[Any]] = [[number(row.get(column)) for column in columns] for row in rows]
    for index in range(len(columns)):
        kinds = {type(line[index]) for line in data if line[index] is not None}
        if len(kinds) > 1:
            kind = float if kinds <= {int, float} else str
            for line in data:
                line[index] = None if line[index] is None else kind(line[index])
    return columns, data


def training_tables(metrics: Mapping[str, Any], phases: Sequence[Mapping[str, Any]]) -> dict[str, Table]:
    """Tables of a training run: `readouts` from metrics.json and `phases`, the rows of phases.csv."""
    tables = {"readouts": table(metrics.get("results") or []), "phases": table(phases)}
    return {name: content for name, content in tables.items() if content[1]}


def evaluation_tables(
    evaluation: Mapping[str, Any], files: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Table]:
    """Tables of an evaluation: `readouts`, `per_class`, `confusion`, `layers`, `confidence` of evaluation.json, and
    the rows of CSV files under the names given with them."""
    readouts, classes = evaluation.get("readouts") or [], evaluation.get("classes") or []
    keys = ("split", "readout", "depth")
    scalars = [{k: v for k, v in row.items() if not isinstance(v, (list, dict))} for row in readouts]
    per_class = [{k: row[k] for k in keys} | dict(entry) for row in readouts for entry in row.get("per_class") or []]
    confusion = [
        {k: row[k] for k in keys} | {"true": _class(classes, i), "predicted": _class(classes, j), "count": count}
        for row in readouts
        for i, line in enumerate(row.get("confusion") or [])
        for j, count in enumerate(line)
    ]
    tables = {"readouts": table(scalars), "per_class": table(per_class), "confusion": table(confusion)}
    for name in ("layers", "confidence"):
        tables[name] = table(flattened(row) for row in evaluation.get(name) or [])
    tables |= {name: table(rows) for name, rows in files.items()}
    return {name: content for name, content in tables.items() if content[1]}


def _class(classes: Sequence[Any], index: int) -> str:
    return str(classes[index]) if index < len(classes) else str(index)


def evaluation_summary(evaluation: Mapping[str, Any], early_exit: Mapping[str, Any]) -> dict[str, Any]:
    """Scores of the deepest readouts, the early-exit operating point as `early_exit/<split>/<name>`, and beside it the
    network cut that it has to beat as `early_exit/cut/<split>/<name>`."""
    out = split_scores(evaluation.get("readouts") or [])
    depth = (early_exit.get("reference_cut") or {}).get("depth")
    cuts = [cut for cut in early_exit.get("static_cuts") or [] if cut.get("depth") == depth]
    point = dict(early_exit.get("operating_point") or {}) | ({"cut": cuts[0]} if cuts else {})
    out |= {f"early_exit/{name.replace('.', '/')}": value for name, value in flattened(point).items()}
    return present({name: value for name, value in out.items() if not isinstance(value, (list, dict))})


def timing_rows(samples: Iterable[Mapping[str, Any]], width: int) -> list[dict[str, Any]]:
    """One row per timed repeat (a row of variance/<device>.csv), under the published names.

    `latency_per_sample_ms` and `throughput_samples_sec` are the batch's latency and size put the published
    way.
    """
    out = []
    for row in samples:
        batch_size, latency_ms = quantity(row.get("batch_size")), quantity(row.get("latency_ms"))
        line = {
            "width": width,
            "device": row.get("device"),
            "threads": number(row.get("threads")),
            "path": row.get("path"),
            "batch_size": batch_size,
        }
        line |= {name: number(row.get(name)) for name in ("repeat", "latency_ms", "device_ms")}
        if batch_size and latency_ms:
            line["latency_per_sample_ms"] = latency_ms / batch_size
            line["throughput_samples_sec"] = 1000 * batch_size / latency_ms
        out.append(present(line))
    return out


def timing_statistics(devices: Mapping[str, Mapping[str, Any]], width: int) -> list[dict[str, Any]]:
    """One row per device, CPU threads, path and batch size, for the table `latency_stats_table`; `devices` maps the
    stem of each variance/<device>.json to its content."""
    out = []
    for stem, content in devices.items():
        device = (content.get("device") or {}).get("kind") or stem
        for batch in content.get("batches") or []:
            energy = (batch.get("energy") or {}).get("total") or {}
            latency = batch.get("latency_ms") or {}
            throughput = {
                f"throughput{kind}_{name}": value
                for kind, field in (("", "throughput_synchronised_per_s"), ("_queued", "throughput_queued_per_s"))
                for name, value in (batch.get(field) or {}).items()
                if name in ("median", "low", "high")
            }
            out.append(
                {"width": width, "device": device}
                | {name: batch.get(name) for name in ("threads", "path", "batch_size", "n_repeats")}
                | {f"latency_{name}_ms": value for name, value in latency.items()}
                | throughput
                | {
                    "memory_mb": batch.get("peak_memory_mb"),
                    "energy_per_sample_mj": (energy.get("gross_mj_per_sample") or {}).get("mean"),
                    "net_energy_per_sample_mj": (energy.get("net_mj_per_sample") or {}).get("mean"),
                    "avg_power_mw": (energy.get("power_mw") or {}).get("mean"),
                }
            )
    return out


def variance_summary(devices: Mapping[str, Mapping[str, Any]], agreement: Mapping[str, Any]) -> dict[str, Any]:
    """`agreement/...` from variance/agreement.json, and for each device whether it was there."""
    wanted = ("available", "n", "same_predictions_share", "max_logit_difference")
    out = {f"agreement/{name}": agreement.get(name) for name in wanted}
    for stem, content in devices.items():
        device = content.get("device") or {}
        out |= {f"device/{stem}/{name}": device.get(name) for name in ("available", "name")}
    return present(out)
