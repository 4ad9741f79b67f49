"""What a pitfall is: the problem, the cure, and two arms that show them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from nexus.core.types import Floats, Ints

__all__ = ["Arm", "Pitfall", "Reference", "Trace"]


class Trace(NamedTuple):
    """What one arm showed on one seed."""

    steps: Ints  # [K]
    values: Floats  # [K]


Arm: TypeAlias = Callable[[int, int], Trace]
"""Trains on a seed for a number of steps; the steps of a trace do not depend on the seed."""


class Reference(NamedTuple):
    """A value to compare a measure with."""

    value: float
    meaning: str


@dataclass(frozen=True)
class Pitfall:
    """A common mistake in deep Q-learning, and its cure, as two programs that differ in one thing.

    Args:
        name: the word for it on the command line.
        problem: one sentence.
        cure: one sentence.
        paper: author, year and link.
        world: where it is shown.
        broken_by: what the broken arm does, in a few words.
        cured_by: what the cured arm does, in a few words.
        broken: the broken arm.
        cured: the cured arm.
        steps: of each arm.
        measure: what is measured.
        better: whether a cure should make it higher or lower.
        reference: a value to compare it with, if one is known.
        log_scale: whether the picture has a logarithmic axis.
    """

    name: str
    problem: str
    cure: str
    paper: str
    world: str
    broken_by: str
    cured_by: str
    broken: Arm
    cured: Arm
    steps: int
    measure: str
    better: Literal["higher", "lower"]
    reference: Reference | None = None
    log_scale: bool = False
