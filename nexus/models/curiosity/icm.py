"""The intrinsic curiosity module (Pathak et al. 2017, https://arxiv.org/abs/1705.05363)."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nexus.core.config import AgentConfig
from nexus.core.state import State, arrays_of, below, part, restore_tensors
from nexus.core.types import Array, Steps
from nexus.models.curiosity.inputs import InputStatistics
from nexus.models.curiosity.unit import ErrorUnit
from nexus.models.rl.dqn.own_parts import OwnNetwork
from nexus.models.states import PackedStates, PlainStates

__all__ = ["FORWARD_SHARE", "IntrinsicCuriosity"]

FORWARD_SHARE = 0.2  # the paper's β: the weight of the forward loss, against 0.8 of the inverse one


class Models(nn.Module):
    """Features of a state, a model of the action between two states, and one of the features that an action leads to.

    Args:
        torso: `[K, *obs] -> [K, D]`.
        features: `D`.
        action_dim: `A`.
    """

    def __init__(self, torso: nn.Module, features: int, action_dim: int) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.torso = torso
        self.inverse = nn.Sequential(nn.Linear(2 * features, features), nn.ReLU(), nn.Linear(features, action_dim))
        self.onward = nn.Sequential(
            nn.Linear(features + action_dim, features), nn.ReLU(), nn.Linear(features, features)
        )

    def forward(self, states: Tensor, actions: Tensor, next_states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the forward errors ½‖φ̂(s') - φ(s')‖² `[K]` and the inverse losses `[K]`.

        The features learn from the inverse loss only, so they hold what actions change and nothing else.
        """
        now, after = self.torso(states), self.torso(next_states)
        inverse = F.cross_entropy(self.inverse(torch.cat([now, after], 1)), actions, reduction="none")
        chosen = F.one_hot(actions, self.action_dim).to(now.dtype)
        predicted = self.onward(torch.cat([now.detach(), chosen], 1))
        return 0.5 * (predicted - after.detach()).square().sum(1), inverse


class IntrinsicCuriosity:
    """β times the error of a model that predicts the features of the next state from state and action, in its unit.

    Args:
        states: how states are read, with their numbers normalised.
        action_dim: actions `A`.
        settings: the agent's, for the torso of the features.
        scale: β.
        learning_rate: of all models.
        device: where batches are computed.
    """

    def __init__(
        self,
        states: PlainStates | PackedStates,
        action_dim: int,
        settings: AgentConfig,
        scale: float,
        learning_rate: float,
        device: torch.device,
    ) -> None:
        self.scale, self.device = scale, device
        torso, features = states.torso(settings)
        self.models = OwnNetwork(Models(torso, features, action_dim).to(device), learning_rate)
        self.unit = ErrorUnit()
        self.inputs = InputStatistics(states, [self.models.network])

    @property
    def nbytes(self) -> int:
        """Bytes of the models and of the optimizer's moments."""
        return 3 * self.models.theta.nbytes

    def enter(self, steps: Steps) -> None:
        """Let the statistics of observations follow the next states."""
        self.inputs.follow(steps)

    def of(self, steps: Steps) -> Array:
        """Return the bonus `[K]` of steps."""
        with torch.inference_mode():
            errors: Array = self._losses(steps)[0].cpu().numpy()
        return (self.scale / self.unit.value * errors).astype(np.float32)

    def learn(self, steps: Steps) -> None:
        """Take one step of all models."""
        errors, inverse = self._losses(steps)
        self.unit.follow(errors.detach().cpu().numpy())
        self.models.step((FORWARD_SHARE * errors + (1 - FORWARD_SHARE) * inverse).mean())

    def _losses(self, steps: Steps) -> tuple[Tensor, Tensor]:
        given = (steps.states, steps.actions, steps.next_states)
        found: tuple[Tensor, Tensor] = self.models.network(*(column.to(self.device) for column in given))
        return found

    def get_state(self, size: int) -> State:
        """Return the models, the moments, the unit and the statistics of observations."""
        tensors = arrays_of(below("models", self.models.tensors))
        return {**tensors, **below("unit", self.unit.get_state()), **self.inputs.get_state()}

    def set_state(self, state: State, size: int) -> None:
        """Restore what `get_state` returned.

        Raises:
            RunError: something is missing or invalid.
        """
        restore_tensors(below("models", self.models.tensors), state)
        self.unit.set_state(part(state, "unit"))
        self.inputs.set_state(state)
