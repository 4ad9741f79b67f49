"""Rainbow (Hessel et al. 2018, https://arxiv.org/abs/1710.02298) and every other combination.

There is no maths here: an algorithm is a choice of parts, a family of losses combined with the switches `double`,
`dueling`, `noisy` and `munchausen`. Replay and n-step folding belong to the trainer; an algorithm only sets their
settings.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from nexus.core import AgentConfig, ConfigError, nearest
from nexus.core.names import algorithm_name, current_names
from nexus.core.seeding import seeded_initialisation, torch_generator
from nexus.core.settings import MunchausenSettings
from nexus.models.layers import Head, NoisyLinear
from nexus.models.rl.dqn.agent import DQNAgent
from nexus.models.rl.dqn.boltzmann import by_temperature
from nexus.models.rl.dqn.c51 import C51Loss, CategoricalReadout
from nexus.models.rl.dqn.double_dqn import greedy_on_online
from nexus.models.rl.dqn.dqn import (
    ERRORS,
    GREEDY,
    Bootstrap,
    DQNLoss,
    DQNNetwork,
    Loss,
    greedy_on_target,
    mean_readout,
)
from nexus.models.rl.dqn.dueling_dqn import DuelingHead
from nexus.models.rl.dqn.iqn import IQNLoss, IQNNetwork
from nexus.models.rl.dqn.munchausen_dqn import MunchausenBootstrap
from nexus.models.rl.dqn.policy import by_epsilon
from nexus.models.rl.dqn.pqn import ReturnLoss
from nexus.models.rl.dqn.qr_dqn import QuantileLoss
from nexus.models.setup import pop_dims, pop_rewards_normalized, resolve_device
from nexus.models.states import States, pop_states

__all__ = ["ALGORITHMS", "Algorithm", "algorithm_named", "make_agent"]


@dataclass(frozen=True)
class Parts:
    """The input of a family's builder: the settings, the shapes and the parts chosen by the switches."""

    settings: AgentConfig
    state_shape: tuple[int, ...]
    states: States
    action_dim: int
    torso: nn.Module
    features: int  # D, the torso's output size
    head: Callable[[int], nn.Module]  # atoms -> head
    bootstrap: Bootstrap

    def network(self, atoms: int = 1, readout: Any = None) -> DQNNetwork:
        """Return the usual network: torso, head, readout."""
        return DQNNetwork(
            self.state_shape,
            self.action_dim,
            self.features,
            torso=self.torso,
            head=self.head(atoms),
            readout=readout,
        )


Family = Callable[[Parts], tuple[DQNNetwork, Loss]]


def scalar(parts: Parts) -> tuple[DQNNetwork, Loss]:
    """One number per action."""
    return parts.network(), DQNLoss(ERRORS[parts.settings.loss], parts.bootstrap)


def of_returns(parts: Parts) -> tuple[DQNNetwork, Loss]:
    """One number per action, trained on returns."""
    return parts.network(), ReturnLoss(ERRORS[parts.settings.loss])


def categorical(parts: Parts) -> tuple[DQNNetwork, Loss]:
    """Probabilities on fixed atoms."""
    settings = parts.settings
    readout = CategoricalReadout(settings.v_min, settings.v_max, settings.atoms)
    return parts.network(settings.atoms, readout), C51Loss()


def quantile(parts: Parts) -> tuple[DQNNetwork, Loss]:
    """Quantiles at fixed levels."""
    return parts.network(parts.settings.quantiles, mean_readout), QuantileLoss(bootstrap=parts.bootstrap)


def implicit_quantile(parts: Parts) -> tuple[DQNNetwork, Loss]:
    """Quantiles at drawn levels."""
    settings = parts.settings
    network = IQNNetwork(
        parts.state_shape,
        parts.action_dim,
        parts.features,
        torso=parts.torso,
        head=parts.head(1),
        acting_levels=settings.quantiles,
    )
    generator = torch_generator(settings.seed, "levels", resolve_device(settings.device, parts.states.widest))
    samples = settings.quantile_samples
    return network, IQNLoss(generator, samples, samples, bootstrap=parts.bootstrap)


