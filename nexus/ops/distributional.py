"""Returns as distributions: probabilities on fixed atoms (C51), or quantiles at fixed levels (QR-DQN).

`B` batch, `N` atoms or quantiles, `M` quantiles of the target.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["categorical_cross_entropy", "project_categorical", "quantile_huber", "quantile_levels"]


def project_categorical(next_probabilities: Tensor, rewards: Tensor, discounts: Tensor, atoms: Tensor) -> Tensor:
    """Project r + d · Z onto the atoms: Φ of Bellemare et al. 2017, https://arxiv.org/abs/1707.06887.

    Each atom moves to r + d · z, clipped to [v_min, v_max], and its probability is split between the two nearest atoms
    in proportion to proximity. Mass is conserved, and so is the mean unless something was clipped.

    Positions b are measured in atoms from v_min. The lower neighbour is ⌊b⌋, but never the last atom, so that an upper
    neighbour always exists: an integer b then gives all its mass to one atom, also at either end, and nothing is lost
    where ⌊b⌋ = ⌈b⌉. Both shares come from one fraction, so they add up to 1 however the atoms were rounded.

    Two scatters take 40 % of the time of the `[B, N, N]` triangle kernel (1 - |b - i|)⁺ at B = 64, N = 51 on a
    CPU, eager and compiled. On CUDA their order of addition is not fixed, so the last bit may vary from run to run.

    Args:
        next_probabilities: `[B, N]`, for the action chosen in the next state; rows add up to 1.
        rewards: `[B]`, folded over k steps.
        discounts: `[B]`, γ^k, or 0 after a termination: all mass is then at r.
        atoms: `[N]`, evenly spaced from v_min to v_max, N ≥ 2.

    Returns:
        `[B, N]`, a distribution over the same atoms.
    """
    last = atoms.shape[0] - 1
    spacing = (atoms[-1] - atoms[0]) / last
    moved = rewards.unsqueeze(1) + discounts.unsqueeze(1) * atoms  # [B, N]
    places = ((moved - atoms[0]) / spacing).clamp(0, last)  # [B, N], b
    below = places.long().clamp(0, last - 1)  # clamped at 0 for NaN, which must reach the loss, not the index
    shares = places - below  # [B, N], of the upper atom
    projected = torch.zeros_like(next_probabilities).scatter_add(1, below, next_probabilities * (1 - shares))
    return projected.scatter_add(1, below + 1, next_probabilities * shares)


def categorical_cross_entropy(logits: Tensor, probabilities: Tensor) -> Tensor:
    """-Σ m_i log p_i, the loss of C51 (https://arxiv.org/abs/1707.06887, algorithm 1).

    Args:
        logits: `[B, N]`, of p.
        probabilities: `[B, N]`, the target m, no gradient.

    Returns:
        `[B]`, never below the entropy of m.
    """
    return -(probabilities * logits.log_softmax(-1)).sum(-1)


def quantile_levels(count: int, device: torch.device | None = None) -> Tensor:
    """(2i + 1) / 2N: the midpoints of N equal intervals of [0, 1].

    The quantiles at these levels are the N equally weighted atoms closest to a distribution in the 1-Wasserstein
    distance (Dabney et al. 2018, https://arxiv.org/abs/1710.10044, lemma 2).

    Args:
        count: N.
        device: device of the result.

    Returns:
        `[N]`, increasing.
    """
    return (torch.arange(count, device=device, dtype=torch.float32) + 0.5) / count


def quantile_huber(predicted: Tensor, targets: Tensor, levels: Tensor, kappa: float = 1.0) -> Tensor:
    """Σ_i mean_j |τ_i - [u_ij < 0]| · L_κ(u_ij) / κ with u_ij = target_j - predicted_i.

    Dabney et al. 2018, https://arxiv.org/abs/1710.10044, equations 8 to 10. L_κ is ½u² up to κ and κ(|u| - ½κ)
    beyond. The division by κ keeps every slope within ±1; at κ = 1 it changes nothing, and at κ = 0
    it is the pinball loss |τ - [u < 0]| · |u|, whose minimum is the quantile itself.

    Args:
        predicted: `[B, N]`.
        targets: `[B, M]`, no gradient.
        levels: `[N]`, or `[B, N]` with different levels for each item (IQN).
        kappa: κ ≥ 0, the error up to which the loss is quadratic.

    Returns:
        `[B]`.
    """
    target = targets.unsqueeze(1).expand(-1, predicted.shape[1], -1)  # [B, N, M]
    prediction = predicted.unsqueeze(2).expand(-1, -1, targets.shape[1])  # [B, N, M]
    if kappa > 0:  # torch's fused loss: passes over the N · M numbers are most of the cost
        sizes = F.huber_loss(prediction, target, reduction="none", delta=kappa)
    else:
        sizes = F.l1_loss(prediction, target, reduction="none")
    levels = levels.unsqueeze(-1)
    weights = torch.where(target < prediction, 1 - levels, levels)  # [B, N, M]
    losses = (weights * sizes).mean(2).sum(1)
    return losses / kappa if kappa > 0 else losses
