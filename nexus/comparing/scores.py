"""The scores of one run: at its end or at a step, over a window or all evaluations, and the time to a threshold."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Literal, TypeAlias

import numpy as np

from nexus.core.types import Floats
from nexus.training.curves import ScoredRun

__all__ = ["Ending", "RunScores", "common_step", "scores_of_run"]

Ending: TypeAlias = Literal["finished", "stopped early", "diverged", "unfinished", "not evaluated"]


@dataclass(frozen=True)
class RunScores:
    """The evaluations of a run as a function of its steps.

    Between evaluations it is linear. After the end of a run that stopped at its target return, or diverged, it
    keeps its last value: such a run has no more to show, and to leave it out would favour its group.

    Args:
        run: the run.
        ending: how it ended.
        steps: the steps of its evaluations, in order, `[K]`.
        means: their mean returns, `[K]`.
    """

    run: ScoredRun
    ending: Ending
    steps: Floats
    means: Floats

    @property
    def holds(self) -> bool:
        """Whether its last value stands for all later steps."""
        return self.ending in ("stopped early", "diverged")

    @property
    def is_final(self) -> bool:
        """Whether its last evaluation is its final score."""
        return self.holds or self.ending == "finished"

    @cached_property
    def reach(self) -> float:
        """The last step at which its score is known; -inf without an evaluation."""
        return inf if self.holds else float(self.steps[-1]) if len(self.steps) else -inf

    @property
    def end(self) -> float:
        """The step of its last evaluation."""
        return float(self.steps[-1])

    def covers(self, start: float, end: float) -> bool:
        """True if its score is known from one step to another."""
        return len(self.steps) > 0 and self.steps[0] <= start and end <= self.reach

    def at(self, steps: Floats) -> Floats:
        """Return its score at some steps that it covers, `[K]`."""
        found: Floats = np.interp(steps, self.steps, self.means)
        return found

    def mean_between(self, start: float, end: float) -> float:
        """Return the area under its scores between two steps that it covers, divided by the distance."""
        inside = self.steps[(self.steps > start) & (self.steps < end)]
        steps = np.array([start, *inside, end])
        means = self.at(steps)
        return float(((means[1:] + means[:-1]) / 2 * np.diff(steps)).sum() / (end - start))

    def time_to(self, threshold: float, until: float) -> tuple[float, float]:
        """Return the step of the first evaluation at or above a threshold, and 1; or the last step looked at, and 0."""
        there = np.flatnonzero((self.means >= threshold) & (self.steps <= until))
        return (float(self.steps[there[0]]), 1.0) if there.size else (min(until, self.reach), 0.0)


def scores_of_run(run: ScoredRun) -> RunScores:
    """Return the scores of a run."""
    steps = np.array(sorted(run.scores))
    return RunScores(run, ending_of(run), steps, np.array([run.scores[step][0] for step in steps]))


def ending_of(run: ScoredRun) -> Ending:
    """Return how a run ended."""
    if not run.scores:
        return "not evaluated"
    if run.status == "diverged":
        return "diverged"
    if not run.finished:
        return "unfinished"
    planned = run.settings.get("total_steps")
    is_early = isinstance(planned, int) and run.end.get("step", inf) < planned
    return "stopped early" if is_early else "finished"


def common_step(runs: Sequence[RunScores]) -> float:
    """Return the last step at which runs can be compared: the end of the shortest that is finished.

    Where none played all its steps, it is the last one that all unfinished runs have reached, or if that is later, the
    end of the longest that stopped early or diverged.

    Args:
        runs: at least one that was evaluated; others are passed over.
    """
    evaluated = [run for run in runs if len(run.steps)]
    finished = [run.end for run in evaluated if run.ending == "finished"]
    if finished:
        return min(finished)
    held = [run.end for run in evaluated if run.holds]
    unfinished = [run.end for run in evaluated if not run.holds]
    return max([*held, *([min(unfinished)] if unfinished else [])])
