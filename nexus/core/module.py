"""The base class of networks and agents."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["NexusModule"]


class NexusModule(nn.Module):
    """An `nn.Module` that remembers the config it was made from."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.config: dict[str, Any] = dict(config or {})

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    @property
    def num_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
