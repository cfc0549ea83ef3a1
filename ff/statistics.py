"""The one place where numbers are summarised: medians, percentiles, 95 % intervals, paired differences, ratios.

Which interval is used, and why:

*Over timed repeats* (tens to thousands of values, skewed, with outliers) the estimate is the median and the interval
its bias-corrected and accelerated bootstrap (BCa; Efron 1987, doi 10.1080/01621459.1987.10478410;
`scipy.stats.bootstrap`). Where BCa is undefined (almost all values equal) or pointless (more than `BCA_LIMIT` values,
where bias and acceleration vanish) the plain percentile bootstrap is used.

*Over seeds* (usually 3 to 10 values) the estimate is the mean. A bootstrap of three values draws from only ten distinct
resamples and ignores that the spread itself is estimated: its "95 %" interval covers the true mean in about 75 % of
cases. So with fewer than `BOOTSTRAP_FROM` seeds the interval is Student's t interval, which is exact for normal values;
from there on it is the BCa bootstrap. `bootstrap_mean` gives the bootstrap interval for any n, and the tables show it
beside the other.

*Accuracies* are shares, and Student's interval of a few shares near 1 leaves 0 to 1. Their intervals all have
the form of Wilson (1927), which cannot: `wilson_interval` over the images of one run, `share_interval` over
seeds, `share_total_interval` over seeds and test images (for what a new seed *and* a new image may give).

Every result names its method. One value has no interval (None, never zero width); values that are all equal give an
interval of width zero whose method says so. All resampling uses a fixed seed: the same values give the same interval.
SciPy is imported on first use, since a training process never needs it.
"""

import functools
import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import SimpleNamespace
from typing import NamedTuple, TypeGuard

import numpy as np

from ff.errors import FFError

CONFIDENCE = 0.95
RESAMPLES = 9999
BOOTSTRAP_FROM = 20
"""From this many values on, the mean's interval is a bootstrap; below it is Student's t."""
BCA_LIMIT = 2000
_SEED = 20221227  # any fixed number; this is the day on which arXiv 2212.13345 appeared
_BATCH_ELEMENTS = 2_000_000
_ROUNDING = 1e-12  # differences of equal accuracies differ by float64 rounding; that is no spread

METHOD_NONE = "no values"
METHOD_SINGLE = "single value, no interval"
METHOD_EQUAL = "all values equal"
METHOD_T = "Student t"
METHOD_T_CUT = "Student t, cut at the bound"
METHOD_NO_IMAGES = "number of images unknown, no interval"
METHOD_IMAGES = "Wilson over images"
METHOD_SEEDS = "Wilson with Student t"
METHOD_TOTAL = "Wilson over seeds and images"
METHOD_PAIRED = "score interval of paired shares (Tango)"
METHOD_BCA = "bootstrap BCa"
METHOD_PERCENTILE = "bootstrap percentile"


class Interval(NamedTuple):
    """An estimate from `n` values with its 95 % interval; `low` and `high` are None where there is none."""

    n: int
    estimate: float | None
    low: float | None
    high: float | None
    method: str

    @property
    def reach(self) -> tuple[float, float] | None:
        """How far the interval reaches below and above the estimate; None where there is none."""
        if self.estimate is None or self.low is None or self.high is None:
            return None
        return self.estimate - self.low, self.high - self.estimate


class Summary(NamedTuple):
    """Timed repeats: median, 5th and 95th percentile, and the 95 % interval (low, high) of the median."""

    n: int
    median: float | None
    p5: float | None
    p95: float | None
    low: float | None
    high: float | None
    method: str


def measured(values: Iterable[float | None]) -> np.ndarray:
    """The values that were measured, as float64 `[n]`: None and NaN (never measured) are left out.

    Raises FFError for an infinite value, which no measurement can give.
    """
    kept = np.array([float(value) for value in values if value is not None], dtype=np.float64)
    kept = kept[~np.isnan(kept)]
    if np.isinf(kept).any():
        raise FFError("a statistic was asked of an infinite value; delete that run and run it again")
    return kept


def percentile(values: Iterable[float | None], share: float) -> float | None:
    """The `share` (0 to 100) percentile with linear interpolation; None without values."""
    kept = measured(values)
    return float(np.percentile(kept, share)) if len(kept) else None


def summarise(values: Iterable[float | None]) -> Summary:
    """Median, p5, p95 and the 95 % interval of the median of timed repeats (unit: that of the values)."""
    kept = measured(values)
    interval = median_interval(kept)
    return Summary(
        interval.n,
        interval.estimate,
        percentile(kept, 5),
        percentile(kept, 95),
        interval.low,
        interval.high,
        interval.method,
    )


