"""Intervals instead of single numbers."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["bootstrap_interval", "interquartile_mean", "middle_half"]


def bootstrap_interval(values: ArrayLike, resamples: int = 10_000) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the 95 % percentile bootstrap interval of the mean over the first axis (Efron 1979).

    Args:
        values: `[R]` or `[R, K]`: `R` episodes or runs, at `K` points each.
        resamples: number of bootstrap samples.

    Returns:
        Lower and upper end, scalar or `[K]` each.
    """
    array = np.asarray(values, float)
    count = len(array)
    picks = np.random.default_rng(0).integers(count, size=(resamples, count))
    # Counts of how often each was drawn, so that the means are one product for all points.
    cells = (picks + np.arange(resamples)[:, None] * count).ravel()
    shares = np.bincount(cells, minlength=resamples * count).reshape(resamples, count) / count
    low, high = np.percentile(shares @ array, [2.5, 97.5], axis=0)
    return np.asarray(low), np.asarray(high)


def interquartile_mean(values: ArrayLike) -> float:
    """Return the mean of the middle half (https://arxiv.org/abs/2108.13264).

    R / 4 of the `R` values are trimmed at each end; a value at a cut counts in part, so that three values have weights
    1/4, 1, 1/4.

    Args:
        values: `[R]`, one score per run.
    """
    array = np.sort(np.asarray(values, float))
    return float(middle_half(len(array)) @ array / 0.5)


def middle_half(count: int) -> NDArray[np.float64]:
    """Return how much of the middle half each of `count` sorted values covers, `[count]`; all together 0.5."""
    ranks = np.arange(count + 1) / count
    return np.diff(np.clip(ranks, 0.25, 0.75))
