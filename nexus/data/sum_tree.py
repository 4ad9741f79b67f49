"""A sum tree with a wide fan-out: samples in proportion to a million priorities in a few array calls."""

import math

import numpy as np
from numpy.typing import NDArray

from nexus.core.types import Floats

__all__ = ["SumTree"]

Indices = NDArray[np.int64]


class SumTree:
    """`capacity` numbers ≥ 0, initially 0, and the partial sums to select one in proportion to its value.

    A binary tree over a million leaves is 20 levels deep, and each level costs array calls. Here a node is the
    sum of `fan_out` children, and the highest level, up to `fan_out²` wide, is searched at once: three levels for a
    million leaves. Every sum is float64 and recomputed from its children, so rounding errors do not accumulate.

    Args:
        capacity: number of numbers.
        fan_out: children per node.
    """

    def __init__(self, capacity: int, fan_out: int = 32) -> None:
        self.fan_out = fan_out
        self._levels: list[Floats] = []  # [nodes / fan_out, fan_out] each, from the leaves up, without the highest
        width = capacity
        while width > fan_out**2:
            width = -(-width // fan_out)
            self._levels.append(np.full((width, fan_out), 0.0))  # np.zeros would not touch the memory
        self._top = np.zeros(width)
        self._running = np.zeros(width + 1)  # cumulative sums of the top level, from 0 on
        self._ends = self._running[1:]
        flat = [*(level.reshape(-1) for level in self._levels), self._top]
        self._leaves, self._above = flat[0], flat[1:]  # the parents of each level, as a view

    @property
    def total(self) -> float:
        """The sum of all numbers."""
        return float(self._running[-1])

    @property
    def nbytes(self) -> int:
        """Bytes used by all levels."""
        return sum(level.nbytes for level in (*self._levels, self._top, self._running))

    def get(self, indices: Indices) -> Floats:
        """Return the numbers at these indices."""
        return self._leaves.take(indices)

    def set(self, indices: Indices, values: Floats) -> None:
        """Write values at indices `[K]`; if an index occurs twice, the last value wins.

        The caller guarantees that each value is ≥ 0 and their sum is finite.
        """
        self._leaves[indices] = values
        nodes = indices
        for level, above in zip(self._levels, self._above, strict=True):
            if len(nodes) < len(level):
                nodes = nodes // self.fan_out
                above[nodes] = np.add.reduce(level.take(nodes, 0), 1)
            else:  # as many changes as nodes: recompute all sums
                above[: len(level)] = np.add.reduce(level, 1)
        np.add.accumulate(self._top, out=self._ends)

    def find(self, masses: Floats) -> Indices:
        """Return for each mass `[K]` in [0, total) the index at which the cumulative sum of all numbers exceeds it.

        A number of 0 is never selected. A cumulative sum that exceeds a mass rose at exactly that child, so the child
        is not 0; and a mass that rounding carried to the end of a node or beyond is first pulled back below it.

        Raises:
            ValueError: all numbers are 0.
        """
        total = self.total
        if not total > 0:
            raise ValueError("nothing to find: every number is 0")
        masses = np.minimum(masses, math.nextafter(total, 0.0))
        nodes: Indices = self._ends.searchsorted(masses, "right")
        masses -= self._running.take(nodes)
        rows = np.arange(len(masses))
        running = np.zeros((len(masses), self.fan_out + 1))  # before the first child, before the second, ...
        ends, last = running[:, 1:], running[:, -1]
        for level in reversed(self._levels):
            np.add.accumulate(level.take(nodes, 0), 1, out=ends)
            np.minimum(masses, np.nextafter(last, 0.0), out=masses)
            child = (ends > masses[:, None]).argmax(1)  # the first to exceed it
            masses -= running[rows, child]
            nodes *= self.fan_out
            nodes += child
        return nodes