def median_interval(values: Iterable[float | None]) -> Interval:
    """The median with its bootstrap 95 % interval (BCa, or percentile where BCa is undefined)."""
    return _bootstrap(measured(values), np.median)


def bootstrap_mean(values: Iterable[float | None]) -> Interval:
    """The mean with its bootstrap 95 % interval for any n; too narrow for few values, see the module's text."""
    return _bootstrap(measured(values), np.mean)


def mean_interval(values: Iterable[float | None], at_least: float = -math.inf, at_most: float = math.inf) -> Interval:
    """The mean over seeds with its 95 % interval: Student t below `BOOTSTRAP_FROM` values, else bootstrap.

    t interval: mean +- t(0.975, n-1) * s / sqrt(n), s with n-1 in the denominator. Where the quantity cannot lie
    below `at_least` or above `at_most` (an energy, a saving) the interval is cut there, which its method says:
    no true mean lies beyond, so it covers as often as before. For accuracies take `share_interval`.
    """
    kept = measured(values)
    trivial = _trivial(kept, np.mean)
    if trivial is not None:
        return trivial
    if len(kept) >= BOOTSTRAP_FROM:
        return _bootstrap(kept, np.mean)
    mean = float(kept.mean())
    half = _student(len(kept)) * float(kept.std(ddof=1)) / math.sqrt(len(kept))
    low, high = max(mean - half, at_least), min(mean + half, at_most)
    method = METHOD_T if (low, high) == (mean - half, mean + half) else METHOD_T_CUT
    return Interval(len(kept), mean, low, high, method)


def wilson_interval(share: float | None, n: float | None) -> Interval:
    """The 95 % interval of one run's accuracy `share` (0 to 1) over its `n` images (None: unknown): Wilson 1927.

    It holds every true accuracy p from which `share` is less than z = 1.96 standard errors away, taken at p:
    (share - p)^2 <= z^2 p (1 - p) / n. doi 10.1080/01621459.1927.10502953; recommended for its coverage near 0 and
    1 by Brown, Cai and DasGupta 2001, doi 10.1214/ss/1009213286.
    """
    kept = _shares([share])
    if len(kept) == 0:
        return Interval(0, None, None, None, METHOD_NONE)
    if not _known(n):
        return Interval(1, float(kept[0]), None, None, METHOD_NO_IMAGES)
    return Interval(1, float(kept[0]), *_score_ends(float(kept[0]), _normal() ** 2 / n), METHOD_IMAGES)


def share_interval(shares: Iterable[float | None]) -> Interval:
    """The mean of accuracies over seeds (shares, 0 to 1) with a 95 % interval over seeds, which stays in 0 to 1.

    It says where the mean over all seeds lies *on these very images*. Wilson's interval with the variance that the
    S seeds show, s^2 / S, in place of the binomial one, and Student's t in place of z: every p with

        (mean - p)^2 <= t(0.975, S-1)^2 (s^2 / S) p (1 - p) / (mean (1 - mean))

    It is Wilson's interval of an effective sample, as used for shares whose observations come in clusters, here
    seeds: Kott 2017, Survey Methodology 43 (2), "A note on Wilson coverage intervals"; compared with six others
    and recommended by Franco, Little, Louis and Slud 2019, PMC6690503. For close seeds it is Student's interval. For
    seeds far apart it reaches further to the side of 0.5, where the spread of a share is larger, so that it covers
    better than a t interval cut at 1. One method for any number of seeds.
    """
    kept = _shares(shares)
    trivial = _trivial(kept, np.mean)
    if trivial is not None:
        return trivial
    mean = float(kept.mean())
    return Interval(len(kept), mean, *_score_ends(mean, _seed_term(kept)), METHOD_SEEDS)


