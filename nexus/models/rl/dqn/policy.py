"""The policy: acts on a network's Q-values, and explores. It works without the agent's learner.

Mnih et al. 2015, https://doi.org/10.1038/nature14236.
"""

from copy import deepcopy
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from nexus.core import QOutput
from nexus.core.state import State
from nexus.core.types import Array
from nexus.models.layers import awake, flatten_parameters, in_mode, noisy_layers
from nexus.models.normalization import normalizers
from nexus.models.rl.dqn.dqn import DQNNetwork
from nexus.ops.action_values import only_legal
from nexus.ops.exploration import epsilon_greedy

__all__ = ["AS_GIVEN", "ActingValues", "ExpectedValues", "Exploration", "Follower", "Policy", "by_epsilon"]


class Exploration(Protocol):
    """How to act while learning: from Q-values `[E, A]`, -inf where illegal, to actions `[E]`.

    A part uses ε or the temperature; masks `[E, A]` are None if every action is legal.
    """

    def __call__(
        self,
        q_values: Tensor,
        epsilon: float,
        temperature: float,
        rng: np.random.Generator,
        action_masks: Array | None,
    ) -> Array: ...


def by_epsilon(
    q_values: Tensor, epsilon: float, temperature: float, rng: np.random.Generator, action_masks: Array | None
) -> Array:
    """Act at random with probability ε, else greedily; the temperature is not used."""
    greedy_actions: Array = q_values.argmax(1).cpu().numpy()
    if epsilon == 0.0:
        return greedy_actions
    return epsilon_greedy(greedy_actions, q_values.shape[1], epsilon, rng, action_masks)


