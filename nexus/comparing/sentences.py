"""What a comparison says in words: who does not count and why, what can be concluded, and what can't."""

from collections.abc import Collection, Mapping, Sequence

from nexus.comparing.grouping import Grouping
from nexus.comparing.measures import Difference, MeasuredGroups
from nexus.comparing.resampling import FEWEST_FOR_INTERVAL
from nexus.comparing.scores import RunScores
from nexus.core.figures import figures
from nexus.training.curves import ScoredRun

__all__ = ["conclusions_of", "endings_said", "folders_said", "protocol_said", "said_of_merging"]

NAMED_FOLDERS = 3
# How often a 95 % interval covers the truth, in percent, where scores are normal: of an interquartile mean, and of a
# difference of two. Measured by `tests/test_resampling.py`.
COVERAGE = {3: (74, 85), 4: (87, 93), 5: (91, 94), 6: (92, 95), 7: (92, 95)}


def protocol_said(runs: Sequence[ScoredRun]) -> str | None:
    """Return how the runs of one environment were evaluated; None if no run says so."""
    protocol = next((run.evaluated for run in runs if run.evaluated is not None), None)
    if protocol is None:
        return None
    policy = "greedy" if protocol["epsilon"] == 0 else f"ε = {protocol['epsilon']:g}"
    name = f"protocol {protocol['name']}, " if protocol.get("name") is not None else ""
    episodes = sorted({run.settings.get("eval_episodes") for run in runs} - {None}, key=str)
    return f"{name}{policy}, {' or '.join(map(str, episodes))} full episodes per evaluation"


def said_of_merging(grouping: Grouping) -> list[str]:
    """Return what the labels leave unsaid: settings that differ as well, and seeds that occur twice in a group."""
    said = []
    if grouping.also:
        said.append(f"the groups also differ in {', '.join(grouping.also)}")
    if grouping.mixed:
        said.append(f"runs within a group differ in {', '.join(grouping.mixed)}: not only luck separates them")
    for env, groups in grouping.groups.items():
        for label, runs in groups.items():
            seeds = [run.seed for run in runs if run.seed is not None]
            twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
            if twice:
                said.append(
                    f"{label} of {env} has more than one run of seed {', '.join(map(str, twice))}: they share their "
                    "luck, so the interval is too narrow"
                )
    return said


def endings_said(
    groups: Mapping[str, Sequence[RunScores]], counted: Collection[str], step: float, main: str
) -> list[str]:
    """Return which runs don't count by the main measure, and which count with their last score."""
    said = []
    for label, runs in groups.items():
        missing = [run for run in runs if str(run.run.folder) not in counted]
        for ending in dict.fromkeys(run.ending for run in missing):
            some = [run for run in missing if run.ending == ending]
            why = {
                "not evaluated": "not evaluated",
                "unfinished": "unfinished: running, stopped or killed",
            }.get(ending, "without a score at that step")
            said.append(
                f"{label}: {len(some)} of {len(runs)} {runs_word(len(runs))} left out, {why} ({folders_said(some)})"
            )
        for ending, what in (
            ("diverged", "diverged and {count} with the last score before that"),
            (
                "stopped early",
                "stopped at {their} target return and {count} with the score there, which is the first one "
                "good enough and so a little lucky",
            ),
        ):
            held = [run for run in runs if run.ending == ending and str(run.run.folder) in counted]
            if held and main != "threshold":
                one = len(held) == 1
                words = what.format(count="counts" if one else "count", their="its" if one else "their")
                said.append(
                    f"{label}: {len(held)} of {len(runs)} {runs_word(len(runs))} {words} ({folders_said(held)})"
                )
    ends = {run.run.settings.get("total_steps") for runs in groups.values() for run in runs}
    if len(ends) > 1:
        lengths = ", ".join(f"{end:,}" for end in sorted(end for end in ends if isinstance(end, int)))
        said.append(f"runs of different lengths ({lengths} steps) are compared at step {step:,.0f}")
    return said


def runs_word(count: int) -> str:
    """Return the noun for a number of runs."""
    return "run" if count == 1 else "runs"


def folders_said(runs: Sequence[RunScores]) -> str:
    """Return the first few folders of some runs, and how many more there are."""
    names = [str(run.run.folder) for run in runs]
    more = len(names) - NAMED_FOLDERS
    return ", ".join(names[:NAMED_FOLDERS]) + (f" and {more} more" if more > 0 else "")


def conclusions_of(measure: MeasuredGroups) -> list[str]:
    """Return what the groups show by a measure, one sentence for each that is not the baseline, and how sure it is."""
    said, baseline = [], measure.baseline
    few = [label for label, group in measure.groups.items() if len(group.scores) < FEWEST_FOR_INTERVAL]
    if few:
        counts = ", ".join(f"{label}: {len(measure.groups[label].scores)}" for label in few)
        said.append(
            f"No interval with fewer than {FEWEST_FOR_INTERVAL} runs ({counts}): nothing can be concluded. Add seeds."
        )
    if baseline is not None:
        said += [
            conclusion_of(label, baseline, found, measure)
            for label, found in measure.differences.items()
            if label not in few and baseline not in few
        ]
    judged = sum(found.better.has_interval for found in measure.differences.values())
    if judged > 1:
        said.append(
            f"{judged} comparisons, each with a 95 % interval: about {100 * (1 - 0.95**judged):.0f} % of such tables "
            "show a difference somewhere though there is none."
        )
    smallest = min(len(group.scores) for group in measure.groups.values())
    if smallest in COVERAGE and measure.unit == "return":
        alone, of_difference = COVERAGE[smallest]
        differences = f", that of a difference about {of_difference} %" if measure.differences else ""
        said.append(
            f"Intervals of {smallest} runs are too narrow: where scores are normal, that of an IQM covers the truth "
            f"about {alone} % of the time{differences}."
        )
    return said


def conclusion_of(label: str, baseline: str, found: Difference, measure: MeasuredGroups) -> str:
    """Return what one difference shows."""
    if found.difference is None:
        return conclusion_on_times(label, baseline, found)
    counts = f"{len(measure.groups[label].scores)} and {len(measure.groups[baseline].scores)} runs"
    difference = found.difference
    if difference.low is not None and difference.high is not None and difference.excludes(0):
        ends = sorted((abs(difference.low), abs(difference.high)))
        size, least, most = figures(abs(difference.value), *ends)
        better = "better" if difference.value > 0 else "worse"
        return f"{label} is {better} than {baseline} by {size} ({least} to {most})."
    if difference.low == difference.high == 0:
        return f"{counts} of {label} and {baseline} all have the same score: this score can't tell them apart."
    unseen = (
        ""
        if found.detectable is None
        else f": a difference under {figures(found.detectable)[0]} would not be seen reliably"
    )
    return f"{label} against {baseline}: {counts} show no difference{unseen}."


def conclusion_on_times(label: str, baseline: str, found: Difference) -> str:
    """Return what the order of times shows."""
    if found.better.excludes(0.5):
        return f"{label} is {'sooner' if found.better.value > 0.5 else 'later'} than {baseline}."
    return f"{label} against {baseline}: these runs show no difference in time."
