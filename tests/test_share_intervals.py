"""Intervals of accuracies: against SciPy and root finding, by their properties, and by simulated coverage.

The simulations draw seeds and images as two crossed random effects on a normal scale: seed i answers image j
right where a_i + b_j + e_ij < c, with known spreads of a (training), b (difficulty, common to all seeds) and e.
The true accuracy over all seeds and images, and that over all seeds on the images drawn, are then known exactly.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from ff import statistics
from ff.errors import FFError


@st.composite
def groups(draw, least=2):
    """Accuracies of 2 to 12 seeds on n common images, with n."""
    n = draw(st.integers(1, 20_000))
    right = draw(st.lists(st.integers(0, n), min_size=least, max_size=12))
    return [count / n for count in right], n


def ends_by_root_finding(mean, width):
    """Both p with (mean - p)^2 = width p (1 - p)."""

    def beyond(p):
        return (mean - p) ** 2 - width * p * (1 - p)

    return brentq(beyond, 0, mean, xtol=1e-14), brentq(beyond, mean, 1, xtol=1e-14)


@pytest.mark.parametrize(("right", "n"), [(353, 360), (360, 360), (0, 360), (9_818, 10_000), (1, 2), (1, 1)])
def test_one_run_gets_wilsons_interval_over_its_images(right, n):
    interval = statistics.wilson_interval(right / n, n)
    expected = stats.binomtest(right, n).proportion_ci(0.95, "wilson")
    assert interval.method == "Wilson over images"
    assert (interval.n, interval.estimate) == (1, right / n)
    assert (interval.low, interval.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert statistics.share_total_interval([right / n], n) == interval


def test_360_images_alone_are_about_one_and_a_half_points():
    interval = statistics.wilson_interval(0.98, 360)
    assert (interval.high - interval.low) / 2 == pytest.approx(0.015, abs=0.001)


def test_the_interval_over_seeds_stays_where_students_leaves():
    shares = [0.95, 1.0]
    assert statistics.mean_interval(shares).high > 1.2
    interval = statistics.share_interval(shares)
    assert interval.method == "Wilson with Student t"
    t, mean = stats.t.ppf(0.975, 1), 0.975
    width = t**2 * np.var(shares, ddof=1) / 2 / (mean * (1 - mean))
    assert (interval.low, interval.high) == pytest.approx(ends_by_root_finding(mean, width))
    assert 0 < interval.low < mean < interval.high < 1


def test_both_sources_of_variance_have_their_own_quantile():
    shares, n = [0.9808, 0.9821, 0.9830, 0.9799], 10_000
    mean = np.mean(shares)
    seeds = stats.t.ppf(0.975, 3) ** 2 * np.var(shares, ddof=1) / 4 / (mean * (1 - mean))
    interval = statistics.share_total_interval(shares, n)
    assert interval.method == "Wilson over seeds and images"
    expected = ends_by_root_finding(mean, seeds + stats.norm.ppf(0.975) ** 2 / n)
    assert (interval.n, interval.estimate) == (4, pytest.approx(mean))
    assert (interval.low, interval.high) == pytest.approx(expected)


def test_for_close_seeds_the_interval_over_seeds_is_students():
    shares = [0.9317, 0.9318, 0.9320]
    student, interval = statistics.mean_interval(shares), statistics.share_interval(shares)
    assert (interval.low, interval.high) == (
        pytest.approx(student.low, abs=2e-6),
        pytest.approx(student.high, abs=2e-6),
    )


def test_more_seeds_do_not_make_up_for_a_small_test_set():
    images = statistics.wilson_interval(0.98, 360)
    for seeds in (2, 10, 1000):
        shares = [0.978, 0.982] * (seeds // 2)
        interval = statistics.share_total_interval(shares, 360)
        assert interval.low < images.low and interval.high > images.high
    assert interval.high - interval.low == pytest.approx(images.high - images.low, rel=0.01)


def test_no_seed_one_seed_equal_seeds_and_perfect_seeds():
    assert statistics.share_interval([]) == (0, None, None, None, statistics.METHOD_NONE)
    assert statistics.share_interval([0.9]) == (1, 0.9, None, None, statistics.METHOD_SINGLE)
    assert statistics.share_interval([1.0] * 3) == (3, 1.0, 1.0, 1.0, statistics.METHOD_EQUAL)
    assert statistics.share_total_interval([], 360) == (0, None, None, None, statistics.METHOD_NONE)
    for share in (1.0, 0.0, 0.9):
        alone = statistics.wilson_interval(share, 360)
        equal = statistics.share_total_interval([share] * 3, 360)
        assert (equal.n, equal.method) == (3, statistics.METHOD_TOTAL)
        assert (equal.low, equal.high) == (pytest.approx(alone.low), pytest.approx(alone.high))
        assert equal.high - equal.low > 0.005


def test_an_unknown_number_of_images_gives_no_interval_over_them():
    for interval in (statistics.wilson_interval(0.9, None), statistics.share_total_interval([0.9, 0.8], None)):
        assert (interval.low, interval.high, interval.method) == (None, None, statistics.METHOD_NO_IMAGES)
    assert statistics.share_total_interval([0.9, 0.8], math.nan)[:3] == (2, pytest.approx(0.85), None)
    assert statistics.wilson_interval(None, 360).method == statistics.METHOD_NONE
    assert statistics.share_total_interval([0.9, None, math.nan, 0.8], 360).n == 2


@pytest.mark.parametrize("share", [1.01, -0.01, 97.8])
def test_a_percentage_is_no_share(share):
    for call in (statistics.share_interval, lambda s: statistics.share_total_interval(s, 360)):
        with pytest.raises(FFError, match="between 0 and 1"):
            call([0.9, share])
    with pytest.raises(FFError, match="between 0 and 1"):
        statistics.wilson_interval(share, 360)


@given(groups())
def test_intervals_of_accuracies_stay_within_0_and_1_and_hold_the_mean(group):
    shares, n = group
    for interval in (statistics.share_interval(shares), statistics.share_total_interval(shares, n)):
        assert 0 <= interval.low <= interval.estimate + 1e-12
        assert interval.estimate - 1e-12 <= interval.high <= 1


@given(groups())
def test_seeds_and_images_say_less_than_either_alone(group):
    shares, n = group
    total = statistics.share_total_interval(shares, n)
    for part in (statistics.share_interval(shares), statistics.wilson_interval(float(np.mean(shares)), n)):
        assert total.low <= part.low + 1e-12 and part.high <= total.high + 1e-12


@given(groups(), st.integers(1, 20_000))
def test_more_images_never_widen_an_interval(group, more):
    shares, n = group
    for call in (statistics.share_total_interval, lambda s, n: statistics.wilson_interval(s[0], n)):
        few, many = call(shares, n), call(shares, n + more)
        assert few.low <= many.low + 1e-12 and many.high <= few.high + 1e-12


@given(groups())
def test_errors_have_the_mirrored_interval_of_accuracies(group):
    shares, n = group
    errors = [1 - share for share in shares]
    pairs = [
        (statistics.share_interval(shares), statistics.share_interval(errors)),
        (statistics.share_total_interval(shares, n), statistics.share_total_interval(errors, n)),
        (statistics.wilson_interval(shares[0], n), statistics.wilson_interval(errors[0], n)),
    ]
    for right, wrong in pairs:
        assert wrong.low == pytest.approx(1 - right.high, abs=1e-9)
        assert wrong.high == pytest.approx(1 - right.low, abs=1e-9)


def accuracies(rng, seeds, n, true, difficulty, training):
    """Accuracies of `seeds` seeds on n images of their own world, and the mean over all seeds on these images.

    `true`: accuracy over all seeds and images. `difficulty`: the share of the variance within a seed that the
    image makes, common to all seeds; `training`: the standard deviation of the seeds on the same scale.
    """
    c = ndtri(true) * math.sqrt(1 + training**2)
    image = rng.normal(0, math.sqrt(difficulty), n)
    seed = rng.normal(0, training, (seeds, 1))
    rest = rng.normal(0, math.sqrt(1 - difficulty), (seeds, n))
    on_these = ndtr((c - image) / math.sqrt(1 - difficulty + training**2)).mean()
    return (image + seed + rest < c).mean(axis=1), on_these


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize(("true", "training"), [(0.98, 0.05), (0.98, 0.2), (0.93, 0.2)])
def test_coverage_of_the_interval_over_seeds_is_95_percent(seeds, true, training):
    rng, inside = np.random.default_rng(seeds), []
    for _ in range(1200):
        shares, on_these = accuracies(rng, seeds, 500, true, 0.6, training)
        interval = statistics.share_interval(shares)
        inside.append(interval.low <= on_these <= interval.high)
    # Three standard errors of a share of 0.95 in 1200 draws are 0.019.
    assert np.mean(inside) == pytest.approx(0.95, abs=0.025)


@pytest.mark.parametrize(("n", "true", "training"), [(360, 0.98, 0.05), (2000, 0.98, 0.2), (360, 0.93, 0.2)])
@pytest.mark.parametrize(("seeds", "difficulty"), [(3, 0.6), (3, 0.95), (10, 0.95)])
def test_coverage_over_seeds_and_images_is_at_least_95_percent(n, true, training, seeds, difficulty):
    rng, inside = np.random.default_rng(n + seeds), []
    for _ in range(600):
        shares, _ = accuracies(rng, seeds, n, true, difficulty, training)
        interval = statistics.share_total_interval(shares, n)
        inside.append(interval.low <= true <= interval.high)
    assert np.mean(inside) > 0.95 - 3 * math.sqrt(0.95 * 0.05 / 600)


def test_where_all_seeds_stumble_over_the_same_images_only_the_interval_over_both_covers_95_percent():
    rng, both, only_seeds = np.random.default_rng(8), [], []
    for _ in range(1500):
        shares, _ = accuracies(rng, 5, 1000, 0.95, 0.999, 0.01)
        interval, over_seeds = statistics.share_total_interval(shares, 1000), statistics.share_interval(shares)
        both.append(interval.low <= 0.95 <= interval.high)
        only_seeds.append(over_seeds.low <= 0.95 <= over_seeds.high)
    assert np.mean(both) == pytest.approx(0.955, abs=0.02)
    assert np.mean(only_seeds) < 0.6
