"""Random network distillation (Burda et al. 2018, https://arxiv.org/abs/1810.12894)."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from nexus.core.config import AgentConfig
from nexus.core.state import State, arrays_of, below, part, restore_tensors
from nexus.core.types import Array, Steps
from nexus.models.curiosity.inputs import InputStatistics
from nexus.models.curiosity.unit import ErrorUnit
from nexus.models.rl.dqn.own_parts import OwnNetwork
from nexus.models.states import PackedStates, PlainStates

__all__ = ["RandomNetworkDistillation"]

FEATURES = 64


class RandomNetworkDistillation:
    """β times the error of a network that predicts the output of a random one for the next state, in its unit.

    Where few states were seen the prediction is bad. Both networks have the torso that the agent would get, and
    normalise numbers by running statistics; the predictor has one more layer. It learns from the first step of each
    row drawn.

    Args:
        states: how states are read, with their numbers normalised.
        settings: the agent's.
        scale: β.
        learning_rate: of the predictor.
        device: where batches are computed.
    """

    def __init__(
        self,
        states: PlainStates | PackedStates,
        settings: AgentConfig,
        scale: float,
        learning_rate: float,
        device: torch.device,
    ) -> None:
        self.scale, self.device = scale, device
        torso, features = states.torso(settings)
        # Orthogonal weights, as published: with the default ones the outputs for different states are nearly alike.
        self.target = nn.Sequential(torso, nn.Linear(features, FEATURES)).to(device).requires_grad_(False)
        for layer in self.target.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.orthogonal_(layer.weight, math.sqrt(2))
        torso, features = states.torso(settings)
        head = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, FEATURES))
        self.predictor = OwnNetwork(nn.Sequential(torso, head).to(device), learning_rate)
        self.unit = ErrorUnit()
        self.inputs = InputStatistics(states, [self.target, self.predictor.network])

    @property
    def nbytes(self) -> int:
        """Bytes of both networks and of the optimizer's moments."""
        return 4 * self.predictor.theta.nbytes

    def enter(self, steps: Steps) -> None:
        """Let the statistics of observations follow the next states."""
        self.inputs.follow(steps)

    def of(self, steps: Steps) -> Array:
        """Return the bonus `[K]` of steps."""
        with torch.inference_mode():
            errors: Array = self._errors(steps.next_states).cpu().numpy()
        return (self.scale / self.unit.value * errors).astype(np.float32)

    def learn(self, steps: Steps) -> None:
        """Take one step of the predictor on the next states."""
        errors = self._errors(steps.next_states)
        self.unit.follow(errors.detach().cpu().numpy())
        self.predictor.step(errors.mean())

    def _errors(self, states: Tensor) -> Tensor:
        """Return the mean squared errors `[K]` of the prediction for states `[K, *obs]`."""
        states = states.to(self.device)
        with torch.no_grad():
            targets = self.target(states)
        errors: Tensor = (self.predictor.network(states) - targets).square().mean(-1)
        return errors

    @property
    def _tensors(self) -> dict[str, Tensor]:
        return {**below("target", self.target.state_dict()), **below("predictor", self.predictor.tensors)}

    def get_state(self, size: int) -> State:
        """Return both networks, the moments, the unit and the statistics of observations."""
        return {**arrays_of(self._tensors), **below("unit", self.unit.get_state()), **self.inputs.get_state()}

    def set_state(self, state: State, size: int) -> None:
        """Restore what `get_state` returned.

        Raises:
            RunError: something is missing or invalid.
        """
        restore_tensors(self._tensors, state)
        self.unit.set_state(part(state, "unit"))
        self.inputs.set_state(state)
