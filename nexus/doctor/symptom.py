"""What a check found: how bad it is, the numbers that show it, the likely cause, and a cure that can be pasted."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, Literal, TypeAlias

__all__ = ["Gravity", "Judgement", "Symptom", "Unjudged", "critical", "slight", "warning"]

Gravity: TypeAlias = Literal["note", "warning", "critical"]


@dataclass(frozen=True)
class Symptom:
    """One thing that is wrong, or may be."""

    severity: Gravity  # a note may be intended and alarms nobody
    text: str  # what was seen, with its numbers
    threshold: str  # what would have been fine
    cause: str  # the most likely one
    cure: str = ""  # a setting or a command; without one the check's is meant
    evidence: Mapping[str, float] = field(default_factory=dict)
    check: str = ""
    step: int = 0  # at which it was seen; of an alarm, for the first time

    @property
    def alarms(self) -> bool:
        """True if it is more than a note."""
        return self.severity != "note"

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "evidence": dict(self.evidence)}

    def __str__(self) -> str:
        return f"{self.severity}: {self.told}"

    @property
    def told(self) -> str:
        """The same without the severity."""
        return f"{self.check}: {self.text}; {self.cause}; try {self.cure}"


@dataclass(frozen=True)
class Unjudged:
    """A check that can't judge yet, and why."""

    why: str


Judgement: TypeAlias = Symptom | Unjudged | None
"""Of a check: something is wrong, it can't judge, or (None) all is well."""


def known(evidence: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers that have been measured."""
    return {name: value for name, value in evidence.items() if isfinite(value)}


def slight(text: str, threshold: str, cause: str, cure: str = "", **evidence: float) -> Symptom:
    """Return a note."""
    return Symptom("note", text, threshold, cause, cure, known(evidence))


def warning(text: str, threshold: str, cause: str, cure: str = "", **evidence: float) -> Symptom:
    """Return a warning."""
    return Symptom("warning", text, threshold, cause, cure, known(evidence))


def critical(text: str, threshold: str, cause: str, cure: str = "", **evidence: float) -> Symptom:
    """Return a symptom of a run that can't learn like this."""
    return Symptom("critical", text, threshold, cause, cure, known(evidence))
