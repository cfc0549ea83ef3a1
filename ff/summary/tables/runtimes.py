"""Inference in each runtime, of runs that were exported and measured in others than torch."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ff.layout import EXPORT_FOLDER, MEASURE_FOLDER
from ff.summary.tables.rows import KEYS, Rows, columns
from ff.summary.tables.run_files import RunFiles

RUNTIMES = KEYS + columns(
    "device runtime available reason threads batch_size median_ms p5_ms p95_ms low_ms high_ms method "
    "throughput_synchronised_per_s peak_memory_mb file_mb test_accuracy gross_mj_per_sample gross_low gross_high "
    "net_mj_per_sample net_low net_high energy_path"
)


def runtimes(runs: Iterable[RunFiles]) -> pd.DataFrame:
    """One row per run, device, runtime, CPU threads and batch size, from uint8 images to classes in host memory, and
    one with the reason for each runtime that was not there."""
    rows = Rows(RUNTIMES)
    for files in runs:
        run = files.run
        others = [path.name for path in sorted((files.folder / MEASURE_FOLDER / "runtimes").glob("*.json"))]
        if not others:
            continue
        documents = list(files.devices())
        for name in others:
            content = files.json(f"{MEASURE_FOLDER}runtimes/{name}")
            if content is not None:
                documents.append((Path(name).stem.removesuffix(f"_{content['runtime']}"), content))
        parity = files.json(f"{EXPORT_FOLDER}parity.json") or {}
        for device, content in documents:
            base = {"device": device, "runtime": content["runtime"], "file_mb": _megabytes(content["file_bytes"])}
            if not content["device"]["available"]:
                rows.add(run, base | {"available": 0, "reason": content["device"]["reason"]})
            base |= {"available": 1, "test_accuracy": _accuracy(parity, content["runtime"])}
            for batch in content["batches"]:
                if batch["path"] == "end_to_end":
                    rows.add(run, base | cells_of(batch) | energy_of(content["batches"], batch))
    return rows.frame()


def _megabytes(count: int | None) -> float | None:
    return None if count is None else count / 1e6


def _accuracy(parity: Mapping[str, Any], runtime: str) -> float | None:
    """On the whole test split, at full depth, as it was counted at export."""
    number_format = "int8" if runtime.endswith("int8") else "float32"
    for path in parity.get("paths", ()):
        if (path["path"], path["number_format"]) == ("full", number_format):
            return path["accuracy_torch" if runtime == "torch" else "accuracy"]
    return None


def cells_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Of a batch of a measurement: its place, latency, throughput and memory."""
    time = batch["latency_ms"]
    return {
        **{key: batch[key] for key in ("threads", "batch_size", "peak_memory_mb")},
        **{f"{key}_ms": time[key] for key in ("median", "p5", "p95", "low", "high")},
        "method": time["method"],
        "throughput_synchronised_per_s": batch["throughput_synchronised_per_s"]["median"],
    }


def energy_of(batches: Iterable[Mapping[str, Any]], batch: Mapping[str, Any]) -> dict[str, Any]:
    """Energy of a sample at the same batch size and threads: torch's is measured on its deploy path."""
    place = batch["threads"], batch["batch_size"]
    for one in batches:
        used = one["energy"] if (one["threads"], one["batch_size"]) == place else None
        if used and used["total"]:
            cells: dict[str, Any] = {"energy_path": one["path"]}
            for kind in ("gross", "net"):
                interval = used["total"][f"{kind}_mj_per_sample"] or {}
                cells[f"{kind}_mj_per_sample"] = interval.get("mean")
                cells |= {f"{kind}_{end}": interval.get(end) for end in ("low", "high")}
            return cells
    return {}
