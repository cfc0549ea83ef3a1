"""Inference in each power mode of a board, of runs that were measured in others than the one that was on."""

from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from ff.layout import POWER_MODES_FOLDER
from ff.summary.tables.rows import KEYS, Rows, columns
from ff.summary.tables.run_files import RunFiles
from ff.summary.tables.runtimes import cells_of, energy_of

POWER_MODES = KEYS + columns(
    "power_mode name device runtime available reason threads batch_size median_ms p5_ms p95_ms low_ms high_ms method "
    "throughput_synchronised_per_s gross_mj_per_sample gross_low gross_high net_mj_per_sample net_low net_high "
    "energy_path temperature_before_c temperature_after_c"
)


def power_modes(runs: Iterable[RunFiles]) -> pd.DataFrame:
    """One row per run, power mode, device, runtime, CPU threads and batch size, from uint8 images to classes in host
    memory, and one with the reason for each mode, device and runtime that was not measured."""
    rows = Rows(POWER_MODES)
    for files in runs:
        for mode, device, content in _measurements(files):
            conditions = content["conditions"]
            base = {"power_mode": mode, "device": device, "runtime": content["runtime"], "available": 1}
            if not content["device"]["available"]:
                rows.add(files.run, base | {"available": 0, "reason": content["device"]["reason"]})
                continue
            base |= {"name": conditions["before"]["power_mode"]}
            for when in ("before", "after"):
                base[f"temperature_{when}_c"] = max(conditions[when]["temperature_c"].values(), default=None)
            for batch in content["batches"]:
                if batch["path"] == "end_to_end":
                    cells = cells_of(batch) | energy_of(content["batches"], batch)
                    rows.add(files.run, base | {key: cells[key] for key in cells if key in POWER_MODES})
    return rows.frame()


def _measurements(files: RunFiles) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Power mode, device and content of each measurement in a power mode."""
    folder = files.folder / POWER_MODES_FOLDER
    for mode in sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal()):
        for path in sorted((folder / str(mode)).rglob("*.json")):
            content = files.json(path.relative_to(files.folder).as_posix())
            if content is not None:
                yield mode, path.stem.removesuffix(f"_{content['runtime']}"), content
