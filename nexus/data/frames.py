"""A storage for stacked frames that keeps each frame once (Mnih et al. 2015).

The accumulator and the rows handle frame numbers, one per state; a batch turns them back into stacks. Folding, sampling
and overwriting therefore know nothing of frames.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from nexus.core.errors import ConfigError, RunError
from nexus.core.state import Series, State, below, count_from, part
from nexus.core.types import Array, Transitions
from nexus.data.device_records import DeviceRecords
from nexus.data.film import Film
from nexus.data.frame_store import Kind, load_zstandard
from nexus.data.memory import CPU
from nexus.data.protocols import NOTHING, ArrayOrTensor
from nexus.data.rows import Rows

__all__ = ["Frames"]


class Frames:
    """The last `capacity` transitions between stacks of frames, with each frame stored once.

    Args:
        capacity: transitions kept; the oldest is overwritten.
        kind: `raw` frames, `compressed` to about a hundredth, or raw on the `device`, which also gathers batches.
        n_step: most steps that a transition spans.
        like: example states `[E, S, *frame]`, for their shape and dtype; None takes the first ones. Needed to
            restore a state.
        device: the network's device; used only by the kind `device`.

    Raises:
        ConfigError: zstandard is missing; (from `remember`) states are not such stacks, or memory is too small.
    """

    def __init__(
        self,
        capacity: int,
        kind: Kind = "compressed",
        n_step: int = 1,
        like: Array | None = None,
        device: torch.device = CPU,
    ) -> None:
        if kind != "raw":
            load_zstandard()
        self.capacity = capacity
        self.on_device = kind == "device"
        self.device = device if self.on_device else CPU
        self._rows = Rows(capacity)
        self._like = like
        self._new_film: Callable[[Array], Film] = lambda like: Film(like, kind, capacity, n_step, device)
        self._film: Film | None = None  # both known from the first states on
        self._records: DeviceRecords | None = None  # for the kind `device` only

    @property
    def added(self) -> int:
        """Number of transitions ever written, including overwritten ones."""
        return self._rows.added

    @property
    def columns(self) -> Mapping[str, Array]:
        """The columns of the rows, `[capacity, ...]` by name; states are frame numbers."""
        return self._rows.columns

    @property
    def reads(self) -> Mapping[str, Tensor]:
        """The tensors that `gather` reads on a device."""
        return NOTHING if self._records is None else self._records.tensors

    @property
    def nbytes(self) -> int:
        """Bytes currently used by rows and frames, on the host and on the device."""
        return sum(part.nbytes for part in (self._rows, self._film, self._records) if part is not None)

    def remember(
        self, states: Array, next_states: Array, begins: NDArray[np.bool_], valid: NDArray[np.bool_]
    ) -> tuple[Array, Array]:
        """Store the new frames of one vector step; see `Film.append`."""
        film = self._film if self._film is not None else self._begin(states)
        return film.append(states, next_states, begins, valid)

    def write(self, transitions: Transitions) -> None:
        """Write transitions whose states are numbers `[K]`; drop frames that are no longer needed."""
        film, first = self._film, self.added
        assert film is not None
        self._rows.write(transitions)
        film.needed(transitions.states)
        if self.added >= self.capacity:
            film.forget(int(self._rows.columns["next_states"][self.added % self.capacity]))
        self._record(first, self.added)

    def gather(self, indices: ArrayOrTensor, weights: Tensor) -> dict[str, Tensor]:
        """Return the transitions in these rows `[B]`, with stacks instead of frame numbers."""
        if self._records is not None:
            return self._records.gather(indices, weights)
        film = self._film
        assert film is not None
        batch = self._rows.gather(indices, weights)
        states = film.states(np.concatenate([batch["states"].numpy(), batch["next_states"].numpy()]))
        batch["states"], batch["next_states"] = states[: len(indices)], states[len(indices) :]
        return batch

    def seal(self) -> None:
        """Close every open group of frames, so that stored frames never change again and can be saved."""
        if self._film is not None:
            self._film.seal()

    def get_state(self) -> State:
        """Return everything but the rows and the frames, which are `series`; call `seal` first."""
        frames = {"opened": 0, "released": 0, "lag": 0} if self._film is None else self._film.get_state()
        return {**self._rows.get_state(), **below("frames", frames)}

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned; the `series` must then restore frames and rows.

        Raises:
            ConfigError: memory is too small.
            RunError: something is missing or invalid.
        """
        self._rows.set_state(state)
        frames = part(state, "frames")
        opened = count_from(frames, "opened")
        released, lag = count_from(frames, "released", 0, opened), count_from(frames, "lag", 0, opened)
        self._film = self._records = None  # freed first: old and new together may not fit
        if opened:
            if self._like is None:
                raise ConfigError("a replay of frames can restore a state only if it was made with like=")
            self._begin(self._like).restart(opened, released, lag)

    def series(self, state_shape: tuple[int, ...], state_dtype: DTypeLike, action_dim: int) -> tuple[Series, ...]:
        """Return what a checkpoint saves in chunks: groups of frames, then the rows, whose states are numbers."""
        (rows,) = self._rows.series((), np.int64, action_dim)

        def put(first: int, last: int, wanted: int, columns: Mapping[str, Array]) -> None:
            for name in ("states", "next_states"):
                numbers = columns.get(name, np.empty(0))
                fits = numbers.shape == (last - first,) and numbers.dtype == np.int64
                if not fits or self._film is None or not self._film.index.holds(numbers[wanted - first :]):
                    raise RunError(f"its {name} are not numbers of stored frames")
            rows.put(first, last, wanted, columns)
            self._record(wanted, last)

        none = Series("frames", 0, 0, 0, 1, lambda first, last: {}, lambda *given: None)
        return none if self._film is None else self._film.series(), replace(rows, put=put)

    def _begin(self, like: Array) -> Film:
        """Allocate the film for states like these, `[E, S, *frame]`."""
        self._film = self._new_film(like)
        self._records = DeviceRecords(self.capacity, self._film, self.device) if self.on_device else None
        return self._film

    def _record(self, first: int, last: int) -> None:
        """Write the records of transitions number `first` to `last - 1` to the device."""
        first = max(first, last - self.capacity)
        if self._records is not None and first < last:
            self._records.write(first, self._rows.copied(first, last))
