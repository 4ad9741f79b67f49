"""The agent: a policy and a learner behind one interface.

Acting is in `policy.py`, learning in `learner.py`; the losses are in `dqn.py` and the variants next to it.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch

from nexus.core import AgentConfig, Batch, ConfigError, NexusModule
from nexus.core.seeding import generator, seeded_initialisation, torch_generator
from nexus.core.state import State, below, number_from, part, restore_generator
from nexus.core.types import Array, Outcome
from nexus.models.averaging import WeightAverage
from nexus.models.layers import resample_noise
from nexus.models.normalization import ObservationStatistics, ReturnStatistics, normalizers
from nexus.models.rl.dqn.dqn import ERRORS, DQNLoss, DQNNetwork, Loss, NextAction, greedy_on_target
from nexus.models.rl.dqn.learner import Learner
from nexus.models.rl.dqn.learner_state import CapturedStep, learner_state, networks, restore_learner
from nexus.models.rl.dqn.policy import AS_GIVEN, ActingValues, Exploration, Policy, by_epsilon
from nexus.models.setup import pop_dims, pop_rewards_normalized, resolve_device
from nexus.models.states import pop_states

__all__ = ["DQNAgent"]


class DQNAgent(NexusModule):
    """Acts on `q_network`, ε-greedily by default, and trains it towards targets from `target_network`.

    Args:
        config: `state_dim` (a number or a shape) and `action_dim`, any field of `AgentConfig`, and optionally
            `state_bounds`: the lowest and highest value of each component, which the network maps to [-1, 1];
            `state_scale`: the lowest and highest of all values, which it maps to [0, 1];
            `discrete_start`: the first of the environment's whole numbers, for one-hot states;
            `state_normalized`: whether the numbers of a state are normalised by running statistics, and
            `normalize_rewards`: whether rewards are divided by the running deviation of returns;
            and `state_parts`: a description of each part of packed states (`docs/observations.md`).
        network: a custom network; its copy becomes the target network.
        loss: a custom loss object.
        next_action: a custom choice of the next action.
        exploration: a custom way to act while learning.
        acting: custom values to act on while learning.

    Raises:
        ConfigError: a key is missing, unknown or impossible.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        network: DQNNetwork | None = None,
        loss: Loss | None = None,
        next_action: NextAction = greedy_on_target,
        exploration: Exploration = by_epsilon,
        acting: ActingValues = AS_GIVEN,
    ) -> None:
        super().__init__(config)
        given = dict(config)
        self.state_shape, self.action_dim = pop_dims(given)
        self.states = pop_states(given, self.state_shape)
        rewards_normalized = pop_rewards_normalized(given)
        self.settings = settings = AgentConfig.from_mapping(given)
        self.epsilon_min, self.epsilon_decay = settings.epsilon_min, settings.epsilon_decay
        device = resolve_device(settings.device, self.states.widest)
        with seeded_initialisation(settings.seed):
            self.q_network = (self.default_network() if network is None else network).to(device)
        self.target_network = deepcopy(self.q_network).requires_grad_(False)
        noise = torch_generator(settings.seed, "noise", device)
        resample_noise(self.q_network, noise)
        over = settings.averaged_updates
        average = None if over is None else WeightAverage(self.q_network, over)
        loss = DQNLoss(ERRORS[settings.loss]) if loss is None else loss
        numbers = self.states.normalized
        if numbers and not normalizers(self.q_network):
            raise ConfigError("state_normalized: the given network has no Normalizer in front of its layers")
        observed = ObservationStatistics(self.states.numbers, numbers) if numbers else None
        returns = ReturnStatistics(settings.gamma, device) if rewards_normalized else None
        # Before the policy: a deep copy follows this order, and the policy's weights are the learner's.
        networks = self.q_network, self.target_network
        self.learner = Learner(settings, *networks, loss, next_action, noise, average, observed, returns)
        rng, at_rest = generator(settings.seed, "exploration"), None if average is None else average.network
        self.policy = Policy(self.q_network, self.learner.theta, exploration, rng, noise, at_rest, acting)
        self.policy.epsilon, self.policy.temperature = settings.epsilon, settings.temperature
        if settings.cuda_graph and device.type == "cuda":
            self.learner.record_by(CapturedStep)

    def default_network(self) -> DQNNetwork:
        """Return the network that the settings describe."""
        torso, features = self.states.torso(self.settings)
        return DQNNetwork(self.state_shape, self.action_dim, features, torso=torso)

    @property
    def gamma(self) -> float:
        """Discount of transitions that come with `dones`; all others have their own."""
        return self.learner.gamma

    @gamma.setter
    def gamma(self, value: float) -> None:
        self.learner.gamma = value

    @property
    def epsilon(self) -> float:
        """Probability of a random action while training."""
        return self.policy.epsilon

    @epsilon.setter
    def epsilon(self, value: float) -> None:
        self.policy.epsilon = value

    @property
    def temperature(self) -> float:
        """Temperature of Boltzmann exploration."""
        return self.policy.temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self.policy.temperature = value

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The learner's optimizer."""
        return self.learner.optimizer

    def select_action(self, state: Any, training: bool = True, action_masks: Any = None) -> int:
        """Return one action for one state `[*obs]`: explored while training, else greedy.

        Args:
            state: `[*obs]`, or the environment's observation: whole numbers, a Dict, a Tuple.
            training: whether to explore.
            action_masks: `[A]`, 1 where legal, as in Gymnasium's `info["action_mask"]`; None for all, or for the mask
                in a Dict observation.

        Raises:
            ConfigError: this is not one state, or not finite; no action is legal, or a mask lacks one entry per action.
        """
        action_masks = self.states.masks(state) if action_masks is None else action_masks
        masks = None if action_masks is None else self._usable(np.asarray(action_masks)[None])
        states = self.states.read(state, many=False)[None]
        return int(self.act(states, self.epsilon if training else 0.0, training, masks)[0])

    def begin(self, begins: Array) -> None:
        """Note where `[E]` the states of the next `act` in training are the first of an episode."""
        self.policy.begin(begins)

    def act(self, states: Array, epsilon: float, training: bool = True, action_masks: Array | None = None) -> Array:
        """Return an action for each of `[E, *obs]`, as `Policy.act` does."""
        return self.policy.act(states, epsilon, training, action_masks)

    def predict(
        self,
        observation: Any,
        state: None = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_masks: Any = None,
    ) -> tuple[Any, None]:
        """Return `(action, None)` for one observation, or `(actions, None)` for many, as other libraries do.

        Args:
            observation: `[*obs]` or `[E, *obs]`, or environment observations: whole numbers, a Dict, a Tuple, for
                many with a leading axis E in each part.
            state: not used.
            episode_start: not used.
            deterministic: act greedily; otherwise explore like the agent in training.
            action_masks: `[A]` or `[E, A]`, 1 where legal; None for all, or for the mask in a Dict observation.

        Raises:
            ConfigError: the observation has another shape or is not finite; no action is legal, or a mask lacks one
                entry per action.
        """
        action_masks = self.states.masks(observation) if action_masks is None else action_masks
        states = self.states.read(observation)
        one = states.ndim == len(self.state_shape)
        epsilon = 0.0 if deterministic else self.epsilon
        masks = None if action_masks is None else self._usable(np.atleast_2d(action_masks))
        actions = self.act(states[None] if one else states, epsilon, not deterministic, masks)
        return (actions[0] if one else actions), None

    def _usable(self, action_masks: Array) -> Array:
        """Return masks `[E, A]` as bool, each with a legal action, or raise `ConfigError`."""
        masks = action_masks.astype(bool)
        if masks.ndim != 2 or masks.shape[1] != self.action_dim or not masks.any(1).all():
            raise ConfigError(f"action_masks {masks.tolist()}: needs {self.action_dim} entries, at least one of them 1")
        return masks

    def observe(self, states: Array, rewards: Array, begins: Array, valid: Array) -> None:
        """Let running statistics follow a vector step, as `Learner.observe` does."""
        self.learner.observe(states, rewards, begins, valid)

    def update(self, batch: Batch) -> Outcome:
        """Learn from a batch and decay ε once: ε ← max(ε_min, ε · decay), as the seed's pseudocode does."""
        outcome = self.learn(batch)
        self.epsilon = max(self.epsilon_min, self.epsilon * self.epsilon_decay)
        return outcome

    def learn(self, batch: Batch) -> Outcome:
        """Take one optimizer step on a batch; ε is unchanged."""
        return self.learner.learn(batch)

    def update_target_network(self) -> None:
        """θ⁻ ← τθ + (1-τ)θ⁻; with the default τ = 1 a plain copy."""
        self.learner.update_target_network()

    @property
    def networks(self) -> dict[str, DQNNetwork]:
        """All networks by name."""
        return networks(self.learner)

    def get_state(self) -> State:
        """Return everything that acting and learning change."""
        return {
            **learner_state(self.learner),
            "epsilon": self.epsilon,
            "temperature": self.temperature,
            "exploration": self.policy.rng.bit_generator.state,
            **below("acting", self.policy.acting.get_state()),
        }

    def set_state(self, state: State) -> None:
        """Restore the result of `get_state`.

        Raises:
            RunError: something is missing, does not fit, or is not finite.
        """
        restore_learner(self.learner, state)
        self.epsilon = number_from(state, "epsilon", 0, 1)
        self.temperature = number_from(state, "temperature", low=0)
        restore_generator(self.policy.rng, state, "exploration")
        self.policy.acting.set_state(part(state, "acting"))
