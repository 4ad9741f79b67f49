"""Deep Q-learning: the network, the choice of the next action, the target, and the loss.

Mnih et al. 2013, https://arxiv.org/abs/1312.5602, and 2015, https://doi.org/10.1038/nature14236.
`agent.py` combines them into an agent; `docs/dqn.md` lists every deviation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nexus.core import Batch, NexusModule, Outcome, QOutput
from nexus.core.types import Array
from nexus.models.layers import Head, MLPTorso
from nexus.ops.action_values import only_legal, values_of_actions

__all__ = [
    "ERRORS",
    "GREEDY",
    "Bootstrap",
    "DQNLoss",
    "DQNNetwork",
    "GreedyBootstrap",
    "Loss",
    "NextAction",
    "greedy_on_target",
    "huber",
    "mean_readout",
    "scalar_readout",
    "squared",
    "td_target",
    "value_metrics",
]


class DQNNetwork(NexusModule):
    """Q(s, ·; θ) as three parts in sequence: torso `[B, *obs] -> [B, D]`, head `-> [B, A, N]`, readout.

    Args:
        state_dim: number of components of a state, or its shape.
        action_dim: actions `A`.
        hidden_dim: units of each hidden layer; also the number of features `D` of `torso`.
        torso: a different torso.
        head: a different head.
        readout: maps the head's `[B, A, N]` to a `QOutput`.
    """

    def __init__(
        self,
        state_dim: int | tuple[int, ...],
        action_dim: int,
        hidden_dim: int = 128,
        *,
        torso: nn.Module | None = None,
        head: nn.Module | None = None,
        readout: "Callable[[Tensor], QOutput] | None" = None,
    ) -> None:
        super().__init__()
        self.state_shape = (state_dim,) if isinstance(state_dim, int) else tuple(state_dim)
        self.action_dim = action_dim
        self.torso = MLPTorso(self.state_shape, hidden_dim) if torso is None else torso
        self.head = Head(hidden_dim, action_dim) if head is None else head
        self.readout = scalar_readout if readout is None else readout

    def output(self, states: Tensor) -> QOutput:
        """Return the full output for states `[B, *obs]`."""
        return self.readout(self.head(self.torso(states)))

    def forward(self, states: Tensor | Array) -> Tensor:
        """Q(s, ·) of one state `[*obs] -> [A]` or of many `[B, *obs] -> [B, A]`; accepts arrays too."""
        return self.output(torch.as_tensor(states, device=self.device)).q_values


def scalar_readout(out: Tensor) -> QOutput:
    """`[B, A, 1] -> [B, A]`: the output is the Q-value."""
    return QOutput(q_values=out.squeeze(-1), distribution=out)


def mean_readout(quantiles: Tensor) -> QOutput:
    """`[..., A, N] -> [..., A]`: a Q-value is the mean of its quantiles at evenly spaced or uniform levels."""
    return QOutput(q_values=quantiles.mean(-1), distribution=quantiles)


NextAction = Callable[[DQNNetwork, QOutput, Batch], Tensor]
"""Chooses a': from the online network, the target network's output at s' and the batch, to actions `[B]`."""


def greedy_on_target(q_network: DQNNetwork, target_output: QOutput, batch: Batch) -> Tensor:
    """a' = argmax_a Q(s', a; θ⁻): the target network both selects and evaluates the next action (DQN)."""
    return only_legal(target_output.q_values, batch.get("next_action_masks")).argmax(1)


