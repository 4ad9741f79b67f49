"""Histograms: their bins, and as plain text, each line within 80 columns."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from nexus.core.types import Array, Floats, Ints

__all__ = ["action_lines", "binned", "histogram_lines"]

WIDTH = 80
BINS = 10  # also the most different values that get a line each
LABEL, COUNT = 24, 12  # columns
FAR = 1_000  # ratio of the largest to the smallest value from which bins grow geometrically


def binned(values: Array) -> tuple[list[str], Ints]:
    """Return the labels `[N]` of bins for values `[K]`, at least one of them, and in which bin each value is `[K]`.

    Up to ten different values have a bin each.
    """
    distinct, places = np.unique(values, return_inverse=True)
    if len(distinct) <= BINS:
        return [f"{value:.4g}" for value in distinct], places.reshape(-1)
    whole = values.dtype.kind in "iu"
    edges = edges_of(float(distinct[0]), float(distinct[-1]), whole)
    labels = [
        f"{first:,.0f} to {last - 1:,.0f}" if whole else f"{first:.4g} to {last:.4g}" for first, last in pairwise(edges)
    ]
    within = np.searchsorted(edges, values.astype(np.float64), side="right") - 1
    return labels, np.minimum(within, BINS - 1)  # the last bin has its upper end


def histogram_lines(title: str, values: Array) -> Iterator[str]:
    """Yield a histogram of values `[K]`, at least one of them."""
    yield f"{title:<{LABEL}}{'rows':>{COUNT}}"
    labels, places = binned(values)
    counts = np.bincount(places, minlength=len(labels))
    most = int(counts.max())
    for label, count in zip(labels, counts.tolist(), strict=True):
        yield f"  {label:<{LABEL - 2}}{count:>{COUNT},}  {bar_of(count, most)}".rstrip()


def edges_of(low: float, high: float, whole: bool) -> Floats:
    """Return the edges `[BINS + 1]` of bins from the lowest to the highest value; of whole numbers the last one is out.

    Args:
        low: the lowest value.
        high: the highest, above it; of whole numbers at least `BINS` above.
        whole: whether the values are whole numbers.
    """
    if whole:
        return np.floor(np.linspace(low, high + 1, BINS + 1))
    spaced = np.geomspace if low > 0 and high > FAR * low else np.linspace
    edges: Floats = spaced(low, high, BINS + 1)
    edges[0], edges[-1] = low, high  # exactly, or rounding would lose an end
    return edges


def action_lines(actions: Array, rewards: Array, action_dim: int) -> Iterator[str]:
    """Yield how often each action is among `[K]`, at least one, and the mean of its rewards `[K]`."""
    yield f"{'action':<{LABEL - COUNT}}{'mean reward':>{COUNT}}{'rows':>{COUNT}}"
    counts = np.bincount(actions, minlength=action_dim)
    sums = np.bincount(actions, rewards, minlength=action_dim)
    for action, (count, total) in enumerate(zip(counts.tolist(), sums.tolist(), strict=True)):
        mean = f"{total / count:.4g}" if count else "-"
        bar = bar_of(count, int(counts.max()))
        yield f"  {action:<{LABEL - COUNT - 2}}{mean:>{COUNT}}{count:>{COUNT},}  {bar}".rstrip()


def bar_of(count: int, most: int) -> str:
    """Return a bar as long as a count is to the largest one; any count above 0 shows."""
    room = WIDTH - LABEL - COUNT - 2
    return "#" * (max(1, round(room * count / most)) if count else 0)
