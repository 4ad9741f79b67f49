"""Estimates before a run: the resources it needs, and the score to expect."""

from nexus.planning.expected import Band, Expectation
from nexus.planning.forecast import Disk, Forecast, Memory, Time
from nexus.planning.planner import plan

__all__ = ["Band", "Disk", "Expectation", "Forecast", "Memory", "Time", "plan"]
