"""The Q-values: their size, their spread, whether they fit their targets and the returns."""

from collections.abc import Mapping
from statistics import median

import numpy as np

from nexus.doctor.chart import Chart
from nexus.doctor.check import Check
from nexus.doctor.exam import Exam
from nexus.doctor.symptom import Judgement, Unjudged, critical, slight, warning

__all__ = ["VALUE_CHECKS", "value_measures"]

WITH_BONUS = "values hold a bonus, which the stored rewards and the returns don't"


def value_measures(exam: Exam) -> Mapping[str, float]:
    """Return the numbers that describe the Q-values at the probes."""
    q, unit = exam.q, exam.learner.unit_of_rewards()
    ordered = np.sort(q, axis=1)
    best = ordered[:, -1]
    greedy = q.argmax(1)
    values = {
        "q_abs_max": float(np.abs(q).max()),
        "q_mean": float(best.mean()),
        "q_spread": float(best.std()),
        "greedy_share": float(np.bincount(greedy).max() / len(greedy)),
    }
    if q.shape[1] > 1:
        values["action_gap"] = float((best - ordered[:, -2]).mean())
    if "greedy" in exam.before and len(exam.before["greedy"]) == len(greedy):
        values["churn"] = float((exam.before["greedy"] != greedy).mean())
    values["zero_values"] = float((q == 0).mean())
    rewards = exam.replay.reward_summary()
    if rewards:
        values["reward_abs_max"] = max(abs(rewards["min"]), abs(rewards["max"])) / unit
        values["reward_range"] = (rewards["max"] - rewards["min"]) / unit
    return values


def bound_of(chart: Chart) -> float:
    """Return the largest |Q| that the rewards allow: R / (1 - γⁿ), R the largest folded reward ever stored."""
    largest, discount = chart.series("doctor/reward_abs_max"), chart.config.gamma**chart.config.stored_steps
    if not largest.size:
        return float("nan")
    longest = np.nanmax([chart.last("doctor/longest_episode"), 1.0]) / chart.config.stored_steps
    steps = min(1 / (1 - discount), 1e9) if discount < 1 else longest
    return float(largest.max()) * steps


def divergence(chart: Chart) -> Judgement:
    """|Q| above what any policy can earn (van Hasselt et al. 2018)."""
    if chart.config.munchausen:
        return Unjudged("a Munchausen reward has no bound that the rewards give")
    if chart.config.bonus is not None:
        return Unjudged(WITH_BONUS)
    bound, largest = bound_of(chart), chart.tail("doctor/q_abs_max", 2)
    if not np.isfinite(bound) or bound == 0 or len(largest) < 2:
        return Unjudged("there are no rewards or too few examinations to compare |Q| with")
    ratio = float(largest.min() / bound)
    if ratio <= 1.5:
        return None
    say = critical if ratio > 5 else warning
    return say(
        f"|Q| is {largest[-1]:.3g}, {ratio:.1f} times the most that any policy can earn, {bound:.3g}",
        "1.5 times R / (1 - γⁿ), twice in a row",
        "the values diverge",
        q_abs_max=float(largest[-1]),
        bound=bound,
    )


def fit(chart: Chart) -> Judgement:
    """The share of the targets' variance that the network explains, after two fifths of the run."""
    if chart.config.bonus is not None:
        return Unjudged(WITH_BONUS)
    values = chart.tail("doctor/explained_variance", 5)
    if chart.progress < 0.4 or len(values) < 5:
        return Unjudged("too early, or no targets to compare with")
    if float(np.nanmax(chart.tail("doctor/target_std", 3))) < 1e-6:
        return Unjudged("all targets are equal")
    if median(values) >= 0:
        return None
    return warning(
        "the network fits its targets worse than their mean would",
        "errors smaller than the spread of the targets, median of five examinations after two fifths of the run",
        "it does not fit its targets",
        explained_variance=float(median(values)),
    )


def output(chart: Chart) -> Judgement:
    """Whether the network's values can reach their targets."""
    biases, zeros = chart.tail("doctor/target_bias", 3), chart.tail("doctor/zero_values", 3)
    if chart.progress < 0.2 or len(biases) < 3:
        return Unjudged("too early, or no targets to compare with")
    if zeros.min() > 0.1:
        return critical(
            f"{zeros.mean():.0%} of the values at the probe states are exactly 0",
            "10 %, three times in a row",
            "the output is cut off at 0, as by a ReLU: an action below it gets no gradient",
            "a network whose last layer is linear",
            zero_values=float(zeros.mean()),
        )
    if chart.config.bonus is not None:
        return Unjudged(WITH_BONUS)
    if abs(biases).min() <= 0.5:
        return None
    return critical(
        f"targets are {'above' if biases[-1] > 0 else 'below'} the values by {abs(biases).mean():.0%} of their size",
        "50 % of the mean size of the targets, three times in a row",
        "the values can't reach their targets, as behind a sigmoid or softmax, or are far behind them",
        target_bias=float(biases.mean()),
    )


