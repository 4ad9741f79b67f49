"""Munchausen DQN: the log-policy is added to the reward, and a soft value replaces the maximum.

Vieillard, Pietquin & Geist 2020, https://arxiv.org/abs/2007.14430. `docs/munchausen_dqn.md` lists every deviation.
"""

from dataclasses import dataclass
from math import inf

from torch import Tensor

from nexus.core import Batch, ConfigError, QOutput
from nexus.models.rl.dqn.dqn import DQNNetwork, NextAction
from nexus.ops.action_values import only_legal
from nexus.ops.munchausen import munchausen_bonus, soft_value

__all__ = ["MunchausenBootstrap"]


@dataclass(frozen=True)
class MunchausenBootstrap:
    """r + α [τ log π(a|s)]_{l₀}^0 for the reward, and Σ_a' π(a'|s') (z(s', a') - τ log π(a'|s')) for the value of s'.

    π = softmax(Q(·; θ⁻) / τ) at both states, over legal actions; z is the Q-value (M-DQN) or each sample of the return
    (M-QR-DQN, M-IQN). The sum averages over all next actions, so none is selected: `next_action` is ignored, and Double
    DQN changes nothing.

    Args:
        alpha: α, the fraction of the log-policy that is added to the reward.
        temperature: τ of the policy, not the `tau` of the soft target update.
        clip: l₀, the smallest τ log π(a|s).

    Raises:
        ConfigError: a number is out of range.
    """

    alpha: float = 0.9
    temperature: float = 0.03
    clip: float = -1.0

    def __post_init__(self) -> None:
        for name, possible, needs in (
            ("alpha", 0 <= self.alpha <= 1, "a fraction in [0, 1]"),
            ("temperature", 0 < self.temperature < inf, "a finite number above 0"),
            ("clip", -inf < self.clip <= 0, "a finite number of at most 0"),
        ):
            if not possible:
                raise ConfigError(f"{name} = {getattr(self, name)}: needs {needs}")

    def rewards(self, target_network: DQNNetwork, batch: Batch) -> Tensor:
        """`[B]`; the bonus applies to the first of the k folded rewards: the actions in between are not stored."""
        q_values = only_legal(target_network.output(batch["states"]).q_values, batch.get("action_masks"))  # [B, A]
        bonus = munchausen_bonus(q_values, batch["actions"], self.temperature, self.alpha, self.clip)
        return batch["rewards"] + bonus

    def next_values(
        self, q_network: DQNNetwork, next_action: NextAction, batch: Batch, next_output: QOutput, values: Tensor
    ) -> Tensor:
        """`[B, A, ...] -> [B, ...]`, the mean under the policy at s'."""
        return soft_value(only_legal(next_output.q_values, batch.get("next_action_masks")), values, self.temperature)
