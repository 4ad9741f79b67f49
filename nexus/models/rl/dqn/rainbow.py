"""Rainbow (Hessel et al. 2018, https://arxiv.org/abs/1710.02298) and every other combination.

There is no maths here: an algorithm is a choice of parts, a family of losses times the switches `double`, `dueling` and
`noisy`. Replay and n-step folding belong to the trainer; an algorithm only names the settings it wants for them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from nexus.core import AgentConfig, ConfigError, nearest
from nexus.core.seeding import seeded_initialisation, torch_generator
from nexus.models.layers import Head, MLPTorso, NoisyLinear
from nexus.models.rl.dqn.c51 import C51Loss, CategoricalReadout
from nexus.models.rl.dqn.double_dqn import greedy_on_online
from nexus.models.rl.dqn.dqn import (
    DQNAgent,
    DQNLoss,
    DQNNetwork,
    Loss,
    greedy_on_target,
    mean_readout,
    pop_dims,
    resolve_device,
)
from nexus.models.rl.dqn.dueling_dqn import DuelingHead
from nexus.models.rl.dqn.iqn import IQNLoss, IQNNetwork
from nexus.models.rl.dqn.munchausen_dqn import MunchausenLoss
from nexus.models.rl.dqn.qr_dqn import QuantileLoss
from nexus.ops.losses import huber, squared

__all__ = ["ALGORITHMS", "Algorithm", "algorithm_named", "make_agent"]


@dataclass(frozen=True)
class Parts:
    """What a family's builder is given: the settings, the shapes and the parts that the switches chose."""

    settings: AgentConfig
    state_shape: tuple[int, ...]
    action_dim: int
    torso: nn.Module
    head: Callable[[int], nn.Module]  # atoms -> head

    def network(self, atoms: int = 1, readout: Any = None) -> DQNNetwork:
        """Return the usual network: torso, head, readout."""
        return DQNNetwork(
            self.state_shape,
            self.action_dim,
            self.settings.hidden_dim,
            torso=self.torso,
            head=self.head(atoms),
            readout=readout,
        )


Family = Callable[[Parts], tuple[DQNNetwork, Loss]]


def of_error(settings: AgentConfig) -> Any:
    """The scalar loss that the settings name."""
    return huber if settings.loss == "huber" else squared


def scalar(parts: Parts) -> tuple[DQNNetwork, Loss]:
    """One number per action."""
    return parts.network(), DQNLoss(of_error(parts.settings))


def categorical(parts: Parts) -> tuple[DQNNetwork, Loss]:
    """Probabilities on fixed atoms."""
    settings = parts.settings
    readout = CategoricalReadout(settings.v_min, settings.v_max, settings.atoms)
    return parts.network(settings.atoms, readout), C51Loss()


def quantile(parts: Parts) -> tuple[DQNNetwork, Loss]:
    """Quantiles at fixed levels."""
    return parts.network(parts.settings.quantiles, mean_readout), QuantileLoss()


def implicit_quantile(parts: Parts) -> tuple[DQNNetwork, Loss]:
    """Quantiles at drawn levels."""
    settings = parts.settings
    network = IQNNetwork(
        parts.state_shape,
        parts.action_dim,
        settings.hidden_dim,
        torso=parts.torso,
        head=parts.head(1),
        acting_levels=settings.quantiles,
    )
    generator = torch_generator(settings.seed, "levels", resolve_device(settings.device, parts.state_shape))
    return network, IQNLoss(generator, settings.quantile_samples, settings.quantile_samples)


def munchausen(parts: Parts) -> tuple[DQNNetwork, Loss]:
    """One number per action, a soft value for the target."""
    settings = parts.settings
    return parts.network(), MunchausenLoss(
        settings.munchausen_alpha, settings.munchausen_temperature, settings.munchausen_clip, of_error(settings)
    )


@dataclass(frozen=True)
class Algorithm:
    """A member of the family.

    Args:
        changes: what it changes, in one line.
        paper: where it is from.
        file: where it is.
        family: builds its network and its loss.
        settings: what it brings; a preset's and a user's own settings go over the trainer's part of it.
        refuses: settings that make no sense with it, and why.
    """

    changes: str
    paper: str
    file: str
    family: Family = scalar
    settings: Mapping[str, Any] = field(default_factory=dict)
    refuses: Mapping[str, str] = field(default_factory=dict)


