"""Hindsight experience replay (Andrychowicz et al. 2017, https://arxiv.org/abs/1707.01495)."""

from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from nexus.core.errors import EnvError
from nexus.core.state import State, restore_generator
from nexus.core.types import Array, Ints
from nexus.data.episode_index import EpisodeIndex
from nexus.data.folding import Windows
from nexus.data.protocols import Storage, host_array

__all__ = ["GoalSpace", "Hindsight"]

Strategy = Literal["future", "final", "episode"]
COMPARED = 1_000  # steps whose reward is compared with the environment's own


class GoalSpace(Protocol):
    """An environment with goals, in the states that the replay stores."""

    def achieved(self, states: Array) -> Array:
        """Return what states `[K, *obs]` achieved, `[K, *goal]`."""

    def desired(self, states: Array) -> Array:
        """Return the goals of states `[K, *obs]`, `[K, *goal]`."""

    def with_goals(self, states: Array, goals: Array) -> Array:
        """Return states `[K, *obs]` with other goals `[K, *goal]`."""

    def outcomes(self, achieved: Array, desired: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Return the rewards `[K]` float32, as they are learned from, and whether an episode ends there `[K]`.

        Raises:
            EnvError: the environment can't say.
        """


class Hindsight:
    """Gives some of the rows drawn the goal that their episode reached, at one of its steps.

    Rewards and terminations are computed for that goal, at every step of a window, which is then folded up to the
    step that reaches it. What the environment computes must agree with what its `step` returned: the first thousand
    steps drawn are compared.

    Args:
        goals: the environment's goals.
        strategy: `future`: reached at the same or a later step; `final`: at the last; `episode`: at any.
        share: share of the rows that get such a goal, in (0, 1].
        gamma: γ.
        rng: draws rows and goals.
    """

    def __init__(
        self, goals: GoalSpace, strategy: Strategy, share: float, gamma: float, rng: np.random.Generator
    ) -> None:
        self.goals, self.strategy, self.share = goals, strategy, share
        self.gamma = np.float32(gamma)
        self.rng = rng
        self._compared = 0

    def relabel(self, windows: Windows, index: EpisodeIndex, storage: Storage) -> None:
        """Change the states, rewards and discounts of a share of the windows to those of a reached goal, in place.

        Raises:
            EnvError: the environment's rewards or terminations for goals don't agree with those of its steps.
        """
        rows = windows.rows[:, 0]
        chosen = np.flatnonzero(self.rng.random(len(rows)) < self.share)
        parts = self.rng.random(len(rows))[chosen]
        states, next_states = (host_array(part) for part in (windows.states, windows.next_states))
        if self._compared < COMPARED:
            self._compare(windows, next_states)
        if not len(chosen):
            return
        reached = self._reached(rows[chosen], parts, index)
        seen = host_array(storage.gather(reached, torch.ones(len(reached)))["next_states"])
        count, n = len(chosen), windows.rows.shape[1]
        goals = np.repeat(self.goals.achieved(seen), n, 0)  # [count * n, *goal]
        after = in_a_row(next_states[chosen])
        rewards, ended = self.goals.outcomes(self.goals.achieved(after), goals)
        windows.rewards[chosen] = rewards.reshape(count, n)
        windows.discounts[chosen] = np.where(ended, np.float32(0), self.gamma).reshape(count, n)
        for given in (states, next_states):
            given[chosen] = self.goals.with_goals(in_a_row(given[chosen]), goals).reshape(given[chosen].shape)
        windows.states, windows.next_states = (
            torch.from_numpy(given).to(windows.states.device) for given in (states, next_states)
        )

    def _reached(self, rows: Ints, parts: NDArray[np.float64], index: EpisodeIndex) -> Ints:
        """Return the rows `[K]` whose next states are the new goals."""
        if self.strategy == "final":
            return index.last(rows)
        return index.later(rows, parts) if self.strategy == "future" else index.any_of(rows, parts)

    def _compare(self, windows: Windows, next_states: Array) -> None:
        """Compare what the environment says of the goals that steps had with what its `step` returned."""
        after = next_states[windows.there]
        achieved, desired = self.goals.achieved(after), self.goals.desired(after)
        rewards, ended = self.goals.outcomes(achieved, desired)
        given, terminated = windows.rewards[windows.there], windows.discounts[windows.there] == 0
        for says, said, name in (
            (rewards, given, "compute_reward"),
            (ended.astype(np.float32), terminated.astype(np.float32), "compute_terminated"),
        ):
            wrong = np.flatnonzero(~np.isclose(says, said, rtol=1e-4, atol=1e-6))
            if len(wrong):
                at = wrong[0]
                where = f"achieved_goal {achieved[at].tolist()} and desired_goal {desired[at].tolist()}"
                step = "a reward of" if name == "compute_reward" else "terminated ="
                values = (says[at], said[at]) if name == "compute_reward" else (bool(says[at]), bool(said[at]))
                raise EnvError(
                    f"her: {name} returns {values[0]} for {where}, but step returned {step} {values[1]} there: needs "
                    "the same, or rewards of relabelled goals are wrong"
                )
        self._compared += len(after)

    def get_state(self) -> State:
        """Return the generator."""
        return {"rng": self.rng.bit_generator.state}

    def set_state(self, state: State) -> None:
        """Restore the generator.

        Raises:
            RunError: it is missing or not a state of such a generator.
        """
        restore_generator(self.rng, state, "rng")


def in_a_row(windows: Array) -> Array:
    """Return `[K, n, *obs]` as `[K * n, *obs]`."""
    return windows.reshape(-1, *windows.shape[2:])
