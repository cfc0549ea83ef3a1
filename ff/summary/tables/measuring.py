"""Time of inference on each device, the devices against each other, and whether they agree."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ff import statistics
from ff.layout import MEASURE_FOLDER, RunKey
from ff.summary.tables.rows import KEYS, Rows, columns, one_text, typed
from ff.summary.tables.run_files import RunFiles, each_device

LATENCY = KEYS + columns(
    "device threads path batch_size n_repeats median_ms p5_ms p95_ms low_ms high_ms method "
    "throughput_synchronised_per_s throughput_synchronised_low_per_s throughput_synchronised_high_per_s "
    "throughput_queued_per_s throughput_queued_low_per_s throughput_queued_high_per_s n_queued_windows peak_memory_mb"
)


def latency(runs: Iterable[RunFiles]) -> pd.DataFrame:
    """One row per run, device, CPU threads, path and batch size: milliseconds per batch, samples/s, memory.

    Synchronised throughput waits for each batch before the next is handed over; queued throughput hands them over
    back to back (deploy path only).
    """
    rows = Rows(LATENCY)
    for files, device, content in each_device(runs):
        for batch in content.get("batches") or []:
            time, queued = batch.get("latency_ms") or {}, batch.get("throughput_queued_per_s") or {}
            kept = ("threads", "path", "batch_size", "n_repeats", "peak_memory_mb")
            rows.add(
                files.run,
                {
                    **{key: batch.get(key) for key in kept},
                    **{f"{key}_ms": time.get(key) for key in ("median", "p5", "p95", "low", "high")},
                    **_throughput("synchronised", batch.get("throughput_synchronised_per_s") or {}),
                    **_throughput("queued", queued),
                    "n_queued_windows": len(queued["windows"]) if queued.get("windows") else None,
                    "device": device,
                    "method": time.get("method"),
                },
            )
    return rows.frame()


def _throughput(kind: str, rate: Mapping[str, Any]) -> dict[str, Any]:
    ends = {f"throughput_{kind}_{end}_per_s": rate.get(end) for end in ("low", "high")}
    return {f"throughput_{kind}_per_s": rate.get("median"), **ends}


DEVICES = KEYS + columns(
    "device name kind available reason threads governor_before power_mode_before temperature_before_c "
    "temperature_after_c power_source power_reason"
)


def devices(runs: Iterable[RunFiles]) -> pd.DataFrame:
    """One row per run and device that was asked for; `available` 0 with the reason where it does not exist."""
    rows = Rows(DEVICES)
    for files, device, content in each_device(runs):
        facts, conditions = content.get("device") or {}, content.get("conditions") or {}
        before, after = conditions.get("before") or {}, conditions.get("after") or {}
        rows.add(
            files.run,
            {
                **{key: facts.get(key) for key in ("name", "kind", "reason")},
                "device": device,
                "available": int(bool(facts.get("available"))),
                "threads": one_text(conditions.get("threads")),
                "governor_before": one_text(before.get("governor")),
                "power_mode_before": one_text(before.get("power_mode")),
                "temperature_before_c": _hottest(before.get("temperature_c")),
                "temperature_after_c": _hottest(after.get("temperature_c")),
                "power_source": (conditions.get("power") or {}).get("source"),
                "power_reason": (conditions.get("power") or {}).get("reason"),
            },
        )
    return rows.frame()


def _hottest(value: Any) -> float | None:
    if isinstance(value, Mapping):
        numbers = [part for part in value.values() if isinstance(part, (int, float))]
        return max(numbers, default=None)
    return value if isinstance(value, (int, float)) else None


SPEEDUP = columns("dataset layers recipe path device cpu_threads batch_size speedup low high n method")


def speedup(results_root: str | Path, latency: pd.DataFrame) -> pd.DataFrame:
    """CPU time divided by the other device's time (> 1: the GPU is faster) per dataset, layers, recipe, path, batch
    size and number of CPU threads that the CPU worked with.

    With several seeds: geometric mean of the seeds' ratios of medians, t interval on the logarithms (`n` =
    seeds). With one: ratio of the two medians, bootstrap over the raw repeats of both (`n` = repeats).
    """
    cell = ["dataset", "layers", "recipe", "path", "batch_size"]
    cpu = latency[latency["device"] == "cpu"]
    other = latency[latency["device"] != "cpu"]
    pairs = other.merge(cpu, on=[*cell, "seed"], suffixes=("", "_cpu"))
    pairs = pairs[(pairs["median_ms"] > 0) & (pairs["median_ms_cpu"] > 0)]
    rows = []
    for key, part in pairs.groupby([*cell, "device", "threads_cpu"], sort=False):
        dataset, layers, recipe, path, batch_size, device, threads = key
        if len(part) > 1:
            interval = statistics.geometric_mean_interval(part["median_ms_cpu"] / part["median_ms"])
            interval = interval._replace(method=f"{interval.method} on log ratios of {interval.n} seeds")
        else:
            run = RunKey(dataset, layers, recipe, part["seed"].iloc[0])
            interval = _speedup_of_run(results_root, run, path, batch_size, device, threads)
            if interval.estimate is None:
                ratio = float(part["median_ms_cpu"].iloc[0] / part["median_ms"].iloc[0])
                interval = statistics.Interval(1, ratio, None, None, statistics.METHOD_SINGLE)
        rows.append((*key[:4], device, threads, batch_size, *interval[1:4], interval.n, interval.method))
    return typed(pd.DataFrame(rows, columns=list(SPEEDUP)))


def _speedup_of_run(
    results_root: str | Path, run: RunKey, path: str, batch_size: int, device: str, cpu_threads: int
) -> statistics.Interval:
    samples = []
    for name in ("cpu", device):
        frame = RunFiles(run, results_root).csv(f"{MEASURE_FOLDER}{name}.csv")
        if frame is None:
            return statistics.median_ratio([], [])
        chosen = frame[(frame["path"] == path) & (frame["batch_size"] == batch_size)]
        if name == "cpu":
            chosen = chosen[chosen["threads"] == cpu_threads]
        samples.append(chosen["latency_ms"])
    interval = statistics.median_ratio(*samples)
    return interval._replace(method=f"{interval.method} over repeats of one seed")


GPU_WINS = columns("dataset layers recipe path device cpu_threads batch_size reason")


def gpu_wins(speedup: pd.DataFrame, latency: pd.DataFrame) -> pd.DataFrame:
    """The smallest measured batch size from which on the GPU is faster for certain, per network, path and number of
    CPU threads that it is compared with.

    "For certain" means that the lower end of the speed-up's interval (the speed-up itself where there is no
    interval) is above 1 at that batch size and at every larger one. Empty with a reason where there is none.
    """
    rows = []
    cell = ["dataset", "layers", "recipe", "path"]
    for key, part in speedup.groupby([*cell, "device", "cpu_threads"], sort=False):
        part = part.sort_values("batch_size", ascending=False)
        wins = part["low"].fillna(part["speedup"]) > 1
        streak = part["batch_size"][wins.cummin()]
        reason = None if len(streak) else "the largest batch measured is not faster for certain"
        rows.append((*key, streak.min() if len(streak) else None, reason))
    have = {row[:4] for row in rows}
    for key in latency[cell].drop_duplicates().itertuples(index=False, name=None):
        if key not in have:
            rows.append((*key, None, None, None, "no second device was measured"))
    return typed(pd.DataFrame(rows, columns=list(GPU_WINS)))


AGREEMENT = KEYS + columns(
    "devices available reason n same_predictions_share max_logit_difference n_differing largest_differing_margin"
)


def agreement(runs: Iterable[RunFiles]) -> pd.DataFrame:
    """One row per run: do the devices predict the same (share 0 to 1), largest logit difference, or why unknown."""
    rows = Rows(AGREEMENT)
    for files in runs:
        content = files.json(MEASURE_FOLDER + "agreement.json")
        if content is None:
            continue
        differing = content.get("differing") or []
        margins = [value for row in differing for key, value in row.items() if key.startswith("margin_")]
        rows.add(
            files.run,
            {
                **{key: content.get(key) for key in AGREEMENT if key not in KEYS},
                "devices": "+".join(content.get("devices") or []),
                "available": int(bool(content.get("available"))),
                "n_differing": len(differing) if content.get("available") else None,
                "largest_differing_margin": max(margins, default=None),
            },
        )
    return rows.frame()
