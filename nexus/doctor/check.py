"""A check: one formula, one threshold with its source, what it can't see, and a cure."""

from collections.abc import Callable
from dataclasses import dataclass

from nexus.doctor.chart import Chart
from nexus.doctor.symptom import Judgement

__all__ = ["Check"]


@dataclass(frozen=True)
class Check:
    """One check of a run.

    Args:
        name: a short name with hyphens.
        judge: reads the numbers of the run and returns a symptom, `Unjudged`, or None if all is well.
        formula: what is computed.
        threshold: when it counts as a symptom.
        source: where the threshold is from.
        blind: what it does not see.
        cure: what to try, where the symptom has no better one from its numbers.
    """

    name: str
    judge: Callable[[Chart], Judgement]
    formula: str
    threshold: str
    source: str
    blind: str
    cure: str
