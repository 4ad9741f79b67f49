"""What is learned from: whether batches are what was stored, and rows what was played; how much the replay holds."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from nexus.core.types import Array
from nexus.data.replay import Replay
from nexus.doctor.chart import Chart
from nexus.doctor.check import Check
from nexus.doctor.exam import Exam
from nexus.doctor.symptom import Judgement, Unjudged, critical, slight, warning
from nexus.training.config import TrainConfig

__all__ = ["STORAGE_CHECKS", "storage_measures"]

MANY_EPISODES, FEW_EPISODES = 8, 3  # episodes in a batch
ONE_STATE = 0.01  # share of different states below which an environment counts as one of a single state
COLUMNS = ("states", "actions", "rewards", "discounts", "next_states")


def storage_measures(exam: Exam) -> Mapping[str, float]:
    """Return the numbers that describe replay and batches."""
    values: dict[str, float] = {}
    if exam.newest:
        states, following = (as_vectors(exam.newest[name]) for name in ("states", "next_states"))
        values["unchanged"] = float((states == following).all(1).mean())
        values["chained"] = chained(states, following, exam)
    if exam.taken is not None and "indices" in exam.taken.batch and isinstance(exam.replay, Replay):
        batch = exam.taken.batch
        drawn = batch["indices"].cpu().numpy()
        values["most_drawn"] = float(np.bincount(drawn).max() / len(drawn))
        weights = batch["weights"].float()
        values["weights_used"] = float(weights.sum() ** 2 / (len(weights) * weights.square().sum() + 1e-12))
        values["altered_rows"] = altered(exam)
        values |= origins(exam.replay, drawn, exam.config.num_envs, exam.tally.lengths)
    return values


def origins(replay: Replay, drawn: Array, num_envs: int, lengths: Sequence[int]) -> Mapping[str, float]:
    """Return where a batch is from: the mean age of its rows in steps, and from how many episodes, about.

    Two rows count as of one episode if the same sub-environment played them within one episode's mean length.

    Args:
        replay: the replay.
        drawn: `[B]`, places in it.
        num_envs: sub-environments, whose rows take turns.
        lengths: of the last episodes in steps; without any only the age is returned.
    """
    ages = (replay.added - 1 - drawn) % replay.capacity
    values = {"batch_age": float(ages.mean())}
    if lengths:
        episodes = ages // num_envs // max(float(np.mean(lengths)), 1.0)
        values["batch_episodes"] = float(len({*zip(ages % num_envs, episodes, strict=True)}))
    return values


def as_vectors(states: Tensor) -> Array:
    """`[K, *obs]` to `[K, D]` in main memory."""
    values: Array = states.cpu().numpy().reshape(len(states), -1)
    return values


def chained(states: Array, following: Array, exam: Exam) -> float:
    """Return the share of newest rows whose next state is a state of a newer row, of those that could be."""
    config = exam.config
    first = (
        len(states) - config.num_envs * config.stored_steps * 2
    )  # the next states of the last ones are not stored yet
    goes_on = (exam.newest["discounts"] != 0).cpu().numpy()[: max(first, 0)]
    if goes_on.sum() < 16:
        return float("nan")
    known = {row.tobytes() for row in states}
    found = [row.tobytes() in known for row in following[: len(goes_on)][goes_on]]
    return float(np.mean(found))


def altered(exam: Exam) -> float:
    """Return the share of the last batch's rows that are not what the replay holds in their place."""
    assert exam.taken is not None
    assert isinstance(exam.replay, Replay)
    batch = exam.taken.batch
    held = exam.replay.gather(batch["indices"], batch["weights"])
    differs = torch.zeros(len(batch["indices"]), dtype=torch.bool)
    for name in as_held(exam.config):
        if name in batch and name in held and batch[name].shape == held[name].shape:
            differs |= (
                (batch[name].cpu() != held[name].cpu())
                .flatten(1 if batch[name].ndim > 1 else 0)
                .reshape(len(differs), -1)
                .any(1)
            )
    return float(differs.float().mean())


def as_held(config: TrainConfig) -> tuple[str, ...]:
    """Return the columns that a batch has as the replay holds them."""
    if config.her is not None:
        return ("actions",)
    return ("actions", "states") if config.folds_when_drawn else COLUMNS


def as_stored(chart: Chart) -> Judgement:
    """The last batches against the rows of the replay."""
    shares = chart.tail("doctor/altered_rows", 3)
    if len(shares) < 3:
        return Unjudged("no replay, or too few updates")
    if shares.min() <= 0.2:
        return None
    return critical(
        f"{shares.mean():.0%} of the rows of the last batches are not what the replay holds in their place",
        "20 %, three times in a row",
        "batches are mixed up between the replay and the loss",
        altered_rows=float(shares.mean()),
    )


