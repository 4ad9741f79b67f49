"""The agent: acts on Q-values, explores, and takes optimizer steps on whatever network and loss it is given.

Mnih et al. 2015, https://doi.org/10.1038/nature14236. What is learned is in `dqn.py` and the variants beside it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from nexus.core import AgentConfig, Batch, ConfigError, NexusModule
from nexus.core.seeding import generator, seeded_initialisation, torch_generator
from nexus.core.state import (
    State,
    arrays_of,
    below,
    number_from,
    restore_generator,
    restore_tensors,
    restore_torch_generator,
)
from nexus.core.types import Array
from nexus.models.averaging import WeightAverage
from nexus.models.graph import Captured, Recorder, record
from nexus.models.layers import flatten_parameters, in_mode, noisy_layers, resample_noise
from nexus.models.rl.dqn.dqn import DQNLoss, DQNNetwork, Loss, NextAction, greedy_on_target
from nexus.models.setup import (
    compiled,
    pop_bounds,
    pop_dims,
    pop_discrete_start,
    pop_scale,
    resolve_device,
    states_of,
)
from nexus.models.torsos import make_torso
from nexus.ops.action_masks import only_legal
from nexus.ops.exploration import epsilon_greedy
from nexus.ops.optimizers import optimizer_of
from nexus.ops.target_update import hard_update, soft_update
from nexus.ops.td import ERRORS

__all__ = ["DQNAgent", "FollowingActor", "Outcome", "Update", "by_epsilon"]


class Exploration(Protocol):
    """How to act while learning: from Q-values `[E, A]`, -inf where illegal, to actions `[E]`.

    A part looks at ε or at the temperature; the masks `[E, A]` are None where every action is legal.
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
    """Act at random with probability ε, else greedily; the temperature is not looked at."""
    greedy_actions: Array = q_values.argmax(1).cpu().numpy()
    if epsilon == 0.0:
        return greedy_actions
    return epsilon_greedy(greedy_actions, q_values.shape[1], epsilon, rng, action_masks)


# What `DQNAgent._bind` makes: it belongs to one agent and can't be copied from it.
BOUND = ("_theta", "_theta_target", "_parameters_of_theta", "optimizer", "_gradient_of", "_take_step")
LEARNED_FROM = ("states", "actions", "rewards", "next_states", "discounts", "returns", "weights")  # keys of a batch


class Outcome(NamedTuple):
    """What an update tells."""

    loss: Tensor  # scalar
    norm: Tensor  # scalar, of the gradient before clipping
    priorities: Tensor  # [B]
    q_values: Tensor  # [B, A]
    targets: Tensor  # [B]


class Gradient(NamedTuple):
    """What the update computes, tensors only, so that it can be compiled or captured as a whole."""

    gradient: Tensor  # [P], of the weighted mean loss, clipped
    outcome: Outcome


class Update(Mapping[str, Tensor]):
    """What one update did. Metrics are reduced when asked for and stay tensors: no update waits for them."""

    def __init__(self, outcome: Outcome) -> None:
        self.priorities = outcome.priorities  # [B], for the replay
        self._metrics: dict[str, Callable[[], Tensor]] = {
            "loss": lambda: outcome.loss,
            "td_error": outcome.priorities.mean,
            "q_mean": outcome.q_values.mean,
            "q_max": outcome.q_values.max,
            "target_mean": outcome.targets.mean,
            "grad_norm": lambda: outcome.norm,
        }

    def __getitem__(self, name: str) -> Tensor:
        return self._metrics[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._metrics)

    def __len__(self) -> int:
        return len(self._metrics)


