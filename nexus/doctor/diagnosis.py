"""All checks in the order of causes, and what they say of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nexus.doctor.chart import Chart
from nexus.doctor.check import Check
from nexus.doctor.exploration import EXPLORATION_CHECKS
from nexus.doctor.network import NETWORK_CHECKS
from nexus.doctor.plans import PLAN_CHECKS
from nexus.doctor.returns import RETURN_CHECKS
from nexus.doctor.scale import SCALE_CHECKS
from nexus.doctor.storage import STORAGE_CHECKS
from nexus.doctor.symptom import Symptom, Unjudged
from nexus.doctor.targets import TARGET_CHECKS
from nexus.doctor.values import VALUE_CHECKS

__all__ = ["ALL_CHECKS", "CAUSES_FIRST", "Diagnosis", "diagnosis_of", "first_alarms"]

MOST_LOOKED_AT = 120  # examinations, four times those of a run: without a doctor each log line would be one
ALL_CHECKS: Mapping[str, Check] = {
    check.name: check
    for checks in (
        STORAGE_CHECKS,
        TARGET_CHECKS,
        PLAN_CHECKS,
        SCALE_CHECKS,
        EXPLORATION_CHECKS,
        NETWORK_CHECKS,
        VALUE_CHECKS,
        RETURN_CHECKS,
    )
    for check in checks
}

CAUSES_FIRST = (
    # A fault in what is learned from explains everything below it,
    *("batch", "transitions", "target", "terminals", "target-network", "target-period"),
    # then settings that no learning survives, then those that slow it,
    *("learning-rate", "exploration", "exploration-plan", "learning-start", "horizon"),
    *("replay-batches", "replay-size", "batch-episodes"),
    *("observations", "reward-scale", "range", "noise", "priorities", "signal"),
    # then actions, which also disagree with the values if those leap at every update,
    "acting",
    # then the state of the network, of its values, and at last the returns, which everything affects.
    *("dead-units", "output", "standstill", "leaps", "divergence", "fit", "overestimation", "action-gap", "one-action"),
    *("forgetting", "evaluation-gap", "worse-than-random", "episode-limit", "gradient-clipping", "reuse"),
)
"""Names of the checks: of several symptoms the first is taken for the cause of the others."""


@dataclass(frozen=True)
class Diagnosis:
    """What the checks say of a run at one step."""

    step: int
    symptoms: tuple[Symptom, ...]  # causes first
    fine: tuple[str, ...]  # names of the checks without a symptom
    unjudged: Mapping[str, str]  # name of a check -> why it could not judge
    past: Mapping[str, int] = field(default_factory=dict)  # earlier alarms that are over -> the step of the first

    @property
    def names(self) -> frozenset[str]:
        """Names of the checks with a symptom."""
        return frozenset(symptom.check for symptom in self.symptoms)

    @property
    def alarms(self) -> tuple[Symptom, ...]:
        """The symptoms that are more than notes."""
        return tuple(symptom for symptom in self.symptoms if symptom.alarms)

    @property
    def root(self) -> Symptom | None:
        """The most likely cause of all alarms; None without any."""
        return next(iter(self.alarms), None)

    def with_history(self, first: Mapping[str, int]) -> "Diagnosis":
        """Return it with the steps since when, from the step at which each check alarmed first."""
        alarms = {symptom.check for symptom in self.alarms}
        symptoms = (replace(symptom, step=first.get(symptom.check, symptom.step)) for symptom in self.symptoms)
        past = {name: step for name, step in first.items() if name not in alarms}
        return replace(self, symptoms=tuple(symptoms), past=past)

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "step": self.step,
            "root": None if self.root is None else self.root.check,
            "findings": [symptom.to_mapping() for symptom in self.symptoms],
            "fine": list(self.fine),
            "unjudged": dict(self.unjudged),
            "past": dict(self.past),
        }


def first_alarms(chart: Chart) -> dict[str, int]:
    """Return the names of all checks that alarmed at any examination of a run, and the step of the first time.

    Of very many examinations only some are looked at, evenly spread.
    """
    first: dict[str, int] = {}
    examined = chart.examined
    every = -(-len(examined) // MOST_LOOKED_AT) or 1
    for step in (0, *examined[::-1][::every][::-1]):  # the last one is among them
        for symptom in diagnosis_of(chart.until(step)).alarms:
            first.setdefault(symptom.check, step)
    return first


def diagnosis_of(chart: Chart) -> Diagnosis:
    """Put a run's numbers to all checks."""
    symptoms, fine, unjudged = [], [], {}
    for name in CAUSES_FIRST:
        check = ALL_CHECKS[name]
        verdict = check.judge(chart)
        if isinstance(verdict, Symptom):
            symptoms.append(replace(verdict, check=name, step=chart.step, cure=verdict.cure or check.cure))
        elif isinstance(verdict, Unjudged):
            unjudged[name] = verdict.why
        else:
            fine.append(name)
    return Diagnosis(chart.step, tuple(symptoms), tuple(fine), unjudged)
