"""Energy of inference, and of each phase of training and measuring."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from ff.layout import WATCHED
from ff.summary.tables.rows import KEYS, Rows, columns, flagged, one_text
from ff.summary.tables.run_files import RunFiles, each_device
from ff.summary.tables.training import each_seeds, shared_by_seeds

INFERENCE_ENERGY = KEYS + columns(
    "device threads batch_size rail is_total n_windows gross_mj_per_sample gross_low gross_high net_mj_per_sample "
    "net_low net_high method power_mw idle_mw idle_low_mw idle_high_mw shared"
)


def inference_energy(runs: Iterable[RunFiles]) -> pd.DataFrame:
    """One row per run, device, CPU threads, batch size and rail: mJ per sample, mean over windows with its interval.

    `is_total` 1 marks the row of the whole machine, as in `energy`.
    """
    rows = Rows(INFERENCE_ENERGY)
    for files, device, content in each_device(runs):
        for batch in content.get("batches") or []:
            used = batch.get("energy") or {}
            for is_total, part in [(0, part) for part in (used.get("rails") or {}).values()] + [(1, used.get("total"))]:
                if part:
                    base = {"device": device, **{key: batch.get(key) for key in ("threads", "batch_size")}}
                    base |= {"rail": part.get("rail"), "is_total": is_total, "shared": one_text(used.get("shared"))}
                    rows.add(files.run, base | _energy_cells(part))
    return rows.frame()


def _energy_cells(part: Mapping[str, Any]) -> dict[str, Any]:
    gross, net = part.get("gross_mj_per_sample") or {}, part.get("net_mj_per_sample") or {}
    idle = part.get("idle_mw") or {}
    return {
        "n_windows": gross.get("n"),
        "method": gross.get("method"),
        **{"gross_mj_per_sample": gross.get("mean"), "gross_low": gross.get("low"), "gross_high": gross.get("high")},
        **{"net_mj_per_sample": net.get("mean"), "net_low": net.get("low"), "net_high": net.get("high")},
        "power_mw": (part.get("power_mw") or {}).get("mean"),
        **{"idle_mw": idle.get("mean"), "idle_low_mw": idle.get("low"), "idle_high_mw": idle.get("high")},
    }


ENERGY = KEYS + columns(
    "job phase rail is_total gross_mj net_mj seconds shared_by_seeds "
    "gross_low_mj gross_high_mj net_low_mj net_high_mj method shared"
)


def energy(runs: Iterable[RunFiles]) -> pd.DataFrame:
    """One row per run, job (train, measure), phase and rail, in mJ; `is_total` 1 marks the whole machine's row.

    Idle windows are no phases here. `shared` is 1 where something else ran on what the rail feeds. Totals name the rail
    that they were read from, or "sum of rails": adding them to the rails counts twice. The training of a group is
    shared out equally among its seeds; a measurement is of one run.
    """
    rows = Rows(ENERGY)
    for files in runs:
        trained_by = shared_by_seeds(files.json("metrics.json"))
        for job, shared in (("train", trained_by), ("measure", 1)):
            phases = (files.json(WATCHED[job] + "hardware.json") or {}).get("energy") or {}
            for phase, part in phases.items():
                base = {"job": job, "phase": phase, "seconds": part.get("seconds")}
                base = {**each_seeds(base, shared), "shared_by_seeds": shared}
                for rail, values in (part.get("rails") or {}).items():
                    rows.add(files.run, {**base, **each_seeds(values or {}, shared), "rail": rail, "is_total": 0})
                total = part.get("total")
                if total:
                    rows.add(files.run, {**base, **each_seeds(total, shared), "is_total": 1})
    return flagged(rows.frame(), "shared")
