"""Comparing groups of runs: who counts, at which step, by which scores, and what can be concluded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from nexus.comparing.grouping import grouped
from nexus.comparing.measures import (
    MEASURE_NAMES,
    Difference,
    GroupSummary,
    MeasuredGroups,
    MeasureName,
    ScoresOfGroup,
    by_scores,
    by_times,
    scored_by,
)
from nexus.comparing.reading_runs import RunsOrFolders, read_evaluations
from nexus.comparing.resampling import (
    band_of_curves,
    band_of_profile,
    difference_of_iqms,
    iqm_of,
    probability_of_improvement,
    share_above,
)
from nexus.comparing.scores import RunScores, common_step, scores_of_run
from nexus.comparing.sentences import conclusions_of, endings_said, protocol_said, said_of_merging
from nexus.core.errors import ConfigError, RunError, nearest
from nexus.core.types import Floats
from nexus.training.curves import ScoredRun

__all__ = ["Comparison", "EnvComparison", "GroupCurve", "compare", "comparison_of"]

LAST_QUARTER = 0.25  # of the steps: the last quarter, as in `nexus pitfalls`
CURVE_POINTS, PROFILE_POINTS = 200, 201
MARGIN = 0.02  # of the range of scores, on both sides of a performance profile
ScoreBounds = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class GroupCurve:
    """A curve of a group with its 95 % interval, `[K]` each; without an interval if there are too few runs."""

    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        columns = {"x": self.x, "y": self.y, "low": self.low, "high": self.high}
        return {name: None if column is None else column.tolist() for name, column in columns.items()}


@dataclass(frozen=True)
class EnvComparison:
    """The groups of one environment.

    Args:
        env: its name.
        protocol: how evaluations were played; None if no run has a final one.
        groups: the folders of all runs of each group, by label.
        baseline: the group that the others are compared with; None if there is only one.
        step: the step at which runs are compared.
        main: the name of the measure that comes first.
        measures: by name.
        curves: of each group: interquartile mean of the evaluations over steps.
        profiles: of each group: share of runs with a main score above each level.
        remarks: runs that don't count, or count in another way than the rest.
        conclusions: what can be concluded, and what can't.
    """

    env: str
    protocol: str | None
    groups: Mapping[str, Sequence[str]]
    baseline: str | None
    step: float
    main: str
    measures: Mapping[str, MeasuredGroups]
    curves: Mapping[str, GroupCurve]
    profiles: Mapping[str, GroupCurve]
    remarks: Sequence[str]
    conclusions: Sequence[str]

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "env": self.env,
            "protocol": self.protocol,
            "groups": {label: list(folders) for label, folders in self.groups.items()},
            "baseline": self.baseline,
            "step": self.step,
            "main": self.main,
            "measures": {name: measure.to_mapping() for name, measure in self.measures.items()},
            "curves": {label: band.to_mapping() for label, band in self.curves.items()},
            "profiles": {label: band.to_mapping() for label, band in self.profiles.items()},
            "remarks": list(self.remarks),
            "conclusions": list(self.conclusions),
        }


@dataclass(frozen=True)
class Comparison:
    """Groups of runs, compared in each of their environments.

    Args:
        envs: the comparison in each environment.
        aggregate: over all environments, by normalised scores; None without bounds.
        named_by: the settings in the labels of the groups.
        notes: what holds for all environments.
    """

    envs: Sequence[EnvComparison]
    aggregate: MeasuredGroups | None
    named_by: Sequence[str]
    notes: Sequence[str]

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "named_by": list(self.named_by),
            "envs": [each.to_mapping() for each in self.envs],
            "aggregate": None if self.aggregate is None else self.aggregate.to_mapping(),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        from nexus.comparing.tables import comparison_text  # imports rich

        return comparison_text(self)


def compare(
    runs: RunsOrFolders,
    *,
    by: str | Sequence[str] = (),
    score: MeasureName | None = None,
    at_step: float | None = None,
    window: float = LAST_QUARTER,
    threshold: float | None = None,
    baseline: str | None = None,
    normalise: ScoreBounds | None = None,
    same_env: bool = False,
    notice: Callable[[str], object] = str,
) -> Comparison:
    """Compare groups of runs, which differ only in their seeds, by their evaluations (https://arxiv.org/abs/2108.13264).

    Args:
        runs: folders of runs, folders of such folders, or results of `nexus.train`; one or several.
        by: the settings that make a group; none for all of them but the seed.
        score: the score that comes first: `final`, the evaluation of the final weights; `step`, the one at the common
            step; `window`, the mean over the last steps; `area`, the mean over all evaluations; `threshold`, the steps
            until an evaluation reached `threshold`. None for `final` if all runs have the same length, else `step`.
        at_step: the step at which runs are compared; None for the end of the shortest that is finished.
        window: the fraction of the steps that `window` covers.
        threshold: a mean return; None for the `target_return` of the runs, if they share one.
        baseline: the label of the group that the others are compared with; None for the first.
        normalise: for each environment the scores that become 0 and 1, usually that of a random policy and a reference;
            needed for one figure over several environments.
        same_env: whether functions with the same name make the same environment.
        notice: called with each folder that is skipped, and with what could not be read.

    Raises:
        ConfigError: an argument does not fit the runs, or runs of one environment have different protocols.
        RunError: a folder does not exist or is damaged, or no run was evaluated.
    """
    read = read_evaluations(runs, same_env=same_env, notice=notice)
    names = (by,) if isinstance(by, str) else tuple(by)
    how = How(score, at_step, window, threshold, baseline)
    return comparison_of(read, names, how, normalise)


@dataclass(frozen=True)
class How:
    """How to compare; the arguments of `compare`."""

    score: MeasureName | None = None
    at_step: float | None = None
    window: float = LAST_QUARTER
    threshold: float | None = None
    baseline: str | None = None

    def __post_init__(self) -> None:
        if self.score is not None and self.score not in MEASURE_NAMES:
            raise ConfigError(
                f"score = {self.score!r}: needs {', '.join(MEASURE_NAMES)}{nearest(str(self.score), MEASURE_NAMES)}"
            )
        if self.at_step is not None and not (isfinite(self.at_step) and self.at_step >= 0):
            raise ConfigError(f"at_step = {self.at_step}: needs a step, 0 or more")
        if not 0 < self.window <= 1:
            raise ConfigError(f"window = {self.window}: needs a fraction of the steps in (0, 1]")
        if self.threshold is not None and not isfinite(self.threshold):
            raise ConfigError(f"threshold = {self.threshold}: needs a return")


AS_USUAL = How()


def comparison_of(
    runs: Sequence[ScoredRun], by: Sequence[str] = (), how: How = AS_USUAL, normalise: ScoreBounds | None = None
) -> Comparison:
    """Compare runs that have been read; the arguments and errors are those of `compare`."""
    grouping = grouped(runs, by)
    labels = list(dict.fromkeys(label for groups in grouping.groups.values() for label in groups))
    if how.baseline is not None and how.baseline not in labels:
        raise ConfigError(
            f"baseline = {how.baseline!r}: no such group{nearest(how.baseline, labels)}: {'; '.join(labels)}"
        )
    if not any(run.scores for run in runs):
        raise RunError("nothing to compare: none of these runs was evaluated, so none has a score")
    envs = [compared_env(env, groups, how) for env, groups in grouping.groups.items()]
    found = [env for env in envs if env is not None]
    notes = said_of_merging(grouping)
    notes += [
        f"{env} is left out: no run there was evaluated"
        for env, one in zip(grouping.groups, envs, strict=True)
        if one is None
    ]
    aggregate = None
    if normalise is not None:
        aggregate = aggregated(found, normalise, how.baseline)
    elif len(found) > 1:
        notes.append(
            f"no figure over all {len(found)} environments: their scores have different scales; "
            "--normalise ENV=RANDOM,REFERENCE for each of them gives one"
        )
    return Comparison(found, aggregate, grouping.named_by, notes)


def compared_env(env: str, groups: Mapping[str, Sequence[ScoredRun]], how: How) -> EnvComparison | None:
    """Compare the groups of one environment; None if no run there was evaluated."""
    scored = {label: [scores_of_run(run) for run in group] for label, group in groups.items()}
    everyone = [run for group in scored.values() for run in group]
    evaluated = [run for run in everyone if len(run.steps)]
    if not evaluated:
        return None
    step = common_step(evaluated) if how.at_step is None else float(how.at_step)
    threshold = shared_target(everyone) if how.threshold is None else how.threshold
    baseline = baseline_of(list(groups), how.baseline)
    measures = measures_of(scored, step, how.window, threshold, baseline)
    if "step" not in measures:
        raise ConfigError(
            f"at_step = {step:,.0f}: no run of {env} has a score there; "
            f"their evaluations are from step {min(run.steps[0] for run in evaluated):,.0f} "
            f"to {max(run.end for run in evaluated):,.0f}"
        )
    main = main_of(measures, how, env)
    counted = {folder for group in measures[main].groups.values() for folder in group.folders}
    return EnvComparison(
        env,
        protocol_said([run.run for run in everyone]),
        {label: [str(run.folder) for run in group] for label, group in groups.items()},
        baseline,
        step,
        main,
        measures,
        curves_of(scored, step),
        {} if main == "threshold" else profiles_of(measures[main]),
        endings_said(scored, counted, step, main),
        conclusions_of(measures[main]),
    )


def baseline_of(labels: Sequence[str], wanted: str | None) -> str | None:
    """Return the label of the baseline; None if there is nothing to compare with it."""
    if len(labels) < 2:
        return None
    return wanted if wanted in labels else labels[0] if wanted is None else None


def shared_target(runs: Sequence[RunScores]) -> float | None:
    """Return the target return that all runs have, None if they differ or have none."""
    targets = {run.run.settings.get("target_return") for run in runs}
    target = targets.pop() if len(targets) == 1 else None
    return float(target) if isinstance(target, int | float) else None


def measures_of(
    groups: Mapping[str, Sequence[RunScores]], step: float, window: float, threshold: float | None, baseline: str | None
) -> dict[str, MeasuredGroups]:
    """Return every measure that the evaluations of some runs have, by name."""
    reached = {label: [run for run in group if run.covers(step, step)] for label, group in groups.items()}
    everyone = [run for group in reached.values() for run in group]
    start = max((float(run.steps[0]) for run in everyone), default=step)
    from_window = step * (1 - window)

    def by(
        name: MeasureName, about: str, runs: Mapping[str, Sequence[RunScores]], score: Callable[[RunScores], float]
    ) -> MeasuredGroups | None:
        return by_scores(name, about, {label: scored_by(group, score) for label, group in runs.items()}, baseline)

    found: list[MeasuredGroups | None] = []
    if have_one_end(groups):
        final = {label: [run for run in group if run.is_final] for label, group in groups.items()}
        found.append(by("final", "evaluation of the final weights", final, lambda run: float(run.means[-1])))
    found.append(by("step", f"evaluation at step {step:,.0f}", reached, lambda run: float(run.at(np.array([step]))[0])))
    if start <= from_window < step:
        about = f"mean of the evaluations over the steps {from_window:,.0f} to {step:,.0f}"
        found.append(by("window", about, reached, lambda run: run.mean_between(from_window, step)))
    if start < step:
        about = f"area under the evaluations from step {start:,.0f} to {step:,.0f}, per step"
        found.append(by("area", about, reached, lambda run: run.mean_between(start, step)))
    if threshold is not None:
        about = f"steps to the first evaluation of {threshold:g} or more, up to step {step:,.0f}"
        found.append(
            by_times(about, {label: times_of(group, threshold, step) for label, group in groups.items()}, baseline)
        )
    return {measure.name: measure for measure in found if measure is not None}


def have_one_end(groups: Mapping[str, Sequence[RunScores]]) -> bool:
    """True if all runs were to have the same number of steps and one is at its end, so that there are final scores."""
    everyone = [run for group in groups.values() for run in group]
    planned = {run.run.settings.get("total_steps") for run in everyone}
    return len(planned) == 1 and any(run.ending in ("finished", "stopped early") for run in everyone)


def times_of(runs: Sequence[RunScores], threshold: float, step: float) -> ScoresOfGroup:
    """Return the times at which runs reached a threshold; those that were never evaluated have none."""
    evaluated = [run for run in runs if len(run.steps)]
    times = np.array([run.time_to(threshold, step) for run in evaluated]).reshape(-1, 2)
    return ScoresOfGroup(evaluated, times[:, 0], times[:, 1])


def main_of(measures: Mapping[str, MeasuredGroups], how: How, env: str) -> str:
    """Return the name of the measure that comes first.

    Raises:
        ConfigError: the one asked for is not there.
    """
    if how.score is None:
        return (
            "final"
            if "final" in measures and how.at_step is None
            else "step"
            if "step" in measures
            else next(iter(measures))
        )
    if how.score in measures:
        return how.score
    reasons = {
        "final": "the runs have different lengths, or none is finished; step compares them at the common one",
        "window": "needs an evaluation before the window in every run, so an eval_every",
        "area": "needs more than one evaluation in every run, so an eval_every",
        "threshold": "needs a threshold",
    }
    raise ConfigError(f"score = {how.score}: {env} has none: {reasons[how.score]}")


def curves_of(groups: Mapping[str, Sequence[RunScores]], step: float) -> dict[str, GroupCurve]:
    """Return the evaluations of each group over the steps that all runs which reached `step` cover."""
    reached = {label: [run for run in group if run.covers(step, step)] for label, group in groups.items()}
    start = max((float(run.steps[0]) for group in reached.values() for run in group), default=step)
    known = np.unique(np.concatenate([run.steps for group in reached.values() for run in group] or [np.empty(0)]))
    inside = known[(known >= start) & (known <= step)]
    steps = np.unique([*inside, step]) if len(inside) < CURVE_POINTS else np.linspace(start, step, CURVE_POINTS)
    return {
        label: GroupCurve(steps, *band_of_curves(np.stack([run.at(steps) for run in group])))
        for label, group in reached.items()
        if group
    }


def profiles_of(measure: MeasuredGroups) -> dict[str, GroupCurve]:
    """Return the performance profile of each group."""
    scores = {label: np.array(group.scores) for label, group in measure.groups.items()}
    everyone = np.concatenate(list(scores.values()))
    low, high = float(everyone.min()), float(everyone.max())
    room = MARGIN * (high - low) or 1.0
    levels = np.linspace(low - room, high + room, PROFILE_POINTS)
    profiles = {}
    for label, of_group in scores.items():
        ends = band_of_profile([of_group], levels)
        profiles[label] = GroupCurve(levels, share_above([of_group], levels), *(ends or (None, None)))
    return profiles


def aggregated(envs: Sequence[EnvComparison], bounds: ScoreBounds, baseline: str | None) -> MeasuredGroups:
    """Compare the groups that every environment has, over all environments, by normalised main scores.

    Raises:
        ConfigError: bounds are missing, equal, or of an environment that is not there; or no group is everywhere.
    """
    names = [one.env for one in envs]
    for env in bounds:
        if env not in names:
            raise ConfigError(f"normalise: no run of {env!r}{nearest(env, names)}; there is {', '.join(names)}")
    strata: dict[str, list[Floats]] = {}
    for one in envs:
        if one.env not in bounds:
            raise ConfigError(f"normalise: {one.env} has no bounds; needs {one.env}=RANDOM,REFERENCE")
        random, reference = bounds[one.env]
        if not (isfinite(random) and isfinite(reference)) or random == reference:
            raise ConfigError(f"normalise: {one.env}={random:g},{reference:g}: needs two different scores")
        if one.main == "threshold":
            raise ConfigError("normalise: steps to a threshold are not scores; needs another score")
        for label, group in one.measures[one.main].groups.items():
            strata.setdefault(label, []).append((np.array(group.scores) - random) / (reference - random))
    everywhere = {label: group for label, group in strata.items() if len(group) == len(envs)}
    if not everywhere:
        raise ConfigError("normalise: no group has runs in every environment; by = SETTING chooses what makes a group")
    summaries = {
        label: GroupSummary(iqm_of(group), tuple(np.concatenate(group).tolist()), folders_everywhere(envs, label))
        for label, group in everywhere.items()
    }
    base = baseline_of(list(everywhere), baseline)
    differences = {
        label: Difference(
            difference_of_iqms(group, everywhere[base]), probability_of_improvement(group, everywhere[base])
        )
        for label, group in everywhere.items()
        if base is not None and label != base
    }
    about = f"normalised scores of {len(envs)} environments: 0 and 1 are the scores given for each"
    return MeasuredGroups("aggregate", about, summaries, differences, "normalised score")


def folders_everywhere(envs: Sequence[EnvComparison], label: str) -> tuple[str, ...]:
    """Return the folders of the runs of a group that count, over all environments."""
    return tuple(folder for one in envs for folder in one.measures[one.main].groups[label].folders)
