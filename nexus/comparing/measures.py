"""What is compared: a score of every run, and what groups of such scores say with their intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from nexus.comparing.resampling import (
    FEWEST_FOR_INTERVAL,
    Statistic,
    detectable_difference,
    difference_of_iqms,
    iqm_of,
    median_time,
    order_of_times,
    probability_of_improvement,
    runs_needed,
    spread_of_iqm,
)
from nexus.comparing.scores import RunScores
from nexus.core.types import Floats

__all__ = [
    "MEASURE_NAMES",
    "Difference",
    "GroupSummary",
    "MeasureName",
    "MeasuredGroups",
    "ScoresOfGroup",
    "by_scores",
    "by_times",
]

MeasureName: TypeAlias = Literal["final", "step", "window", "area", "threshold"]
MEASURE_NAMES: tuple[MeasureName, ...] = get_args(MeasureName)

Z_OF_HALF, Z_OF_80 = 0.0, 0.841621  # quantiles of the standard normal at 50 % and 80 %


@dataclass(frozen=True)
class ScoresOfGroup:
    """The runs of a group that have a score, and their scores.

    Args:
        runs: the runs.
        scores: a score of each, `[R]`; of `threshold` the time at which it was reached or was last not.
        reached: of `threshold`, whether it was reached, as 1 or 0, `[R]`.
    """

    runs: Sequence[RunScores]
    scores: Floats
    reached: Floats | None = None


@dataclass(frozen=True)
class GroupSummary:
    """One group by one measure.

    Args:
        center: interquartile mean; of `threshold` the median, infinite if fewer than half of the runs reached it.
        scores: of each run that counts.
        folders: of these runs.
        reached: of `threshold`, how many runs reached it.
    """

    center: Statistic
    scores: tuple[float, ...]
    folders: tuple[str, ...]
    reached: int | None = None


@dataclass(frozen=True)
class Difference:
    """A group against the baseline.

    Args:
        difference: interquartile mean of the group minus that of the baseline; None of `threshold`.
        better: probability that a run of the group is better than one of the baseline.
        detectable: the smallest true difference that as many runs see in 80 % of comparisons; None if unknown.
        needed: runs per group to see the difference found: in half of the comparisons, and in 80 %; None if unknown or
            more than 10,000.
    """

    difference: Statistic | None
    better: Statistic
    detectable: float | None = None
    needed: tuple[int | None, int | None] = (None, None)


@dataclass(frozen=True)
class MeasuredGroups:
    """Groups compared by one measure.

    Args:
        name: which one.
        about: what it is, in words.
        groups: by label.
        differences: of all groups but the baseline, by label.
        unit: what it is counted in.
    """

    name: str
    about: str
    groups: Mapping[str, GroupSummary]
    differences: Mapping[str, Difference] = field(default_factory=dict)
    unit: Literal["return", "steps", "normalised score"] = "return"

    @property
    def baseline(self) -> str | None:
        """The group that the others are compared with; None if there are no differences."""
        return (
            next((label for label in self.groups if label not in self.differences), None) if self.differences else None
        )

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON; None for an infinite time."""
        return {
            "about": self.about,
            "unit": self.unit,
            "groups": {
                label: {
                    "iqm" if group.reached is None else "median": plain_statistic(group.center),
                    "runs": len(group.scores),
                    "scores": dict(zip(group.folders, map(finite_or_none, group.scores), strict=True)),
                    **({} if group.reached is None else {"reached": group.reached}),
                }
                for label, group in self.groups.items()
            },
            "differences": {
                label: {
                    "difference": None if found.difference is None else plain_statistic(found.difference),
                    "probability_of_improvement": plain_statistic(found.better),
                    "detectable": found.detectable,
                    "runs_needed": {"half": found.needed[0], "80 %": found.needed[1]},
                }
                for label, found in self.differences.items()
            },
        }


def plain_statistic(statistic: Statistic) -> dict[str, float | None]:
    """Return plain values for JSON; None for what is infinite or unknown."""
    values = {"value": statistic.value, "low": statistic.low, "high": statistic.high}
    return {name: finite_or_none(value) for name, value in values.items()}


def finite_or_none(value: float | None) -> float | None:
    """Return a number that JSON can hold, None for any other."""
    return value if value is not None and isfinite(value) else None


def scored_by(runs: Sequence[RunScores], score: Callable[[RunScores], float]) -> ScoresOfGroup:
    """Return the scores of runs."""
    return ScoresOfGroup(runs, np.array([score(run) for run in runs]))


def by_scores(
    name: MeasureName, about: str, groups: Mapping[str, ScoresOfGroup], baseline: str | None
) -> MeasuredGroups | None:
    """Compare groups of scores; groups without any are left out, and without all of them there is nothing."""
    groups = {label: group for label, group in groups.items() if len(group.scores)}
    if not groups:
        return None
    summaries = {
        label: GroupSummary(iqm_of([group.scores]), tuple(group.scores.tolist()), folders_of(group))
        for label, group in groups.items()
    }
    base = None if baseline is None else groups.get(baseline)
    differences = (
        {}
        if base is None
        else {label: difference_from(group.scores, base.scores) for label, group in groups.items() if label != baseline}
    )
    return MeasuredGroups(name, about, summaries, differences)


def by_times(about: str, groups: Mapping[str, ScoresOfGroup], baseline: str | None) -> MeasuredGroups | None:
    """Compare groups by their times to a threshold, with runs that did not reach it counted as such."""
    times = {
        label: (group.scores, group.reached)
        for label, group in groups.items()
        if len(group.scores) and group.reached is not None
    }
    if not times:
        return None
    summaries = {
        label: GroupSummary(
            median_time(*time),
            tuple(np.where(time[1] == 1, time[0], inf).tolist()),
            folders_of(groups[label]),
            int(time[1].sum()),
        )
        for label, time in times.items()
    }
    base = None if baseline is None else times.get(baseline)
    differences = (
        {}
        if base is None
        else {label: Difference(None, order_of_times(time, base)) for label, time in times.items() if label != baseline}
    )
    return MeasuredGroups("threshold", about, summaries, differences, "steps")


def folders_of(group: ScoresOfGroup) -> tuple[str, ...]:
    """Return the folders of the runs of a group."""
    return tuple(str(run.run.folder) for run in group.runs)


def difference_from(scores: Floats, base: Floats) -> Difference:
    """Return the difference of a group from the baseline."""
    difference = difference_of_iqms([scores], [base])
    better = probability_of_improvement([scores], [base])
    counts = len(scores), len(base)
    if min(counts) < FEWEST_FOR_INTERVAL:
        return Difference(difference, better)
    spreads = spread_of_iqm(scores), spread_of_iqm(base)
    detectable = detectable_difference(spreads, counts, Z_OF_80)
    needed = (
        (None, None)
        if difference.value == 0
        else (runs_needed(difference.value, spreads, Z_OF_HALF), runs_needed(difference.value, spreads, Z_OF_80))
    )
    return Difference(difference, better, detectable, needed)