def bootstrap_of(settings: MunchausenSettings) -> Bootstrap:
    """Return the bootstrap that the settings choose."""
    if not settings.munchausen:
        return GREEDY
    return MunchausenBootstrap(settings.munchausen_alpha, settings.munchausen_temperature, settings.munchausen_clip)


@dataclass(frozen=True)
class Algorithm:
    """A member of the family.

    Args:
        changes: what it changes in DQN, in one line.
        paper: its paper.
        file: its source file.
        family: builds its network and its loss.
        settings: its settings; presets and users can override those of the trainer.
        refuses: settings that make no sense with it, each with the reason.
    """

    changes: str
    paper: str
    file: str
    family: Family = scalar
    settings: Mapping[str, Any] = field(default_factory=dict)
    refuses: Mapping[str, str] = field(default_factory=dict)


NO_EPSILON = {"epsilon": 0.0, "epsilon_min": 0.0}  # the noise explores
NO_DRAWS = {"compile": "torch can't draw its levels from a generator inside a compiled graph"}
NO_SAMPLES = {"munchausen": "its atoms can't move, and a soft value shifts each action's return by its own log-policy"}
RETURNS = {
    "double": "its returns already contain the value of s', so no next action is chosen",
    "munchausen": "its returns already contain the value of s'",
}
SOFT_VALUE = {"double": "a soft value averages over all next actions, so none is chosen"}

ALGORITHMS: Mapping[str, Algorithm] = {
    "dqn": Algorithm("the baseline", "doi.org/10.1038/nature14236", "dqn.py"),
    "double": Algorithm(
        "the choice of the next action", "arxiv.org/abs/1509.06461", "double_dqn.py", settings={"double": True}
    ),
    "dueling": Algorithm(
        "the head: value and advantages", "arxiv.org/abs/1511.06581", "dueling_dqn.py", settings={"dueling": True}
    ),
    "prioritized": Algorithm(
        "the replay: large errors more often",
        "arxiv.org/abs/1511.05952",
        "data/prioritized_replay_buffer.py",
        settings={"prioritized": True},
    ),
    "n-step": Algorithm(
        "the return: three rewards", "doi.org/10.1007/BF00115009", "data/n_step.py", settings={"n_step": 3}
    ),
    "noisy": Algorithm(
        "exploration: noise in the head's weights",
        "arxiv.org/abs/1706.10295",
        "models/layers.py",
        settings={"noisy": True, **NO_EPSILON},
    ),
    "munchausen": Algorithm(
        "the target: log-policy and soft value",
        "arxiv.org/abs/2007.14430",
        "munchausen_dqn.py",
        settings={"munchausen": True, "double": False},
        refuses=SOFT_VALUE,
    ),
    "c51": Algorithm(
        "the value: probabilities on atoms",
        "arxiv.org/abs/1707.06887",
        "c51.py",
        categorical,
        refuses=NO_SAMPLES,
    ),
    "qr-dqn": Algorithm("the value: quantiles", "arxiv.org/abs/1710.10044", "qr_dqn.py", quantile),
    "iqn": Algorithm(
        "the value: quantiles at drawn levels",
        "arxiv.org/abs/1806.06923",
        "iqn.py",
        implicit_quantile,
        refuses=NO_DRAWS,
    ),
    "pqn": Algorithm(
        "no replay: λ-returns of new steps from many environments",
        "arxiv.org/abs/2407.04811",
        "pqn.py",
        of_returns,
        settings={
            "trace_lambda": 0.65,
            "layer_norm": True,  # instead of a target network
            "loss": "squared",
            "double": False,
            "n_step": 1,
            "prioritized": False,
            "num_envs": 32,
            "rollout_steps": 1024,
            "replay_store": "full",
            "learning_starts": 0,
            "update_every": None,
            "gradient_steps": 64,  # four passes
            "batch_size": 64,
            "target_update_every": "1024 steps",
            "tau": 1.0,
        },
        refuses=RETURNS,
    ),
    "rainbow": Algorithm(
        "c51, double, dueling, noisy, prioritized, n-step",
        "arxiv.org/abs/1710.02298",
        "rainbow.py",
        categorical,
        settings={"double": True, "dueling": True, "noisy": True, "prioritized": True, "n_step": 3, **NO_EPSILON},
        refuses=NO_SAMPLES,
    ),
    "beyond": Algorithm(
        "iqn, munchausen, dueling, noisy, prioritized, n-step, layer norm",
        "arxiv.org/abs/2411.03820",
        "rainbow.py",
        implicit_quantile,
        settings={
            "munchausen": True,
            "double": False,
            "dueling": True,
            "noisy": True,
            "prioritized": True,
            "n_step": 3,
            "layer_norm": True,  # and ε as well as noise
        },
        refuses={**NO_DRAWS, **SOFT_VALUE},
    ),
}


