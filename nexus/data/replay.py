"""Experience replay (Lin 1992; Mnih et al. 2015): transitions are stored as rows, and rows are drawn as a batch."""

from collections.abc import Mapping

from numpy.typing import DTypeLike
from torch import Tensor

from nexus.core.errors import ConfigError
from nexus.core.state import Series, State
from nexus.core.types import Array, Batch, Transitions
from nexus.data.protocols import Sampler, Storage, tensor_on

__all__ = ["Replay"]


class Replay:
    """The last `capacity` transitions, kept by a storage and drawn by a sampler.

    It stores no rows and draws no random numbers itself. It has more methods than most classes because three callers
    need it: the loop those up to `anneal`, a whole update (`whole_update.py`) those up to `on_device`, logging and
    checkpoints the rest. Most delegate to the storage or the sampler.

    Args:
        storage: an empty storage.
        sampler: a new sampler for the same number of rows.
    """

    def __init__(self, storage: Storage, sampler: Sampler) -> None:
        self.storage = storage
        self.sampler = sampler
        self.capacity = storage.capacity
        self.device = storage.device

    def __len__(self) -> int:
        return min(self.storage.added, self.capacity)

    def remember(self, states: Array, next_states: Array, begins: Array, valid: Array) -> tuple[Array, Array]:
        """Return the storage's form of the states `[E, *obs]` of a vector step, for the accumulator."""
        return self.storage.remember(states, next_states, begins, valid)

    def add(self, transitions: Transitions) -> None:
        """Store folded transitions, `K` rows at once; of more than `capacity` rows the last ones are kept."""
        if len(transitions):
            first = self.storage.added % self.capacity
            self.storage.write(transitions)
            self.sampler.enter(first, len(transitions))

    def sample(self, batch_size: int) -> Batch:
        """Draw a batch (see `Batch`).

        Raises:
            ConfigError: the replay or the batch is empty.
        """
        indices, weights, instead = self.sampler.pick(self.draw(batch_size), self.storage)
        batch = self.storage.gather(indices, weights)
        return {**batch, **instead} if instead else batch

    def update_priorities(self, indices: Tensor, priorities: Tensor) -> None:
        """Give rows `[B]` new priorities `[B]`; a uniform sampler ignores them."""
        self.sampler.update(indices, priorities)

    def anneal(self, fraction: float) -> None:
        """Update schedules to the progress of the training, from 0 to 1."""
        self.sampler.anneal(fraction)

    def draw(self, batch_size: int) -> Array:
        """Return the random numbers `[B]` for a batch, on the host: the first step of `sample`.

        Raises:
            ConfigError: the replay or the batch is empty.
        """
        size = len(self)
        if size == 0:
            raise ConfigError("can't sample from an empty replay: push a transition first")
        if batch_size < 1:
            raise ConfigError(f"batch_size = {batch_size}: needs at least 1 transition")
        return self.sampler.draw(batch_size, size)

    def pick(self, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows `[B]` and their weights `[B]` for random numbers `[B]`: the second step."""
        indices, weights, _ = self.sampler.pick(draws, self.storage)
        return tensor_on(draws.device, indices), weights

    def gather(self, indices: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """Return the transitions in rows `[B]`, with weights `[B]`: the third step."""
        return self.storage.gather(indices, weights)

    @property
    def reads(self) -> Mapping[str, Tensor]:
        """Tensors on a device that a draw reads; only a restored state replaces them."""
        return self.storage.reads

    @property
    def changes(self) -> Mapping[str, Tensor]:
        """Tensors on a device that `update_priorities` changes."""
        return self.sampler.changes

    @property
    def on_device(self) -> bool:
        """True if a CUDA graph can record `pick`, `gather` and `update_priorities`."""
        return self.storage.on_device and self.sampler.on_device

    @property
    def added(self) -> int:
        """Number of transitions ever stored, including overwritten ones."""
        return self.storage.added

    @property
    def nbytes(self) -> int:
        """Bytes currently used, on the host and on a device."""
        return self.storage.nbytes + self.sampler.nbytes

    def reward_summary(self) -> dict[str, float]:
        """Return the minimum, mean and maximum of the stored (folded) rewards; empty if there are none."""
        if len(self) == 0:
            return {}
        rewards = self.storage.columns["rewards"][: len(self)]
        return {"min": float(rewards.min()), "mean": float(rewards.mean()), "max": float(rewards.max())}

    def seal(self) -> None:
        """Make sure that what is stored now never changes again and can be saved."""
        self.storage.seal()

    def get_state(self) -> State:
        """Return everything except what `series` saves in chunks; call `seal` first."""
        return {**self.storage.get_state(), **self.sampler.get_state(len(self))}

    def set_state(self, state: State) -> None:
        """Restore the result of `get_state`; the `series` must then restore the rest. Raises as the parts do."""
        self.storage.set_state(state)
        self.sampler.set_state(state, len(self))

    def series(self, state_shape: tuple[int, ...], state_dtype: DTypeLike, action_dim: int) -> tuple[Series, ...]:
        """Return what a checkpoint saves in chunks; see `Storage.series`."""
        return self.storage.series(state_shape, state_dtype, action_dim)
