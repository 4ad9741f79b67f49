"""A sampler that folds steps when it draws them, so that rewards can depend on the moment at which they are learned.

A bonus for novelty shrinks while an agent learns, and hindsight gives an episode another goal: a return of n steps
that was folded when it was stored could hold neither.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nexus.core.state import State, below, count_from, number_from, part
from nexus.core.types import Array, Ints, Steps
from nexus.data.episode_index import EpisodeIndex
from nexus.data.protocols import NOTHING, ArrayOrTensor, Sampler, Storage, host_array, tensor_on
from nexus.data.single_steps import EPISODE

__all__ = ["Bonus", "FoldingSampler", "Goals", "Windows", "fold"]

CHUNK = 256  # rows that a bonus sees at once, so that those of a long start fit into memory


@dataclass(slots=True)
class Windows:
    """Drawn rows with the steps that follow them, n of each at most."""

    rows: Ints  # [B, n], of which those that aren't there are 0
    there: NDArray[np.bool_]  # [B, n], False after the last step so far of an episode
    states: Tensor  # [B, n, *obs]
    next_states: Tensor  # [B, n, *obs]
    rewards: Array  # [B, n] float32
    discounts: Array  # [B, n] float32, γ, or 0 after a termination


class Bonus(Protocol):
    """A reward for novelty that depends on what was seen and learned so far."""

    @property
    def nbytes(self) -> int:
        """Bytes used."""

    def enter(self, steps: Steps) -> None:
        """See new steps, each once and in order."""

    def of(self, steps: Steps) -> Array:
        """Return the present bonus `[K]` float32 of steps."""

    def learn(self, steps: Steps) -> None:
        """Learn from the steps of a batch, once for each update."""

    def get_state(self, size: int) -> State:
        """Return its state, for `size` rows."""

    def set_state(self, state: State, size: int) -> None:
        """Restore what `get_state` returned.

        Raises:
            RunError: something is missing or invalid.
        """


class Goals(Protocol):
    """Gives drawn rows other goals."""

    def relabel(self, windows: Windows, index: EpisodeIndex, storage: Storage) -> None:
        """Change the states, rewards and discounts of some of the windows to those of another goal, in place."""

    def get_state(self) -> State:
        """Return its generator."""

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned.

        Raises:
            RunError: something is missing or invalid.
        """


