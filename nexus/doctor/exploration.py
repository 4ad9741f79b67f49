"""Exploration: ε, the actions that are taken, and how many different states they lead to."""

from collections.abc import Mapping

import numpy as np

from nexus.doctor.chart import Chart
from nexus.doctor.check import Check
from nexus.doctor.exam import Exam
from nexus.doctor.symptom import Judgement, Unjudged, critical, slight, warning

__all__ = ["EXPLORATION_CHECKS", "exploration_measures"]

RATE = "rollout/exploration_rate"
WATCHED = 6  # examinations over which greedy actions are counted


def exploration_measures(exam: Exam) -> Mapping[str, float]:
    """Return the numbers on actions and states."""
    if not exam.newest:
        return {}
    actions = exam.newest["actions"].cpu().numpy()
    states = exam.newest["states"].cpu().numpy().reshape(len(actions), -1)
    values = {
        "action_share": float(np.bincount(actions).max() / len(actions)),
        "distinct_states": len({row.tobytes() for row in states}) / len(states),
    }
    if exam.tally.acted:
        values["acted_greedily"] = exam.tally.greedy / exam.tally.acted
    return values


def acting(chart: Chart) -> Judgement:
    """Whether the actions taken are those of the highest values, as often as ε allows."""
    agreed = chart.tail("doctor/acted_greedily", WATCHED)
    steps = chart.steps("doctor/acted_greedily")[-WATCHED:]
    rates = np.interp(steps, chart.steps(RATE), chart.series(RATE)) if chart.holds(RATE) else np.ones(1)
    if len(agreed) < WATCHED or rates.max() > 0.5:
        return Unjudged("ε is large or not what explores, or there are too few updates")
    expected = float(1 - rates.mean())
    if agreed.mean() >= 0.5 * expected:
        return None
    return critical(
        f"{agreed.mean():.0%} of the actions looked at are those of the highest value, with ε = {rates[-1]:.2g}",
        f"half of {expected:.0%}, over six examinations",
        "the policy does not act by the values that it learns",
        acted_greedily=float(agreed.mean()),
        epsilon=float(rates[-1]),
    )


def epsilon(chart: Chart) -> Judgement:
    """Whether ε begins high enough, falls, and ends low."""
    config, values = chart.config, chart.series(RATE)
    if config.exploration != "epsilon_greedy" or config.noisy or len(values) < 2:
        return Unjudged("ε is not what explores, or it has not been logged yet")
    first, last, progress = float(values[0]), float(values[-1]), chart.progress
    if first <= 0.05 and values.max() <= 0.1:
        return warning(
            f"ε is {first:.2g} from the start",
            "above 0.05 at the start, or noisy nets",
            "hardly any action is tried, so what is better is never seen",
            "--epsilon 1.0 --epsilon-min 0.01",
            epsilon=first,
        )
    if len(values) >= 5 and last > first + 0.1 and np.diff(values).min() >= 0:
        return warning(
            f"ε has grown from {first:.2g} to {last:.2g}",
            "ε falls",
            "the schedule runs backwards, so the policy that is learned is hardly ever played",
            "--epsilon-schedule linear --epsilon 1.0 --epsilon-min 0.01",
            first=first,
            last=last,
        )
    if progress >= 0.7 and last >= 0.3:
        return warning(
            f"ε is still {last:.2g} after {progress:.0%} of the run",
            "below 0.3 after 70 % of the run",
            "exploration does not end, so the policy that is learned is hardly ever played",
            f"--epsilon-min 0.01 --epsilon-steps {max(1, config.total_steps // 3)}",
            epsilon=last,
        )
    return None


def one_action(chart: Chart) -> Judgement:
    """Whether one action is nearly always taken although others are tried as well."""
    shares, greedy = chart.tail("doctor/action_share", 3), chart.tail("doctor/greedy_share", 3)
    if chart.progress < 0.3 or len(shares) < 3:
        return Unjudged("too early")
    if shares.min() <= 0.97 or greedy.min() <= 0.99:
        return None
    return slight(
        f"{shares.mean():.0%} of the last actions, and the best action in every probe state, are the same one",
        "97 % of the actions and 99 % of the probe states, three times in a row",
        "the policy has collapsed to one action",
        action_share=float(shares.mean()),
    )


EXPLORATION_CHECKS = (
    Check(
        "acting",
        acting,
        "share of 48 actions or more that are greedy by the weights of the same moment, against 1 - ε",
        "below half of 1 - ε over six examinations: critical",
        "policy churn (Schaul et al. 2022) is about 10 % per update, far from half; a first choice",
        "noisy nets, Boltzmann and own exploration",
        "checking how the action is chosen: argmax over actions, of the online network",
    ),
    Check(
        "exploration",
        epsilon,
        "ε as logged",
        "at most 0.05 at the start, or growing, or at least 0.3 after 70 % of the run: warning",
        "faults of real programs in DRLinter and RLExplorer; 0.3 a first choice",
        "a schedule that is only somewhat too fast; own exploration",
        "--epsilon-schedule linear --epsilon 1.0 --epsilon-min 0.01, and --epsilon-steps of a third of the run",
    ),
    Check(
        "one-action",
        one_action,
        "the largest share of one action among the newest rows, and among the greedy actions of the probe states",
        "above 97 % and 99 % on three examinations after 30 % of the run: note",
        "RLExplorer uses 80 %, which healthy runs exceed where one action is usually right",
        "a policy that alternates between two useless actions",
        "more exploration: --epsilon-steps, --epsilon-min; or a smaller --learning-rate",
    ),
)
