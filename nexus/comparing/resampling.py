"""Statistics of groups of runs, with intervals from resampled runs; all are pure functions and repeat exactly.

A group has a stratum of scores `[R]` for each environment, and runs are resampled within their stratum (the stratified
bootstrap of https://arxiv.org/abs/2108.13264). Scores are sorted first, so the order of the runs changes nothing.
Two groups are resampled independently: the seed of a run fixes different things in different algorithms, so runs of one
seed are no pairs.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import TypeAlias

import numpy as np

from nexus.core.types import Floats
from nexus.training.statistics import middle_half

__all__ = [
    "FEWEST_FOR_INTERVAL",
    "Statistic",
    "Strata",
    "band_of_curves",
    "band_of_profile",
    "detectable_difference",
    "difference_of_iqms",
    "iqm_of",
    "median_time",
    "order_of_times",
    "probability_of_improvement",
    "runs_needed",
    "share_above",
    "spread_of_iqm",
]

Strata: TypeAlias = Sequence[Floats]
"""Scores of the runs of a group, an array `[R]` for each environment."""

RESAMPLES = 10_000
INTERVAL_ENDS = (2.5, 97.5)  # percentiles
FEWEST_FOR_INTERVAL = 3  # runs of a group; fewer have no interval worth the name
Z_OF_INTERVAL = 1.959964  # the standard normal's 97.5 % quantile
MOST_RUNS_NEEDED = 10_000


@dataclass(frozen=True)
class Statistic:
    """A number with its 95 % interval, which is None if there are too few runs for one."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def has_interval(self) -> bool:
        """Whether there are enough runs for an interval."""
        return self.low is not None and self.high is not None

    def excludes(self, value: float) -> bool:
        """True if the interval exists and a value lies outside of it."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high


def iqm_of(strata: Strata) -> Statistic:
    """Return the interquartile mean over all scores, with its interval."""
    value = float(middle_means(np.concatenate(strata)))
    return with_ends(value, (strata,), lambda: draws_of_iqm(strata, 0))


def difference_of_iqms(first: Strata, second: Strata) -> Statistic:
    """Return the interquartile mean of the first group minus that of the second, with its interval."""
    value = float(middle_means(np.concatenate(first)) - middle_means(np.concatenate(second)))
    return with_ends(value, (first, second), lambda: draws_of_iqm(first, 0) - draws_of_iqm(second, 1))


def probability_of_improvement(first: Strata, second: Strata) -> Statistic:
    """Return the probability that a run of the first group scores higher than one of the second, with its interval.

    A tie counts as one half, as in the statistic of Mann and Whitney; several environments count equally.
    """
    return order_probability([order_of_scores(*pair) for pair in zip(first, second, strict=True)])


def order_of_times(first: tuple[Floats, Floats], second: tuple[Floats, Floats]) -> Statistic:
    """Return the probability that a run of the first group is sooner than one of the second, with its interval.

    Each group is a pair of times `[R]` and whether the event came then `[R]`, as 1 or 0; at 0 it had not come by then.
    Pairs whose order is unknown count as one half (Gehan 1965, https://doi.org/10.1093/biomet/52.1-2.203).
    """
    (times, came), (others, others_came) = (in_time_order(*group) for group in (first, second))
    sooner = (times[:, None] < others[None]) | ((times[:, None] == others[None]) & (others_came[None] == 0))
    later = (others[None] < times[:, None]) | ((times[:, None] == others[None]) & (came[:, None] == 0))
    wins = (sooner & (came[:, None] == 1)).astype(float) - (later & (others_came[None] == 1)).astype(float)
    return order_probability([(1 + wins) / 2])


def median_time(times: Floats, came: Floats) -> Statistic:
    """Return the median time to an event, with its interval; infinite if it came to fewer than half.

    The estimator is that of Kaplan and Meier (https://doi.org/10.1080/01621459.1958.10501452), resampled as in Efron
    1981: a run that ended before the event counts as one to which it had not come by then.

    Args:
        times: when the event came, or the last time at which it had not come, `[R]`.
        came: whether it came, as 1 or 0, `[R]`.
    """
    times, came = in_time_order(times, came)
    value = float(medians_of_times(np.ones((1, len(times))), times, came)[0])
    return with_ends(value, ([times],), lambda: medians_of_times(counts_of([times], 0)[0], times, came))


def share_above(strata: Strata, levels: Floats) -> Floats:
    """Return the share of runs with a score above each level: `[K]`; several environments count equally."""
    shares: Floats = np.mean([(scores[:, None] > levels).mean(0) for scores in strata], axis=0)
    return shares


def band_of_profile(strata: Strata, levels: Floats) -> tuple[Floats, Floats] | None:
    """Return both ends of the 95 % interval of `share_above` at each level; None for too few runs."""
    if too_few(strata):
        return None
    counts = counts_of(strata, 0)
    shares = [
        count @ (np.sort(scores)[:, None] > levels) / len(scores) for count, scores in zip(counts, strata, strict=True)
    ]
    low, high = np.percentile(np.mean(shares, axis=0), INTERVAL_ENDS, axis=0)
    return low, high


def band_of_curves(curves: Floats) -> tuple[Floats, Floats | None, Floats | None]:
    """Return the interquartile mean at each point of curves `[R, K]`, and the ends of its interval: `[K]` each."""
    ordered = np.sort(curves, axis=0)
    count = len(curves)
    mean = middle_means(curves.T)
    if count < FEWEST_FOR_INTERVAL:
        return mean, None, None
    picks = np.sort(resampler(0).integers(count, size=(RESAMPLES, count)), axis=1)
    # How much of the middle half each run covers in each sample, so that the means are one product for all points.
    cells = (picks + np.arange(RESAMPLES)[:, None] * count).ravel()
    covered = np.tile(middle_half(count), RESAMPLES)
    shares = np.bincount(cells, covered, minlength=RESAMPLES * count).reshape(RESAMPLES, count) / 0.5
    low, high = np.percentile(shares @ (ordered - ordered[0]), INTERVAL_ENDS, axis=0) + ordered[0]
    return mean, low, high


def spread_of_iqm(scores: Floats) -> float:
    """Return the standard error of an interquartile mean times the root of the number of runs.

    The bootstrap's own is too small by √((R-1)/R), which is corrected here.
    """
    count = len(scores)
    return float(draws_of_iqm([scores], 0).std()) * count / sqrt(count - 1)


def detectable_difference(spreads: tuple[float, float], counts: tuple[int, int], power_z: float) -> float:
    """Return the smallest true difference that a comparison with these numbers of runs sees with some probability.

    "Sees" means that a Welch test at 5 % rejects no difference.

    Args:
        spreads: of both groups, as `spread_of_iqm` returns them.
        counts: runs of both groups.
        power_z: the quantile of the standard normal at that probability: 0 for one half, 0.8416 for 80 %.
    """
    error = sqrt(sum(spread**2 / count for spread, count in zip(spreads, counts, strict=True)))
    freedom = sum(counts) - 2
    return (t_quantile(Z_OF_INTERVAL, freedom) + t_quantile(power_z, freedom)) * error


def runs_needed(difference: float, spreads: tuple[float, float], power_z: float) -> int | None:
    """Return the runs per group with which a true difference of this size is seen; None above 10,000.

    The arguments are those of `detectable_difference`.
    """
    counts = range(FEWEST_FOR_INTERVAL, MOST_RUNS_NEEDED + 1)

    def is_seen(count: int) -> bool:
        return detectable_difference(spreads, (count, count), power_z) <= abs(difference)

    place = bisect_left(counts, True, key=is_seen)  # more runs see smaller differences
    return counts[place] if place < len(counts) else None


def t_quantile(z: float, freedom: float) -> float:
    """Return Student's quantile at the probability of a normal quantile z, by the expansion of Cornish and Fisher."""
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def too_few(strata: Strata) -> bool:
    """True if an environment has too few runs for an interval."""
    return min(map(len, strata)) < FEWEST_FOR_INTERVAL


def with_ends(value: float, groups: Sequence[Strata], draws: Callable[[], Floats]) -> Statistic:
    """Return a value, with the ends of the interval of its draws if every group has enough runs."""
    if any(map(too_few, groups)):
        return Statistic(value)
    drawn = draws()
    # An infinite time has no neighbours to interpolate between.
    method = "linear" if np.isfinite(drawn).all() else "inverted_cdf"
    low, high = np.percentile(drawn, INTERVAL_ENDS, method=method)  # type: ignore[call-overload]
    return Statistic(value, float(low), float(high))


def draws_of_iqm(strata: Strata, stream: int) -> Floats:
    """Return the interquartile means of resampled groups, `[RESAMPLES]`."""
    rng = resampler(stream)
    scores = np.concatenate(
        [np.sort(stratum)[rng.integers(len(stratum), size=(RESAMPLES, len(stratum)))] for stratum in strata], axis=1
    )
    return middle_means(scores)


def middle_means(scores: Floats) -> Floats:
    """Return the interquartile mean of each row: `[..., R] -> [...]`; of equal scores exactly that score."""
    ordered = np.sort(scores, axis=-1)
    lowest = ordered[..., 0]
    means: Floats = (ordered - lowest[..., None]) @ middle_half(scores.shape[-1]) / 0.5 + lowest
    return means


def counts_of(strata: Strata, stream: int) -> list[Floats]:
    """Return how often each sorted run of each stratum is in each resampled group: `[RESAMPLES, R]` each."""
    rng = resampler(stream)
    sizes = [len(stratum) for stratum in strata]
    return [rng.multinomial(size, np.full(size, 1 / size), RESAMPLES).astype(float) for size in sizes]


def order_probability(orders: Sequence[Floats]) -> Statistic:
    """Return the mean of matrices `[R, S]` of 1 where the first of a pair wins, 0 where it loses; with its interval."""
    value = float(np.mean([order.mean() for order in orders]))
    firsts, seconds = [order[:, 0] for order in orders], [order[0] for order in orders]

    def draws() -> Floats:
        pairs = zip(counts_of(firsts, 0), orders, counts_of(seconds, 1), strict=True)
        drawn: Floats = np.mean([((mine @ order) * other).sum(1) / order.size for mine, order, other in pairs], axis=0)
        return drawn

    return with_ends(value, (firsts, seconds), draws)


def order_of_scores(first: Floats, second: Floats) -> Floats:
    """Return 1 where a run of the first group scores higher than one of the second, 0.5 for ties: `[R, S]`."""
    return (1 + np.sign(np.sort(first)[:, None] - np.sort(second)[None])) / 2


def in_time_order(times: Floats, came: Floats) -> tuple[Floats, Floats]:
    """Return times in order; of equal ones first those at which the event came."""
    order = np.lexsort((-came, times))
    return times[order], came[order]


def medians_of_times(counts: Floats, times: Floats, came: Floats) -> Floats:
    """Return the median times `[B]` of groups in which each run, in order of time, occurs so often: `[B, R]`."""
    at_risk = counts[:, ::-1].cumsum(1)[:, ::-1]
    survived = np.cumprod(1 - np.divide(counts * came, at_risk, out=np.zeros_like(counts), where=at_risk > 0), axis=1)
    half = survived <= 0.5 + 1e-9  # rounding must not make half of the runs less than half
    return np.where(half.any(1), times[half.argmax(1)], inf)


def resampler(stream: int) -> np.random.Generator:
    """Return the generator of a stream of resamples; always the same."""
    return np.random.default_rng(np.random.SeedSequence(0, spawn_key=(stream,)))
