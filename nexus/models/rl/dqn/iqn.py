"""Implicit quantile networks: the quantile level is an input, so one network represents the whole return distribution.

Dabney et al. 2018, https://arxiv.org/abs/1806.06923. `docs/iqn.md` lists every deviation.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nexus.core import Batch, ConfigError, Outcome
from nexus.models.layers import Head
from nexus.models.rl.dqn.dqn import GREEDY, Bootstrap, DQNNetwork, NextAction, mean_readout, td_target, value_metrics
from nexus.ops.action_values import values_of_actions
from nexus.ops.distributional import quantile_huber, quantile_levels

__all__ = ["IQNLoss", "IQNNetwork", "ImplicitQuantileHead"]


class ImplicitQuantileHead(nn.Module):
    """The quantile function of the return: features times an embedding of the level, then a head.

    Called like any head it returns the quantiles at fixed, evenly spaced levels; `at` returns those at any levels.

    Args:
        features: `D`.
        head: `[..., D] -> [..., A, 1]`, called once per level.
        cosines: inputs of the embedding.
        acting_levels: `K`, number of fixed levels.
    """

    frequencies: Tensor  # [cosines]
    quantile_levels: Tensor  # [K], the midpoints of K equal intervals of [0, 1]

    def __init__(self, features: int, head: nn.Module, cosines: int = 64, acting_levels: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Linear(cosines, features)
        self.head = head
        # Not persistent: derived from the arguments.
        self.register_buffer("frequencies", math.pi * torch.arange(cosines), persistent=False)
        self.register_buffer("quantile_levels", quantile_levels(acting_levels), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """`[..., D] -> [..., A, K]`, at the fixed levels."""
        return self.at(features, self.quantile_levels)

    def at(self, features: Tensor, levels: Tensor) -> Tensor:
        """`[..., D]` and levels `[..., N]`, or `[N]` shared by all, `-> [..., A, N]`."""
        cosines = torch.cos(levels.unsqueeze(-1) * self.frequencies)  # [..., N, cosines], cos(π i · level)
        merged = features.unsqueeze(-2) * self.embedding(cosines).relu()  # [..., N, D]
        quantiles: Tensor = self.head(merged).squeeze(-1)  # [..., N, A]
        return quantiles.transpose(-1, -2)


class IQNNetwork(DQNNetwork):
    """A `DQNNetwork` with an implicit quantile head; it overrides nothing and adds `quantiles`.

    Args:
        state_dim: number of components of a state, or its shape.
        action_dim: actions `A`.
        hidden_dim: units of each hidden layer; also the number of features `D` of `torso`.
        torso: a different torso.
        head: a different `[..., D] -> [..., A, 1]` after the product, for example of `NoisyLinear`s.
        cosines: inputs of the embedding.
        acting_levels: number of evenly spaced levels that Q-values average over.

    Raises:
        ConfigError: the number of cosines or levels is below 1.
    """

    head: ImplicitQuantileHead

    def __init__(
        self,
        state_dim: int | tuple[int, ...],
        action_dim: int,
        hidden_dim: int = 128,
        *,
        torso: nn.Module | None = None,
        head: nn.Module | None = None,
        cosines: int = 64,
        acting_levels: int = 32,
    ) -> None:
        require_one(cosines=cosines, acting_levels=acting_levels)
        inner = Head(hidden_dim, action_dim) if head is None else head
        implicit = ImplicitQuantileHead(hidden_dim, inner, cosines, acting_levels)
        super().__init__(state_dim, action_dim, hidden_dim, torso=torso, head=implicit, readout=mean_readout)

    def quantiles(self, states: Tensor, levels: Tensor) -> Tensor:
        """Quantiles of the return `[B, A, N]` at levels `[B, N]` in (0, 1), or `[N]` shared by all states."""
        return self.head.at(self.torso(states), levels)


@dataclass(frozen=True)
class IQNLoss:
    """The quantile Huber loss between drawn quantiles of Z(s, a; θ) and of r + d · Z(s', a'; θ⁻).

    Args:
        generator: source of the levels, which are drawn on its device; use the network's.
        samples: `N`, levels drawn for each prediction.
        target_samples: `M`, levels drawn for each target.
        kappa: the error up to which the loss is quadratic; 0 for exact quantiles.
        bootstrap: a different reward and a different value of s' in the target.

    Raises:
        ConfigError: a number of levels is below 1, or `kappa` is negative or not a number.
    """

    generator: torch.Generator
    samples: int = 8
    target_samples: int = 8
    kappa: float = 1.0
    bootstrap: Bootstrap = GREEDY

    def __post_init__(self) -> None:
        require_one(samples=self.samples, target_samples=self.target_samples)
        if not 0 <= self.kappa < math.inf:
            raise ConfigError(f"kappa = {self.kappa}: needs a finite number, 0 or more")

    def __call__(
        self, q_network: DQNNetwork, target_network: DQNNetwork, next_action: NextAction, batch: Batch
    ) -> Outcome:
        """Return loss `[B]`, priorities |mean target quantile - mean predicted quantile| `[B]`, and metrics."""
        online, target = require_implicit(q_network), require_implicit(target_network)
        levels = self.draw(batch["rewards"], self.samples)  # [B, N]
        quantiles = online.quantiles(batch["states"], levels)  # [B, A, N]
        predictions = values_of_actions(quantiles, batch["actions"])  # [B, N]
        with torch.no_grad():
            features = target.torso(batch["next_states"])  # [B, D], for the choice and the value
            next_output = target.readout(target.head(features))  # at the levels used for acting
            drawn = target.head.at(features, self.draw(batch["rewards"], self.target_samples))  # [B, A, M]
            next_quantiles = self.bootstrap.next_values(q_network, next_action, batch, next_output, drawn)  # [B, M]
            rewards = self.bootstrap.rewards(target_network, batch)  # [B]
            targets = td_target(rewards.unsqueeze(1), batch["discounts"].unsqueeze(1), next_quantiles)  # [B, M]
            td_errors = targets.mean(1) - predictions.mean(1)
        loss = quantile_huber(predictions, targets, levels, self.kappa)
        return Outcome(loss, td_errors.abs(), value_metrics(quantiles.mean(-1), targets.mean(1)))

    def draw(self, like: Tensor, count: int) -> Tensor:
        """Levels `[B, count]`, uniform in [0, 1), on the device of `like` `[B]`."""
        levels = torch.rand(len(like), count, generator=self.generator, device=self.generator.device)
        return levels.to(like.device, non_blocking=True)


def require_implicit(network: DQNNetwork) -> IQNNetwork:
    """Return the network if it takes levels."""
    if not isinstance(network, IQNNetwork):
        raise ConfigError(f"IQNLoss needs an IQNNetwork, got a {type(network).__name__}")
    return network


def require_one(**counts: int) -> None:
    """Raise `ConfigError` that names the first count below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"{name} = {count}: needs at least 1")