class ActingValues(Protocol):
    """The values that a policy acts on in training, from a network's output. It may keep state per environment."""

    def begin(self, begins: Array) -> None:
        """Note where `[E]` the next states are the first of an episode."""

    def __call__(self, output: QOutput) -> Tensor:
        """Return the values `[E, A]` to act on, from an output for E states."""

    def get_state(self) -> State:
        """Return what acting changes; empty for nothing."""

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned.

        Raises:
            RunError: something is missing or does not fit.
        """


class ExpectedValues:
    """The Q-values themselves, the same for all environments."""

    def begin(self, begins: Array) -> None:
        """Do nothing."""

    def __call__(self, output: QOutput) -> Tensor:
        """`[E, A]`, as the network returns them."""
        return output.q_values

    def get_state(self) -> State:
        """Return nothing."""
        return {}

    def set_state(self, state: State) -> None:
        """Do nothing."""


AS_GIVEN = ExpectedValues()


class Policy:
    """Chooses actions by a network's Q-values.

    Args:
        network: the Q-network.
        theta: its parameters `[P]`, flat.
        exploration: how to act while learning.
        rng: source of the coins.
        noise: source of the noise in noisy layers, on the network's device.
        at_rest: the network that acts outside training, if different.
        acting: the values to act on in training, if not the Q-values.
    """

    epsilon = 0.0  # probability of a random action; set by the caller, like the temperature
    temperature = 1.0  # of Boltzmann exploration

    def __init__(
        self,
        network: DQNNetwork,
        theta: Tensor,
        exploration: Exploration,
        rng: np.random.Generator,
        noise: torch.Generator,
        at_rest: DQNNetwork | None = None,
        acting: ActingValues = AS_GIVEN,
    ) -> None:
        self.network = network
        self.theta = theta
        self.exploration = exploration
        self.rng = rng
        self.noise = noise
        self.at_rest = network if at_rest is None else at_rest
        self.acting = acting
        self._noisy = noisy_layers(network)
        statistics = [(layer.mean, layer.deviation) for layer in normalizers(network)]
        self._read = [theta, *(tensor for pair in statistics for tensor in pair)]

    def begin(self, begins: Array) -> None:
        """Note where `[E]` the states of the next `act` in training are the first of an episode."""
        self.acting.begin(begins)

    def act(self, states: Array, epsilon: float, training: bool = True, action_masks: Array | None = None) -> Array:
        """Return an action for each of `[E, *obs]`: in training by `exploration`, else ε-greedily.

        In training, noisy layers use a fresh draw of their noise, otherwise their mean weights. Outside
        training nothing changes, and random numbers are drawn only for ε above 0. With masks `[E, A]`
        only legal actions are taken; a row without any (a terminal state) counts as all legal.
        """
        network = self.network if training else self.at_rest
        legal = None if action_masks is None else torch.as_tensor(action_masks, device=self.theta.device).bool()
        mode = awake(self._noisy, self.noise) if training else in_mode(network.modules(), False)
        with mode, torch.inference_mode():
            output = network.output(torch.as_tensor(states, device=network.device))
            values = self.acting(output) if training else output.q_values
            q_values = only_legal(values, legal)  # [E, A]
        masks = None if action_masks is None else np.asarray(action_masks, bool)
        choose = self.exploration if training else by_epsilon  # an evaluation's ε means ε-greedy
        return choose(q_values, epsilon, self.temperature, self.rng, masks)

    def follower(self) -> "Follower":
        """Return a policy that acts on a copy of the weights, so that a learner can change them meanwhile."""
        return Follower(self)

    def get_weights(self) -> Array:
        """Return a copy of all parameters `[P]`, followed by the statistics that a `Normalizer` reads."""
        weights: Array = torch.cat([tensor.detach() for tensor in self._read]).cpu().numpy()
        return weights

    def set_weights(self, weights: Array | Tensor) -> None:
        """Set all what `get_weights` returned."""
        given = torch.split(torch.as_tensor(weights), [len(tensor) for tensor in self._read])
        with torch.no_grad():
            for own, part in zip(self._read, given, strict=True):
                own.copy_(part)

    def follow(self, other: "Policy") -> None:
        """Take on the weights of a policy with such a network."""
        with torch.no_grad():
            for own, part in zip(self._read, other._read, strict=True):
                own.copy_(part)

    def copy(self) -> "Policy":
        """Return a policy on a copy of the network with separate noise; both share ε coins and acting values."""
        network = deepcopy(self.network).requires_grad_(False)
        noise = torch.Generator(self.theta.device)
        theta = flatten_parameters(network)
        return self._like(Policy(network, theta, self.exploration, self.rng, noise, acting=self.acting))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Policy":
        """Return an independent copy; if its learner was copied first, on that copy's weights."""
        network = deepcopy(self.network, memo)
        copy = Policy(
            network,
            memo[id(self.theta)] if id(self.theta) in memo else flatten_parameters(network),
            deepcopy(self.exploration, memo),
            deepcopy(self.rng, memo),
            deepcopy(self.noise, memo),
            deepcopy(self.at_rest, memo),
            deepcopy(self.acting, memo),
        )
        return self._like(copy)

    def _like(self, other: "Policy") -> "Policy":
        """Set another policy's exploration to this one's, and return it."""
        other.epsilon, other.temperature = self.epsilon, self.temperature
        return other


class Follower:
    """Acts as a policy did at the last `follow`, whatever it has learned since.

    Between two calls of `follow` it shares nothing with learning. It uses the policy's coins, which nothing else uses
    meanwhile; its layers' noise is separate, and seeded from the policy's at each `follow`.

    Args:
        source: the policy it follows.
    """

    def __init__(self, source: Policy) -> None:
        self.source = source
        self.policy = source.copy()
        self.epsilon, self.temperature = source.epsilon, source.temperature
        device = source.theta.device
        # On a GPU in a separate stream; otherwise each action would wait for all of the learner's queued updates.
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def follow(self) -> None:
        """Copy the source's current weights; they must not change meanwhile."""
        self.policy.follow(self.source)
        if self.policy._noisy:
            noise = self.source.noise
            self.policy.noise.manual_seed(int(torch.randint(2**62, (), generator=noise, device=noise.device)))
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self.source.theta.device))

    def begin(self, begins: Array) -> None:
        """Note where `[E]` an episode begins, as `Policy.begin` does."""
        self.policy.begin(begins)

    def act(self, states: Array, epsilon: float, training: bool = True, action_masks: Array | None = None) -> Array:
        """Return an action for each of `[E, *obs]`, as `Policy.act` does."""
        self.policy.temperature = self.temperature
        with torch.cuda.stream(self._stream):
            return self.policy.act(states, epsilon, training, action_masks)
