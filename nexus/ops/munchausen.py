"""The soft value and the reward bonus of Munchausen reinforcement learning (https://arxiv.org/abs/2007.14430)."""

from math import inf

from torch import Tensor

from nexus.ops.action_values import values_of_actions

__all__ = ["log_policy", "munchausen_bonus", "soft_value"]


def log_policy(q_values: Tensor, temperature: float) -> Tensor:
    """log π(·|s) of π = softmax(Q / temperature).

    The maximum is subtracted before the division, so that a small temperature neither loses precision nor overflows.

    Args:
        q_values: `[B, A]`.
        temperature: above 0, in units of the reward.

    Returns:
        `[B, A]`, at most 0.
    """
    return ((q_values - q_values.amax(1, keepdim=True)) / temperature).log_softmax(1)


def soft_value(q_values: Tensor, values: Tensor, temperature: float) -> Tensor:
    """Σ_a π(a|s) (z(s, a) - τ log π(a|s)), τ the temperature.

    For z = Q this is τ log Σ_a exp(Q(s, a) / τ), between max_a Q and max_a Q + τ log A. With samples of the return
    as z it is the bootstrap of M-IQN: each sample gets the same entropy term.

    Args:
        q_values: `[B, A]`, which define π; -inf for illegal actions.
        values: `[B, A, ...]`, z: the same Q-values, or samples of the return `[B, A, N]`.
        temperature: above 0.

    Returns:
        `[B, ...]`.
    """
    trailing = [1] * (values.dim() - 2)
    best = q_values.amax(1).view(-1, *trailing)  # [B, ...], subtracted first: π sums to 1 only up to rounding
    log_probabilities = log_policy(q_values, temperature)  # [B, A]
    probabilities = log_probabilities.exp()
    log_probabilities = log_probabilities.masked_fill(log_probabilities == -inf, 0.0)  # 0 log 0 is 0, not NaN
    entropy = -temperature * (probabilities * log_probabilities).sum(1)  # [B]
    weighed = (probabilities.view(*probabilities.shape, *trailing) * (values - best.unsqueeze(1))).sum(1)  # [B, ...]
    return best + (weighed + entropy.view(-1, *trailing))


def munchausen_bonus(q_values: Tensor, actions: Tensor, temperature: float, alpha: float, clip: float) -> Tensor:
    """α · [τ log π(a|s)] clipped to [l₀, 0]: the scaled log-probability of the action taken.

    Args:
        q_values: `[B, A]`, of the state in which the action was taken.
        actions: `[B]`.
        temperature: τ, above 0.
        alpha: α in [0, 1], applied after the clip.
        clip: l₀, at most 0, because log π is unbounded below.

    Returns:
        `[B]`, at most 0.
    """
    log_probabilities = values_of_actions(log_policy(q_values, temperature), actions)  # [B]
    return alpha * (temperature * log_probabilities).clamp(clip, 0.0)
