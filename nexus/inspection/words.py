"""Numbers in sentences, and what is said where there are none."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from nexus.core.types import Floats

__all__ = ["Trend", "Unknown", "percent", "trend_of"]

ENDS = 5  # a trend's ends are means over this fraction of the values: the first fifth and the last
CHANGED = 1.25  # ratio of the two ends from which they count as different


@dataclass(frozen=True)
class Unknown:
    """Says why a part can't be described."""

    why: str  # a sentence without its period

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"unknown": self.why, "text": str(self)}

    def __str__(self) -> str:
        return f"{self.why[:1].upper()}{self.why[1:]}."


@dataclass(frozen=True)
class Trend:
    """How a logged number moved over a run."""

    first: float  # mean of the first fifth of its values
    last: float  # mean of the last fifth
    low: float
    high: float
    count: int  # how often it was logged
    first_step: int
    last_step: int

    @property
    def direction(self) -> str:
        """Whether its size rose, fell or stayed, from the first fifth to the last."""
        before, after = abs(self.first), abs(self.last)
        if max(before, after) <= CHANGED * min(before, after):
            return "stayed about the same"
        return "rose" if after > before else "fell"


def trend_of(steps: Any, values: Floats) -> Trend | None:
    """Return how values `[K]` moved, which were logged at these steps `[K]`; None without any."""
    if not len(values):
        return None
    end = max(1, len(values) // ENDS)
    first, last = values[:end].mean(), values[-end:].mean()
    low, high = float(np.min(values)), float(np.max(values))
    return Trend(float(first), float(last), low, high, len(values), int(steps[0]), int(steps[-1]))


def percent(share: float) -> str:
    """Return a share as a percentage that never rounds to none or to all of something."""
    hundredths = 100 * share
    if 0 < hundredths < 0.1:
        return "less than 0.1 %"
    if 99.9 < hundredths < 100:
        return "more than 99.9 %"
    decimals = 1 if hundredths < 10 or 99 < hundredths < 100 else 0
    text = f"{hundredths:,.{decimals}f}"
    return f"{text.removesuffix('.0')} %"
