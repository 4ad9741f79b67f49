"""What a run will take, and what it can be expected to score, before it is begun."""

from nexus.planning.expected import Band, Expectation
from nexus.planning.forecast import Disk, Forecast, Memory, Time
from nexus.planning.planner import plan

__all__ = ["Band", "Disk", "Expectation", "Forecast", "Memory", "Time", "plan"]
