"""A cadence that carries its unit: mixed-up units are the most common reproduction error of this field."""

import re
from dataclasses import dataclass

from nexus.core.errors import ConfigError, nearest

__all__ = ["UNITS", "Period"]

UNITS = ("steps", "episodes", "updates")
"""`steps`: decisions of the agent, summed over all environments; `episodes`: finished ones, likewise;
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
            raise ConfigError(f"unknown unit {self.unit!r}: need one of {', '.join(UNITS)}{nearest(self.unit, UNITS)}")
        if self.count < 1:
            raise ConfigError(f"a period must be at least 1 {self.unit}, got {self.count}")

    @classmethod
    def parse(cls, text: "str | Period") -> "Period":
        """Read `"10000 steps"`, `"10 episodes"` or `"500 updates"`; `"1 step"` and `"10_000 steps"` work too."""
        if isinstance(text, Period):
            return text
        match = re.fullmatch(r"\s*(\d[\d_,]*)\s*([a-z]+)\s*", str(text).lower())
        if match is None:
            raise ConfigError(f"{text!r} is no period: need a count and a unit, as in '10000 steps'")
        unit = match[2] if match[2].endswith("s") else match[2] + "s"
        return cls(int(re.sub("[_,]", "", match[1])), unit)

    def crossings(self, before: int, after: int) -> int:
        """Return how many multiples of the period lie in `(before, after]`, both counted in its unit."""
        return after // self.count - before // self.count

    def __str__(self) -> str:
        return f"{self.count} {self.unit}"
