"""What a pitfall showed: both arms over several seeds, the difference at the end, and its interval."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nexus.core.figures import figures
from nexus.core.types import Floats, Ints
from nexus.pitfalls.pitfall import Pitfall
from nexus.training.statistics import bootstrap_interval

__all__ = ["Estimate", "Evidence", "estimate_of"]


class Estimate(NamedTuple):
    """A mean over seeds with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        mean, low, high = figures(*self)
        return f"{mean} ({low} to {high})"


def estimate_of(values: Floats) -> Estimate:
    """Return the mean of one value per seed `[R]`, and its interval."""
    low, high = bootstrap_interval(values)
    return Estimate(float(values.mean()), float(low), float(high))


@dataclass(frozen=True, eq=False)
class Evidence:
    """The curves of both arms; a row of each has the same seed, so their differences are paired."""

    pitfall: Pitfall
    seeds: tuple[int, ...]
    steps: Ints  # [K]
    broken: Floats  # [R, K]
    cured: Floats  # [R, K]

    @property
    def broken_end(self) -> Floats:
        """The broken arm at the end, `[R]`."""
        return last_quarter(self.broken)

    @property
    def cured_end(self) -> Floats:
        """The cured arm at the end, `[R]`."""
        return last_quarter(self.cured)

    @property
    def difference(self) -> Estimate:
        """Cured minus broken at the end, seed by seed."""
        return estimate_of(self.cured_end - self.broken_end)

    @property
    def includes_zero(self) -> bool:
        """True if the interval of the difference includes 0, or is not one because there is a single seed."""
        return len(self.seeds) < 2 or self.difference.low <= 0 <= self.difference.high

    @property
    def verdict(self) -> str:
        """What the interval says, in one sentence."""
        if len(self.seeds) < 2:
            return "One seed has no interval, so this shows nothing yet."
        if self.includes_zero:
            return "The interval includes zero: these seeds show no effect."
        helps = (self.difference.mean > 0) == (self.pitfall.better == "higher")
        return f"The interval excludes zero: on these seeds the cure {'works' if helps else 'makes it worse'}."

    @property
    def sentences(self) -> tuple[str, str, str]:
        """What was seen, in three sentences with figures."""
        pitfall, reference = self.pitfall, self.pitfall.reference
        compared = "" if reference is None else f"; {reference.meaning} is {figures(reference.value)[0]}"
        broken, cured = estimate_of(self.broken_end), estimate_of(self.cured_end)
        return (
            f"At the end the {pitfall.measure} is {broken} with {pitfall.broken_by} "
            f"and {cured} with {pitfall.cured_by}{compared}.",
            f"The difference, cured minus broken, is {self.difference}, a 95 % bootstrap interval "
            f"over {len(self.seeds)} {'seed' if len(self.seeds) == 1 else 'seeds'}.",
            self.verdict,
        )

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        pitfall = self.pitfall
        about = {
            name: getattr(pitfall, name) for name in ("name", "problem", "cure", "paper", "world", "measure", "better")
        }
        return {
            **about,
            "seeds": list(self.seeds),
            "steps": self.steps.tolist(),
            "broken": arm_values(pitfall.broken_by, self.broken),
            "cured": arm_values(pitfall.cured_by, self.cured),
            "reference": None if pitfall.reference is None else pitfall.reference._asdict(),
            "difference": self.difference._asdict(),
            "includes_zero": self.includes_zero,
            "sentences": list(self.sentences),
        }


def last_quarter(curves: Floats) -> Floats:
    """Return the mean of the last quarter of each curve: `[R, K] -> [R]`."""
    return np.asarray(curves[:, -max(1, curves.shape[1] // 4) :].mean(1))


def arm_values(by: str, curves: Floats) -> dict[str, Any]:
    """Return plain values of one arm."""
    ends = last_quarter(curves)
    return {"by": by, **estimate_of(ends)._asdict(), "per_seed": ends.tolist(), "curves": curves.tolist()}
