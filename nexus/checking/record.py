"""Running statistics of an environment's steps: states, rewards, ends, legal actions."""

import math
from collections import Counter

import numpy as np

from nexus.checking.sight import Sight
from nexus.core.types import Array
from nexus.envs.stream import Step

__all__ = ["Choices", "Episodes", "Record", "Rewards", "StateRanges"]

ROWS_KEPT, MOST_NUMBERS = 1_000, 512  # states whose single numbers are kept, and the most numbers per state
DISTINCT = 1_000  # distinct rewards that are counted


class Record:
    """Everything recorded about a number of steps.

    Args:
        num_envs: environments `E` that are stepped together.
        sight: the environments as nexus sees them.
    """

    def __init__(self, num_envs: int, sight: Sight) -> None:
        self.steps = 0
        self.states = StateRanges(sight)
        self.rewards = Rewards()
        self.episodes = Episodes(num_envs)
        self.choices = Choices(sight.action_dim)

    def add(self, step: Step) -> None:
        """Record one vector step; rows where an environment only reset are skipped."""
        self.steps += int(step.valid.sum())
        self.states.add(step)
        self.rewards.add(step)
        self.episodes.add(step)
        self.choices.add(step)


class StateRanges:
    """The range of each number of a state, how often a step changed nothing, and the single numbers of some states.

    Args:
        sight: the environment as nexus sees it.
    """

    def __init__(self, sight: Sight) -> None:
        self.sight = sight
        self.low: Array = np.empty(0)  # [n]
        self.high: Array = np.empty(0)
        self.unchanged = 0
        self.rows: list[Array] = []  # [singles] each

    def add(self, step: Step) -> None:
        """Record states and next states."""
        if not step.valid.any():
            return
        states, following = (self.sight.numbers(found[step.valid]) for found in (step.states, step.next_states))
        low, high = (reach((reach(states, axis=0), reach(following, axis=0)), axis=0) for reach in (np.min, np.max))
        if len(self.low):
            low, high = np.minimum(self.low, low), np.maximum(self.high, high)
        self.low, self.high = low, high
        self.unchanged += int((states == following).all(1).sum())
        if len(self.rows) < ROWS_KEPT and 1 < len(self.sight.singles) <= MOST_NUMBERS:
            self.rows.extend(following[:, self.sight.singles])

    @property
    def changing(self) -> Array:
        """`[n]`, True where a number had more than one value."""
        return np.asarray(self.low != self.high)

    def duplicates(self) -> list[tuple[int, int]]:
        """Return the indices of single numbers that were equal in all rows, in pairs; not of constant ones."""
        if len(self.rows) < 2:
            return []
        first: dict[bytes, int] = {}
        pairs = []
        for index, column in zip(self.sight.singles.tolist(), np.stack(self.rows).T, strict=True):
            if (column == column[0]).all():
                continue
            earlier = first.setdefault(column.tobytes(), index)
            if earlier != index:
                pairs.append((earlier, index))
        return pairs


class Rewards:
    """The rewards: their range, and how often each occurred."""

    def __init__(self) -> None:
        self.counts: Counter[float] = Counter()
        self.low, self.high, self.total = math.inf, -math.inf, 0.0
        self.count = self.other_than_zero = 0

    def add(self, step: Step) -> None:
        """Record the rewards."""
        rewards = step.rewards[step.valid].astype(np.float64).tolist()
        for reward in rewards:
            if reward in self.counts or len(self.counts) < DISTINCT:
                self.counts[reward] += 1
            self.low, self.high = min(self.low, reward), max(self.high, reward)
            self.total += reward
            self.other_than_zero += reward != 0
        self.count += len(rewards)

    @property
    def mean(self) -> float:
        """The mean reward of a step."""
        return self.total / self.count if self.count else math.nan

    @property
    def largest(self) -> float:
        """The largest absolute reward."""
        return max(abs(self.low), abs(self.high)) if self.count else 0.0


class Episodes:
    """Lengths, returns and kinds of end of the episodes that ended.

    Args:
        num_envs: environments that are stepped together.
    """

    def __init__(self, num_envs: int) -> None:
        self.lengths: list[int] = []
        self.returns: list[float] = []
        self.ends: Counter[str] = Counter()  # terminated, truncated, both
        self.running: Array = np.zeros((2, num_envs))  # length and return of those in progress

    def add(self, step: Step) -> None:
        """Record rewards and ends."""
        self.running += np.where(step.valid, np.stack([np.ones(len(step.rewards)), step.rewards]), 0.0)
        for env in np.flatnonzero((step.terminated | step.truncated) & step.valid):
            length, total = self.running[:, env].tolist()
            self.lengths.append(int(length))
            self.returns.append(total)
            both = step.terminated[env] and step.truncated[env]
            self.ends["both" if both else "terminated" if step.terminated[env] else "truncated"] += 1
            self.running[:, env] = 0.0


class Choices:
    """The actions taken, and how many were legal.

    Args:
        action_dim: number of actions `A`.
    """

    def __init__(self, action_dim: int) -> None:
        self.taken: Array = np.zeros(action_dim, np.int64)
        self.masked = 0  # states with a mask
        self.legal: Counter[int] = Counter()  # legal actions in such a state

    def add(self, step: Step) -> None:
        """Record actions and masks."""
        np.add.at(self.taken, step.actions[step.valid], 1)
        if step.action_masks is not None:
            legal = step.action_masks[step.valid].sum(1).tolist()
            self.legal.update(map(int, legal))
            self.masked += len(legal)