def value_metrics(q_values: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return the metrics logged for Q-values `[B, A]` and targets `[B]`."""
    q_values = q_values.detach()
    return {"q_mean": q_values, "q_max": q_values, "target_mean": targets}


class Bootstrap(Protocol):
    """The reward and next-state value of a target, for scalars or return samples; called without gradient."""

    def rewards(self, target_network: DQNNetwork, batch: Batch) -> Tensor:
        """Return the rewards of the transitions `[B]`."""

    def next_values(
        self, q_network: DQNNetwork, next_action: NextAction, batch: Batch, next_output: QOutput, values: Tensor
    ) -> Tensor:
        """Return the values of the next states.

        Args:
            q_network: θ.
            next_action: chooses a', if the bootstrap uses it.
            batch: B transitions.
            next_output: the output of θ⁻ at s', whose Q-values determine the weights of the actions.
            values: `[B, A, ...]`, for each next action its Q-value, or samples of its return.

        Returns:
            `[B, ...]`.
        """


@dataclass(frozen=True)
class GreedyBootstrap:
    """The unchanged reward, and the value of the action that `next_action` chooses."""

    def rewards(self, target_network: DQNNetwork, batch: Batch) -> Tensor:
        """`[B]`, as stored."""
        return batch["rewards"]

    def next_values(
        self, q_network: DQNNetwork, next_action: NextAction, batch: Batch, next_output: QOutput, values: Tensor
    ) -> Tensor:
        """`[B, A, ...] -> [B, ...]`, the value of a'."""
        return values_of_actions(values, next_action(q_network, next_output, batch))


GREEDY = GreedyBootstrap()


def td_target(rewards: Tensor, discounts: Tensor, next_values: Tensor) -> Tensor:
    """y = r + d · Q(s', a'; θ⁻), where the stored d is γ^k, or 0 after a termination.

    Args:
        rewards: `[B]`, folded over k steps.
        discounts: `[B]`.
        next_values: `[B]`, the bootstrap.

    Returns:
        `[B]`.
    """
    return rewards + discounts * next_values


def huber(predictions: Tensor, targets: Tensor) -> Tensor:
    """½x² for |x| ≤ 1 and |x| - ½ beyond, x = prediction - target; its slope is the TD error clipped to ±1.

    The error clipping of Mnih et al. 2015 (https://doi.org/10.1038/nature14236) as a loss.

    Args:
        predictions: `[B]`.
        targets: `[B]`, no gradient.

    Returns:
        `[B]`.
    """
    return F.smooth_l1_loss(predictions, targets, reduction="none")


def squared(predictions: Tensor, targets: Tensor) -> Tensor:
    """½x², x = prediction - target: the half makes its slope the TD error, as in the gradient of the DQN papers.

    Args:
        predictions: `[B]`.
        targets: `[B]`, no gradient.

    Returns:
        `[B]`.
    """
    return 0.5 * (predictions - targets).square()


ERRORS = {"huber": huber, "squared": squared}
"""The losses by their names in the setting `loss`."""


class Loss(Protocol):
    """Maps a batch to one loss per item. The target network and `next_action` are used without gradient."""

    def __call__(
        self, q_network: DQNNetwork, target_network: DQNNetwork, next_action: NextAction, batch: Batch
    ) -> Outcome: ...


@dataclass(frozen=True)
class DQNLoss:
    """The error of Q(s, a; θ) against y = r + d · Q(s', a'; θ⁻).

    Args:
        of_error: loss per item from predictions and targets, `huber` or `squared`.
        bootstrap: a different reward and a different value of s' in y.
    """

    of_error: Callable[[Tensor, Tensor], Tensor] = huber
    bootstrap: Bootstrap = GREEDY

    def __call__(
        self, q_network: DQNNetwork, target_network: DQNNetwork, next_action: NextAction, batch: Batch
    ) -> Outcome:
        """Return loss `[B]`, priorities |y - Q(s, a)| `[B]`, and metrics."""
        q_values = q_network.output(batch["states"]).q_values  # [B, A]
        predictions = values_of_actions(q_values, batch["actions"])  # [B]
        with torch.no_grad():
            next_output = target_network.output(batch["next_states"])
            next_values = self.bootstrap.next_values(
                q_network, next_action, batch, next_output, next_output.q_values
            )  # [B]
            rewards = self.bootstrap.rewards(target_network, batch)  # [B]
            targets = td_target(rewards, batch["discounts"], next_values)  # [B]
            td_errors = targets - predictions
        return Outcome(self.of_error(predictions, targets), td_errors.abs(), value_metrics(q_values, targets))