def share_total_interval(shares: Iterable[float | None], n: float | None) -> Interval:
    """The mean of accuracies over seeds with a 95 % interval over seeds *and* over test images, within 0 to 1.

    It says where the accuracy of the recipe lies, over all seeds and all images like the `n` tested ones. Whether
    seed i answers image j is theta + a_i + b_j + e_ij: S seeds, n images common to all of them, two crossed random
    effects and the rest, with theta (1 - theta) = var a + var b + var e. The mean over both has the variance

        (var a + var e / n) / S + var b / n  <=  E[s^2] / S + theta (1 - theta) / n

    where s^2 is the variance of the seeds' accuracies on the common images, whose mean is var a + var e / n. The first
    term falls with the number of seeds, the second only with that of images: more seeds never make up for a small test
    set (both sources, and the binomial variance of a test set: Bouthillier et al. 2021, arXiv 2103.03098). Since var b
    is not known without each image's answers, the binomial variance stands for it: the interval covers 95 % where all
    seeds stumble over the same images, and more where they do not. With both terms in Wilson's form, each with its own
    quantile, the interval holds every p with

        (mean - p)^2 <= [t(0.975, S-1)^2 (s^2 / S) / (mean (1 - mean)) + z^2 / n] p (1 - p)

    One seed, or seeds that are all equal: Wilson's interval over the images.
    """
    kept = _shares(shares)
    if len(kept) < 2 or not _known(n):
        alone = wilson_interval(float(kept.mean()) if len(kept) else None, n)
        return alone._replace(n=len(kept))
    mean = float(kept.mean())
    return Interval(len(kept), mean, *_score_ends(mean, _seed_term(kept) + _normal() ** 2 / n), METHOD_TOTAL)


def _known(n: float | None) -> TypeGuard[float]:
    return n is not None and n > 0  # NaN, an empty cell of a table, is not


def _shares(values: Iterable[float | None]) -> np.ndarray:
    kept = measured(values)
    if ((kept < 0) | (kept > 1)).any():
        raise FFError("an accuracy must lie between 0 and 1; a metrics.json holds another: train that run again")
    return kept


def _seed_term(shares: np.ndarray) -> float:
    """t^2 (s^2 / S) / (mean (1 - mean)): 0 for shares that are all equal, those that are all 0 or all 1 too."""
    mean = float(shares.mean())
    variance = mean * (1 - mean)
    if np.ptp(shares) <= _ROUNDING or variance == 0:
        return 0.0
    return _student(len(shares)) ** 2 * float(shares.var(ddof=1)) / len(shares) / variance


