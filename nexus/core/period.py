"""An interval with its unit: mixed-up units are the most common reproduction error in this field."""

import re
from contextlib import suppress
from dataclasses import dataclass

from nexus.core.errors import ConfigError, nearest

__all__ = ["UNITS", "Period", "whole_number"]

UNITS = ("steps", "episodes", "updates")
"""`steps`: decisions of the agent, summed over all environments; `episodes`: finished episodes, likewise;
`updates`: optimizer steps."""


@dataclass(frozen=True)
class Period:
    """Every `count` units of `unit`, as in `Period.parse("10000 steps")`.

    Raises:
        ConfigError: the count is below 1 or the unit is unknown.
    """

    count: int
    unit: str

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ConfigError(f"unknown unit {self.unit!r}: needs one of {', '.join(UNITS)}{nearest(self.unit, UNITS)}")
        if self.count < 1:
            raise ConfigError(f"a period must be at least 1 {self.unit}, got {self.count}")

    @classmethod
    def parse(cls, text: "str | Period") -> "Period":
        """Parse `"10000 steps"`, `"10 episodes"` or `"500 updates"`; or `"1 step"`, `"10_000 steps"`, `"1e4 steps"`."""
        if isinstance(text, Period):
            return text
        match = re.fullmatch(r"\s*(\d[\d_,.e+]*?)\s*([a-z]+)\s*", str(text).lower())
        count = None if match is None else whole_number(match[1].replace(",", ""))
        if match is None or count is None:
            raise ConfigError(f"{text!r} is not a period: needs a count and a unit, as in '10000 steps'")
        return cls(count, match[2] if match[2].endswith("s") else match[2] + "s")

    def crossings(self, before: int, after: int) -> int:
        """Return how many multiples of the period lie in `(before, after]`, both counted in its unit."""
        return after // self.count - before // self.count

    def __str__(self) -> str:
        return f"{self.count} {self.unit}"


def whole_number(text: str) -> int | None:
    """Parse `"8"`, `"100_000"` or `"1e6"`; return None if it is not a whole number."""
    with suppress(ValueError):
        return int(text)
    with suppress(ValueError):
        value = float(text)
        return int(value) if value.is_integer() else None
    return None
