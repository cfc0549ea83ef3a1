"""Accuracy tables, figures and sentences over made accuracies that differ in every cell: a number taken from another
split, readout, depth, network, recipe or data set shows."""

import math
import re
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ff import statistics
from ff.files import write_json
from ff.layout import RunKey
from ff.summary import tables
from ff.summary.figures.accuracy import accuracy as accuracy_figure
from ff.summary.report import sections, sentences
from ff.summary.report.numbers import percent
from ff.summary.tables.run_files import files_of

NBSP = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
IMAGES = {"test": 400, "train": 5000, "val": 1000}
SEEDS = (3, 8, 21, 40)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Run folders with metrics.json alone, and {(dataset, layers, recipe, split, readout, depth): {seed: accuracy}}."""
    root, rng = tmp_path_factory.mktemp("accuracies"), np.random.default_rng(12)
    runs, truth = [], {}
    for dataset, layers, recipe in product(("MNIST", "SVHN"), ("784-20-10", "784-30-30-10"), ("ff", "mine", "bp")):
        # One seed of `mine` was never trained, so that pairs are fewer than seeds.
        for seed in SEEDS[: 3 if recipe == "mine" else 4]:
            run, results = RunKey(dataset, layers, recipe, seed), []
            for split, readout, depth in product(IMAGES, ("head", "goodness"), range(1, run.depth + 1)):
                n = IMAGES[split]
                share = int(rng.integers(0.8 * n, n)) / n
                row = {"split": split, "readout": readout, "depth": depth, "n": n, "accuracy": share}
                results.append({**row, "macro_f1": share / 2, "error": 1 - share})
                truth.setdefault((dataset, layers, recipe, split, readout, depth), {})[seed] = share
            write_json(run.folder(root) / "metrics.json", {"results": results})
            runs.append(run)
    return root, runs, truth


def at_full_depth(truth):
    depths = {"784-20-10": 2, "784-30-30-10": 3}
    return {key[:5]: cell for key, cell in truth.items() if key[5] == depths[key[1]]}


def test_each_run_has_wilsons_interval_over_its_images(made):
    root, runs, truth = made
    frame = tables.accuracy(files_of(root, runs))
    assert len(frame) == sum(len(cell) for cell in truth.values())
    for row in frame.itertuples():
        share = truth[row.dataset, row.layers, row.recipe, row.split, row.readout, row.depth][row.seed]
        assert (row.accuracy, row.n) == (share, IMAGES[row.split])
        assert row.is_last == (row.depth == (2 if row.layers == "784-20-10" else 3))
        if row.split == "train":
            assert pd.isna(row.low) and pd.isna(row.high) and pd.isna(row.method)
            continue
        expected = stats.binomtest(round(share * row.n), row.n).proportion_ci(0.95, "wilson")
        assert (row.low, row.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
        assert row.method == "Wilson over images"


def test_the_summary_is_the_mean_over_seeds_at_full_depth_with_both_intervals(made):
    root, runs, truth = made
    frame = tables.accuracy_summary(tables.accuracy(files_of(root, runs)))
    expected = at_full_depth(truth)
    assert len(frame) == len(expected)
    for row in frame.itertuples():
        shares = list(expected[row.dataset, row.layers, row.recipe, row.split, row.readout].values())
        assert (row.n_seeds, row.n_images) == (len(shares), IMAGES[row.split])
        assert row.mean == pytest.approx(np.mean(shares))
        seeds = statistics.share_interval(shares)
        assert (row.low, row.high, row.method) == (pytest.approx(seeds.low), pytest.approx(seeds.high), seeds.method)
        assert (row.bootstrap_low, row.bootstrap_high) == statistics.bootstrap_mean(shares)[2:4]
        if row.split == "train":
            assert pd.isna(row.total_low) and pd.isna(row.total_high) and pd.isna(row.total_method)
            continue
        total = statistics.share_total_interval(shares, IMAGES[row.split])
        assert (row.total_low, row.total_high) == (pytest.approx(total.low), pytest.approx(total.high))
        assert row.total_method == "Wilson over seeds and images"


def test_two_seeds_far_apart_leave_neither_0_nor_1(tmp_path):
    """Over seeds alone Student's interval would reach 129 % here."""
    runs = [RunKey("MNIST", "784-10", "ff", seed) for seed in (0, 1)]
    for run, share in zip(runs, (0.95, 1.0), strict=True):
        row = {"split": "test", "readout": "head", "depth": 1, "n": 360, "accuracy": share}
        write_json(run.folder(tmp_path) / "metrics.json", {"results": [row]})
    (row,) = tables.accuracy_summary(tables.accuracy(files_of(tmp_path, runs))).itertuples()
    assert 0 < row.total_low < row.low < 0.95 and row.high < row.total_high < 1
    (text,) = sentences.accuracy_sentences(
        {"accuracy_summary": pd.concat([pd.DataFrame([row]), pd.DataFrame([row._replace(split="val")])])}
    )
    shown = [float(number) for number in re.findall(rf"([\d.]+){NBSP}%", text)]
    assert len(shown) == 5 and max(shown) < 100