class DQNAgent(NexusModule):
    """Acts on `q_network`, ε-greedily by default, and trains it towards targets from `target_network`.

    Args:
        config: `state_dim` (a number or a shape) and `action_dim`, any field of `AgentConfig`, and perhaps
            `state_bounds`: the lowest and the highest values of a state, which the network maps to [-1, 1];
            `state_scale`: two numbers, the lowest and the highest of all values, which it maps to [0, 1]; and
            `discrete_start`: the first of the whole numbers that the environment observes, where states are one-hot.
        network: another network, already made; its copy becomes the target network.
        loss: another loss object.
        next_action: another choice of the next action.
        exploration: another way to act while learning.

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
    ) -> None:
        super().__init__(config)
        settings = dict(config)
        self.state_shape, self.action_dim = pop_dims(settings)
        self.state_bounds = pop_bounds(settings, self.state_shape)
        self.state_scale = pop_scale(settings, self.state_bounds)
        self.discrete_start = pop_discrete_start(settings, self.state_shape)
        self.settings = AgentConfig.from_mapping(settings)
        self.gamma = self.settings.gamma
        self.epsilon = self.settings.epsilon
        self.epsilon_min = self.settings.epsilon_min
        self.epsilon_decay = self.settings.epsilon_decay
        self.loss = DQNLoss(ERRORS[self.settings.loss]) if loss is None else loss
        self.next_action = next_action
        self.exploration = exploration
        self.temperature = self.settings.temperature
        self._rng = generator(self.settings.seed, "exploration")

        device = resolve_device(self.settings.device, self.state_shape)
        with seeded_initialisation(self.settings.seed):
            self.q_network = (self.default_network() if network is None else network).to(device)
        self.target_network = deepcopy(self.q_network).requires_grad_(False)
        self._noise = torch_generator(self.settings.seed, "noise", device)
        self._is_noisy = resample_noise(self.q_network, self._noise)
        over = self.settings.averaged_updates
        self.average = None if over is None else WeightAverage(self.q_network, over)
        self._bind()

    def _bind(self) -> None:
        """Make parameters views of flat ones, and what holds on to those: the optimizer and the update."""
        self._theta = flatten_parameters(self.q_network)  # [P], θ
        self._theta_target = flatten_parameters(self.target_network)  # [P], θ⁻
        self._parameters_of_theta = list(self.q_network.parameters())
        self.optimizer = optimizer_of(self.settings, self._theta)
        self._gradient_of = compiled(self._gradient) if self.settings.compile else self._gradient
        self._take_step: Callable[[Batch, float], Outcome] = self.step
        if self.settings.cuda_graph and self._theta.is_cuda:
            self._take_step = self.captured()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return an agent of its own that acts and learns on exactly as this one would."""
        copy = type(self).__new__(type(self))
        memo[id(self)] = copy
        vars(copy).update({name: deepcopy(value, memo) for name, value in vars(self).items() if name not in BOUND})
        copy._bind()
        memo[id(self.optimizer)] = copy.optimizer  # for a scheduler that is copied along
        copy.optimizer.param_groups[0] |= {k: v for k, v in self.optimizer.param_groups[0].items() if k != "params"}
        for name, moment in self.optimizer.state[self._theta].items():
            copy.optimizer.state[copy._theta][name].copy_(moment)
        return copy

    def default_network(self) -> DQNNetwork:
        """Return the network that the settings describe."""
        torso, features = make_torso(self.settings, self.state_shape, self.state_bounds, self.state_scale)
        return DQNNetwork(self.state_shape, self.action_dim, features, torso=torso)

    def select_action(self, state: Any, training: bool = True, action_masks: Any = None) -> int:
        """Return one action for one state `[*obs]`: explored while training, else greedy.

        Args:
            state: `[*obs]`, or a whole number where the environment observes those.
            training: explore.
            action_masks: `[A]`, 1 where legal, as in Gymnasium's `info["action_mask"]`; None for all.

        Raises:
            ConfigError: this is not one state, or not finite; no action is legal, or there is not one entry per action.
        """
        masks = None if action_masks is None else self._usable(np.asarray(action_masks)[None])
        states = states_of(state, self.state_shape, self.discrete_start, many=False)[None]
        return int(self.act(states, self.epsilon if training else 0.0, training, masks)[0])

    def act(self, states: Array, epsilon: float, training: bool = True, action_masks: Array | None = None) -> Array:
        """Return an action for each of `[E, *obs]`: while training by `exploration`, else ε-greedily.

        While training, noisy layers act with a fresh draw of their noise; else with their mean weights, and all layers
        with their average over updates if there is one. Outside training nothing is changed, and nothing is drawn but
        the coins of ε, where that is not 0. Where masks `[E, A]` are given, only legal actions are taken; a row without
        any (a terminal state) counts as all legal.
        """
        network = self.q_network if training or self.average is None else self.average.network
        return self._act_by(network, self._noise, self.temperature, states, epsilon, training, action_masks)

    def _act_by(
        self,
        network: DQNNetwork,
        noise: torch.Generator,
        temperature: float,
        states: Array,
        epsilon: float,
        training: bool,
        action_masks: Array | None,
    ) -> Array:
        """Act on what a network says, its layers' noise drawn from a generator."""
        legal = None if action_masks is None else torch.as_tensor(action_masks, device=self._theta.device).bool()
        with self._awake(network, noise) if training else in_mode(network.modules(), False), torch.inference_mode():
            q_values = only_legal(network(states), legal)  # [E, A]
        masks = None if action_masks is None else np.asarray(action_masks, bool)
        choose = self.exploration if training else by_epsilon  # an evaluation with ε means just that
        return choose(q_values, epsilon, temperature, self._rng, masks)

    @contextmanager
    def _awake(self, network: DQNNetwork, noise: torch.Generator) -> Iterator[None]:
        """Let a network's noisy layers use a fresh draw of their noise, whatever `eval` said of them."""
        noisy = noisy_layers(network) if self._is_noisy else []
        with in_mode(noisy, True):
            for layer in noisy:
                layer.resample(noise)
            yield

    def actor(self) -> "FollowingActor":
        """Return who acts on a copy of the network, so that the agent may learn in another thread meanwhile."""
        return FollowingActor(self)

    def state_values(self, states: Array, action_masks: Array | None = None) -> Array:
        """Return max_a Q(s, a; θ⁻) `[K]` of `[K, *obs]`, over all actions or those that masks `[K, A]` call legal."""
        legal = None if action_masks is None else torch.as_tensor(action_masks, device=self._theta.device).bool()
        with self._awake(self.target_network, self._noise), torch.inference_mode():
            values: Array = only_legal(self.target_network(states), legal).amax(1).cpu().numpy()
        return values

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
            observation: `[*obs]` or `[E, *obs]`; where the environment observes whole numbers, one or a row `[E]`, too.
            state: not used.
            episode_start: not used.
            deterministic: greedy; else with the agent's exploration.
            action_masks: `[A]` or `[E, A]`, 1 where legal; None for all.

        Raises:
            ConfigError: the observation has another shape or is not finite; no action is legal, or there is not one
                entry per action.
        """
        states = states_of(observation, self.state_shape, self.discrete_start)
        one = states.ndim == len(self.state_shape)
        epsilon = 0.0 if deterministic else self.epsilon
        masks = None if action_masks is None else self._usable(np.atleast_2d(action_masks))
        actions = self.act(states[None] if one else states, epsilon, not deterministic, masks)
        return (actions[0] if one else actions), None

    def _usable(self, action_masks: Array) -> Array:
        """Return masks `[E, A]` as bool, each with something to choose, or raise `ConfigError`."""
        masks = action_masks.astype(bool)
        if masks.ndim != 2 or masks.shape[1] != self.action_dim or not masks.any(1).all():
            raise ConfigError(f"action_masks {masks.tolist()}: needs {self.action_dim} entries, at least one of them 1")
        return masks

    def update(self, batch: Batch) -> Update:
        """Learn from a batch and decay ε once: ε ← max(ε_min, ε · decay), as the seed's pseudocode does."""
        result = self.learn(batch)
        self.epsilon = max(self.epsilon_min, self.epsilon * self.epsilon_decay)
        return result

    def learn(self, batch: Batch) -> Update:
        """Take one optimizer step on a batch; ε stays as it is."""
        return Update(self._take_step(self._prepare(batch), self.optimizer.param_groups[0]["lr"]))

    def step(self, batch: Batch, learning_rate: float | Tensor) -> Outcome:
        """Take one optimizer step on a batch that is on the device: fresh noise, the gradient, the step.

        It changes `changes` and draws from `torch_streams`, and no more, so that a CUDA graph can hold it; there the
        learning rate is a tensor `[]`.
        """
        with self._awake(self.q_network, self._noise), self._awake(self.target_network, self._noise):
            result: Gradient = self._gradient_of(batch)
        self._theta.grad = result.gradient
        self.optimizer.step(learning_rate=learning_rate)
        if self.average is not None:
            self.average.follow(self._theta)
        return result.outcome

    @property
    def changes(self) -> dict[str, Tensor]:
        """What an optimizer step changes, by name: θ `[P]`, the optimizer's moments, and θ̄ if there is one."""
        averaged = {} if self.average is None else self.average.changes
        return {"theta": self._theta, **self.optimizer.state[self._theta], **averaged}

    def captured(self, recorder: Recorder = record) -> Captured[Outcome]:
        """Return `step` as something that is recorded at its first call."""
        return Captured(self.step, list(self.torch_streams.values()), lambda: self.changes, recorder)

    def _gradient(self, batch: Batch) -> Gradient:
        """Return ∇θ of the weighted mean loss; it changes nothing."""
        out = self.loss(self.q_network, self.target_network, self.next_action, batch)
        loss = (batch["weights"] * out.loss).mean()  # the one place that weights and reduces
        gradients = torch.autograd.grad(loss, self._parameters_of_theta)
        gradient = torch.cat([part.reshape(-1) for part in gradients])
        norm = torch.linalg.vector_norm(gradient)
        if self.settings.max_grad_norm is not None:
            gradient.mul_((self.settings.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))  # its own: fresh from cat
        return Gradient(gradient, Outcome(loss.detach(), norm, out.priorities, out.q_values, out.targets))

    def _prepare(self, batch: Batch) -> dict[str, Tensor]:
        """Move a batch to the device; here, and nowhere else, the seed's `dones` become discounts."""
        ready = {key: batch[key] for key in LEARNED_FROM if key in batch}
        if "dones" in batch:
            ready["discounts"] = self.gamma * (1.0 - batch["dones"])
        ready |= {key: batch[key].bool() for key in ("action_masks", "next_action_masks") if key in batch}
        ready.setdefault("weights", torch.ones(len(batch["actions"])))
        if self._theta.is_cpu:
            return ready
        return {key: value.to(self._theta.device, non_blocking=True) for key, value in ready.items()}

    @property
    def networks(self) -> dict[str, DQNNetwork]:
        """All networks by name."""
        averaged = {} if self.average is None else {"averaged_network": self.average.network}
        return {"q_network": self.q_network, "target_network": self.target_network, **averaged}

    @property
    def torch_streams(self) -> dict[str, torch.Generator]:
        """Torch's generators by name: of the layers' noise, and those that the loss draws from."""
        return {"noise": self._noise, **below("loss", generators_of(self.loss))}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All that learning changes in place, by name: the networks and the optimizer's moments.

        The layers' noise is not in it: acting and learning draw it afresh before they use it.
        """
        weights = {
            key: value for name, net in self.networks.items() for key, value in below(name, net.state_dict()).items()
        }
        averaged = {} if self.average is None else self.average.tensors
        return {**weights, **below("optimizer", self.optimizer.state[self._theta]), **averaged}

    def get_state(self) -> State:
        """Return everything that learning changes: tensors, ε, generators."""
        generators = {name: stream.get_state() for name, stream in self.torch_streams.items()}
        return {
            **arrays_of({**self.tensors, **below("generators", generators)}),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "epsilon": self.epsilon,
            "temperature": self.temperature,
            "exploration": self._rng.bit_generator.state,
        }

    def set_state(self, state: State) -> None:
        """Take back what `get_state` gave.

        Raises:
            RunError: something is missing, does not fit, or is not finite.
        """
        restore_tensors(self.tensors, state)
        self.optimizer.param_groups[0]["lr"] = number_from(state, "learning_rate", low=0)
        self.epsilon = number_from(state, "epsilon", 0, 1)
        self.temperature = number_from(state, "temperature", low=0)
        restore_generator(self._rng, state, "exploration")
        for name, stream in self.torch_streams.items():
            restore_torch_generator(stream, state, f"generators.{name}")

    def update_target_network(self) -> None:
        """θ⁻ ← τθ + (1-τ)θ⁻; with the default τ = 1 a plain copy."""
        if self.settings.tau == 1.0:
            hard_update(self._theta_target, self._theta)
        else:
            soft_update(self._theta_target, self._theta, self.settings.tau)


class FollowingActor:
    """Acts as an agent would have when it last followed it, whatever the agent has learned since.

    Between two calls of `follow` it shares nothing with the agent's learning. Its coins are the agent's, which nobody
    else tosses meanwhile; the noise of its layers is its own, and begins anew from the agent's with each `follow`.

    Args:
        agent: whom it follows.
    """

    def __init__(self, agent: DQNAgent) -> None:
        self.epsilon, self.temperature = agent.epsilon, agent.temperature
        self._agent = agent
        self._network = deepcopy(agent.q_network).requires_grad_(False)
        self._theta = flatten_parameters(self._network)
        self._noise = torch.Generator(agent.device)
        # On a GPU in a queue of its own, or each action would wait behind all updates that are in the agent's.
        self._stream = torch.cuda.Stream(agent.device) if agent.device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def follow(self) -> None:
        """Take on the agent's weights as they are; it must not learn meanwhile."""
        hard_update(self._theta, self._agent._theta)
        if self._agent._is_noisy:
            source = self._agent._noise
            self._noise.manual_seed(int(torch.randint(2**62, (), generator=source, device=source.device)))
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._agent.device))

    def act(self, states: Array, epsilon: float, training: bool = True, action_masks: Array | None = None) -> Array:
        """Return an action for each of `[E, *obs]`, as `DQNAgent.act` does."""
        with torch.cuda.stream(self._stream):
            return self._agent._act_by(
                self._network, self._noise, self.temperature, states, epsilon, training, action_masks
            )


def generators_of(loss: Loss) -> dict[str, torch.Generator]:
    """Return the generators that a loss draws from, by name."""
    return {name: value for name, value in vars(loss).items() if isinstance(value, torch.Generator)}