def algorithm_named(name: str) -> Algorithm:
    """Return one of `ALGORITHMS`.

    Raises:
        ConfigError: no algorithm has that name; the message suggests the nearest.
    """
    name = algorithm_name(name)
    if name not in ALGORITHMS:
        raise ConfigError(f"no algorithm {name!r}{nearest(name, ALGORITHMS)}; there are {', '.join(ALGORITHMS)}")
    return ALGORITHMS[name]


def require_sense(algorithm: str, settings: AgentConfig) -> None:
    """Raise `ConfigError` with the reason if a setting makes no sense with the algorithm or another switch."""
    refused = {(algorithm, name): reason for name, reason in ALGORITHMS[algorithm].refuses.items()}
    if settings.munchausen:
        refused |= {("munchausen", name): reason for name, reason in SOFT_VALUE.items()}
    for (who, name), reason in refused.items():
        if getattr(settings, name):
            raise ConfigError(f"{who} can't take {name}: {reason}; set {name} to false")


def make_agent(algorithm: str = "dqn", /, **config: Any) -> DQNAgent:
    """Return an agent built from the parts that its name and switches choose.

    Args:
        algorithm: one of `ALGORITHMS`.
        config: `state_dim`, `action_dim`, the other arguments of `DQNAgent` about states, and any field of
            `AgentConfig`, which overrides the algorithm's settings.

    Raises:
        ConfigError: the name or a setting is unknown, or a combination makes no sense; the message says why.
    """
    whole, settings, network, loss = put_together(algorithm, config)
    return DQNAgent(
        whole,
        network=network,
        loss=loss,
        next_action=greedy_on_online if settings.double else greedy_on_target,
        exploration=by_temperature if settings.exploration == "boltzmann" else by_epsilon,
    )


def network_bytes(algorithm: str = "dqn", /, **config: Any) -> int:
    """Return the bytes that the network of such an agent would take, without allocating it.

    Raises:
        ConfigError: as in `make_agent`.
    """
    with torch.device("meta"):
        _, _, network, _ = put_together(algorithm, config)
    return sum(parameter.nbytes for parameter in network.parameters())


def put_together(algorithm: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], AgentConfig, DQNNetwork, Loss]:
    """Return all settings as given and as validated, the network and the loss."""
    algorithm = algorithm_name(algorithm)
    chosen = algorithm_named(algorithm)
    own = {name: value for name, value in chosen.settings.items() if name in AgentConfig.__dataclass_fields__}
    whole = {**own, **current_names(config), "algorithm": algorithm}
    values = dict(whole)
    state_shape, action_dim = pop_dims(values)
    states = pop_states(values, state_shape)
    pop_rewards_normalized(values)  # the agent's alone: no part differs
    settings = AgentConfig.from_mapping(values)
    require_sense(algorithm, settings)
    linear = partial(NoisyLinear, sigma0=settings.noisy_sigma) if settings.noisy else nn.Linear
    head = DuelingHead if settings.dueling else Head
    with seeded_initialisation(settings.seed):
        torso, features = states.torso(settings)
        parts = Parts(
            settings,
            state_shape,
            states,
            action_dim,
            torso,
            features,
            lambda atoms: head(features, action_dim, atoms, linear),
            bootstrap_of(settings),
        )
        network, loss = chosen.family(parts)
    return whole, settings, network, loss