def as_played(chart: Chart) -> Judgement:
    """Whether each next state is where a later row goes on, and whether steps change the state at all."""
    links, same = chart.tail("doctor/chained", 3), chart.tail("doctor/unchanged", 3)
    if len(same) < 3:
        return Unjudged("no replay, or too few examinations")
    if same.min() > 0.95 and chart.last("doctor/distinct_states", 1.0) < ONE_STATE:
        return slight(
            "the environment has hardly more than one state",
            f"{ONE_STATE:.1%} different states among the newest rows",
            "it is a bandit, or its observation never changes",
            "nothing, if that is meant; else `nexus check` on the environment",
            unchanged=float(same.mean()),
        )
    if same.min() > 0.95:
        return critical(
            f"{same.mean():.0%} of the transitions have the same state before and after the step",
            "95 %, three times in a row",
            "the state is not advanced: the old observation is stored again, or the environment does not react",
            unchanged=float(same.mean()),
        )
    cut = chart.config.stored_steps * chart.last("doctor/truncated", 0.0) / chart.last("doctor/tallied_steps", 1.0)
    expected = 1 - cut  # from the last state of a truncated episode nothing goes on
    if len(links) == 3 and expected > 0.2 and links.max() < 0.5 * expected:
        return critical(
            f"only {links.mean():.0%} of the stored next states are states from which a later row goes on",
            f"half of {expected:.0%}, on one of three examinations",
            "next states do not belong to their states",
            "checking the observations that the environment and its wrappers return",
            chained=float(links.mean()),
        )
    return None


def episodes_held(chart: Chart) -> Judgement:
    """How many episodes the replay holds."""
    config, length = chart.config, chart.last("rollout/ep_len_mean")
    if config.trace_lambda is not None or not np.isfinite(length) or not chart.holds("rollout/ep_len_mean", 3):
        return Unjudged("no replay, or no finished episodes")
    episodes = config.replay_capacity / max(length, 1.0)
    if config.replay_capacity >= chart.step or episodes >= 10:
        return None
    say = warning if episodes < 5 else slight
    return say(
        f"the replay holds {config.replay_capacity:,} transitions, {episodes:.1f} episodes of {length:.0f} steps",
        "10 episodes: note; 5: warning",
        "batches are correlated, and what was learned early is forgotten",
        f"--replay-capacity {max(100_000, int(50 * length)):,}".replace(",", "_"),
        episodes=episodes,
        ep_len_mean=length,
    )


def batch_origins(chart: Chart) -> Judgement:
    """From how many episodes a batch is."""
    counts, size = chart.tail("doctor/batch_episodes", 3), chart.config.batch_size
    if chart.progress < 0.2 or len(counts) < 3 or size < MANY_EPISODES:
        return Unjudged("too early, no replay, no finished episodes, or small batches")
    if counts.max() >= MANY_EPISODES:
        return None
    say, age = warning if counts.max() < FEW_EPISODES else slight, chart.last("doctor/batch_age")
    return say(
        f"the {size} rows of a batch are from about {counts.mean():.0f} episodes, and {age:,.0f} steps old on average",
        f"{MANY_EPISODES} episodes: note; {FEW_EPISODES}: warning; three times in a row",
        "the rows of a batch are correlated",
        f"--replay-capacity {max(100_000, int(50 * chart.last('rollout/ep_len_mean', 0))):,}".replace(",", "_"),
        batch_episodes=float(counts.mean()),
        batch_age=age,
    )


def priority_use(chart: Chart) -> Judgement:
    """Whether prioritized batches draw the same row again and again."""
    drawn, used = chart.tail("doctor/most_drawn", 3), chart.tail("doctor/weights_used", 3)
    if not chart.config.prioritized or len(drawn) < 3:
        return Unjudged("no prioritized replay")
    if drawn.min() <= 0.25 and used.max() >= 0.1:
        return None
    return warning(
        f"one transition makes up {drawn.mean():.0%} of a batch, and the weights count like {used.mean():.0%} of it",
        "25 % and 10 %, three times in a row",
        "a few priorities outweigh all others",
        most_drawn=float(drawn.mean()),
        weights_used=float(used.mean()),
    )


STORAGE_CHECKS = (
    Check(
        "batch",
        as_stored,
        "share of the last batch's rows that differ from the replay's rows with the same indices",
        "above 20 % three times in a row: critical",
        "there is no reason to differ; rows that a device overwrites at that moment may",
        "rows that were wrong when they were stored",
        "checking what happens to a batch after it is sampled",
    ),
    Check(
        "transitions",
        as_played,
        "share of the newest rows with equal states before and after, and whose next state is a later row's state",
        "above 95 %, or below half of what truncated episodes leave, three times in a row: critical",
        "RLMutation: shuffled or repeated observations end at 9 to 145 on CartPole instead of 414",
        "wrong rewards; rows that are mixed up within one environment's future",
        "`nexus check` on the environment; an observation must be a new array after each step",
    ),
    Check(
        "replay-size",
        episodes_held,
        "replay capacity ÷ mean episode length, once the replay is full",
        "below 10 episodes: note; below 5: warning",
        "a first choice; RL Zoo's settings hold 50 and more",
        "a replay that is too large",
        "--replay-capacity of fifty episodes, at least 100_000",
    ),
    Check(
        "batch-episodes",
        batch_origins,
        "episodes that the last batch is from: rows of one sub-environment within a mean length count as one",
        f"below {MANY_EPISODES}: note; below {FEW_EPISODES}: warning; three times in a row after a fifth of the run",
        "a first choice; the age of the rows has no known threshold and is only logged",
        "batches smaller than that; rows of different episodes that are alike",
        "--replay-capacity of fifty episodes, at least 100_000",
    ),
    Check(
        "priorities",
        priority_use,
        "largest share of one row in the last batch, and (Σw)² ÷ (B Σw²)",
        "above 25 %, or below 10 %, three times in a row: warning",
        "a first choice",
        "priorities that are stale",
        "--priority-exponent 0.4, or --reward-clip 1",
    ),
)
