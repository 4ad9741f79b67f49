"""The targets: whether they are what the settings say, and whether the target network follows as it should."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from nexus.core.types import Floats
from nexus.doctor.chart import Chart
from nexus.doctor.check import Check
from nexus.doctor.exam import LAST_EPISODES, RANDOM_ROWS, Exam
from nexus.doctor.symptom import Judgement, Unjudged, critical, warning

__all__ = ["TARGET_CHECKS", "target_measures"]

STANDARD = frozenset(("dqn", "double", "dueling", "prioritized", "n-step", "noisy", "c51", "qr-dqn", "iqn", "rainbow"))
"""Algorithms whose target is r + d · Q(s', a'; θ⁻) in expectation."""
RECENT_EXAMS = 5  # the replay may hold nothing older
DUE = 25.0  # terminal rows expected among those looked at above which none is no chance: e^-25
FEWEST_ENDS = 8  # terminal rows to compare with others
MOST_PER_STATE = 1_000  # of a state; larger ones are images
SHORT = 10  # steps; shorter episodes often have a fixed length by their rules
OFF = 0.005  # relative error of a target that is not explained by rounding or by one update of the weights
OFF_NOISY = 0.05  # where the update drew its own noise; rainbow's and noisy nets' reach 0.01
OFF_IQN = 0.25  # where it drew its own quantile levels; IQN's reach 0.08


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
        values |= of_ends(exam)
    if audited(exam):
        values |= audit(exam)
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


def of_ends(exam: Exam) -> Mapping[str, float]:
    """Return the length that all of the last episodes share, 0 if they differ, and whether states tell of their end.

    They do if one of their numbers has values at ends that it has nowhere else, as a clock has, or if few states end.
    """
    lengths = exam.tally.lengths
    if len(lengths) < LAST_EPISODES:
        return {}
    values = {"common_length": float(lengths[0] if len({*lengths}) == 1 else 0)}
    if values["common_length"] < SHORT or exam.probes[0].numel() > MOST_PER_STATE:
        return values
    states = torch.cat([part["next_states"].flatten(1).float() for part in (exam.rows, exam.newest)])
    ends = torch.cat([part["discounts"] == 0 for part in (exam.rows, exam.newest)])
    last, others = states[ends], states[~ends]
    if len(last) >= FEWEST_ENDS and len(others):
        apart = (last.amin(0) > others.amax(0)) | (last.amax(0) < others.amin(0))
        few = len({row.tobytes() for row in last.cpu().numpy()}) <= len(last) / 4
        values["ends_told"] = float(bool(apart.any()) or few)
    return values


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


def audit(exam: Exam) -> Mapping[str, float]:
    """Return the median error of the last update's targets, and that at terminal states, relative to their median size.

    A target network that has followed by τ since then explains a difference of that share of its distance.
    """
    assert exam.taken is not None
    batch = exam.learner.prepared(exam.taken.batch)
    expected = exam.targets_of(batch)
    errors, size = (exam.taken.outcome.metrics["target_mean"] - expected).abs(), float(expected.abs().median()) + 1e-6
    followed = exam.config.tau * float(np.abs(exam.q - exam.q_target).mean()) if exam.config.tau < 1 else 0.0
    values = {"target_error": max(0.0, float(errors.median()) - followed) / size}
    at_ends = errors[batch["discounts"] == 0]
    return values if not len(at_ends) else values | {"end_error": float(at_ends.median()) / size}


def as_defined(chart: Chart) -> Judgement:
    """The targets that were learned from against those that the settings define."""
    errors, at_ends = chart.tail("doctor/target_error", 3), chart.tail("doctor/end_error", 3)
    if len(errors) < 3:
        return Unjudged("the targets of this algorithm can't be computed again, or too few updates so far")
    most = OFF_IQN if chart.config.algorithm == "iqn" else OFF_NOISY if chart.config.noisy else OFF
    if errors.min() > most:
        return critical(
            f"the targets learned from differ from r + γⁿ max Q(s', a'; θ⁻) by {median(errors):.1%}",
            f"{most:.1%}, three times in a row",
            "the target, the terminal mask or γ of the loss is not what the settings say",
            target_error=float(median(errors)),
        )
    if len(at_ends) == 3 and at_ends.min() > OFF:
        return critical(
            f"the targets at the end of an episode differ from the reward by {median(at_ends):.1%} of a target",
            f"{OFF:.1%}, three times in a row",
            "the loss bootstraps beyond the end",
            "checking that the loss multiplies the next value by the transition's discount, which is 0 there",
            end_error=float(median(at_ends)),
        )
    return None


def network(chart: Chart) -> Judgement:
    """Whether the target network ever follows."""
    config = chart.config
    if config.trace_lambda is not None:
        return Unjudged("the algorithm has no target network")
    if chart.last("doctor/zero_values", 0.0) > 0.5:
        return Unjudged("most values are exactly 0, whatever the weights")
    moved, updates = chart.series("doctor/target_moved"), chart.last("train/n_updates", 0.0)
    if chart.progress >= 0.2 and len(moved) >= 4 and not moved.any() and updates >= 500:
        return critical(
            f"the target network has not changed in {len(moved)} examinations and {updates:,.0f} updates",
            "some change within four examinations and a fifth of the run",
            "it is never updated, or in the wrong direction",
            examinations=float(len(moved)),
            updates=updates,
        )
    return None


@dataclass(frozen=True)
class Stretch:
    """A few examinations within which enough episodes ended to judge by."""

    ended: float  # episodes that ended by themselves
    cut: float  # truncated ones
    of_ended: float  # share of the steps' rows that lead to such an end
    of_cut: float
    held: Floats  # share of terminal rows in the replay at each examination
    due: float  # how many terminal rows should have been among the random ones


def stretches(chart: Chart) -> Iterator[Stretch]:
    """Yield all stretches in which enough episodes ended, the latest first."""
    rows, capacity = chart.config.stored_steps, chart.config.replay_capacity
    ended, cut, steps = (chart.series(f"doctor/{name}") for name in ("terminated", "truncated", "tallied_steps"))
    at, shares = chart.steps("doctor/terminal_rows"), chart.series("doctor/terminal_rows")
    count = min(len(ended), len(cut), len(steps))
    if count < 4 or len(at) < 3:
        return
    forgotten = np.interp(at - capacity, steps[:count], ended[:count], left=0.0)
    due = rows * (np.interp(at, steps[:count], ended[:count]) - forgotten) / np.clip(at, 1, capacity)
    due *= min(RANDOM_ROWS, capacity)
    places = np.searchsorted(at, chart.steps("doctor/tallied_steps"), "right")
    for last in range(count - 1, 2, -1):
        first = max(0, last - RECENT_EXAMS)
        now, by_limit, taken = (float(values[last] - values[first]) for values in (ended, cut, steps))
        part = slice(max(0, places[last] - RECENT_EXAMS), places[last])
        share = rows * (now + by_limit) / max(taken, 1.0)
        if now + by_limit >= 20 and share > 0.01 and taken >= 1000 and len(shares[part]) >= 3:
            yield Stretch(
                now, by_limit, rows * now / taken, rows * by_limit / taken, shares[part], float(due[part].sum())
            )


def terminals(chart: Chart) -> Judgement:
    """The share of stored transitions without bootstrap against the episodes that ended by themselves."""
    stretch = next(stretches(chart), None)
    if stretch is None:
        return Unjudged("too few episodes have ended within a stretch of the run, or no replay")
    ended, cut, shares = stretch.ended, stretch.cut, stretch.held
    if stretch.of_ended > 0.01 and stretch.due > DUE and shares.max() == 0:
        return critical(
            f"{ended:,.0f} episodes ended by themselves, but no transition in the replay was terminal",
            f"about {stretch.of_ended:.1%} of the rows",
            "the terminal flag is lost, so values beyond the end are added to the last reward",
            "checking that `terminated` reaches the replay, and the discount 0 the loss",
            terminal_rows=float(shares.max()),
            expected=stretch.of_ended,
        )
    if stretch.of_cut > 0.01 and stretch.of_ended < 0.1 * stretch.of_cut and median(shares) > 0.3 * stretch.of_cut:
        return warning(
            f"{cut:,.0f} episodes were cut off by a limit and {ended:,.0f} ended, yet {median(shares):.1%} of the "
            "rows are terminal",
            "rows of truncated episodes bootstrap",
            "a limit is stored as an end",
            "returning truncated=True, terminated=False from the environment at its limit",
            terminal_rows=float(median(shares)),
            expected=stretch.of_ended,
        )
    lengths, told = chart.tail("doctor/common_length", 3), chart.tail("doctor/ends_told", 3)
    lately = np.ptp(chart.tail("doctor/terminated", 3)), np.ptp(chart.tail("doctor/truncated", 3))
    all_ended = lately[0] > 0 and lately[1] == 0
    if len(told) == 3 and not told.any() and lengths.min() == lengths.max() >= SHORT and all_ended:
        return warning(
            f"each of the last episodes ended by itself after {lengths[0]:.0f} steps, and no state tells of that",
            f"episodes of several lengths, fewer than {SHORT} steps, or a number of the state that tells the time left",
            "a limit is reported as an end",
            "returning truncated=True, terminated=False from the environment at its limit",
            common_length=float(lengths[0]),
        )
    return None


TARGET_CHECKS = (
    Check(
        "target",
        as_defined,
        "median |y - y'| ÷ median |y'|, y the targets of the last update, y' those computed from the settings; over "
        "all rows, and over those that end an episode",
        "either above 0.5 %, with noisy nets 5 %, with IQN 25 %, three times in a row: critical",
        "a missing γ of 0.99 makes 1 %; sound noisy nets reach 1 % and sound IQN 8 %, as each update draws numbers",
        "algorithms of your own, Munchausen and λ-returns; a wrong reward or transition from the environment",
        "checking the loss: its target, its sign, its discount and what it does at a terminal state",
    ),
    Check(
        "target-network",
        network,
        "whether Q(s, ·; θ⁻) at the probe states changed since the last examination",
        "no change in any of at least four examinations and a fifth of the run: critical",
        "RLExplorer checks the same on the weights",
        "a period that is only too long or too short",
        "--target-update-every '500 updates'",
    ),
    Check(
        "terminals",
        terminals,
        "share of rows with discount 0 against n · (episodes that ended by themselves) ÷ steps",
        "none although more than 1 % are expected, five times in a row: critical; many although nearly all were "
        f"truncated, or the last 20 ended after the same {SHORT} or more steps, in states like others: warning",
        "RLMutation: without the terminal flag CartPole ends at 14 instead of 414",
        "environments that report a limit as an end, if many episodes really end, or states are images",
        "checking that `terminated` reaches the replay, and `truncated` is what the environment returns at its limit",
    ),
)
