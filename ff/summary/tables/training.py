"""What training cost, how it went, and what the layers became.

Seeds that were trained as one group share what it took in equal parts.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from ff.layout import RunKey
from ff.learn.rules import PHASES, READOUTS
from ff.summary.tables.rows import KEYS, Rows, columns, flagged
from ff.summary.tables.run_files import RunFiles, stacked_csv

TRAINING = (
    *KEYS,
    *columns("shared_by_seeds parameters seconds_import seconds_load"),
    *(f"seconds_{phase}" for phase in PHASES),
    *columns("seconds_validation seconds_evaluation seconds_write seconds_idle seconds_other seconds_total"),
    *(f"samples_per_s_{phase}" for phase in PHASES),
    *columns("peak_memory_mb peak_memory_device_mb macs_train_step"),
    *(f"macs_{readout}_readout" for readout in READOUTS),
    *columns("energy_gross_mj energy_net_mj energy_seconds energy_gross_low_mj energy_gross_high_mj"),
    *columns("energy_net_low_mj energy_net_high_mj energy_method shared"),
)


def training(runs: Iterable[RunFiles]) -> pd.DataFrame:
    """One row per finished run: seconds per phase, samples/s, peak memory (MB), MACs, energy (mJ, all phases).

    Energy is that of the whole run (`ff.hardware.attribution`), and missing where one of its phases was not measured;
    `energy_seconds` says how long they lasted. `shared` is 1 where something else ran on the device. Seeds that were
    trained as one group share its seconds and its energy in equal parts (`shared_by_seeds` says how many they are).
    Memory is not shared out: it is the group's peak. Neither is samples/s: the group's samples in the group's seconds.
    """
    rows = Rows(TRAINING)
    for files in runs:
        metrics = files.json("metrics.json")
        if metrics is None:
            continue
        seconds, rates = metrics.get("seconds") or {}, metrics.get("samples_per_s") or {}
        memory, macs = metrics.get("peak_memory_mb") or {}, metrics.get("macs_per_sample") or {}
        values = {f"seconds_{phase}": value for phase, value in seconds.items()}
        values |= {f"samples_per_s_{phase}": value for phase, value in rates.items()}
        values |= {f"macs_{kind}": value for kind, value in macs.items()}
        values |= {"peak_memory_mb": memory.get("host"), "peak_memory_device_mb": memory.get("device")}
        hardware = files.json("hardware.json") or {}
        values |= _run_energy(hardware.get("run_energy") or {})
        shared = shared_by_seeds(metrics)
        rows.add(
            files.run,
            {**each_seeds(values, shared), "shared_by_seeds": shared, "parameters": metrics.get("parameters")},
        )
    return flagged(rows.frame(), "shared")


def shared_by_seeds(metrics: Mapping[str, Any] | None) -> int:
    """How many seeds shared the seconds, memory and energy that a run's files give: 1 for a run of its own."""
    return int((metrics or {}).get("shared_by_seeds") or 1)


def each_seeds(values: Mapping[str, Any], shared: int) -> dict[str, Any]:
    """`values` with the seconds and the energy (mJ) of a group divided by its seeds; all others as they are."""
    return {
        key: value / shared if _COST.search(key) and isinstance(value, (int, float)) else value
        for key, value in values.items()
    }


_COST = re.compile(r"(^|_)(seconds|mj)(_|$)")


def _run_energy(run: Mapping[str, Any]) -> dict[str, Any]:
    total = run.get("total")
    if not total:
        return {}
    numbers = {f"energy_{name}": value for name, value in total.items() if name.endswith("_mj")}
    about = {"energy_seconds": run.get("seconds"), "energy_method": total.get("method")}
    return {**numbers, **about, "shared": total.get("shared")}


HISTORY = KEYS + columns(
    "shared_by_seeds phase epoch loss validation_accuracy validation_readout validation_n learning_rate "
    "seconds validation_seconds"
)


def history(runs: Sequence[RunFiles]) -> pd.DataFrame:
    """One row per run, phase and epoch: history.csv of all runs, goodness columns of the deepest network last.

    Seconds of a group are each seed's equal part.
    """
    frame = stacked_csv(runs, "history.csv", HISTORY)
    counts = {files.run: shared_by_seeds(files.json("metrics.json")) for files in runs}
    frame["shared_by_seeds"] = [counts[RunKey(*row)] for row in frame[list(KEYS)].itertuples(index=False)]
    for column in ("seconds", "validation_seconds"):
        frame[column] = frame[column] / frame["shared_by_seeds"]
    return frame


LAYERS = KEYS + columns(
    "depth width sparsity dead_units goodness_positive_mean goodness_negative_mean goodness_neutral_mean "
    "separation_auc paired_share"
)


def layers(runs: Iterable[RunFiles]) -> pd.DataFrame:
    """One row per run and layer: sparsity, dead units, mean goodness, AUC of positive against negative."""
    rows = Rows(LAYERS)
    for files in runs:
        for layer in (files.json("evaluation.json") or {}).get("layers", []):
            goodness = layer.get("goodness") or {}
            means = {f"goodness_{group}_mean": (part or {}).get("mean") for group, part in goodness.items()}
            rows.add(files.run, {**layer, **means})
    return rows.frame()
