"""C51: learn the whole distribution of the return, as probabilities on fixed atoms.

Bellemare, Dabney and Munos 2017, https://arxiv.org/abs/1707.06887. `docs/c51.md` lists every deviation.
"""

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor, nn

from nexus.core import Batch, ConfigError, Outcome, QOutput
from nexus.models.rl.dqn.dqn import DQNNetwork, NextAction, value_metrics
from nexus.ops.action_values import values_of_actions
from nexus.ops.distributional import categorical_cross_entropy, project_categorical

__all__ = ["C51Loss", "CategoricalReadout"]


class CategoricalReadout(nn.Module):
    """Interprets a head's `[B, A, N]` as logits over returns: Q(s, a) = Σ_i z_i p_i(s, a).

    Args:
        v_min: the first atom; returns below it are clipped to it.
        v_max: the last atom; returns above it are clipped to it.
        atoms: number of atoms N; the head must have as many outputs per action.

    Raises:
        ConfigError: `v_min` is not below `v_max`, or there are fewer than 2 atoms.
    """

    atoms: Tensor  # [N], saved and moved with the network

    def __init__(self, v_min: float = -10.0, v_max: float = 10.0, atoms: int = 51) -> None:
        super().__init__()
        if not (isfinite(v_min) and isfinite(v_max) and v_min < v_max):
            raise ConfigError(f"v_min = {v_min}, v_max = {v_max}: needs two finite numbers, v_min < v_max")
        if atoms < 2:
            raise ConfigError(f"atoms = {atoms}: needs at least 2, v_min and v_max")
        self.register_buffer("atoms", torch.linspace(v_min, v_max, atoms))

    def forward(self, logits: Tensor) -> QOutput:
        """`[..., A, N]` to Q-values `[..., A]`, with the logits as their distribution."""
        return QOutput(q_values=logits.softmax(-1) @ self.atoms, distribution=logits)


@dataclass(frozen=True)
class C51Loss:
    """The cross entropy of p(s, a; θ) against the projected distribution of r + d · Z(s', a'; θ⁻)."""

    def __call__(
        self, q_network: DQNNetwork, target_network: DQNNetwork, next_action: NextAction, batch: Batch
    ) -> Outcome:
        """Return loss `[B]`, priorities `[B]`, and metrics.

        The priority is KL(m ‖ p), the loss minus the entropy of its target m. The gradient is the same, but only the
        KL divergence falls to 0 when nothing is left to learn: by the cross entropy, transitions with a wide
        distribution would be replayed forever. Rainbow uses it too (https://arxiv.org/abs/1710.02298, section 3).
        """
        atoms = atoms_of(q_network)  # [N]
        output = q_network.output(batch["states"])
        logits = values_of_actions(output.distribution, batch["actions"])  # [B, N]
        with torch.no_grad():
            next_output = target_network.output(batch["next_states"])
            next_actions = next_action(q_network, next_output, batch)  # [B]
            next_probabilities = values_of_actions(next_output.distribution, next_actions).softmax(-1)  # [B, N]
            target = project_categorical(next_probabilities, batch["rewards"], batch["discounts"], atoms)  # [B, N]
        loss = categorical_cross_entropy(logits, target)
        # Rounding can make it slightly negative, which a prioritized replay could not raise to a power.
        divergence = (loss.detach() - torch.special.entr(target).sum(-1)).clamp(min=0)
        return Outcome(loss, divergence, value_metrics(output.q_values, target @ atoms))


def atoms_of(q_network: DQNNetwork) -> Tensor:
    """Return the atoms `[N]` of a categorical network.

    Raises:
        ConfigError: it has none.
    """
    readout = q_network.readout
    if not isinstance(readout, CategoricalReadout):
        raise ConfigError("C51Loss needs a network with readout=CategoricalReadout(...): this one has no atoms")
    return readout.atoms
