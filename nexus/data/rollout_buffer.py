"""What was played since the last update, with its λ-returns: the memory of an agent that learns without a replay."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from nexus.core.errors import ConfigError, RunError
from nexus.core.state import Series, State, restore_generator
from nexus.core.types import Array, Batch, Transitions
from nexus.data.returns import lambda_returns

__all__ = ["RolloutBuffer", "Values"]

FLAGS = ("valid", "begins")
ROWS = ("states", "actions", "rewards", "discounts", "next_values")

Values = Callable[[Array, Array | None], Array]
"""From states `[K, *obs]` and the legal actions in them `[K, A]`, or None for all, to what they are worth `[K]`."""


class RolloutBuffer:
    """The transitions since the last update, each with its λ-return, in minibatches of one random order after another.

    The first sample of a rollout that has grown long enough closes it: returns are computed along each environment's
    steps, and what is added from then on belongs to the next one.

    Args:
        rows: transitions that make a rollout.
        num_envs: environments `E`. A rollout may lack as many transitions, less one: they are added `E` at a time, or
            fewer where some environments only reset, and updates are due by the count of all.
        trace_lambda: λ.
        seed: of the order, or the generator itself.
        values: what a next state is worth, asked when its transition is added.
    """

    def __init__(
        self, rows: int, num_envs: int, trace_lambda: float, seed: int | np.random.Generator, values: Values
    ) -> None:
        self.capacity = rows
        self.num_envs = num_envs
        self.trace_lambda = trace_lambda
        self.values = values
        self.columns: dict[str, Array] = {}  # of the rollout that is learned from
        self._rng = np.random.default_rng(seed)
        self._order: NDArray[np.int64] = np.empty(0, np.int64)  # what is left of the present pass
        self._begin()

    def _begin(self) -> None:
        """Begin a rollout."""
        self._flags: list[dict[str, Array]] = []  # for each vector step what is valid, and where episodes begin, [1, E]
        self._rows: list[dict[str, Array]] = []  # [K, ...] for each vector step that has any
        self._gathered = 0

    def __len__(self) -> int:
        """Rows that the next updates learn from: none while they are too few."""
        return self._gathered if self._gathered > self.capacity - self.num_envs else 0

    def remember(
        self, states: Array, next_states: Array, begins: NDArray[np.bool_], valid: NDArray[np.bool_]
    ) -> tuple[Array, Array]:
        """Note which environments go on where they were; return the states as they are."""
        self._flags.append({"valid": valid[None].copy(), "begins": begins[None].copy()})
        return states, next_states

    def add(self, transitions: Transitions) -> None:
        """Store the transitions of the vector step that was remembered last, one for each valid row, in its order."""
        if not len(transitions):
            return
        self._rows.append(
            {
                "states": transitions.states,
                "actions": transitions.actions,
                "rewards": transitions.rewards,
                "discounts": transitions.discounts,
                "next_values": self.values(transitions.next_states, transitions.next_action_masks),
            }
        )
        self._gathered += len(transitions)

    def seal(self) -> None:
        """Do nothing: a rollout under way is saved as it is (see `Frames.seal`)."""

    def sample(self, batch_size: int) -> Batch:
        """Return a minibatch of `states`, `actions` and `returns`; each pass goes through all rows in a new order.

        Rows that are left over at the end of a pass, fewer than a minibatch, wait for another order.

        Raises:
            ConfigError: there has been no whole rollout yet.
        """
        if len(self):
            self._close()
        rows = len(self.columns.get("actions", ()))
        if not rows:
            raise ConfigError(f"can't sample from a rollout of {self._gathered}: needs {self.capacity} transitions")
        if len(self._order) < min(batch_size, rows):
            self._order = self._rng.permutation(rows)
        picked, self._order = self._order[:batch_size], self._order[batch_size:]
        batch = {name: torch.from_numpy(values.take(picked, axis=0)) for name, values in self.columns.items()}
        return {**batch, "weights": torch.ones(len(picked)), "indices": torch.from_numpy(picked)}

    def _close(self) -> None:
        """Compute the returns of what was gathered, and begin anew."""
        gathered = self._whole()
        valid, begins = gathered["valid"], gathered["begins"]  # [T, E]

        def placed(values: Array) -> NDArray[np.float32]:
            """`[K] -> [T, E]`, 0 where nothing was decided."""
            grid = np.zeros(valid.shape, np.float32)
            grid[valid] = values  # row after row, as they were added
            return grid

        goes_on = np.zeros_like(valid)
        goes_on[:-1] = valid[:-1] & valid[1:] & ~begins[1:]
        rewards, discounts, next_values = (placed(gathered[name]) for name in ("rewards", "discounts", "next_values"))
        returns = lambda_returns(rewards, discounts, next_values, goes_on, self.trace_lambda)
        self.columns = {"states": gathered["states"], "actions": gathered["actions"], "returns": returns[valid]}
        self._order = np.empty(0, np.int64)
        self._begin()

    def _whole(self) -> dict[str, Array]:
        """Return what was gathered since the last rollout: flags `[T, E]` and rows `[K, ...]` by name."""
        return {
            name: np.concatenate([part[name] for part in parts])
            for parts in (self._flags, self._rows)
            for name in (parts[0] if parts else ())
        }

    def update_priorities(self, indices: torch.Tensor, priorities: torch.Tensor) -> None:
        """Do nothing: each row is learned from as often. The method is here so that the loop need not ask."""

    def anneal(self, fraction: float) -> None:
        """Do nothing, likewise."""

    def reward_summary(self) -> dict[str, float]:
        """Return nothing: rewards are in the returns."""
        return {}

    def get_state(self) -> State:
        """Return the generator, and the rollout that is under way."""
        return {"rng": self._rng.bit_generator.state, **self._whole()}

    def set_state(self, state: State) -> None:
        """Take back what `get_state` gave.

        Raises:
            RunError: something is missing or impossible.
        """
        restore_generator(self._rng, state, "rng")
        self.columns, self._order = {}, np.empty(0, np.int64)
        self._begin()
        flags, rows = ({name: state[name] for name in names if name in state} for names in (FLAGS, ROWS))
        if not flags:
            return
        valid = flags.get("valid", np.empty(0))
        shape = (len(valid), self.num_envs)
        fits = all(name in flags and flags[name].shape == shape and flags[name].dtype == bool for name in FLAGS)
        gathered = int(valid.sum()) if fits else 0
        if not fits or any(len(rows.get(name, ())) != gathered for name in ROWS):
            raise RunError("the rollout under way does not fit: its rows are not those that its steps have")
        self._flags, self._rows, self._gathered = [flags], [rows] if gathered else [], gathered

    def series(self, state_shape: tuple[int, ...], state_dtype: DTypeLike, action_dim: int) -> tuple[Series, ...]:
        """Return nothing that would have to be saved in chunks."""
        return ()
