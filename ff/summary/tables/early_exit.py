"""Early exit: every way to answer, and the operating point of each run."""

from collections.abc import Iterable, Sequence

import pandas as pd

from ff.summary.tables.rows import KEYS, Rows, columns
from ff.summary.tables.run_files import RunFiles, stacked_csv

EXIT_BATCHES = (1, 32, 512)
"""Batch sizes at which early exit is timed (`ff.assess.early_exit.TIMED_BATCHES`)."""
_TIMES = tuple(f"time_saved_share_vs_{base}_batch_{batch}" for base in ("cut", "full") for batch in EXIT_BATCHES)

EARLY_EXIT = (
    *KEYS,
    *columns("rule k depth is_reference_cut threshold split n accuracy macro_f1 mean_layers macs_ff macs_heads"),
    *columns("macs_total macs_saved_share_vs_cut macs_saved_share_vs_full"),
    *(f"time_ms_batch_{batch}" for batch in EXIT_BATCHES),
    *_TIMES,
)


def early_exit(runs: Sequence[RunFiles]) -> pd.DataFrame:
    """One row per run, split and network cut (rule `static`), and per run, split, exit rule and k: early_exit.csv
    of all runs (share_exit_* columns last)."""
    return stacked_csv(runs, "early_exit.csv", EARLY_EXIT)


OPERATING_POINTS = (
    *KEYS,
    *columns("rule k choice cut_depth val_accuracy val_cut_accuracy val_full_accuracy test_accuracy"),
    *columns("test_cut_accuracy test_full_accuracy change_points_vs_cut change_points_vs_full test_macro_f1"),
    *columns("mean_layers macs_total macs_saved_share_vs_cut macs_saved_share_vs_full"),
    *_TIMES,
)


def operating_points(runs: Iterable[RunFiles]) -> pd.DataFrame:
    """One row per run: the operating point chosen on validation, and what it gives on test, against the cheapest
    network cut that is as accurate on validation (`cut`, after layer `cut_depth`) and against full depth.

    `change_points_vs_*` is early exit minus the other on test, in percentage points.
    """
    rows = Rows(OPERATING_POINTS)
    for files in runs:
        content = files.json("early_exit.json") or {}
        point, reference, cuts = (content.get(key) for key in ("operating_point", "reference_cut", "static_cuts"))
        if not (point and reference and cuts):
            continue
        # Early exit, cut and full depth come from one file, so from the same logits and timed passes.
        compared = {"": point, "cut_": cuts[reference["depth"] - 1], "full_": cuts[-1]}
        accuracies = {
            f"{split}_{name}accuracy": part[split]["accuracy"]
            for split in ("val", "test")
            for name, part in compared.items()
        }
        reached = accuracies["test_accuracy"]
        rows.add(
            files.run,
            {
                **{key: point["test"].get(key) for key in OPERATING_POINTS if key not in KEYS},
                **{key: point.get(key) for key in ("rule", "k", "choice")},
                **accuracies,
                "change_points_vs_cut": 100 * (reached - accuracies["test_cut_accuracy"]),
                "change_points_vs_full": 100 * (reached - accuracies["test_full_accuracy"]),
                "cut_depth": reference["depth"],
                "test_macro_f1": point["test"]["macro_f1"],
            },
        )
    return rows.frame()
