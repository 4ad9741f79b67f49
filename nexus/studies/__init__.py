"""Studies: one question, asked of runs that differ in their settings and seeds."""

from nexus.studies.studying import StudyResult, study

__all__ = ["StudyResult", "study"]
