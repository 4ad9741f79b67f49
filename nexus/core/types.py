"""What flows along the line: transitions into the replay, batches out of it, Q-values and losses.

Shapes: `B` batch, `E` environments, `A` actions, `N` atoms or quantiles.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Array", "Batch", "Outcome", "QOutput", "Transitions"]

Array: TypeAlias = NDArray[Any]

Batch: TypeAlias = Mapping[str, Tensor]
"""A sample from the replay, one row a transition:

| key | shape | meaning |
|---|---|---|
| `states`, `next_states` | `[B, *obs]` | in the environment's own dtype |
| `actions` | `[B]` int64 | what was done |
| `rewards` | `[B]` float32 | the folded n-step reward |
| `discounts` | `[B]` float32 | what multiplies the bootstrap: γ^k, or 0 after a termination |
| `weights` | `[B]` float32 | importance weights, 1 under uniform sampling |
| `indices` | `[B]` int64 | rows of the replay, for new priorities |
| `action_masks`, `next_action_masks` | `[B, A]` bool | legal actions in each; only where the environment tells |

A batch from a rollout has `returns` `[B]` float32 in place of `rewards`, `next_states` and `discounts`.
A batch from a replay that was filled by `push` has the seed's `dones` in place of `discounts`.
Extra columns of the stored transitions come under their own names.
"""


@dataclass(frozen=True, slots=True)
class Transitions:
    """Folded experience on its way into the replay; `K` rows, from any of the environments."""

    states: Array  # [K, *obs]
    actions: Array  # [K] int64
    rewards: Array  # [K] float32, Σ γ^i r_{t+i}
    discounts: Array  # [K] float32, γ^k or 0
    next_states: Array  # [K, *obs]
    action_masks: Array | None = None  # [K, A] bool, the legal actions in `states`
    next_action_masks: Array | None = None  # [K, A] bool, those in `next_states`; both or neither
    extras: Mapping[str, Array] | None = None  # [K, ...] each, what else a batch is to have, by its name there

    def __len__(self) -> int:
        return len(self.actions)


@dataclass(frozen=True, slots=True)
class QOutput:
    """What a network says of its states. Acting reads `q_values` and nothing else."""

    q_values: Tensor  # [B, A]
    distribution: Tensor  # [B, A, N], as the head gave it; N = 1 for a scalar head


@dataclass(frozen=True, eq=False)
class Outcome(Mapping[str, Tensor]):
    """What a loss says of a batch, and an update of itself. A new metric is one more entry where its value is known.

    Metrics are tensors of any shape, without gradient. As a mapping it has every one as a single number: its mean, or
    the largest or smallest where the name ends with `_max` or `_min`. They stay tensors: no update waits for them.
    """

    loss: Tensor  # of a loss [B], with gradient; of an update [], weighted and averaged
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
