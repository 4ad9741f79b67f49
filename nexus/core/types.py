"""The data of a training step: transitions into the replay, batches out of it, Q-values and losses.

Shapes: `B` batch, `E` environments, `A` actions, `N` atoms or quantiles.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Array", "Batch", "Flags", "Floats", "Ints", "Outcome", "QOutput", "Steps", "Transitions"]

Array: TypeAlias = NDArray[Any]
Flags: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

Batch: TypeAlias = Mapping[str, Tensor]
"""A sample from the replay, one transition per row:

| key | shape | meaning |
|---|---|---|
| `states`, `next_states` | `[B, *obs]` | in the environment's dtype |
| `actions` | `[B]` int64 | the actions taken |
| `rewards` | `[B]` float32 | the folded n-step reward |
| `discounts` | `[B]` float32 | factor of the bootstrap: γ^k, or 0 after a termination |
| `weights` | `[B]` float32 | importance weights, 1 under uniform sampling |
| `indices` | `[B]` int64 | rows of the replay, for new priorities |
| `action_masks`, `next_action_masks` | `[B, A]` bool | legal actions in each; only if the environment reports them |

A batch from a rollout has `returns` `[B]` float32 instead of `rewards`, `next_states` and `discounts`.
A batch from a replay filled by `push` has `dones`, as in the original interface, instead of `discounts`.
Extra columns of the stored transitions keep their names.
"""


@dataclass(frozen=True, slots=True)
class Transitions:
    """Folded transitions for the replay: `K` rows, from any of the environments."""

    states: Array  # [K, *obs]
    actions: Array  # [K] int64
    rewards: Array  # [K] float32, Σ γ^i r_{t+i}
    discounts: Array  # [K] float32, γ^k or 0
    next_states: Array  # [K, *obs]
    action_masks: Array | None = None  # [K, A] bool, the legal actions in `states`
    next_action_masks: Array | None = None  # [K, A] bool, the legal actions in `next_states`; both or neither
    extras: Mapping[str, Array] | None = None  # [K, ...] each, extra columns of a batch, by name

    def __len__(self) -> int:
        return len(self.actions)


@dataclass(frozen=True, slots=True)
class Steps:
    """Single steps in the rows of a replay, as a bonus for novelty sees them."""

    rows: Ints  # [K], where they are stored
    episodes: Ints  # [K], their numbers
    states: Tensor  # [K, *obs]
    actions: Tensor  # [K]
    next_states: Tensor  # [K, *obs]

    def every(self, n: int) -> "Steps":
        """Return the first of every n steps."""
        return Steps(self.rows[::n], self.episodes[::n], self.states[::n], self.actions[::n], self.next_states[::n])


@dataclass(frozen=True, slots=True)
class QOutput:
    """A network's output for a batch of states. Acting reads only `q_values`."""

    q_values: Tensor  # [B, A]
    distribution: Tensor  # [B, A, N], the head's output; N = 1 for a scalar head


@dataclass(frozen=True, eq=False)
class Outcome(Mapping[str, Tensor]):
    """The result of a loss on a batch, and of an update. To add a metric, add an entry where its value is computed.

    Metrics are tensors of any shape, without gradient. As a mapping it reduces each to a single number: its mean, or
    its maximum or minimum if the name ends with `_max` or `_min`. They stay tensors: no update waits for them.
    """

    loss: Tensor  # from a loss [B], with gradient; from an update [], weighted and averaged
    priorities: Tensor  # [B], no gradient
    metrics: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        value = self._all[name]
        if value.ndim == 0:
            return value
        return value.max() if name.endswith("_max") else value.min() if name.endswith("_min") else value.mean()

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def _all(self) -> dict[str, Tensor]:
        return {"loss": self.loss, "td_error": self.priorities, **self.metrics}
