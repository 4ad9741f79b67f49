"""Sizes: of observations, rewards, targets and gradients."""

from collections.abc import Mapping

import numpy as np

from nexus.doctor.chart import Chart
from nexus.doctor.check import Check
from nexus.doctor.exam import Exam
from nexus.doctor.symptom import Judgement, Unjudged, slight, warning

__all__ = ["SCALE_CHECKS", "scale_measures"]


def scale_measures(exam: Exam) -> Mapping[str, float]:
    """Return the sizes of observations and gradients."""
    values: dict[str, float] = {}
    config = exam.config
    if exam.taken is not None and config.max_grad_norm is not None and "grad_norm" in exam.taken.outcome.metrics:
        values["gradient_clipped"] = float(exam.taken.outcome.metrics["grad_norm"] > config.max_grad_norm)
    states = exam.rows.get("states")
    if states is not None and states.is_floating_point() and not config.normalize_observations:
        numbers = states.cpu().numpy().reshape(len(states), -1)
        spreads = numbers.std(0)
        values["observation_max"] = float(np.abs(numbers).max())
        values["observation_spread"] = float(spreads.max())
        values["constant_numbers"] = float((spreads == 0).mean())
    return values


def observation_scale(chart: Chart) -> Judgement:
    """The spread of the numbers of a state, as the network gets them."""
    spreads, largest = chart.tail("doctor/observation_spread", 3), chart.tail("doctor/observation_max", 3)
    if len(spreads) < 3 or chart.config.scale_observations:
        return Unjudged("images, normalised or scaled states, or no replay")
    if spreads.max() == 0:
        return Unjudged("all states are the same one")
    if spreads.max() < 1e-3 or (spreads.min() > 50 and largest.min() > 200):
        kind = "hardly differ" if spreads.max() < 1e-3 else "are large"
        return warning(
            f"the numbers of a state {kind}: deviations up to {spreads[-1]:.3g}, sizes up to {largest[-1]:.3g}",
            "deviations from 0.001 to 50",
            "the network's layers expect numbers around 1",
            observation_spread=float(spreads[-1]),
            observation_max=float(largest[-1]),
        )
    return None


def targets(chart: Chart) -> Judgement:
    """The size of the targets."""
    sizes = chart.tail("doctor/target_abs_p99", 3)
    rewards = chart.last("doctor/reward_abs_max", 0.0)
    if chart.progress < 0.1 or len(sizes) < 3 or rewards == 0:
        return Unjudged("too early, no replay, or no reward so far")
    if sizes.min() > 2_000:
        return warning(
            f"targets are as large as {sizes[-1]:.3g}, rewards {rewards:.3g}",
            "2,000, three times in a row after a tenth of the run",
            "the network must grow its last layer by small steps to reach them",
            "--normalize-rewards, or rewards divided in the environment",
            target_abs_p99=float(sizes[-1]),
            reward_abs_max=rewards,
        )
    if sizes.max() < 0.5 and rewards < 0.02:
        return warning(
            f"targets are at most {sizes.max():.2g}, rewards {rewards:.2g}",
            "0.5, or rewards of at least 0.02",
            "the differences between actions are smaller than the error of the values",
            "--normalize-rewards, or rewards multiplied in the environment",
            target_abs_p99=float(sizes[-1]),
            reward_abs_max=rewards,
        )
    return None


def gradients(chart: Chart) -> Judgement:
    """How often the gradient is clipped."""
    clipped = chart.tail("doctor/gradient_clipped", 20)
    if chart.progress < 0.2 or len(clipped) < 8:
        return Unjudged("too few updates, or no clipping")
    if clipped.mean() <= 0.9:
        return None
    return slight(
        f"the gradient is clipped in {clipped.mean():.0%} of the updates looked at",
        "90 % of the last 20",
        "the step depends on the direction alone",
        gradient_clipped=float(clipped.mean()),
    )


def signal(chart: Chart) -> Judgement:
    """Whether any reward differs from the others, or an episode ends by itself."""
    ranges, ended = chart.series("doctor/reward_range"), chart.last("doctor/terminated", np.nan)
    if chart.progress < 0.2 or not ranges.size or not np.isfinite(ended):
        return Unjudged("too early, or no replay")
    if ranges.max() > 1e-9 or ended > 0:
        return None
    say = warning if chart.progress >= 0.5 else slight
    return say(
        f"all rewards are the same, and none of {chart.last('doctor/truncated', 0):,.0f} episodes ended by itself",
        "one other reward or one end, after a fifth of the run",
        "there is nothing to learn from yet: the goal was never reached",
        progress=chart.progress,
    )


SCALE_CHECKS = (
    Check(
        "observations",
        observation_scale,
        "largest standard deviation of a number of a state, over random rows of the replay",
        "below 0.001, or above 50 with numbers above 200, three times in a row: warning",
        "RLExplorer alarms at ±10, which healthy Acrobot and LunarLander exceed; a first choice",
        "images; a few numbers that are much smaller than the others",
        "--normalize-observations",
    ),
    Check(
        "reward-scale",
        targets,
        "99th percentile of |y| over random rows, and the largest reward",
        "above 2,000; or below 0.5 with rewards below 0.02; three times in a row: warning",
        "bsuite's DQN falls from 0.79 to 0.45 on CartPole when rewards are scaled; healthy ones here reach 300",
        "rewards whose rare large values matter",
        "--normalize-rewards, or rewards of another size in the environment",
    ),
    Check(
        "signal",
        signal,
        "largest minus smallest folded reward in the replay, and the number of episodes that ended by themselves",
        "both 0 after a fifth of the run: note; after half: warning",
        "MountainCar before its first success; bit flipping with 15 bits",
        "rewards that differ but say nothing",
        "more exploration (--epsilon-steps, --algo noisy), --n-step 5, or rewards on the way to the goal",
    ),
    Check(
        "gradient-clipping",
        gradients,
        "share of examined updates whose gradient is longer than max_grad_norm",
        "above 90 % of the last 20: note",
        "healthy LunarLander is clipped often, so it is only a note",
        "a norm that is rarely reached but then far exceeded",
        "a larger --max-grad-norm, or --normalize-rewards",
    ),
)
