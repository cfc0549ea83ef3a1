"""ff.statistics against SciPy, closed forms and simulated coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ff import statistics
from ff.errors import FFError

finite = st.floats(-1e6, 1e6, allow_nan=False)


def test_rule_10_medians_with_p5_p95_and_a_bootstrap_interval_over_repeats():
    values = np.random.default_rng(1).lognormal(size=50)
    summary = statistics.summarise(values)
    assert summary.n == 50
    assert summary.median == np.median(values)
    assert (summary.p5, summary.p95) == tuple(np.percentile(values, [5, 95]))
    expected = stats.bootstrap((values,), np.median, method="BCa", rng=np.random.default_rng(5))
    assert summary.method == statistics.METHOD_BCA
    assert summary.low == pytest.approx(expected.confidence_interval.low, rel=0.05)
    assert summary.high == pytest.approx(expected.confidence_interval.high, rel=0.05)


def test_few_seeds_get_the_t_interval():
    values = [0.975, 0.978, 0.981]
    interval = statistics.mean_interval(values)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert interval == (3, pytest.approx(0.978), pytest.approx(low), pytest.approx(high), "Student t")


def test_an_interval_is_cut_where_the_quantity_ends_and_says_so():
    savings = [0.9, 0.6, 0.9]
    whole, cut = statistics.mean_interval(savings), statistics.mean_interval(savings, at_most=1)
    assert whole.high > 1
    assert cut == (3, whole.estimate, whole.low, 1, "Student t, cut at the bound")
    energies = [90.0, 150.0]
    assert statistics.mean_interval(energies).low < 0
    assert statistics.mean_interval(energies, at_least=0)[2:] == (0, pytest.approx(501.19, abs=0.01), cut.method)
    assert statistics.mean_interval([0.4, 0.41, 0.42], at_least=0, at_most=1).method == statistics.METHOD_T
    assert statistics.paired_difference({1: 90.0, 2: 99.0}, {1: 1.0, 2: 2.0}, at_most=100)[2:4] == (
        pytest.approx(93 - 12.7062 * 4, abs=1e-3),
        100,
    )


def test_every_interval_is_one_of_95_percent():
    rng = np.random.default_rng(9)
    values = rng.normal(10.0, 1.0, 400)
    error = stats.sem(values)
    # The ends at 90 % would be 16 % nearer to each other; a bootstrap of 9999 resamples is within 2 %.
    interval = statistics.bootstrap_mean(values)
    assert interval.method == statistics.METHOD_BCA
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    values = rng.normal(10.0, 1.0, statistics.BCA_LIMIT + 1)
    interval = statistics.bootstrap_mean(values)
    assert interval.method == statistics.METHOD_PERCENTILE
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * stats.sem(values), rel=0.05)
    top, bottom = rng.normal(10.0, 1.0, 500), rng.normal(5.0, 0.1, 500)
    found = [
        np.median(rng.choice(top, 500)) / np.median(rng.choice(bottom, 500)) for _ in range(4000)
    ]  # an own bootstrap
    low, high = np.percentile(found, [2.5, 97.5])
    interval = statistics.median_ratio(top, bottom)
    assert interval.high - interval.low == pytest.approx(high - low, rel=0.08)


def test_the_estimate_over_seeds_is_the_mean_and_that_over_repeats_the_median():
    skewed = [0.1, 0.2, 0.9]
    for function in (statistics.mean_interval, statistics.bootstrap_mean, statistics.share_interval):
        assert function(skewed).estimate == pytest.approx(0.4)
    assert statistics.share_total_interval(skewed, 1000).estimate == pytest.approx(0.4)
    assert statistics.median_interval(skewed).estimate == pytest.approx(0.2)
    assert statistics.summarise(skewed).median == pytest.approx(0.2)
    assert statistics.median_ratio(skewed, [0.1, 0.1, 0.5]).estimate == pytest.approx(2.0)


def test_many_seeds_get_the_bootstrap():
    values = np.random.default_rng(2).normal(size=statistics.BOOTSTRAP_FROM)
    assert statistics.mean_interval(values).method == statistics.METHOD_BCA
    assert statistics.mean_interval(values[1:]).method == statistics.METHOD_T


def test_coverage_of_three_seeds_is_95_percent_by_t_and_far_less_by_bootstrap():
    draws = np.random.default_rng(3).normal(0.97, 0.002, (2000, 3))
    inside = [low <= 0.97 <= high for low, high in (statistics.mean_interval(row)[2:4] for row in draws)]
    # Four standard errors of a share of 0.95 in 2000 draws are 0.02.
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)
    inside = [low <= 0.97 <= high for low, high in (statistics.bootstrap_mean(row)[2:4] for row in draws[:300])]
    assert np.mean(inside) < 0.85


def test_coverage_of_the_median_over_repeats():
    truth, rng = 1.0, np.random.default_rng(4)
    inside = []
    for _ in range(250):
        interval = statistics.median_interval(rng.lognormal(0.0, 0.5, 50))
        inside.append(interval.low <= truth <= interval.high)
    assert 0.90 <= np.mean(inside) <= 0.99


def test_no_value_one_value_and_equal_values():
    for function in (statistics.mean_interval, statistics.median_interval, statistics.bootstrap_mean):
        assert function([]) == (0, None, None, None, statistics.METHOD_NONE)
        assert function([3.0]) == (1, 3.0, None, None, statistics.METHOD_SINGLE)
        assert function([0.1] * 3) == (3, 0.1, 0.1, 0.1, statistics.METHOD_EQUAL)
    assert statistics.summarise([]) == (0, None, None, None, None, None, statistics.METHOD_NONE)


def test_values_that_differ_by_rounding_only_are_equal():
    differences = [97.8 - 98.0, 97.9 - 98.1, 97.7 - 97.9]
    assert len(set(differences)) > 1
    assert statistics.mean_interval(differences).method == statistics.METHOD_EQUAL


def test_bca_that_is_undefined_falls_back_to_percentiles():
    interval = statistics.median_interval([1.0] * 50 + [2.0])
    assert interval.method == statistics.METHOD_PERCENTILE
    assert (interval.low, interval.high) == (1.0, 1.0)


def test_thousands_of_values_use_percentiles():
    values = np.random.default_rng(5).normal(size=statistics.BCA_LIMIT + 1)
    interval = statistics.median_interval(values)
    assert interval.method == statistics.METHOD_PERCENTILE
    assert interval.low < interval.estimate < interval.high


def test_rule_7_what_was_not_measured_is_left_out_and_never_zero():
    assert statistics.mean_interval([1.0, None, math.nan, 3.0]).n == 2
    assert statistics.mean_interval([1.0, None, math.nan, 3.0]).estimate == 2.0
    assert statistics.percentile([None, math.nan], 50) is None
    with pytest.raises(FFError, match="infinite"):
        statistics.mean_interval([1.0, math.inf])


def test_rule_10_recipes_are_paired_over_the_seeds_that_both_have():
    first = {42: 97.9, 123: 97.5, 456: 97.8, 7: 99.0}
    second = {42: 97.4, 123: 97.1, 456: 97.2, 8: 10.0}
    interval = statistics.paired_difference(first, second)
    expected = stats.ttest_rel([97.9, 97.5, 97.8], [97.4, 97.1, 97.2]).confidence_interval(0.95)
    assert interval.n == 3
    assert interval.estimate == pytest.approx(0.5)
    assert (interval.low, interval.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_pairs_with_a_missing_half_do_not_count():
    assert statistics.paired_difference({1: 1.0, 2: None}, {1: 0.5, 2: 0.5}).n == 1
    assert statistics.paired_difference({1: 1.0}, {2: 0.5}).estimate is None


def test_geometric_mean_of_ratios():
    interval = statistics.geometric_mean_interval([2.0, 8.0])
    assert interval.estimate == pytest.approx(4.0)
    assert interval.low * interval.high == pytest.approx(16.0)
    skewed = statistics.geometric_mean_interval([1.0, 1.0, 8.0])
    expected = stats.t.interval(0.95, 2, np.log(2), stats.sem(np.log([1, 1, 8])))
    assert (skewed.estimate, skewed.low) == (pytest.approx(2.0), pytest.approx(math.exp(expected[0])))
    assert statistics.geometric_mean_interval([]).estimate is None
    with pytest.raises(FFError, match="above zero"):
        statistics.geometric_mean_interval([1.0, 0.0])


def test_ratio_of_medians():
    rng = np.random.default_rng(6)
    interval = statistics.median_ratio(10 * rng.lognormal(0, 0.1, 60), 2 * rng.lognormal(0, 0.1, 50))
    assert interval.n == 50
    assert interval.low < 5.0 < interval.high
    assert interval.estimate == pytest.approx(5.0, rel=0.1)
    assert statistics.median_ratio([2.0] * 3, [1.0] * 3) == (3, 2.0, 2.0, 2.0, statistics.METHOD_EQUAL)
    assert statistics.median_ratio([], [1.0]).estimate is None
    assert statistics.median_ratio([4.0], [2.0])[:4] == (1, 2.0, None, None)


def test_the_same_values_give_the_same_interval():
    values = np.random.default_rng(7).normal(size=40)
    assert statistics.summarise(values) == statistics.summarise(values)
    assert statistics.median_ratio(abs(values), abs(values) + 1) == statistics.median_ratio(
        abs(values), abs(values) + 1
    )


@given(st.lists(finite, min_size=2, max_size=19))
def test_the_mean_lies_in_its_interval(values):
    interval = statistics.mean_interval(values)
    assert interval.low <= interval.estimate + 1e-9 and interval.estimate <= interval.high + 1e-9


@settings(max_examples=25, deadline=None)
@given(st.lists(finite, min_size=2, max_size=30))
def test_a_bootstrap_interval_stays_within_the_values(values):
    interval = statistics.median_interval(values)
    rounding = 1e-9 * (1 + max(map(abs, values)))
    assert min(values) - rounding <= interval.low <= interval.high <= max(values) + rounding


@settings(max_examples=25, deadline=None)
@given(st.lists(finite, min_size=3, max_size=15), st.floats(-100, 100))
def test_shifting_the_values_shifts_the_t_interval(values, shift):
    before = statistics.mean_interval(values)
    after = statistics.mean_interval([value + shift for value in values])
    if statistics.METHOD_EQUAL not in (before.method, after.method):
        assert after.low - before.low == pytest.approx(shift, abs=1e-6 * (1 + max(map(abs, values))))


def test_an_interval_reaches_from_its_estimate_to_its_ends():
    skewed = statistics.share_interval([0.9, 0.95, 0.99])
    below, above = skewed.reach
    assert below > above > 0
    assert (skewed.estimate - below, skewed.estimate + above) == pytest.approx((skewed.low, skewed.high))
    assert statistics.mean_interval([1.0]).reach is None
    assert statistics.mean_interval([]).reach is None


# -- paired shares ----


def largest_likelihood_score(gained: int, lost: int, n: int, d: float) -> float:
    """The score statistic at difference `d` with the nuisance share found by a general maximiser."""
    from scipy.optimize import minimize_scalar

    def loss(q: float) -> float:
        shares = (q + d, q, 1 - d - 2 * q)
        counts = (gained, lost, n - gained - lost)
        return -sum(k * np.log(max(p, 1e-300)) for k, p in zip(counts, shares, strict=True) if k)

    low, high = max(0.0, -d), (1 - d) / 2
    q = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-14}).x
    return (gained - lost - n * d) / np.sqrt(n * (2 * q + d - d * d))


@pytest.mark.parametrize(("gained", "lost", "n"), [(3, 12, 400), (9, 16, 81), (5, 0, 40), (1, 2, 10_000)])
def test_the_ends_of_a_paired_difference_are_those_that_the_score_test_just_keeps(gained, lost, n):
    found = statistics.paired_share_difference(gained, lost, n)
    assert found.estimate == pytest.approx((gained - lost) / n)
    assert largest_likelihood_score(gained, lost, n, found.low) == pytest.approx(1.95996, rel=1e-3)
    assert largest_likelihood_score(gained, lost, n, found.high) == pytest.approx(-1.95996, rel=1e-3)
    mirrored = statistics.paired_share_difference(lost, gained, n)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_no_difference_among_n_images_is_no_certainty():
    """With no image that differs both ends are those of Wilson's interval for 0 of n."""
    found = statistics.paired_share_difference(0, 0, 1000)
    assert (found.estimate, found.high) == (0, pytest.approx(statistics.wilson_interval(0.0, 1000).high))
    assert found.low == pytest.approx(-found.high)
    assert statistics.paired_share_difference(0, 0, 0).low is None
    all_gained = statistics.paired_share_difference(5, 0, 5)
    assert (all_gained.estimate, all_gained.high) == (1, 1) and 0 < all_gained.low < 1


def test_a_paired_difference_covers_the_true_one():
    rng = np.random.default_rng(1)
    for q12, q21 in ((0.02, 0.01), (0.004, 0.001), (0.1, 0.1)):
        draws = rng.multinomial(500, (q12, q21, 1 - q12 - q21), 1000)
        found = [statistics.paired_share_difference(int(a), int(b), 500) for a, b, _ in draws]
        assert 0.93 < np.mean([one.low <= q12 - q21 <= one.high for one in found]) < 0.99
