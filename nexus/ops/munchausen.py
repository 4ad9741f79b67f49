"""The soft value and the reward bonus of Munchausen reinforcement learning (https://arxiv.org/abs/2007.14430)."""

from math import inf

from torch import Tensor

from nexus.ops.action_values import values_of_actions

__all__ = ["log_policy", "munchausen_bonus", "soft_value"]


def log_policy(q_values: Tensor, temperature: float) -> Tensor:
    """log π(·|s) of π = softmax(Q / temperature).

    The maximum is taken off before the division, so that a small temperature costs no digits and overflows nothing.

    Args:
        q_values: `[B, A]`.
        temperature: above 0, in units of the reward.

    Returns:
        `[B, A]`, at most 0.
    """
    return ((q_values - q_values.amax(1, keepdim=True)) / temperature).log_softmax(1)


def soft_value(q_values: Tensor, values: Tensor, temperature: float) -> Tensor:
    """Σ_a π(a|s) (z(s, a) - τ log π(a|s)), τ the temperature.

    Where z = Q it is τ log Σ_a exp(Q(s, a) / τ), between max_a Q and max_a Q + τ log A. With samples of the return
    for z it is what M-IQN bootstraps from: each sample gets the same entropy.

    Args:
        q_values: `[B, A]`, what π prefers; -inf where an action is illegal.
        values: `[B, A, ...]`, z: the same Q-values, or samples of the return `[B, A, N]`.
        temperature: above 0.

    Returns:
        `[B, ...]`.
    """
    trailing = [1] * (values.dim() - 2)
    best = q_values.amax(1).view(-1, *trailing)  # [B, ...], taken off while weighing: π sums to 1 up to rounding only
    log_probabilities = log_policy(q_values, temperature)  # [B, A]
    probabilities = log_probabilities.exp()
    log_probabilities = log_probabilities.masked_fill(log_probabilities == -inf, 0.0)  # 0 log 0 is 0, not NaN
    entropy = -temperature * (probabilities * log_probabilities).sum(1)  # [B]
    weighed = (probabilities.view(*probabilities.shape, *trailing) * (values - best.unsqueeze(1))).sum(1)  # [B, ...]
    return best + (weighed + entropy.view(-1, *trailing))


def munchausen_bonus(q_values: Tensor, actions: Tensor, temperature: float, alpha: float, clip: float) -> Tensor:
    """α · [τ log π(a|s)] clipped to [l₀, 0]: what the policy itself thinks of the action taken.

    Args:
        q_values: `[B, A]`, of the state that the action was taken in.
        actions: `[B]`.
        temperature: τ, above 0.
        alpha: α in [0, 1], outside of the clip.
        clip: l₀, at most 0: log π has no lower bound of its own.

    Returns:
        `[B]`, at most 0.
    """
    log_probabilities = values_of_actions(log_policy(q_values, temperature), actions)  # [B]
    return alpha * (temperature * log_probabilities).clamp(clip, 0.0)
