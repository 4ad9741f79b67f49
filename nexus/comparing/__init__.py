"""Comparing groups of runs by their evaluations, with intervals."""

from nexus.comparing.comparison import Comparison, compare

__all__ = ["Comparison", "compare"]
