"""Records of each row on a device, so that batches are gathered there and never pass through main memory.

The host does the bookkeeping: which frames exist, which rows need them, what a checkpoint saves.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nexus.core.types import Array
from nexus.data.film import Film
from nexus.data.frame_store import DeviceFrames
from nexus.data.protocols import ArrayOrTensor, tensor_on
from nexus.data.row_checks import TRANSITION_COLUMNS
from nexus.data.rows import pieces

__all__ = ["DeviceRecords"]


class DeviceRecords:
    """A record of each row, next to the frames of a film: frame locations, action, reward, discount, legal actions.

    `gather` consists of asynchronous operations on tensors of fixed shapes, so that a CUDA graph can record it.

    Args:
        capacity: number of rows.
        film: the film, whose frames are on the device.
        device: that device.
    """

    def __init__(self, capacity: int, film: Film, device: torch.device) -> None:
        assert isinstance(film.store, DeviceFrames)
        self.device = device
        self._capacity = capacity
        self._film = film
        self._store = film.store
        self._records = torch.empty(0)  # [capacity, R] int32, from the first rows on
        self._extras: dict[str, Tensor] = {}  # [capacity, ...] by name, likewise

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that `gather` reads."""
        return {"frames": self._store.frames, "records": self._records, **self._extras}

    @property
    def nbytes(self) -> int:
        """Bytes of all records."""
        return self._records.nbytes + sum(values.nbytes for values in self._extras.values())

    def write(self, first: int, rows: Mapping[str, Array]) -> None:
        """Write the records of rows `[K]` from number `first` on, at most `capacity` of them."""
        records = self._records_of(rows)
        extras = {name: values for name, values in rows.items() if name not in TRANSITION_COLUMNS}
        if not len(self._records):
            self._records = self._room(records.astype(np.int32))
            self._extras = {name: self._room(values) for name, values in extras.items()}
        for at, part in pieces(first, len(records), self._capacity):
            self._records[at].copy_(torch.from_numpy(records[part]), non_blocking=True)
            for name, values in extras.items():
                self._extras[name][at].copy_(torch.from_numpy(values[part]), non_blocking=True)

    def gather(self, indices: ArrayOrTensor, weights: Tensor) -> dict[str, Tensor]:
        """Return the transitions in these rows `[B]`, with weights `[B]` chosen by the caller."""
        rows = tensor_on(self.device, indices)
        shape, dtype = self._film.state_shape, self._film.state_dtype
        records = self._records.index_select(0, rows)  # [B, R]
        places, records = records[:, : 2 * shape[0]], records[:, 2 * shape[0] :]
        both = places.view(len(rows), 2, shape[0]).transpose(0, 1).reshape(-1)  # all states, then all next states
        states = self._store.frames.index_select(0, both).view(dtype).view(2, len(rows), *shape)
        numbers = records[:, 1:3].contiguous().view(torch.float32)
        batch = {"states": states[0], "actions": records[:, 0].long()}
        batch |= {"rewards": numbers[:, 0], "discounts": numbers[:, 1], "next_states": states[1]}
        if records.shape[1] > 3:
            masks = records[:, 3:].bool().chunk(2, 1)
            batch |= {"action_masks": masks[0], "next_action_masks": masks[1]}
        batch |= {name: values.index_select(0, rows) for name, values in self._extras.items()}
        return {**batch, "weights": tensor_on(self.device, weights), "indices": rows}

    def _records_of(self, rows: Mapping[str, Array]) -> NDArray[np.int32]:
        """Return the records of rows `[K]` as 32-bit integers, with floats stored as their bits.

        The frame locations of both stacks come first, then action, reward, discount, and both masks if any.
        """
        places = [self._places(rows[name]) for name in ("states", "next_states")]  # [K, S] each
        numbers = [rows[name][:, None].view(np.int32) for name in ("rewards", "discounts")]
        masks = [rows[name] for name in ("action_masks", "next_action_masks") if name in rows]  # [K, A] each
        return np.concatenate([*places, rows["actions"][:, None], *numbers, *masks], 1, dtype=np.int32)

    def _places(self, numbers: Array) -> NDArray[np.int64]:
        """Return the store's rows of the stacks `[K, S]` that end with these numbers `[K]`.

        Positions before the start of an episode are the frame of zeros. Valid while a transition needs the frames.
        """
        stacks, missing = self._film.index.stacks(numbers)
        return np.where(missing, self._store.blank, self._store.at(stacks))

    def _room(self, like: Array) -> Tensor:
        """Allocate room on the device for all rows, each like these `[K, ...]`."""
        kind = torch.from_numpy(like[:0])
        return torch.empty((self._capacity, *kind.shape[1:]), dtype=kind.dtype, device=self.device)
