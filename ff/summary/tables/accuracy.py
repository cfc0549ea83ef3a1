"""Accuracies of runs, over seeds, and of recipes held against each other."""

from collections.abc import Iterable

import pandas as pd

from ff import statistics
from ff.learn.readouts import at_full_depth
from ff.summary.recipe_order import place
from ff.summary.tables.rows import KEYS, Rows, columns, typed
from ff.summary.tables.run_files import RunFiles

ACCURACY = KEYS + columns("split readout depth is_last n accuracy low high method macro_f1 error")


def accuracy(runs: Iterable[RunFiles]) -> pd.DataFrame:
    """One row per run, split, readout and depth; `accuracy`, `macro_f1`, `error` are shares (0 to 1).

    `low`, `high`: Wilson's 95 % interval over the `n` images. Training images have none: the network was fitted to
    them, so that they say nothing about others.
    """
    rows = Rows(ACCURACY)
    for files in runs:
        results = (files.json("metrics.json") or {}).get("results", [])
        last = at_full_depth(results)
        for result in results:
            ends = {}
            if result["split"] != "train":
                interval = statistics.wilson_interval(result["accuracy"], result["n"])
                ends = {"low": interval.low, "high": interval.high, "method": interval.method}
            is_last = result is last[result["split"], result["readout"]]
            rows.add(files.run, {**result, **ends, "is_last": int(is_last)})
    return rows.frame()


ACCURACY_SUMMARY = columns(
    "dataset layers recipe split readout n_seeds n_images mean low high method total_low total_high total_method "
    "bootstrap_low bootstrap_high"
)


def accuracy_summary(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds at full depth with two 95 % intervals, none of which leaves 0 to 1.

    `low`, `high`: over seeds, on these very images (`ff.statistics.share_interval`). `total_low`, `total_high`: over
    seeds and images (`share_total_interval`), what a new seed on new images may give; with one seed over images
    alone, and for training images none. `n_images`: of the seed with the fewest.
    """
    rows = []
    last = accuracy[accuracy["is_last"] == 1]
    for key, cell in last.groupby(["dataset", "layers", "recipe", "split", "readout"], sort=False):
        shares, images = cell["accuracy"], cell["n"].min()
        seeds, bootstrap = statistics.share_interval(shares), statistics.bootstrap_mean(shares)
        total = (None, None, None) if key[3] == "train" else statistics.share_total_interval(shares, images)[2:]
        rows.append((*key, seeds.n, images, *seeds[1:], *total, bootstrap.low, bootstrap.high))
    return typed(pd.DataFrame(rows, columns=list(ACCURACY_SUMMARY)))


RECIPES = columns("dataset layers readout recipe_a recipe_b n_pairs difference_points low high method seeds_left_out")


def recipes(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Each pair of recipes on the same dataset, layers and readout on test, paired over the seeds that both have.

    `difference_points` is recipe_a - recipe_b in percentage points at full depth, positive where a is better. Its
    interval is over seeds, on these very images.
    """
    rows = []
    last = accuracy[(accuracy["is_last"] == 1) & (accuracy["split"] == "test")]
    for key, cell in last.groupby(["dataset", "layers", "readout"], sort=False):
        by_recipe = {
            recipe: dict(zip(part["seed"], 100 * part["accuracy"], strict=True))
            for recipe, part in cell.groupby("recipe", sort=False)
        }
        names = sorted(by_recipe, key=place)
        for position, first in enumerate(names):
            for second in names[position + 1 :]:
                a, b = by_recipe[first], by_recipe[second]
                interval = statistics.paired_difference(a, b, at_most=100)
                rows.append((*key, first, second, *interval, len(a.keys() ^ b.keys())))
    return typed(pd.DataFrame(rows, columns=list(RECIPES)))
