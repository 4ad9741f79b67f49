"""What a replay holds, and whether that is diverse."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from nexus.core.figures import figures
from nexus.core.types import Array, Ints
from nexus.data.replay import Replay
from nexus.inspection.saved_replay import AT_ONCE, SavedReplay
from nexus.inspection.words import percent
from nexus.training.config import TrainConfig

__all__ = ["ReplayContents", "contents_of"]

MOST_STATES, MOST_STATE_BYTES = 100_000, 1 << 30  # states that are compared
MOSTLY = 0.95  # share of one action that is worth a sentence


@dataclass(frozen=True)
class ReplayContents:
    """What a replay holds. Rewards are as stored: clipped if the run clips them, and folded over n steps.

    Args:
        steps: steps of the run at the checkpoint.
        rows: transitions held.
        capacity: most that it can hold.
        added: transitions ever stored.
        n_step: steps that a reward is folded over.
        reward_low: the lowest reward.
        reward_high: the highest.
        reward_mean: their mean.
        common_reward: the most common reward.
        other_rewards: share of the rewards that differ from it.
        terminals: share of the rows after which nothing is bootstrapped; None where γ is 0, which looks the same.
        oldest: age of the oldest row, in transitions stored after it; the newest has age 0.
        compared: how many states were compared, evenly spaced over all of them.
        repeats: share of those that equal an earlier one.
        action_shares: `[A]`, share of each action.
    """

    steps: int
    rows: int
    capacity: int
    added: int
    n_step: int
    reward_low: float
    reward_high: float
    reward_mean: float
    common_reward: float
    other_rewards: float
    terminals: float | None
    oldest: int
    compared: int
    repeats: float
    action_shares: tuple[float, ...]

    @property
    def said_of_rewards(self) -> str:
        """Sentences on the rewards."""
        low, high, mean, common = figures(self.reward_low, self.reward_high, self.reward_mean, self.common_reward)
        folded = f", each summed over up to {self.n_step} steps," if self.n_step > 1 else ""
        if self.other_rewards:
            shares = f"{percent(self.other_rewards)} differ from the most common, {common}"
            return f"Rewards{folded} are {low} to {high}, {mean} on average; {shares}."
        only = "" if not self.terminals else ": what tells actions apart is only when episodes end"
        return f"All rewards{folded} are {common}{only}."

    @property
    def said_of_ends(self) -> str:
        """A sentence on terminal rows."""
        if self.terminals is None:
            return "With γ = 0 terminal transitions look like all others."
        if not self.terminals:
            return "No transition is terminal."
        return f"{percent(self.terminals)} of the transitions are terminal."

    @property
    def said_of_states(self) -> str:
        """A sentence on equal states."""
        of = "the states" if self.compared == self.rows else f"{self.compared:,} states, evenly spaced,"
        if not self.repeats:
            return f"No two of {of.removesuffix(',')} are equal."
        return f"{percent(self.repeats)} of {of} equal an earlier one."

    @property
    def said_of_actions(self) -> str:
        """A sentence on the actions."""
        each = ", ".join(f"{action}: {percent(share)}" for action, share in enumerate(self.action_shares))
        most = int(np.argmax(self.action_shares))
        alone = f"; hardly anything but action {most} was tried" if self.action_shares[most] > MOSTLY else ""
        return f"Shares of the actions: {each}{alone if len(self.action_shares) > 1 else ''}."

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "text": str(self)}

    def __str__(self) -> str:
        return (
            f"At step {self.steps:,} the replay holds {self.rows:,} transitions, 0 to {self.oldest:,} transitions old "
            f"(it has room for {self.capacity:,}; {self.added:,} were stored so far). "
            f"{self.said_of_rewards} {self.said_of_ends} {self.said_of_states} {self.said_of_actions}"
        )


def contents_of(saved: SavedReplay, config: TrainConfig) -> ReplayContents | None:
    """Return what a replay holds; None if it is empty."""
    replay, rows = saved.replay, len(saved.replay)
    if not rows:
        return None
    rewards, discounts, actions = (replay.storage.columns[name][:rows] for name in ("rewards", "discounts", "actions"))
    distinct, counts = np.unique(rewards, return_counts=True)
    compared, repeats = repeated(saved)
    return ReplayContents(
        saved.steps,
        rows,
        replay.capacity,
        replay.added,
        config.stored_steps,
        float(distinct[0]),
        float(distinct[-1]),
        float(rewards.mean(dtype=np.float64)),
        float(distinct[counts.argmax()]),
        1 - int(counts.max()) / rows,
        None if config.gamma == 0 else int((discounts == 0).sum()) / rows,
        rows - 1,
        compared,
        repeats,
        tuple((np.bincount(actions, minlength=saved.action_dim) / rows).tolist()),
    )


def repeated(saved: SavedReplay) -> tuple[int, float]:
    """Return how many states were compared, and the share of them that equal one compared before."""
    replay, order = saved.replay, saved.numbers % saved.replay.capacity
    one = states_at(replay, order[:1])
    count = min(len(order), MOST_STATES, max(AT_ONCE, MOST_STATE_BYTES // max(one.nbytes, 1)))
    at = order[np.linspace(0, len(order) - 1, count).astype(np.int64)]
    seen = {
        hash(row.tobytes()) for first in range(0, count, AT_ONCE) for row in states_at(replay, at[first:][:AT_ONCE])
    }
    return count, 1 - len(seen) / count


def states_at(replay: Replay, at: Ints) -> Array:
    """Return the states `[K, *obs]` at places of a replay."""
    batch = replay.gather(torch.from_numpy(at), torch.ones(len(at)))
    states: Array = batch["states"].numpy()
    return states
