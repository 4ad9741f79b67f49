"""Boltzmann exploration as a part of an agent: `DQNAgent(..., exploration=by_temperature)`."""

import numpy as np
from torch import Tensor

from nexus.core.types import Array
from nexus.ops.exploration import boltzmann

__all__ = ["by_temperature"]


def by_temperature(
    q_values: Tensor, epsilon: float, temperature: float, rng: np.random.Generator, action_masks: Array | None
) -> Array:
    """Draw actions `[E]` from softmax(Q / temperature); ε is ignored.

    Args:
        q_values: `[E, A]`, -inf for illegal actions, so the masks are not needed again.
        epsilon: ignored.
        temperature: 0 or more, in units of the return.
        rng: source of the choice.
        action_masks: ignored.
    """
    return boltzmann(q_values.cpu().numpy(), temperature, rng)
