"""A page about one or several runs, as one HTML file that needs nothing else."""

from nexus.reporting.writing import report

__all__ = ["report"]