class FoldingSampler:
    """Lets another sampler choose rows, and folds each with the n - 1 steps after it, at their present rewards.

    Rows are single steps with the number of their episode (see `SingleSteps`). A row among the last n - 1 of an
    episode, ended or not, is folded with the steps that there are.

    Args:
        chosen_by: chooses the rows and their weights.
        n: the number of rewards to fold.
        goals: relabels some of the rows drawn.
        bonus: adds to the rewards.
    """

    def __init__(self, chosen_by: Sampler, n: int, goals: Goals | None = None, bonus: Bonus | None = None) -> None:
        self.chosen_by, self.n, self.goals, self.bonus = chosen_by, n, goals, bonus
        self.on_device, self.changes = False, NOTHING
        self.index = EpisodeIndex()
        self._entered = 0  # transitions that the bonus has seen
        self._drawn: Steps | None = None  # the last ones, to learn the bonus from
        self.mean_bonus: float | None = None  # of the last batch

    @property
    def nbytes(self) -> int:
        """Bytes used by the sampler, the index of episodes and the bonus."""
        return self.chosen_by.nbytes + self.index.nbytes + (0 if self.bonus is None else self.bonus.nbytes)

    def draw(self, batch_size: int, size: int) -> Array:
        """Return the random numbers `[B]` that choose the rows."""
        return self.chosen_by.draw(batch_size, size)

    def pick(self, draws: ArrayOrTensor, storage: Storage) -> tuple[ArrayOrTensor, Tensor, Mapping[str, Tensor]]:
        """Return rows `[B]`, weights `[B]`, and what folding changes: rewards, discounts, next states and their masks.

        With other goals, `states` too. The column `bonuses` `[B]` has the bonus of each row's first step.
        """
        indices, weights, _ = self.chosen_by.pick(draws, storage)
        self.index.follow(storage)
        self._enter(storage)
        ahead = self.index.ahead(host_array(indices), self.n)
        there, rows = ahead >= 0, np.maximum(ahead, 0)
        batch = storage.gather(rows.ravel(), torch.ones(rows.size))
        states, next_states = (in_windows(batch[name], rows) for name in ("states", "next_states"))
        rewards, discounts = (host_array(batch[name]).reshape(rows.shape) for name in ("rewards", "discounts"))
        windows = Windows(rows, there, states, next_states, rewards, discounts)
        instead: dict[str, Tensor] = {}
        bonuses = None
        if self.bonus is not None:
            steps = steps_in(batch, rows.ravel(), storage)
            bonuses = self.bonus.of(steps).reshape(rows.shape)
            self._drawn = steps.every(self.n)
            instead["bonuses"] = torch.from_numpy(bonuses[:, 0].copy())
            self.mean_bonus = float(bonuses[:, 0].mean())
        if self.goals is not None:
            self.goals.relabel(windows, self.index, storage)
            instead["states"] = windows.states[:, 0]
        learned = windows.rewards if bonuses is None else windows.rewards + bonuses
        folded, ahead_by, last = fold(learned, windows.discounts, there)
        instead |= {"rewards": torch.from_numpy(folded), "discounts": torch.from_numpy(ahead_by)}
        at = torch.from_numpy(last)
        every = torch.arange(len(rows))
        instead["next_states"] = windows.next_states[every, at]
        if "next_action_masks" in batch:
            instead["next_action_masks"] = in_windows(batch["next_action_masks"], rows)[every, at]
        device = storage.device
        return indices, weights, {name: tensor_on(device, column) for name, column in instead.items()}

    def enter(self, first: int, count: int) -> None:
        """Record new rows."""
        self.chosen_by.enter(first, count)

    def update(self, indices: Tensor, priorities: Tensor) -> None:
        """Record new priorities, and let the bonus learn from what was drawn."""
        self.chosen_by.update(indices, priorities)
        if self.bonus is not None and self._drawn is not None:
            self.bonus.learn(self._drawn)
            self._drawn = None

    def anneal(self, fraction: float) -> None:
        """Record the fraction of the training completed."""
        self.chosen_by.anneal(fraction)

    def get_state(self, size: int) -> State:
        """Return the state of all parts; the index of episodes is made from the rows again."""
        state = {**self.chosen_by.get_state(size), "entered": self._entered}
        if self.goals is not None:
            state |= below("goals", self.goals.get_state())
        if self.bonus is not None:
            state |= {"mean_bonus": self.mean_bonus, **below("bonus", self.bonus.get_state(size))}
        return state

    def set_state(self, state: State, size: int) -> None:
        """Restore what `get_state` returned, for `size` rows.

        Raises:
            RunError: something is missing or invalid.
        """
        self.chosen_by.set_state(state, size)
        self.index, self._drawn = EpisodeIndex(), None
        self._entered = count_from(state, "entered")
        if self.goals is not None:
            self.goals.set_state(part(state, "goals"))
        if self.bonus is not None:
            self.bonus.set_state(part(state, "bonus"), size)
            self.mean_bonus = None if state.get("mean_bonus") is None else number_from(state, "mean_bonus")

    def _enter(self, storage: Storage) -> None:
        """Show the bonus the steps stored since the last draw."""
        if self.bonus is None:
            return
        for first in range(max(self._entered, storage.added - storage.capacity), storage.added, CHUNK):
            rows = np.arange(first, min(first + CHUNK, storage.added)) % storage.capacity
            self.bonus.enter(steps_in(storage.gather(rows, torch.ones(len(rows))), rows, storage))
        self._entered = storage.added


def in_windows(column: Tensor, rows: Ints) -> Tensor:
    """Return a column `[B * n, ...]` as `[B, n, ...]`."""
    return column.reshape(*rows.shape, *column.shape[1:])


def steps_in(batch: Mapping[str, Tensor], rows: Ints, storage: Storage) -> Steps:
    """Return the steps in rows `[K]`, which a storage has gathered."""
    episodes = storage.columns[EPISODE][rows]
    return Steps(rows, episodes, batch["states"], batch["actions"], batch["next_states"])


def fold(rewards: Array, discounts: Array, there: NDArray[np.bool_]) -> tuple[Array, Array, Ints]:
    """Fold windows of steps: Σ γ^i r_i up to a termination or the last step there is.

    In the order of `NStepAccumulator`, so that both give the same bits.

    Args:
        rewards: `[B, n]` float32.
        discounts: `[B, n]` float32, γ, or 0 after a termination.
        there: `[B, n]`, False after the last step.

    Returns:
        The folded rewards `[B]`, the discounts `[B]`: γ^k or 0, and the place of the last step folded `[B]`.
    """
    total, factor = np.zeros(len(rewards), np.float32), np.ones(len(rewards), np.float32)
    last = np.zeros(len(rewards), np.int64)
    goes_on = np.ones(len(rewards), bool)
    for place in range(rewards.shape[1]):
        goes_on = goes_on & there[:, place]
        total += np.where(goes_on, factor * rewards[:, place], np.float32(0))
        factor = np.where(goes_on, factor * discounts[:, place], factor)
        last[goes_on] = place
        goes_on &= discounts[:, place] > 0
    return total, factor, last
