"""The targets: whether they are what the settings say, and whether the target network follows as it should."""

from collections.abc import Mapping
from statistics import median

import numpy as np
import torch

from nexus.doctor.chart import Chart
from nexus.doctor.check import Check
from nexus.doctor.exam import Exam
from nexus.doctor.symptom import Judgement, Unjudged, critical, warning

__all__ = ["TARGET_CHECKS", "target_measures"]

STANDARD = frozenset(("dqn", "double", "dueling", "prioritized", "n-step", "noisy", "c51", "qr-dqn", "iqn", "rainbow"))
"""Algorithms whose target is r + d · Q(s', a'; θ⁻) in expectation."""
RECENT_EXAMS = 5  # the replay may hold nothing older
OFF = 0.005  # relative error of a target that is not explained by rounding or by one update of the weights


def target_measures(exam: Exam) -> Mapping[str, float]:
    """Return the numbers on targets and target network."""
    q, q_target = exam.q, exam.q_target
    values = {
        "target_lag": float(np.abs(q - q_target).mean() / (q.std() + 1e-9)),
    }
    if "q_target" in exam.before and exam.before["q_target"].shape == q_target.shape:
        values["target_moved"] = float(not np.array_equal(exam.before["q_target"], q_target))
    values["terminated"], values["truncated"] = float(exam.tally.terminated), float(exam.tally.truncated)
    if exam.rows:
        values["terminal_rows"] = float((exam.rows["discounts"] == 0).float().mean())
        values |= of_rows(exam)
    if audited(exam):
        values["target_error"] = audit(exam)
    return values


def of_rows(exam: Exam) -> Mapping[str, float]:
    """Return how well the values fit the targets of random rows."""
    targets, errors = exam.targets, exam.targets - exam.predictions
    spread = float(targets.std())
    return {
        "target_std": spread,
        "target_bias": float(errors.mean()) / (float(targets.abs().mean()) + 1e-6),
        "target_abs_p99": float(torch.quantile(targets.abs(), 0.99)),
        "value_error": float(errors.square().mean().sqrt()),
        "explained_variance": 1 - float(errors.var()) / max(spread**2, 1e-12),
    }


def audited(exam: Exam) -> bool:
    """True if the targets of the last update can be computed again from the settings and the weights of now.

    Not when the target network has just been copied: it is then another one than the update used.
    """
    taken, config = exam.taken, exam.config
    return (
        taken is not None
        and "target_mean" in taken.outcome.metrics
        and {"states", "next_states", "rewards", "discounts", "actions"} <= set(taken.batch)
        and config.algorithm in STANDARD
        and not config.munchausen
        and not (config.tau == 1 and np.array_equal(exam.q, exam.q_target))
    )


def audit(exam: Exam) -> float:
    """Return the median error of the last update's targets, relative to their median size.

    A target network that has followed by τ since then explains a difference of that share of its distance.
    """
    assert exam.taken is not None
    used = exam.taken.outcome.metrics["target_mean"]
    expected = exam.targets_of(exam.learner.prepared(exam.taken.batch))
    followed = exam.config.tau * float(np.abs(exam.q - exam.q_target).mean()) if exam.config.tau < 1 else 0.0
    error = max(0.0, float((used - expected).abs().median()) - followed)
    return error / (float(expected.abs().median()) + 1e-6)


def as_defined(chart: Chart) -> Judgement:
    """The targets that were learned from against those that the settings define."""
    errors = chart.tail("doctor/target_error", 3)
    if len(errors) < 3:
        return Unjudged("the targets of this algorithm can't be computed again, or too few updates so far")
    if errors.min() <= OFF:
        return None
    return critical(
        f"the targets learned from differ from r + γⁿ max Q(s', a'; θ⁻) by {median(errors):.1%}",
        f"{OFF:.1%}, three times in a row",
        "the target, the terminal mask or γ of the loss is not what the settings say",
        "checking the loss: its target, its sign, its discount and what it does at a terminal state",
        target_error=float(median(errors)),
    )


def network(chart: Chart) -> Judgement:
    """Whether the target network ever follows."""
    config = chart.config
    if config.trace_lambda is not None:
        return Unjudged("the algorithm has no target network")
    moved, updates = chart.series("doctor/target_moved"), chart.last("train/n_updates", 0.0)
    if chart.progress >= 0.2 and len(moved) >= 4 and not moved.any() and updates >= 500:
        return critical(
            f"the target network has not changed in {len(moved)} examinations and {updates:,.0f} updates",
            "some change within four examinations and a fifth of the run",
            "it is never updated, or in the wrong direction",
            "--target-update-every '500 updates'",
            examinations=float(len(moved)),
            updates=updates,
        )
    return None


def terminals(chart: Chart) -> Judgement:
    """The share of stored transitions without bootstrap against the episodes that ended by themselves."""
    counted = (chart.tail(f"doctor/{name}", RECENT_EXAMS + 1) for name in ("terminated", "truncated", "tallied_steps"))
    ended, cut, steps = (float(values[-1] - values[0]) if values.size else 0.0 for values in counted)
    shares = chart.tail("doctor/terminal_rows", RECENT_EXAMS)
    if len(shares) < 3 or ended + cut < 20 or steps < 1000:
        return Unjudged("too few episodes have ended lately, or no replay")
    of_ended, of_cut = (chart.config.n_step * count / steps for count in (ended, cut))
    if of_ended > 0.01 and shares.max() == 0:
        return critical(
            f"{ended:,.0f} episodes have ended by themselves, but no transition in the replay is terminal",
            f"about {of_ended:.1%} of the rows",
            "the terminal flag is lost, so values beyond the end are added to the last reward",
            "checking that `terminated` reaches the replay, and the discount 0 the loss",
            terminal_rows=float(shares.max()),
            expected=of_ended,
        )
    if of_cut > 0.01 and of_ended < 0.1 * of_cut and median(shares) > 0.3 * of_cut:
        return warning(
            f"{cut:,.0f} episodes were cut off by a limit and {ended:,.0f} ended, yet {median(shares):.1%} of the "
            "rows are terminal",
            "rows of truncated episodes bootstrap",
            "a limit is stored as an end",
            "returning truncated=True, terminated=False from the environment at its limit",
            terminal_rows=float(median(shares)),
            expected=of_ended,
        )
    return None


TARGET_CHECKS = (
    Check(
        "target",
        as_defined,
        "median |y - y'| ÷ median |y'|, y the targets of the last update, y' those computed from the settings",
        "above 0.5 % three times in a row: critical",
        "a first choice: a missing γ of 0.99 makes 1 %",
        "algorithms of your own, Munchausen and λ-returns; a wrong reward or transition from the environment",
    ),
    Check(
        "target-network",
        network,
        "whether Q(s, ·; θ⁻) at the probe states changed since the last examination",
        "no change in any of at least four examinations and a fifth of the run: critical",
        "RLExplorer checks the same on the weights",
        "a period that is only too long or too short",
    ),
    Check(
        "terminals",
        terminals,
        "share of rows with discount 0 against n · (episodes that ended by themselves) ÷ steps",
        "none although more than 1 % are expected: critical; many although nearly all were truncated: warning",
        "RLMutation: without the terminal flag CartPole ends at 14 instead of 414",
        "environments that report a limit as an end, if there are true ends too",
    ),
)
