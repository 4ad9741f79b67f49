"""Mean and variance of numbers that arrive in batches, without keeping them.

Chan, Golub and LeVeque 1979, http://infolab.stanford.edu/TR/CS-TR-79-773.html: two batches merge by their
moments alone.
"""

from typing import NamedTuple

import numpy as np

from nexus.core.types import Array

__all__ = ["Moments", "deviation", "merge_moments", "moments_of", "no_moments"]

CONSTANT = 1e-14  # a variance below this share of the squared mean is rounding: float32 has 7 digits


class Moments(NamedTuple):
    """Mean and variance of numbers, in float64: in float32 the millionth batch would no longer move them."""

    mean: Array  # [D]
    var: Array  # [D], the mean squared distance from the mean
    samples: float  # how many numbers each of them is of


def no_moments(size: int) -> Moments:
    """Return the moments of nothing, `[D]` with `D = size`."""
    return Moments(np.zeros(size), np.zeros(size), 0.0)


def moments_of(values: Array) -> Moments:
    """Return the moments `[D]` of values `[K, D]`, K ≥ 1; they are centred first, so a large mean costs no digits."""
    numbers = values.astype(np.float64)
    return Moments(numbers.mean(0), numbers.var(0), float(len(numbers)))


def merge_moments(one: Moments, other: Moments) -> Moments:
    """Return the moments of all values behind two moments, the second of at least one value."""
    samples = one.samples + other.samples
    apart = other.mean - one.mean  # [D]
    share = other.samples / samples
    mean = one.mean + apart * share
    var = one.var * (1 - share) + other.var * share + np.square(apart) * (share * (1 - share))
    return Moments(mean, var, samples)


def deviation(moments: Moments) -> Array:
    """Return the standard deviation `[D]` to divide by: 1 for numbers that were constant so far, or never seen.

    Gymnasium's wrappers add 1e-8 to the variance instead, so that constant rewards of 1 become 10,000.
    """
    constant = moments.var <= CONSTANT * np.square(moments.mean)
    return np.where(constant, 1.0, np.sqrt(moments.var))