def _score_ends(share: float, width: float) -> tuple[float, float]:
    """Both p with (share - p)^2 = width * p * (1 - p): the ends of Wilson's interval, width = z^2 / n there."""
    middle = (share + width / 2) / (1 + width)
    half = math.sqrt(width * share * (1 - share) + width**2 / 4) / (1 + width)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _student(n: int) -> float:
    """The quantile of Student's t for the mean of `n` values: 4.30 for 3, 2.26 for 10."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))


def _normal() -> float:
    """The quantile of the normal distribution: 1.96."""
    from scipy.special import ndtri

    return float(ndtri((1 + CONFIDENCE) / 2))


def geometric_mean_interval(values: Iterable[float | None]) -> Interval:
    """The geometric mean of ratios (all > 0) with the interval of `mean_interval` on their logarithms."""
    kept = measured(values)
    if (kept <= 0).any():
        raise FFError("a ratio of two durations must be above zero; a timing file holds another")
    logs = mean_interval(np.log(kept))
    estimate, low, high = (None if value is None else math.exp(value) for value in logs[1:4])
    return Interval(logs.n, estimate, low, high, logs.method)


def paired_difference(
    first: Mapping[Hashable, float | None],
    second: Mapping[Hashable, float | None],
    at_most: float = math.inf,
) -> Interval:
    """Mean of `first - second` over the seeds (keys) that both have, with the interval of `mean_interval`.

    Pairing takes out what a seed does to both (data split, start weights), so this is the interval to judge two recipes
    by; their separate intervals may overlap although the difference is clear. `n` counts pairs. `at_most`: the largest
    size that a difference can have (100 for percentages).

    It is an interval over seeds, on these very images: how far the same images trouble both recipes, which an
    interval over images needs (McNemar 1947), cannot be known from accuracies.
    """
    common = [key for key in first if key in second]
    pairs = [(first[key], second[key]) for key in common]
    return mean_interval([a - b for a, b in pairs if a is not None and b is not None], -at_most, at_most)


def paired_share_difference(gained: int, lost: int, n: int) -> Interval:
    """The accuracy that a second way to answer `n` images has above a first one's, with its 95 % interval over images.

    `gained` images are answered rightly by the second alone, `lost` by the first alone; all others say nothing of the
    difference. The interval holds every difference d that the score test of paired shares does not reject: Tango 1998,
    doi 10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B, which covers near 95 % also where few images
    or none differ (Newcombe 1998, method 10, recommends it), where a bootstrap has no width.
    """
    if n == 0:
        return Interval(0, None, None, None, METHOD_NONE)
    estimate, z = (gained - lost) / n, _normal()

    def score(d: float) -> float:
        # The share of images that are lost, as likely as can be where the difference is d.
        b = (2 * n - gained + lost) * d - gained - lost
        c = -lost * d * (1 - d)
        share = (math.sqrt(max(b * b - 8 * n * c, 0)) - b) / (4 * n)
        variance = max(n * (2 * share + d * (1 - d)), 0)
        return (gained - lost - n * d) / math.sqrt(variance) if variance else math.copysign(math.inf, estimate - d)

    def end(outside: float, limit: float) -> float:
        inside = estimate
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if abs(score(middle)) <= limit else (inside, middle)
        return inside

    return Interval(n, estimate, end(-1, z), end(1, z), METHOD_PAIRED)


def median_ratio(numerator: Iterable[float | None], denominator: Iterable[float | None]) -> Interval:
    """median(numerator) / median(denominator) of two independent samples, percentile bootstrap of both.

    `n` is the size of the smaller sample. Used for a speed-up that was measured in one run only.
    """
    top, bottom = measured(numerator), measured(denominator)
    n = min(len(top), len(bottom))
    if n == 0:
        return Interval(0, None, None, None, METHOD_NONE)
    if (top <= 0).any() or (bottom <= 0).any():
        raise FFError("a ratio of two durations must be above zero; a timing file holds another")
    estimate = float(np.median(top) / np.median(bottom))
    if n == 1:
        return Interval(1, estimate, None, None, METHOD_SINGLE)
    if np.ptp(top) == 0 and np.ptp(bottom) == 0:
        return Interval(n, estimate, estimate, estimate, METHOD_EQUAL)
    rng = np.random.default_rng(_SEED)
    ratios = _resampled_medians(top, rng) / _resampled_medians(bottom, rng)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(ratios, [tail, 100 - tail])
    return Interval(n, estimate, float(low), float(high), METHOD_PERCENTILE)


def _resampled_medians(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    rows = max(1, _BATCH_ELEMENTS // len(values))
    parts = []
    for start in range(0, RESAMPLES, rows):
        shape = (min(rows, RESAMPLES - start), len(values))
        parts.append(np.median(values[rng.integers(0, len(values), shape)], axis=1))
    return np.concatenate(parts)


def _trivial(values: np.ndarray, statistic: Callable) -> Interval | None:
    if len(values) == 0:
        return Interval(0, None, None, None, METHOD_NONE)
    estimate = float(statistic(values))
    if len(values) == 1:
        return Interval(1, estimate, None, None, METHOD_SINGLE)
    if np.ptp(values) <= _ROUNDING * np.abs(values).max():
        # The value itself, not its mean: a sum of equal floats divided by n can differ in the last bit.
        value = float(values[0])
        return Interval(len(values), value, value, value, METHOD_EQUAL)
    return None


@functools.lru_cache(maxsize=4)
def _resamples(n: int) -> np.ndarray:
    """Which of `n` values are in each resample `[RESAMPLES, n]`: those that SciPy draws with the fixed seed.

    A table over many networks asks for thousands of intervals over as many seeds, and drawing is half of the work.
    """
    return np.random.default_rng(_SEED).integers(0, n, (RESAMPLES, n))


def _bootstrap(values: np.ndarray, statistic: Callable) -> Interval:
    trivial = _trivial(values, statistic)
    if trivial is not None:
        return trivial
    from scipy.stats import DegenerateDataWarning, bootstrap

    n_resamples, known = RESAMPLES, None
    if len(values) <= _BATCH_ELEMENTS // RESAMPLES:
        resampled = statistic(values[_resamples(len(values))], axis=-1)
        n_resamples, known = 0, SimpleNamespace(bootstrap_distribution=resampled)
    estimate = float(statistic(values))
    methods = [("BCa", METHOD_BCA), ("percentile", METHOD_PERCENTILE)]
    for scipy_name, method in methods[len(values) > BCA_LIMIT :]:
        with warnings.catch_warnings():
            # SciPy warns and returns NaN where BCa is undefined; the next method then takes over.
            warnings.simplefilter("ignore", DegenerateDataWarning)
            warnings.simplefilter("ignore", RuntimeWarning)
            low, high = bootstrap(
                (values,),
                statistic,
                n_resamples=n_resamples,
                batch=max(1, _BATCH_ELEMENTS // len(values)),
                confidence_level=CONFIDENCE,
                method=scipy_name,
                vectorized=True,
                rng=np.random.default_rng(_SEED),
                bootstrap_result=known,
            ).confidence_interval
        if math.isfinite(low) and math.isfinite(high):
            return Interval(len(values), estimate, float(low), float(high), method)
    raise AssertionError("the percentile bootstrap of finite values is finite")
