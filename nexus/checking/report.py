"""The results of a check: findings with a verdict, the evidence and the cure, listed in a report."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from typing import Any, Literal, TypeAlias

from nexus.core.errors import unbroken

__all__ = ["Finding", "Report", "Severity", "fault", "note", "ok", "under_check"]

Severity: TypeAlias = Literal["ok", "note", "fault"]


@dataclass(frozen=True)
class Finding:
    """One line of a report."""

    verdict: Severity  # a fault prevents learning or repeating a run; a note may be intended
    text: str
    cure: str = ""  # what to change; empty if all is well
    numbers: Mapping[str, Any] = field(default_factory=dict)  # the evidence, as plain values
    check: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", unbroken(self.text))  # it may quote a space, which may have several lines

    def __str__(self) -> str:
        cure = f"\n{'':<24}cure: {self.cure}" if self.cure else ""
        return f"{self.verdict:<6}{self.check:<18}{self.text}{cure}"


def ok(text: str, **numbers: Any) -> Finding:
    """Return a finding that all is well."""
    return Finding("ok", text, "", numbers)


def note(text: str, cure: str, **numbers: Any) -> Finding:
    """Return a finding that may be intended, and what to change if it is not."""
    return Finding("note", text, cure, numbers)


def fault(text: str, cure: str, **numbers: Any) -> Finding:
    """Return a finding that must be corrected, and how."""
    return Finding("fault", text, cure, numbers)


def under_check(check: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield findings under the name of their check."""
    for finding in findings:
        yield replace(finding, check=check)


def json_value(value: Any) -> Any:
    """Return values for JSON: a number that is not finite becomes None."""
    match value:
        case dict():
            return {key: json_value(item) for key, item in value.items()}
        case list() | tuple():
            return [json_value(item) for item in value]
        case float() if not isfinite(value):
            return None
    return value


@dataclass(frozen=True)
class Report:
    """Everything that a check found, in order."""

    env: str
    preset: str | None
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that must be corrected."""
        return tuple(finding for finding in self.findings if finding.verdict == "fault")

    @property
    def notes(self) -> tuple[Finding, ...]:
        """The findings that may be intended."""
        return tuple(finding for finding in self.findings if finding.verdict == "note")

    @property
    def summary(self) -> str:
        """The number of faults and notes, and the time."""
        faults, notes = (
            f"{len(found) or 'no'} {word}{'' if len(found) == 1 else 's'}"
            for found, word in ((self.faults, "fault"), (self.notes, "note"))
        )
        return f"{self.env}: {faults}, {notes}, checked in {self.seconds:.1f} s"

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "env": self.env,
            "preset": self.preset,
            "faults": len(self.faults),
            "notes": len(self.notes),
            "seconds": self.seconds,
            "findings": [json_value(asdict(finding)) for finding in self.findings],
        }

    def __str__(self) -> str:
        return "\n".join([*map(str, self.findings), self.summary])
