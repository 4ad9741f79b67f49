"""Dueling networks (Wang et al. 2016, https://arxiv.org/abs/1511.06581): separate streams for V and A.

`docs/dueling_dqn.md` lists every deviation.
"""

from torch import Tensor, nn

from nexus.models.layers import LinearFactory

__all__ = ["DuelingHead"]


class DuelingHead(nn.Module):
    """Q(s, a) = V(s) + A(s, a) - mean_a' A(s, a'), for each atom separately.

    Subtracting the mean makes the streams identifiable: without it a constant could shift between them.

    Args:
        features: `D`.
        action_dim: `A`.
        atoms: `N`, 1 for a plain Q-value.
        linear: makes the layers.
        hidden_dim: units of a hidden layer with ReLU in each stream, as in the paper; None for no hidden layer.
    """

    def __init__(
        self,
        features: int,
        action_dim: int,
        atoms: int = 1,
        linear: LinearFactory = nn.Linear,
        hidden_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.shape = (action_dim, atoms)
        self.value = stream(features, hidden_dim, atoms, linear)
        self.advantage = stream(features, hidden_dim, action_dim * atoms, linear)

    def forward(self, features: Tensor) -> Tensor:
        """`[..., D] -> [..., A, N]`."""
        value: Tensor = self.value(features).unsqueeze(-2)  # [..., 1, N]
        advantage: Tensor = self.advantage(features)  # [..., A * N]
        advantage = advantage.view(*advantage.shape[:-1], *self.shape)  # [..., A, N]
        return value + advantage - advantage.mean(-2, keepdim=True)  # the mean over actions, not over atoms


def stream(inputs: int, hidden_dim: int | None, outputs: int, linear: LinearFactory) -> nn.Module:
    """Return one layer, or two with ReLU between them."""
    if hidden_dim is None:
        return linear(inputs, outputs)
    return nn.Sequential(linear(inputs, hidden_dim), nn.ReLU(), linear(hidden_dim, outputs))