def overestimation(chart: Chart) -> Judgement:
    """Predicted values against the discounted returns that the same states got."""
    if chart.config.bonus is not None:
        return Unjudged(WITH_BONUS)
    predicted, realised = chart.tail("doctor/predicted_start", 5), chart.tail("doctor/realised_start", 5)
    if len(realised) < 5 or chart.last("rollout/exploration_rate", 0.0) > 0.1 or chart.progress < 0.5:
        return Unjudged("too early, ε above 0.1, or too few episodes")
    scale = np.abs(realised).mean() + 1e-6
    excess = float((predicted - realised).mean() / scale)
    if excess <= 1.0:
        return None
    say = warning if excess > 3.0 else slight
    return say(
        f"the value of first states is {predicted[-1]:.3g} where the episodes then earn {realised[-1]:.3g}",
        "twice the discounted return, mean of five examinations: note; four times: warning",
        "values are overestimated",
        predicted=float(predicted[-1]),
        realised=float(realised[-1]),
    )


def gap(chart: Chart) -> Judgement:
    """The difference between the best two actions against the error of the values."""
    gaps, errors = chart.tail("doctor/action_gap", 3), chart.tail("doctor/value_error", 3)
    if chart.progress < 0.75 or len(gaps) < 3 or len(errors) < 3:
        return Unjudged("too early to compare actions")
    ratio = float(median(gaps / np.maximum(errors, 1e-9)))
    if ratio >= 0.02 or float(median(errors)) < 1e-4:
        return None
    return warning(
        f"the best two actions differ by {median(gaps):.2g}, the values are off by {median(errors):.2g}",
        "a fiftieth of the error, median of three examinations",
        "the choice of the action drowns in the error of the values",
        action_gap=float(median(gaps)),
        value_error=float(median(errors)),
    )


VALUE_CHECKS = (
    Check(
        "divergence",
        divergence,
        "max |Q(s, a)| over the probe states ÷ R / (1 - γⁿ), R the largest folded reward in the replay so far",
        "above 1.5 on two examinations in a row: warning; above 5: critical",
        "van Hasselt et al. 2018 call a value above the bound soft divergence; 1.5 a first choice",
        "values that diverge below the bound; Munchausen and intrinsic rewards",
        "--layer-norm --double --target-update-every '2000 updates', or a smaller --learning-rate",
    ),
    Check(
        "fit",
        fit,
        "1 - Var(y - Q(s, a)) / Var(y) on random rows of the replay, y from the settings",
        "median of five examinations below 0 after two fifths of the run: warning",
        "sound Acrobot stays below 0.1 until the goal has been reached many times; the loss itself is no measure, "
        "since it rises with the values",
        "a network that fits wrong targets well",
        "another --learning-rate, --optimizer adam, or --normalize-observations",
    ),
    Check(
        "output",
        output,
        "mean (y - Q(s, a)) ÷ mean |y| on random rows, and the share of values that are exactly 0",
        "beyond ±0.5, or above 10 %, three times in a row after a fifth of the run: critical",
        "DRLinter's and RLMutation's mutants end the network with ReLU, softmax or sigmoid; a first choice",
        "an output whose range happens to hold the returns",
        "a network whose last layer is linear; else a larger --learning-rate",
    ),
    Check(
        "overestimation",
        overestimation,
        "Q(s₀, a₀) against the discounted return of the same episode, over the last 8 episodes of one sub-environment; "
        "what a truncated one would still have earned is the value of its last state",
        "above twice the return in the mean of five examinations, with ε ≤ 0.1, after half of the run: note; above "
        "four times: warning",
        "van Hasselt et al. 2016 compare the same two numbers; RL Zoo's CartPole ends at 500 with values of 123 where "
        "its episodes with ε earn 45",
        "episodes cut off long before γ has forgotten the rest",
        "--double, --n-step 3",
    ),
    Check(
        "action-gap",
        gap,
        "mean difference between the best two actions at the probe states ÷ root mean squared TD error",
        "median of three examinations below 0.02 after 75 % of the run: warning",
        "seen in MiniGrid's smallest room with plain settings, where it ends at a return of 0; sound Acrobot is "
        "at 0.002 halfway and at 0.09 at the end",
        "states where the actions really are equal, if most are",
        "--layer-norm --double --n-step 3",
    ),
)
