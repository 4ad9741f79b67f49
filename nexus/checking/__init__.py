"""Checking an environment before and during training."""

from nexus.checking.checker import check
from nexus.checking.report import Finding, Report

__all__ = ["Finding", "Report", "check"]
