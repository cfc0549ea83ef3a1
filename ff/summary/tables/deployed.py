"""Exported networks in each runtime: early exit and network cuts, accuracy and time."""

from collections.abc import Iterable

import pandas as pd

from ff.layout import DEPLOYED_FILES
from ff.summary.tables.rows import KEYS, Rows, columns
from ff.summary.tables.run_files import RunFiles

DEPLOYED = (
    *KEYS,
    *columns("device runtime available reason threads path depth batch_size is_reference_cut val_accuracy"),
    *columns("test_accuracy mean_layers time_ms time_low_ms time_high_ms"),
    *(f"time_vs_{base}{end}" for base in ("cut", "full") for end in ("", "_low", "_high")),
    "method",
)


def deployed(runs: Iterable[RunFiles]) -> pd.DataFrame:
    """One row per run, device, runtime, batch size and way to answer (`path`: cut after layer `depth`, or exit), and
    one with the reason for each runtime that was not there."""
    rows = Rows(DEPLOYED)
    for files in runs:
        run, content = files.run, files.json(DEPLOYED_FILES[0]) or {"runtimes": (), "ways": ()}
        for one in content["runtimes"]:
            if not one["available"]:
                rows.add(run, one | {"available": 0})
        for way in content["ways"]:
            time = way["time_ms"]
            values = way | {"available": 1, "threads": content["threads"], "method": time["method"]}
            values |= {"time_ms": time["median"], "time_low_ms": time["low"], "time_high_ms": time["high"]}
            for base in ("cut", "full"):
                ratio = way[f"time_vs_{base}"]
                values[f"time_vs_{base}"] = ratio["estimate"]
                values |= {f"time_vs_{base}_{end}": ratio[end] for end in ("low", "high")}
            rows.add(run, values)
    return rows.frame()