def test_one_seed_has_an_interval_over_images_only(made):
    root, runs, truth = made
    alone = [run for run in runs if run.seed == 3]
    frame = tables.accuracy_summary(tables.accuracy(files_of(root, alone)))
    row = frame[(frame["split"] == "test") & (frame["readout"] == "head")].iloc[0]
    share = at_full_depth(truth)[row["dataset"], row["layers"], row["recipe"], "test", "head"][3]
    expected = stats.binomtest(round(share * 400), 400).proportion_ci(0.95, "wilson")
    assert pd.isna(row["low"]) and row["method"] == statistics.METHOD_SINGLE
    assert (row["total_low"], row["total_high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert row["total_method"] == "Wilson over images"


def test_seeds_with_fewer_images_set_the_number_of_images(made, tmp_path):
    runs = [RunKey("MNIST", "784-10", "ff", seed) for seed in (0, 1, 2)]
    for run, n in zip(runs, (400, 100, None), strict=True):
        row = {"split": "test", "readout": "head", "depth": 1, "n": n, "accuracy": 0.9 + 0.01 * run.seed}
        write_json(run.folder(tmp_path) / "metrics.json", {"results": [row]})
    (row,) = tables.accuracy_summary(tables.accuracy(files_of(tmp_path, runs))).itertuples()
    total = statistics.share_total_interval([0.9, 0.91, 0.92], 100)
    assert (row.n_images, row.total_low) == (100, pytest.approx(total.low))


def test_recipes_are_compared_on_test_at_full_depth_over_common_seeds(made):
    root, runs, truth = made
    frame = tables.recipes(tables.accuracy(files_of(root, runs)))
    expected = at_full_depth(truth)
    assert len(frame) == 2 * 2 * 2 * 3
    for row in frame.itertuples():
        a = expected[row.dataset, row.layers, row.recipe_a, "test", row.readout]
        b = expected[row.dataset, row.layers, row.recipe_b, "test", row.readout]
        common = sorted(a.keys() & b.keys())
        differences = [100 * (a[seed] - b[seed]) for seed in common]
        assert (row.n_pairs, row.seeds_left_out) == (len(common), len(a.keys() ^ b.keys()))
        assert row.difference_points == pytest.approx(np.mean(differences))
        low, high = stats.t.interval(0.95, len(common) - 1, np.mean(differences), stats.sem(differences))
        assert (row.low, row.high) == (pytest.approx(max(low, -100)), pytest.approx(min(high, 100)))
    assert {(row.recipe_a, row.recipe_b) for row in frame.itertuples()} == {
        ("ff", "mine"),
        ("ff", "bp"),
        ("mine", "bp"),
    }


@pytest.fixture(scope="module")
def found(made):
    root, runs, _ = made
    frame = tables.accuracy(files_of(root, runs))
    return {"accuracy_summary": tables.accuracy_summary(frame), "recipes": tables.recipes(frame)}


def best_of(truth, dataset):
    """Network and recipe, bp left out, with the best mean validation accuracy of the head at full depth."""
    cells = {
        key[1:3]: np.mean(list(cell.values()))
        for key, cell in at_full_depth(truth).items()
        if key[0] == dataset and key[2] != "bp" and key[3:] == ("val", "head")
    }
    return max(cells, key=cells.get)


def test_sentences_give_the_test_accuracy_of_what_is_best_on_validation(made, found):
    said = sentences.accuracy_sentences(found)
    assert len(said) == 2
    for dataset, sentence in zip(("MNIST", "SVHN"), said, strict=True):
        layers, recipe = best_of(made[2], dataset)
        shares = list(at_full_depth(made[2])[dataset, layers, recipe, "test", "head"].values())
        seeds, total = statistics.share_interval(shares), statistics.share_total_interval(shares, 400)
        assert sentence == (
            f"{dataset}: the Forward-Forward network that is best on validation, {layers} with recipe {recipe}, "
            f"reaches a test accuracy of {percent(np.mean(shares))} (95 % interval {percent(seeds.low)} to "
            f"{percent(seeds.high)}, Wilson with Student t, {len(shares)} seeds; over seeds and test images "
            f"{percent(total.low)} to {percent(total.high)}, 400 images)."
        )


def test_the_best_is_the_best_head_even_where_a_goodness_readout_is_better():
    rows = [("784-10", "head", 0.96), ("784-20", "head", 0.95), ("784-20", "goodness", 0.99)]
    frame = pd.DataFrame([("MNIST", layers, "ff", "val", readout, mean) for layers, readout, mean in rows])
    frame.columns = ["dataset", "layers", "recipe", "split", "readout", "mean"]
    assert sentences.best_on_validation(frame, "MNIST")["layers"] == "784-10"


def test_sentences_compare_the_best_recipe_with_the_others_whichever_way_the_table_has_them(made, found):
    said = sentences.recipe_sentences(found)
    assert len(said) == 4
    flipped = 0
    for dataset in ("MNIST", "SVHN"):
        layers, recipe = best_of(made[2], dataset)
        cells = at_full_depth(made[2])
        for other in {"ff", "mine", "bp"} - {recipe}:
            flipped += (recipe, other) == ("mine", "ff")
            a, b = (cells[dataset, layers, name, "test", "head"] for name in (recipe, other))
            interval = statistics.paired_difference(
                {seed: 100 * share for seed, share in a.items()}, {seed: 100 * share for seed, share in b.items()}
            )
            word = "above" if interval.estimate > 0 else "below"
            unclear = (
                " The interval holds 0: the difference is not clear." if interval.low <= 0 <= interval.high else ""
            )
            assert (
                f"{dataset}, {layers}: recipe {recipe} is {abs(interval.estimate):.2f} points {word} {other} on test "
                f"(paired over seeds; 95 % interval {signed(interval.low)} to {signed(interval.high)}, Student t, "
                f"{interval.n} pairs).{unclear}"
            ) in said
    assert flipped


def signed(value):
    return f"{value:+.2f}".replace("-", MINUS)


def test_the_table_of_the_page_shows_test_accuracies_with_both_intervals(made, found):
    shown, _ = sections.accuracy(found)
    texts = {text for row in shown.rows for text in row}
    for (_, _, _, split, _), cell in at_full_depth(made[2]).items():
        shares = list(cell.values())
        total = statistics.share_total_interval(shares, IMAGES[split])
        assert (f"{100 * total.low:.2f} to {100 * total.high:.2f}" in texts) == (split == "test")
        if split == "test":
            seeds = statistics.share_interval(shares)
            assert {f"{100 * seeds.low:.2f} to {100 * seeds.high:.2f}", f"{100 * np.mean(shares):.2f}"} <= texts
    assert "400" in texts


def test_the_figure_draws_both_intervals_of_each_network_and_recipe(made):
    root, runs, truth = made
    figure = accuracy_figure(tables.accuracy(files_of(root, runs)))
    drawn = [
        segment[:, 1].tolist()
        for ax in figure.axes
        for lines in ax.collections
        for segment in lines.get_segments()
        if len(segment) == 2
    ]
    for (_, _, _, split, readout), cell in at_full_depth(truth).items():
        shares = list(cell.values())
        for interval in (statistics.share_interval(shares), statistics.share_total_interval(shares, IMAGES[split])):
            ends = [100 * interval.low, 100 * interval.high]
            near = [found for found in drawn if np.allclose(found, ends, atol=1e-6)]
            assert bool(near) == ((split, readout) == ("test", "head"))
    assert all(0 <= low <= high <= 100 for low, high in drawn) and not math.isnan(sum(map(sum, drawn)))
