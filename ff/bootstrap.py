"""The bootstrap distribution of a statistic and its BCa interval.

The numbers are those of `scipy.stats.bootstrap` with the same generator (a test holds them against it). Importing
`scipy.stats` takes half a second and 40 MB, in every process that measures: as long as measuring a small network, and
more memory than it needs.
"""

import functools
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

RESAMPLES = 9999
_SEED = 20221227  # any fixed number; this is the day on which arXiv 2212.13345 appeared
_BATCH_ELEMENTS = 2_000_000
_NORMAL = NormalDist()

Statistic = Callable[..., np.ndarray]


def generator() -> np.random.Generator:
    """A new one with the fixed seed: the same values give the same interval."""
    return np.random.default_rng(_SEED)


@functools.lru_cache(maxsize=4)
def _drawn(n: int) -> np.ndarray:
    """Which of `n` values are in each resample [RESAMPLES, n]."""
    return generator().integers(0, n, (RESAMPLES, n))


def distribution(values: np.ndarray, statistic: Statistic, rng: np.random.Generator | None = None) -> np.ndarray:
    """The statistic of RESAMPLES resamples of `values` [n], drawn with `rng`, by default a new `generator`."""
    n = len(values)
    size = max(1, _BATCH_ELEMENTS // n)
    if rng is None and size >= RESAMPLES:
        # A table over many networks asks for thousands of intervals over as many seeds.
        return statistic(values[_drawn(n)], axis=-1)
    rng = rng or generator()
    sizes = [min(size, RESAMPLES - start) for start in range(0, RESAMPLES, size)]
    return np.concatenate([statistic(values[rng.integers(0, n, (rows, n))], axis=-1) for rows in sizes])


def percentile_interval(resampled: np.ndarray, confidence: float) -> tuple[float, float]:
    """The percentiles that leave as much outside on both sides."""
    low, high = np.percentile(resampled, [50 * (1 - confidence), 50 * (1 + confidence)])
    return float(low), float(high)


def bca_interval(
    values: np.ndarray, statistic: Statistic, resampled: np.ndarray, confidence: float
) -> tuple[float, float] | None:
    """The bias-corrected and accelerated interval (Efron 1987, doi 10.1080/01621459.1987.10478410; Efron & Tibshirani
    1993, An Introduction to the Bootstrap, equations 14.9 to 14.15).

    None where it is undefined: all resamples on one side of the estimate, or a jackknife without spread.
    """
    estimate = statistic(values, axis=-1)
    # Of resamples that equal the estimate, as of a median, one half counts as below it.
    below = float((np.mean(resampled < estimate) + np.mean(resampled <= estimate)) / 2)
    left_out = _jackknife(values, statistic)
    distance = left_out.mean() - left_out
    largest = float(np.abs(distance).max())
    if not 0 < below < 1 or largest == 0:
        return None
    bias = _NORMAL.inv_cdf(below)
    # The unit cancels out; without it no power of a number leaves the range of a float.
    distance /= largest
    acceleration = float((distance**3).sum()) / (6 * float((distance**2).sum()) ** 1.5)

    def share(alpha: float) -> float:
        reach = bias + _NORMAL.inv_cdf(alpha)
        return _NORMAL.cdf(bias + reach / (1 - acceleration * reach))

    shares = [100 * share((1 - confidence) / 2), 100 * share((1 + confidence) / 2)]
    low, high = np.percentile(resampled, shares)
    return float(low), float(high)


def _jackknife(values: np.ndarray, statistic: Statistic) -> np.ndarray:
    """The statistic of `values` without each one of them [n]."""
    n = len(values)
    parts = []
    for start in range(0, n, max(1, _BATCH_ELEMENTS // n)):
        out = np.arange(start, min(n, start + max(1, _BATCH_ELEMENTS // n)))
        kept = np.arange(n - 1) + (np.arange(n - 1) >= out[:, None])
        parts.append(statistic(values[kept], axis=-1))
    return np.concatenate(parts)
