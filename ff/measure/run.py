"""The measurement of a run: variance/{device}.csv and .json, the same of other runtimes than torch in
variance/runtimes/, and variance/phases.csv; and in each power mode of a board the same below variance/power_modes/."""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from ff.data.prepared import Prepared
from ff.errors import FFError
from ff.files import write_csv, write_json
from ff.hardware.power_modes import put_back, switched
from ff.layout import MEASURE_FOLDER, file_stem, measure_folder
from ff.learn import checkpoint
from ff.learn.products import choose_library, library
from ff.measure.devices import (
    MEMORY_SOURCE,
    available_cores,
    check_memory,
    deploy,
    device_facts,
    machine_state,
    thread_counts,
    versions,
)
from ff.measure.power import PowerMeter
from ff.measure.protocol import Measurement, Times, measure
from ff.measure.runtimes import MEMORY_SOURCE as OF_EXPORTED
from ff.measure.runtimes import TORCH, Place, deploy_exported, places
from ff.phases import PhaseLog
from ff.settings import MeasureConfig
from ff.stamps import identify

SCHEMA = 3
COLUMNS = ("model", "device", "threads", "path", "batch_size", "repeat", "order", "latency_ms", "device_ms")


def run_measurement(
    run_folder: str | os.PathLike,
    prepared: Prepared,
    devices: Sequence[str] = MeasureConfig.devices,
    threads: Sequence[int | str] = MeasureConfig.threads,
    batch_sizes: Sequence[int] = MeasureConfig.batch_sizes,
    times: Times = Times(),  # noqa: B008 - it cannot be changed
    energy_windows: int = MeasureConfig.energy_windows,
    seed: int | None = None,
    runtimes: Sequence[str] = MeasureConfig.runtimes,
    into: str = MEASURE_FOLDER,
    why_not: str | None = None,
) -> None:
    """Measure the run in `run_folder` on `devices`, the CPU with each of `threads`, and write its files to its folder
    `into`: in torch, and with its bundle in each other of `runtimes`, all in the same rounds. First of all a power mode
    is put back that a measurement has left which was killed.

    A device or runtime that is not there gets its files too: no rows, and the reason; `why_not`: that of all of them.
    `seed` (None: the run's) draws the order and the images. `energy_windows`: windows of each batch size where there is
    a power sensor, 0 for no energy. The number of CPU threads is afterwards what it was before. Raises FFError when a
    count is below 1, when a batch would not fit into memory, when the bundle is refused, or when the data set is not
    the one the run was trained on.
    """
    counts = times._asdict() | {"batch size": min(batch_sizes, default=0)}
    for name in ("repeats", "single_samples", "rounds", "queued_windows", "batch size"):
        if counts[name] < 1:
            raise FFError(f"cannot measure with {name} {counts[name]}; give at least 1")
    if energy_windows < 0:
        raise FFError(f"cannot measure {energy_windows} energy windows; give 0 for no energy, or more")
    counts_of_threads = thread_counts(threads)
    devices, batch_sizes = list(dict.fromkeys(devices)), list(dict.fromkeys(batch_sizes))
    folder = Path(run_folder)
    network, meta = checkpoint.load(folder / "model.safetensors", "cpu")
    config = checkpoint.config(meta)
    checkpoint.check_data(config, prepared)
    check_memory(config.layers, batch_sizes)
    seed = config.seed if seed is None else seed
    variance = folder / into
    (variance / "phases.csv").unlink(missing_ok=True)
    put_back()
    facts = {name: device_facts(name, why_not) for name in devices}
    bundle, exported = _exported(folder, devices, runtimes, why_not)
    present = [name for name in devices if facts[name]["available"]]
    choose_library()
    before, threads_before = machine_state(), torch.get_num_threads()
    source, why_no_power = power_source() if energy_windows and why_not is None else (None, why_not or "not asked for")
    try:
        with source or nullcontext():
            measured = measure(
                chain(
                    deploy(present, network, prepared.test, prepared.facts, counts_of_threads),
                    deploy_exported(exported, folder, bundle, prepared.test, counts_of_threads),
                ),
                batch_sizes,
                times,
                seed,
                power=PowerMeter(source) if source is not None else None,
                energy_windows=energy_windows,
                phases=PhaseLog(variance / "phases.csv", meta["model"]),
            )
    finally:
        torch.set_num_threads(threads_before)
    conditions = {
        "cores": available_cores(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "float32_products": library(),
        "versions": versions(),
        "before": before,
        "after": machine_state(),
        "power": {
            "source": source.name if source is not None else None,
            "period_s": source.period_s if source is not None else None,
            "reason": why_no_power,
            "idle_mw": measured.idle,
        },
    }
    # What was measured in the same rounds.
    together = present + [place.stem for place in exported if place.reason is None]
    common = {"seed": seed, "times": times._asdict(), "measured_together": together}
    for name in devices:
        head = {"device": facts[name], "runtime": TORCH, "file_bytes": (folder / "model.safetensors").stat().st_size}
        head |= {"peak_memory_source": MEMORY_SOURCE.get(facts[name]["kind"])}
        head = {"schema": SCHEMA, "run": identify(config, meta["model"])} | head | common
        _write(variance, file_stem(name), head, measured, conditions)
    for place in exported:
        there = facts[place.device] | {"available": place.reason is None, "reason": place.reason}
        head = {"device": there if place.reason is None else there | {"name": None}, "runtime": place.runtime}
        head |= {"file_bytes": place.file.stat().st_size if place.file.exists() else None}
        head |= {"peak_memory_source": OF_EXPORTED}
        head = {"schema": SCHEMA, "run": identify(config, meta["model"])} | head | common
        _write(variance, place.stem, head, measured, conditions)


def run_power_modes(run_folder: str | os.PathLike, prepared: Prepared, power_modes: Sequence[int], **how: Any) -> None:
    """Measure the run in each of `power_modes` of a board, by its numbers, as `how` says (`run_measurement`), and put
    back afterwards the one that is on now. A mode that cannot be switched on gets its files too, with the reason."""
    for mode in power_modes:
        with switched(mode) as why_not:
            run_measurement(run_folder, prepared, **how, into=measure_folder(mode), why_not=why_not)


def _exported(
    folder: Path, devices: Sequence[str], runtimes: Sequence[str], why_not: str | None
) -> tuple[Mapping[str, Any], Sequence[Place]]:
    """The bundle, and each device with each runtime but torch; nothing is looked at where there is none of those."""
    if set(runtimes) <= {TORCH}:
        return {}, []
    from ff.export.files import open_bundle

    bundle = open_bundle(folder)
    return bundle, [
        place if why_not is None else place._replace(reason=why_not)
        for place in places(folder, bundle, devices, runtimes)
    ]


def _write(
    variance: Path, stem: str, head: dict[str, Any], measured: Measurement, conditions: Mapping[str, Any]
) -> None:
    """Write `stem`.csv and .json, both of which name the model."""
    batches = measured.batches.get(stem, [])
    threads = list(dict.fromkeys(batch["threads"] for batch in batches))
    document = head | {"conditions": {"threads": threads, **conditions}, "batches": batches}
    rows = [{"model": head["run"]["model"], **row} for row in measured.rows.get(stem, [])]
    write_csv(variance / f"{stem}.csv", COLUMNS, rows)
    write_json(variance / f"{stem}.json", document)


def power_source() -> tuple[Any, str | None]:
    """The power sensors of this machine, opened, or None and the reason."""
    from ff.hardware.sources import open_power_source

    source = open_power_source()
    return source, None if source is not None else "no power sensor can be read on this machine"
