"""QR-DQN: learn the whole distribution of the return, as quantiles at fixed levels.

Dabney, Rowland, Bellemare and Munos 2018, https://arxiv.org/abs/1710.10044. `docs/qr_dqn.md` lists every deviation.
"""

from dataclasses import dataclass
from math import isfinite

import torch

from nexus.core import Batch, ConfigError, Outcome
from nexus.models.rl.dqn.dqn import (
    GREEDY,
    Bootstrap,
    DQNNetwork,
    NextAction,
    mean_readout,
    scalar_readout,
    td_target,
    value_metrics,
)
from nexus.ops.action_values import values_of_actions
from nexus.ops.distributional import quantile_huber, quantile_levels

__all__ = ["QuantileLoss"]


@dataclass(frozen=True)
class QuantileLoss:
    """The quantile Huber loss of θ_i(s, a) against every r + d · θ⁻_j(s', a').

    Args:
        kappa: the error up to which the loss is quadratic; 0 for exact quantiles.
        bootstrap: a different reward and a different value of s' in the target.

    Raises:
        ConfigError: `kappa` is negative or not a number.
    """

    kappa: float = 1.0
    bootstrap: Bootstrap = GREEDY

    def __post_init__(self) -> None:
        if not (isfinite(self.kappa) and self.kappa >= 0):
            raise ConfigError(f"kappa = {self.kappa}: needs a finite number, 0 or more")

    def __call__(
        self, q_network: DQNNetwork, target_network: DQNNetwork, next_action: NextAction, batch: Batch
    ) -> Outcome:
        """Return loss `[B]`, priorities `[B]`, and metrics.

        The priority is the size of the mean TD error, |mean_j y_j - Q(s, a)|, as for a scalar head: it has the unit of
        the rewards, and falls to 0 when the mean is right. The loss itself does not: it contains the spread of
        the returns, so unpredictable noise would be replayed most.
        """
        require_quantiles(q_network)
        output = q_network.output(batch["states"])
        quantiles = values_of_actions(output.distribution, batch["actions"])  # [B, N]
        with torch.no_grad():
            next_output = target_network.output(batch["next_states"])
            next_quantiles = self.bootstrap.next_values(
                q_network, next_action, batch, next_output, next_output.distribution
            )  # [B, N]
            rewards = self.bootstrap.rewards(target_network, batch)  # [B]
            targets = td_target(rewards.unsqueeze(1), batch["discounts"].unsqueeze(1), next_quantiles)  # [B, N]
            mean_targets = targets.mean(1)  # [B]
            td_errors = mean_targets - quantiles.mean(1)  # [B]
        levels = quantile_levels(quantiles.shape[1], quantiles.device)  # [N]
        loss = quantile_huber(quantiles, targets, levels, self.kappa)
        return Outcome(loss, td_errors.abs(), value_metrics(output.q_values, mean_targets))


def require_quantiles(q_network: DQNNetwork) -> None:
    """Raise `ConfigError` unless the network outputs returns: N quantiles, or one scalar, which is the median."""
    if q_network.readout not in (mean_readout, scalar_readout):
        raise ConfigError("QuantileLoss needs a network with readout=mean_readout: this one outputs no quantiles")
