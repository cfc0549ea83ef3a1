"""ff.bootstrap against SciPy's bootstrap with the same draws."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from scipy import stats

from ff import bootstrap
from ff.statistics import BCA_LIMIT, CONFIDENCE, METHOD_BCA, METHOD_PERCENTILE, median_interval


def by_scipy(values, statistic, method):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return stats.bootstrap(
            (values,),
            statistic,
            n_resamples=bootstrap.RESAMPLES,
            # As many at once as ff draws.
            batch=2_000_000 // len(values),
            confidence_level=CONFIDENCE,
            method=method,
            rng=bootstrap.generator(),
        ).confidence_interval


@pytest.mark.parametrize("statistic", [np.mean, np.median])
@pytest.mark.parametrize("n", [2, 3, 20, 150, 201, 1000])
def test_intervals_are_those_of_scipy(n, statistic):
    values = np.random.default_rng(n).lognormal(size=n)
    resampled = bootstrap.distribution(values, statistic)
    assert resampled.shape == (bootstrap.RESAMPLES,)
    found = bootstrap.bca_interval(values, statistic, resampled, CONFIDENCE)
    assert found == pytest.approx(by_scipy(values, statistic, "BCa"), rel=1e-12)
    plain = bootstrap.percentile_interval(resampled, CONFIDENCE)
    assert plain == pytest.approx(by_scipy(values, statistic, "percentile"), rel=1e-12)


def test_bca_is_undefined_where_scipy_says_so():
    values = np.array([1.0] * 50 + [2.0])
    assert bootstrap.bca_interval(values, np.median, bootstrap.distribution(values, np.median), CONFIDENCE) is None
    assert np.isnan(by_scipy(values, np.median, "BCa")).all()


def test_many_values_get_percentiles():
    values = np.random.default_rng(2).lognormal(size=BCA_LIMIT + 1)
    assert median_interval(values[:BCA_LIMIT]).method == METHOD_BCA
    interval = median_interval(values)
    assert interval.method == METHOD_PERCENTILE
    assert (interval.low, interval.high) == pytest.approx(by_scipy(values, np.median, "percentile"), rel=1e-12)


def test_measuring_imports_no_scipy():
    code = "import sys; from ff import statistics; statistics.summarise([1, 2, 4]); assert 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
