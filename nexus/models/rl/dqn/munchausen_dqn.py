"""Munchausen DQN: the log-policy joins the reward, a soft value takes the place of the maximum.

Vieillard, Pietquin & Geist 2020, https://arxiv.org/abs/2007.14430. `docs/munchausen_dqn.md` lists every deviation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from nexus.core import Batch, ConfigError, LossOutput
from nexus.models.rl.dqn.dqn import DQNNetwork, NextAction
from nexus.ops.action_masks import only_legal
from nexus.ops.losses import huber
from nexus.ops.munchausen import munchausen_bonus, soft_value
from nexus.ops.td import td_target, values_of_actions

__all__ = ["MunchausenLoss"]


@dataclass(frozen=True)
class MunchausenLoss:
    """The error of Q(s, a; θ) against y = r + α [τ log π(a|s)]_{l₀}^0 + d · τ log Σ_a' exp(Q(s', a'; θ⁻) / τ).

    π = softmax(Q(·; θ⁻) / τ) at both states, over legal actions. The soft value weighs every one of them, so nobody
    picks one: `next_action` is ignored, and Double DQN changes nothing here.

    Args:
        alpha: α, how much of the log-policy is added to the reward.
        temperature: τ of the policy; not the `tau` of the soft target update.
        clip: l₀, the smallest τ log π(a|s).
        of_error: loss per item from predictions and targets, `huber` or `squared`.

    Raises:
        ConfigError: a number is impossible.
    """

    alpha: float = 0.9
    temperature: float = 0.03
    clip: float = -1.0
    of_error: Callable[[Tensor, Tensor], Tensor] = huber

    def __post_init__(self) -> None:
        for name, possible, needs in (
            ("alpha", 0 <= self.alpha <= 1, "a fraction in [0, 1]"),
            ("temperature", 0 < self.temperature < inf, "a finite number above 0"),
            ("clip", -inf < self.clip <= 0, "a finite number of at most 0"),
        ):
            if not possible:
                raise ConfigError(f"{name} = {getattr(self, name)}: needs {needs}")

    def __call__(
        self, q_network: DQNNetwork, target_network: DQNNetwork, next_action: NextAction, batch: Batch
    ) -> LossOutput:
        """Return loss `[B]`, priorities |y - Q(s, a)| `[B]`, and what the log shows."""
        actions = batch["actions"]
        q_values = q_network.output(batch["states"]).q_values  # [B, A]
        predictions = values_of_actions(q_values, actions)  # [B]
        with torch.no_grad():
            legal = only_legal(target_network.output(batch["states"]).q_values, batch.get("action_masks"))  # [B, A]
            # Of the first of the k folded rewards only: the actions in between are not stored.
            bonus = munchausen_bonus(legal, actions, self.temperature, self.alpha, self.clip)  # [B]
            next_q_values = target_network.output(batch["next_states"]).q_values  # [B, A]
            next_values = soft_value(only_legal(next_q_values, batch.get("next_action_masks")), self.temperature)  # [B]
            targets = td_target(batch["rewards"] + bonus, batch["discounts"], next_values)  # [B]
            td_errors = targets - predictions
        return LossOutput(self.of_error(predictions, targets), td_errors.abs(), q_values.detach(), targets)
