"""Updating the target network θ⁻. Parameters are flat, so each update is one operation for any network."""

from torch import Tensor

__all__ = ["hard_update", "soft_update"]


def hard_update(target: Tensor, source: Tensor) -> None:
    """θ⁻ ← θ, in place (Mnih et al. 2015, https://doi.org/10.1038/nature14236).

    Args:
        target: `[P]`, all parameters of the target network.
        source: `[P]`, all parameters of the online network.
    """
    target.copy_(source)


def soft_update(target: Tensor, source: Tensor, tau: float) -> None:
    """θ⁻ ← τθ + (1-τ)θ⁻, in place (Lillicrap et al. 2016, https://arxiv.org/abs/1509.02971).

    Args:
        target: `[P]`, all parameters of the target network.
        source: `[P]`, all parameters of the online network.
        tau: the fraction τ taken from the source.
    """
    target.lerp_(source, tau)
