"""PQN: Q-learning from many environments at once, without a replay.

Gallici, Fellows, Ellis, Pou, Masmitja, Foerster and Martin 2025, https://arxiv.org/abs/2407.04811. `docs/pqn.md` lists
every deviation.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from nexus.core import Batch, Outcome
from nexus.models.rl.dqn.dqn import DQNNetwork, NextAction, squared, value_metrics
from nexus.ops.action_values import values_of_actions

__all__ = ["ReturnLoss"]


@dataclass(frozen=True)
class ReturnLoss:
    """The error of Q(s, a; θ) against the λ-return, which already contains the value of s'.

    Args:
        of_error: loss per item from predictions and targets, `huber` or `squared`.
    """

    of_error: Callable[[Tensor, Tensor], Tensor] = squared

    def __call__(
        self, q_network: DQNNetwork, target_network: DQNNetwork, next_action: NextAction, batch: Batch
    ) -> Outcome:
        """Return loss `[B]`, priorities |G - Q(s, a)| `[B]`, and metrics. The batch has `returns` `[B]`."""
        q_values = q_network.output(batch["states"]).q_values  # [B, A]
        predictions = values_of_actions(q_values, batch["actions"])  # [B]
        targets = batch["returns"]  # [B]
        td_errors = (targets - predictions).detach()
        return Outcome(self.of_error(predictions, targets), td_errors.abs(), value_metrics(q_values, targets))
