"""The steps since the last update, with their λ-returns, for an agent that learns without a replay."""

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
ROLLOUT_COLUMNS = ("states", "actions", "rewards", "discounts", "next_values")

Values = Callable[[Array, Array | None], Array]
"""From states `[K, *obs]` and their legal actions `[K, A]`, or None for all, to state values `[K]`."""


class RolloutBuffer:
    """The transitions since the last update with their λ-returns, sampled in minibatches, reshuffled for each pass.

    Once a rollout is long enough, the first sample closes it: returns are computed along each environment's steps, and
    later transitions belong to the next rollout.

    Args:
        rows: transitions per rollout.
        num_envs: environments `E`. A rollout may be up to `E - 1` transitions short: they are added `E` at a time, or
            fewer if some environments only reset, and the update schedule counts all steps.
        trace_lambda: λ.
        seed: seed of the shuffles, or a generator.
        values: the value of next states, evaluated when their transitions are added.
        unit: the reward that these values are multiples of, asked when a rollout is closed.
    """

    def __init__(
        self,
        rows: int,
        num_envs: int,
        trace_lambda: float,
        seed: int | np.random.Generator,
        values: Values,
        unit: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.capacity = rows
        self.num_envs = num_envs
        self.trace_lambda = trace_lambda
        self.values = values
        self.unit = unit
        self.columns: dict[str, Array] = {}  # of the closed rollout, which updates sample from
        self._rng = np.random.default_rng(seed)
        self._order: NDArray[np.int64] = np.empty(0, np.int64)  # rest of the current pass
        self._begin()

    def _begin(self) -> None:
        """Begin a rollout."""
        self._flags: list[dict[str, Array]] = []  # per vector step: valid rows and episode starts, [1, E]
        self._rows: list[dict[str, Array]] = []  # [K, ...] for each vector step with any
        self._gathered = 0

    def __len__(self) -> int:
        """Rows available to the next updates: 0 until the rollout is long enough."""
        return self._gathered if self._gathered > self.capacity - self.num_envs else 0

    def remember(
        self, states: Array, next_states: Array, begins: NDArray[np.bool_], valid: NDArray[np.bool_]
    ) -> tuple[Array, Array]:
        """Record which environments continue their episodes; return the states unchanged."""
        self._flags.append({"valid": valid[None].copy(), "begins": begins[None].copy()})
        return states, next_states

    def add(self, transitions: Transitions) -> None:
        """Store the transitions of the last remembered vector step, one for each valid row, in order."""
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
        """Do nothing: an open rollout is saved as it is (see `Frames.seal`)."""

    def sample(self, batch_size: int) -> Batch:
        """Return a minibatch of `states`, `actions` and `returns`; each pass visits all rows in a new order.

        Rows left over at the end of a pass, fewer than a minibatch, are reshuffled with the rest.

        Raises:
            ConfigError: no rollout is complete yet.
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
        """Compute the returns of the gathered steps and begin the next rollout."""
        gathered = self._whole()
        valid, begins = gathered["valid"], gathered["begins"]  # [T, E]

        def placed(values: Array) -> NDArray[np.float32]:
            """`[K] -> [T, E]`, 0 where no action was taken."""
            grid = np.zeros(valid.shape, np.float32)
            grid[valid] = values  # row by row, as they were added
            return grid

        goes_on = np.zeros_like(valid)
        goes_on[:-1] = valid[:-1] & valid[1:] & ~begins[1:]
        rewards, discounts, next_values = (placed(gathered[name]) for name in ("rewards", "discounts", "next_values"))
        returns = lambda_returns(rewards / np.float32(self.unit()), discounts, next_values, goes_on, self.trace_lambda)
        self.columns = {"states": gathered["states"], "actions": gathered["actions"], "returns": returns[valid]}
        self._order = np.empty(0, np.int64)
        self._begin()

    def _whole(self) -> dict[str, Array]:
        """Return the steps gathered since the last rollout: flags `[T, E]` and rows `[K, ...]` by name."""
        return {
            name: np.concatenate([part[name] for part in parts])
            for parts in (self._flags, self._rows)
            for name in (parts[0] if parts else ())
        }

    def update_priorities(self, indices: torch.Tensor, priorities: torch.Tensor) -> None:
        """Do nothing: all rows are sampled equally often. The method exists so that the loop needs no special case."""

    def anneal(self, fraction: float) -> None:
        """Do nothing: there is no β."""

    def reward_summary(self) -> dict[str, float]:
        """Return nothing: the rewards are part of the returns."""
        return {}

    def get_state(self) -> State:
        """Return the generator and the open rollout."""
        return {"rng": self._rng.bit_generator.state, **self._whole()}

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned.

        Raises:
            RunError: something is missing or invalid.
        """
        restore_generator(self._rng, state, "rng")
        self.columns, self._order = {}, np.empty(0, np.int64)
        self._begin()
        flags, rows = ({name: state[name] for name in names if name in state} for names in (FLAGS, ROLLOUT_COLUMNS))
        if not flags:
            return
        valid = flags.get("valid", np.empty(0))
        shape = (len(valid), self.num_envs)
        fits = all(name in flags and flags[name].shape == shape and flags[name].dtype == bool for name in FLAGS)
        gathered = int(valid.sum()) if fits else 0
        if not fits or any(len(rows.get(name, ())) != gathered for name in ROLLOUT_COLUMNS):
            raise RunError("the open rollout does not fit: its rows do not match its steps")
        self._flags, self._rows, self._gathered = [flags], [rows] if gathered else [], gathered

    def series(self, state_shape: tuple[int, ...], state_dtype: DTypeLike, action_dim: int) -> tuple[Series, ...]:
        """Return nothing: there is nothing to save in chunks."""
        return ()