NO_EPSILON = {"epsilon": 0.0, "epsilon_min": 0.0}  # the noise explores
NO_DRAWS = {"compile": "torch can't draw its levels from a generator inside a compiled graph"}
SOFT_TARGET = {"double": "its target weighs every next action, so nobody picks one"}

ALGORITHMS: Mapping[str, Algorithm] = {
    "dqn": Algorithm("the base", "doi.org/10.1038/nature14236", "dqn.py"),
    "double": Algorithm(
        "who picks the next action", "arxiv.org/abs/1509.06461", "double_dqn.py", settings={"double": True}
    ),
    "dueling": Algorithm(
        "the head: value and advantages", "arxiv.org/abs/1511.06581", "dueling_dqn.py", settings={"dueling": True}
    ),
    "prioritized": Algorithm(
        "the replay: surprises more often",
        "arxiv.org/abs/1511.05952",
        "data/prioritized_replay_buffer.py",
        settings={"prioritized": True},
    ),
    "n-step": Algorithm(
        "the fold: three rewards", "doi.org/10.1007/BF00115009", "data/n_step.py", settings={"n_step": 3}
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
        munchausen,
        refuses=SOFT_TARGET,
    ),
    "c51": Algorithm("the value: probabilities on atoms", "arxiv.org/abs/1707.06887", "c51.py", categorical),
    "qr-dqn": Algorithm("the value: quantiles", "arxiv.org/abs/1710.10044", "qr_dqn.py", quantile),
    "iqn": Algorithm(
        "the value: quantiles at drawn levels",
        "arxiv.org/abs/1806.06923",
        "iqn.py",
        implicit_quantile,
        refuses=NO_DRAWS,
    ),
    "rainbow": Algorithm(
        "c51, double, dueling, noisy, prioritized, n-step",
        "arxiv.org/abs/1710.02298",
        "rainbow.py",
        categorical,
        settings={"double": True, "dueling": True, "noisy": True, "prioritized": True, "n_step": 3, **NO_EPSILON},
    ),
}


def algorithm_named(name: str) -> Algorithm:
    """Return one of `ALGORITHMS`.

    Raises:
        ConfigError: there is none of that name; says the nearest.
    """
    if name not in ALGORITHMS:
        raise ConfigError(f"no algorithm {name!r}{nearest(name, ALGORITHMS)}; there are {', '.join(ALGORITHMS)}")
    return ALGORITHMS[name]


def make_agent(algorithm: str = "dqn", /, **config: Any) -> DQNAgent:
    """Return an agent put together from the parts that its name and its switches choose.

    Args:
        algorithm: one of `ALGORITHMS`.
        config: `state_dim`, `action_dim`, and any field of `AgentConfig` over what the algorithm brings.

    Raises:
        ConfigError: the name or a setting is unknown, or a combination makes no sense; says why.
    """
    whole, settings, network, loss = put_together(algorithm, config)
    return DQNAgent(
        whole, network=network, loss=loss, next_action=greedy_on_online if settings.double else greedy_on_target
    )


def network_bytes(algorithm: str = "dqn", /, **config: Any) -> int:
    """Return what the network of such an agent would take, in bytes; allocates none of it.

    Raises:
        ConfigError: as `make_agent` does.
    """
    with torch.device("meta"):
        _, _, network, _ = put_together(algorithm, config)
    return sum(parameter.nbytes for parameter in network.parameters())


def put_together(algorithm: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], AgentConfig, DQNNetwork, Loss]:
    """Return all settings as given and as checked, the network and the loss."""
    chosen = algorithm_named(algorithm)
    own = {name: value for name, value in chosen.settings.items() if name in AgentConfig.__dataclass_fields__}
    whole = {**own, **config, "algorithm": algorithm}
    values = dict(whole)
    state_shape, action_dim = pop_dims(values)
    settings = AgentConfig.from_mapping(values)
    for name, reason in chosen.refuses.items():
        if getattr(settings, name):
            raise ConfigError(f"{algorithm} can't take {name}: {reason}")
    linear = partial(NoisyLinear, sigma0=settings.noisy_sigma) if settings.noisy else nn.Linear
    head = DuelingHead if settings.dueling else Head
    with seeded_initialisation(settings.seed):
        parts = Parts(
            settings,
            state_shape,
            action_dim,
            MLPTorso(state_shape, settings.hidden_dim, settings.hidden_layers, settings.layer_norm),
            lambda atoms: head(settings.hidden_dim, action_dim, atoms, linear),
        )
        network, loss = chosen.family(parts)
    return whole, settings, network, loss
