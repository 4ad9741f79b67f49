"""Returns: against random play, against the best so far, and greedy against training."""

from collections.abc import Mapping
from math import sqrt

import numpy as np

from nexus.core.types import Floats
from nexus.doctor.chart import Chart
from nexus.doctor.check import Check
from nexus.doctor.exam import Exam
from nexus.doctor.symptom import Judgement, Unjudged, slight, warning

__all__ = ["RETURN_CHECKS", "means_of", "return_measures"]

AT_RANDOM, RECENTLY = "doctor/random_return", "doctor/recent_return"
STANDARD_ERRORS = 2.5  # standard errors that count as a difference
AFTER_THE_OTHERS = "`nexus check` on the environment, another --preset, or the symptoms above"


def return_measures(exam: Exam) -> Mapping[str, float]:
    """Return the returns of random play and of the last episodes."""
    return means_of(np.array(exam.tally.at_random), np.array(exam.tally.recent))


def means_of(at_random: Floats, recent: Floats) -> dict[str, float]:
    """Return the mean of both kinds of returns and its standard error, by name; nothing of fewer than two."""
    values: dict[str, float] = {}
    for name, returns in (("random", at_random), ("recent", recent)):
        if len(returns) >= 2:
            values[f"{name}_return"] = float(returns.mean())
            values[f"{name}_error"] = float(returns.std(ddof=1) / sqrt(len(returns)))
    return values


def against_random(chart: Chart) -> Judgement:
    """The last episodes against the first ones, which were played at random, in standard errors."""
    if chart.progress < 0.5 or not (chart.holds(AT_RANDOM) and chart.holds(RECENTLY, 3)):
        return Unjudged("too early, or no episodes of random play at the start")
    random, now = chart.last(AT_RANDOM), chart.tail(RECENTLY, 3)
    error = sqrt(chart.last("doctor/random_error") ** 2 + chart.last("doctor/recent_error") ** 2)
    evidence = {"random_return": random, "recent_return": float(now[-1]), "standard_error": error}
    if now.max() < random - STANDARD_ERRORS * error - 1e-9:
        return warning(
            f"the last episodes return {now[-1]:.3g}, random play returned {random:.3g}",
            f"{STANDARD_ERRORS} standard errors below, three times in a row after half of the run",
            "what was learned is worse than nothing",
            "",
            **evidence,
        )
    if (
        chart.progress >= 0.75
        and now.max() <= random + STANDARD_ERRORS * error
        and worst(chart) <= random + STANDARD_ERRORS * error
    ):
        return warning(
            f"the last episodes return {now[-1]:.3g}, no more than random play, {random:.3g}",
            f"{STANDARD_ERRORS} standard errors above after three quarters of the run",
            "nothing was learned",
            "",
            **evidence,
        )
    return None


def worst(chart: Chart) -> float:
    """Return the last evaluation's mean, or -inf if there are none."""
    return chart.last("eval/mean_reward", -np.inf)


def forgetting(chart: Chart) -> Judgement:
    """The last episodes against the best time of the run, in terms of what had been gained over random play."""
    now, random = chart.series(RECENTLY), chart.last(AT_RANDOM)
    if len(now) < 8 or not np.isfinite(random):
        return Unjudged("too few examinations")
    smooth = np.convolve(now, np.ones(3) / 3, "valid")
    best, last = float(smooth.max()), float(now[-3:].max())
    gained = best - random
    error = sqrt(chart.last("doctor/random_error") ** 2 + chart.last("doctor/recent_error") ** 2)
    if gained <= 8 * error or last >= best - 0.5 * gained:
        return None
    return warning(
        f"the last episodes return {last:.3g}, the best time of the run {best:.3g}, random play {random:.3g}",
        "half of what had been gained, on three examinations",
        "it has forgotten what it could do",
        best=best,
        last=last,
        random=random,
    )


def evaluation_gap(chart: Chart) -> Judgement:
    """Greedy evaluations against the training episodes at the same time."""
    greedy, training, random = chart.tail("eval/mean_reward", 3), chart.last(RECENTLY), chart.last(AT_RANDOM)
    epsilon = chart.last("rollout/exploration_rate", 0.0)
    if len(greedy) < 3 or not np.isfinite([training, random]).all() or epsilon > 0.2 or chart.progress < 0.3:
        return Unjudged("fewer than three evaluations, or ε is large")
    error, gained = chart.last("doctor/recent_error"), training - random
    if gained <= 8 * error or greedy.max() >= training - 0.5 * gained:
        return None
    return warning(
        f"greedy evaluations return {greedy[-1]:.3g}, training episodes {training:.3g}",
        "half of what was gained over random play, in one of three evaluations",
        "the greedy policy fails where a random action now and then helps, or the evaluation differs from the training",
        greedy=float(greedy[-1]),
        training=training,
    )


def limit(chart: Chart) -> Judgement:
    """Whether any episode has ended."""
    ended = chart.last("doctor/terminated") + chart.last("doctor/truncated")
    if chart.progress < 0.2 or not np.isfinite(ended):
        return Unjudged("too early")
    if ended > 0:
        return None
    return slight(
        f"no episode has ended in {chart.step:,} steps",
        "one end within a fifth of the run",
        "there are no returns to judge by, and a bad state may last for ever",
        steps=float(chart.step),
    )


RETURN_CHECKS = (
    Check(
        "episode-limit",
        limit,
        "episodes that ended by themselves or at a limit",
        "none after a fifth of the run: note",
        "a task that never ends may be meant",
        "limits that are too long to be reached by all but a few episodes",
        "truncated=True after a number of steps, or --env-kwargs max_episode_steps=1000 for an environment id",
    ),
    Check(
        "forgetting",
        forgetting,
        "(best - now) ÷ (best - random), returns of the last 20 episodes, best smoothed over three examinations",
        "above one half on three examinations, if the gain was beyond 8 standard errors: warning",
        "proposed in the literature as interference; one half a first choice",
        "slow losses, and runs without episodes of random play at the start",
        "--learning-rate-schedule linear, --layer-norm, a larger --replay-capacity; the best weights are in best/",
    ),
    Check(
        "evaluation-gap",
        evaluation_gap,
        "greedy evaluations against the last 20 training episodes",
        "more than half of the gain lost in three evaluations, with ε ≤ 0.2: warning",
        "one or two bad evaluations are common: RL Zoo's CartPole has 20 and 14 between 225 and 500",
        "runs without evaluations",
        "--layer-norm --double --n-step 3, and the same wrappers in evaluation",
    ),
    Check(
        "worse-than-random",
        against_random,
        "mean of the last 20 episodes against that of the first ones, played at random, in standard errors",
        f"{STANDARD_ERRORS} below after half of the run, or not that much above after three quarters: warning",
        "two samples' standard error; RLMutation's healthy seeds span 95 to 500, so a return alone diagnoses nothing",
        "runs that learn something, but far from everything",
        AFTER_THE_OTHERS,
    ),
)
