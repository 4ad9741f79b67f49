"""Checking an environment before and while something is trained on it."""

from nexus.checking.checker import check
from nexus.checking.report import Finding, Report

__all__ = ["Finding", "Report", "check"]
