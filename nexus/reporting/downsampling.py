"""Fewer points of a long series, with its peaks."""

from itertools import pairwise

import numpy as np

from nexus.core.types import Floats, Ints

__all__ = ["points_to_draw"]


def points_to_draw(values: Floats, most: int) -> Ints:
    """Return the places of at most `most` values that show a series: its ends, and the extremes between them.

    The values between the first and the last are divided into buckets of equal length. Each keeps its lowest and its
    highest value, so that no peak is lost, and the first one that is not finite, so that a gap stays visible.

    Args:
        values: `[K]`; not finite where there is a gap.
        most: number of points, at least 5.

    Returns:
        Places in `values`, ascending; all of them if there are no more than `most`.
    """
    count = len(values)
    if count <= most:
        return np.arange(count)
    finite = np.isfinite(values)
    per_bucket = 2 if finite.all() else 3
    edges = np.linspace(1, count - 1, (most - 2) // per_bucket + 1).astype(np.int64).tolist()
    kept = [0, count - 1]
    for start, end in pairwise(edges):
        bucket, known = values[start:end], finite[start:end]
        kept.append(start + int(np.where(known, bucket, np.inf).argmin()))
        kept.append(start + int(np.where(known, bucket, -np.inf).argmax()))
        if not known.all():
            kept.append(start + int(known.argmin()))
    return np.unique(kept)
