"""Rainbow (Hessel et al. 2018, https://arxiv.org/abs/1710.02298) and every other combination.

There is no maths here: an algorithm is a choice of parts, a family of losses combined with the switches `double`,
`dueling`, `noisy` and `munchausen`. Replay and n-step folding belong to the trainer; an algorithm only sets their
settings.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin

import torch
from torch import nn

from nexus.core import AgentConfig, ConfigError, nearest
from nexus.core.checked import Keywords, Settings, annotations_of, convert
from nexus.core.errors import NexusError, one_line
from nexus.core.importable import imported_module, is_import_name
from nexus.core.names import ALIASES, REGISTERED, algorithm_name, current_names, is_taken
from nexus.core.seeding import generator, seeded_initialisation, torch_generator
from nexus.core.settings import MunchausenSettings
from nexus.models.layers import Head, MLPTorso, NoisyLinear
from nexus.models.rl.dqn.agent import DQNAgent
from nexus.models.rl.dqn.boltzmann import by_temperature
from nexus.models.rl.dqn.bootstrapped_dqn import (
    BlockLinear,
    BootstrappedLoss,
    HeadPerEpisode,
    HeadWithPrior,
    HeldRows,
    TorsoWithPrior,
    as_prior,
    mean_of_heads,
    stacked,
)
from nexus.models.rl.dqn.c51 import C51Loss, CategoricalReadout
from nexus.models.rl.dqn.double_dqn import greedy_on_online
from nexus.models.rl.dqn.dqn import (
    ERRORS,
    GREEDY,
    Bootstrap,
    DQNLoss,
    DQNNetwork,
    Loss,
    NextAction,
    greedy_on_target,
    mean_readout,
)
from nexus.models.rl.dqn.dueling_dqn import DuelingHead
from nexus.models.rl.dqn.iqn import IQNLoss, IQNNetwork
from nexus.models.rl.dqn.munchausen_dqn import MunchausenBootstrap
from nexus.models.rl.dqn.policy import AS_GIVEN, ActingValues, by_epsilon
from nexus.models.rl.dqn.pqn import ReturnLoss
from nexus.models.rl.dqn.qr_dqn import QuantileLoss
from nexus.models.rl.dqn.trial import require_trainable
from nexus.models.setup import pop_dims, pop_rewards_normalized, resolve_device
from nexus.models.states import PlainStates, States, pop_states

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "BuilderInput",
    "algorithm_named",
    "make_agent",
    "register_algorithm",
    "require_free",
    "with_own_settings",
]

NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})
PLAIN = (bool, int, float, str)
# Names that an own setting can't have, since they are arguments and flags that are no settings.
RESERVED = (
    *("action_dim", "config", "config_file", "env", "env_id", "help", "json", "listener", "n", "preset"),
    *("probe_seconds", "run_dir", "seconds", "state_dim", "track", "verbose"),
)


@dataclass(frozen=True)
class BuilderInput:
    """The input of a family's builder: the settings, the shapes and the parts chosen by the switches."""

    settings: AgentConfig
    state_shape: tuple[int, ...]
    states: States
    action_dim: int
    torso: nn.Module
    features: int  # D, the torso's output size
    head: Callable[[int], nn.Module]  # atoms -> head
    bootstrap: Bootstrap
    own: Any = None  # the settings that only this algorithm has

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


Family = Callable[[BuilderInput], tuple[DQNNetwork, Loss]]


def scalar(parts: BuilderInput) -> tuple[DQNNetwork, Loss]:
    """One number per action."""
    return parts.network(), DQNLoss(ERRORS[parts.settings.loss], parts.bootstrap)


def of_returns(parts: BuilderInput) -> tuple[DQNNetwork, Loss]:
    """One number per action, trained on returns."""
    return parts.network(), ReturnLoss(ERRORS[parts.settings.loss])


def categorical(parts: BuilderInput) -> tuple[DQNNetwork, Loss]:
    """Probabilities on fixed atoms."""
    settings = parts.settings
    readout = CategoricalReadout(settings.v_min, settings.v_max, settings.atoms)
    return parts.network(settings.atoms, readout), C51Loss()


def quantile(parts: BuilderInput) -> tuple[DQNNetwork, Loss]:
    """Quantiles at fixed levels."""
    return parts.network(parts.settings.quantiles, mean_readout), QuantileLoss(bootstrap=parts.bootstrap)


def implicit_quantile(parts: BuilderInput) -> tuple[DQNNetwork, Loss]:
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


def bootstrapped(parts: BuilderInput) -> tuple[DQNNetwork, Loss]:
    """K heads with random priors."""
    settings, heads = parts.settings, parts.settings.boot_heads
    torso, head = heads_on(parts, parts.torso)
    if settings.prior_scale:
        prior = as_prior(*heads_on(parts, parts.states.torso(settings)[0]))
        torso, head = TorsoWithPrior(torso, prior, settings.prior_scale), HeadWithPrior(head, parts.action_dim, heads)
    network = DQNNetwork(parts.state_shape, parts.action_dim, torso=torso, head=head, readout=mean_of_heads)
    sampled, rows = generator(settings.seed, "bootstrap"), None
    if settings.boot_mask < 1 or settings.boot_noise:
        rows = HeldRows(heads, settings.boot_mask, settings.boot_noise, sampled)
    return network, BootstrappedLoss(ERRORS[settings.loss], parts.bootstrap, rows)


def heads_on(parts: BuilderInput, torso: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return a torso and K heads on it: on an mlp each has layers of its own, on any other torso they share it."""
    heads = parts.settings.boot_heads
    if not isinstance(torso, MLPTorso):
        return torso, parts.head(heads)
    members = [torso, *(parts.states.torso(parts.settings)[0] for _ in range(heads - 1))]

    def linear(inputs: int, outputs: int) -> BlockLinear:
        return BlockLinear([nn.Linear(inputs // heads, outputs // heads) for _ in range(heads)], heads_last=True)

    head = head_kind(parts.settings)(heads * parts.features, parts.action_dim, heads, linear)
    return stacked(cast(list[MLPTorso], members)), head


def head_kind(settings: AgentConfig) -> type[Head] | type[DuelingHead]:
    """Return the kind of head that the settings choose."""
    return DuelingHead if settings.dueling else Head


def head_per_episode(settings: AgentConfig) -> ActingValues:
    """Return the part that acts on one head for each episode."""
    return HeadPerEpisode(settings.boot_heads, generator(settings.seed, "heads"))


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
        own: the settings that only it has, a subclass of `nexus.Settings`.
        acting: makes the values that it acts on in training.

    Raises:
        ConfigError: a field of `own` can't be a setting.
    """

    changes: str
    paper: str
    file: str
    family: Family = scalar
    settings: Mapping[str, Any] = field(default_factory=dict)
    refuses: Mapping[str, str] = field(default_factory=dict)
    own: type[Settings] | None = None
    acting: Callable[[AgentConfig], ActingValues] = lambda settings: AS_GIVEN

    def __post_init__(self) -> None:
        if self.own is not None:
            require_settings(self.own)


NO_EPSILON = {"epsilon": 0.0, "epsilon_min": 0.0}  # the noise explores, or the heads
NO_DRAWS = {"compile": "torch can't draw its levels from a generator inside a compiled graph"}
NO_SAMPLES = {"munchausen": "its atoms can't move, and a soft value shifts each action's return by its own log-policy"}
NO_NEXT_ACTION = {
    "double": "its returns already contain the value of s', so no next action is chosen",
    "munchausen": "its returns already contain the value of s'",
}
NO_NOISE = {"noisy": "a head explores by acting for a whole episode, and noise would change it at every step"}
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
    "bootstrapped": Algorithm(
        "heads with random priors, one of which acts for an episode",
        "arxiv.org/abs/1806.03335",
        "bootstrapped_dqn.py",
        bootstrapped,
        settings=NO_EPSILON,
        refuses=NO_NOISE,
        acting=head_per_episode,
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
        refuses=NO_NEXT_ACTION,
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
        ConfigError: no algorithm has that name; the message suggests the nearest. Or the module of one of the user's
            own can't be imported.
    """
    name = algorithm_name(name)
    if is_import_name(name):
        return own_algorithm(name)
    if name not in ALGORITHMS:
        known = [*ALGORITHMS, *REGISTERED]
        raise ConfigError(
            f"no algorithm {name!r}{nearest(name, known)}; there are {', '.join(known)}, and your own as module:name"
        )
    return ALGORITHMS[name]


OWN: dict[str, Algorithm] = {}  # registered by users, under their `module:name`


def register_algorithm(
    name: str,
    family: Family,
    *,
    own: type[Settings] | None = None,
    settings: Mapping[str, Any] = NO_SETTINGS,
    refuses: Mapping[str, str] = NO_SETTINGS,
    changes: str = "of your own",
    paper: str = "",
) -> Algorithm:
    """Give an algorithm of your own a name: `--algo module:name`, or `algorithm="name"` once the module is imported.

    Call it at the top level of a module. A run saves `module:name`, imports the module again and finds the name there.

    Args:
        name: as Python has names, and not one of nexus.
        family: builds the network and the loss from `BuilderInput`: `parts.network()` is the usual network,
            `parts.settings` all settings, `parts.own` those of `own`.
        own: a subclass of `nexus.Settings`; each of its fields becomes a flag and a keyword of `nexus.train`.
        settings: other settings with different defaults, as in `{"double": True}`; presets and users override them.
        refuses: settings that make no sense with it, each with the reason.
        changes: what it changes in DQN, in one line.
        paper: its paper.

    Raises:
        ConfigError: the name is taken or not a name, or a field of `own` can't be a setting.
    """
    caller = sys._getframe(1).f_globals
    module = str(caller.get("__name__", "__main__"))
    reference = f"{module}:{name}"
    if not str(name).isidentifier():
        raise ConfigError(f"algorithm {name!r}: needs a name as Python has them, such as my_algorithm")
    if is_taken(name):
        raise ConfigError(f"algorithm {name!r} of {module}: nexus has one of that name; choose another")
    if REGISTERED.get(name, reference) != reference:
        raise ConfigError(f"algorithm {name!r} of {module}: {REGISTERED[name]} has that name already; choose another")
    if not callable(family):
        raise ConfigError(f"algorithm {name!r} is built by a {type(family).__name__}: needs a function of its parts")
    for setting in refuses:
        if setting not in annotations_of(AgentConfig):
            known = nearest(str(setting), annotations_of(AgentConfig))
            raise ConfigError(f"algorithm {name!r} refuses {setting!r}, which is not a setting of an agent{known}")
    algorithm = Algorithm(changes, paper, Path(str(caller.get("__file__", ""))).name, family, settings, refuses, own)
    OWN[reference], REGISTERED[name] = algorithm, reference
    return algorithm


def own_algorithm(reference: str) -> Algorithm:
    """Return what was registered as `module:name`, or the `Algorithm` of that name in the module.

    Raises:
        ConfigError: the module can't be imported, or has no such algorithm; suggests the nearest.
    """
    module, _, name = reference.partition(":")
    place = vars(imported_module(reference, "algorithm"))
    below = [one for one in OWN if one == reference or (one.startswith(f"{module}.") and one.endswith(f":{name}"))]
    if below:
        return OWN[below[0]]
    if isinstance(place.get(name), Algorithm):
        return place[name]  # type: ignore[no-any-return]
    here = [one.partition(":")[2] for one in OWN if one.startswith((f"{module}:", f"{module}."))]
    here += [key for key, value in place.items() if isinstance(value, Algorithm)]
    there = f"there are {', '.join(here)}" if here else "nothing calls nexus.register_algorithm there"
    raise ConfigError(f"no algorithm {name!r} in {module}{nearest(name, here)}; {there}")


def require_settings(own: Any) -> None:
    """Raise `ConfigError` if a class can't be the settings that only one algorithm has."""
    if not (isinstance(own, type) and issubclass(own, Settings)):
        raise ConfigError(f"own settings {own!r}: needs a subclass of nexus.Settings")
    try:
        kinds = annotations_of(own)
    except NameError as error:  # an annotation that means nothing
        raise ConfigError(f"own settings {own.__name__}: {one_line(error)}") from error
    for name, kind in kinds.items():
        options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        some = [option for option in options if option is not NoneType]
        if len(some) != 1 or (some[0] not in PLAIN and get_origin(some[0]) is not Literal):
            raise ConfigError(
                f"own setting {name} of {own.__name__} is of the type {kind}: needs int, float, bool, str or Literal, "
                "or one of them or None"
            )
    require_free(own, [*annotations_of(AgentConfig), *ALIASES, *RESERVED])
    try:
        own()
    except TypeError as error:  # without a default
        raise ConfigError(f"own settings {own.__name__}: {one_line(error)}; each needs a default") from error


def require_free(own: type[Settings], taken: Iterable[str]) -> None:
    """Raise `ConfigError` if a setting of an algorithm's own has the name of another setting or argument."""
    both = annotations_of(own).keys() & set(taken)
    if both:
        raise ConfigError(f"own setting {min(both)} of {own.__name__}: nexus has one of that name; choose another")


def with_own_settings(algorithm: Algorithm, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with those that only this algorithm has gathered in `algorithm_settings`, and checked.

    Raises:
        ConfigError: one is unknown, of the wrong type or impossible, or the algorithm has none.
    """
    given = convert("algorithm_settings", values.get("algorithm_settings", {}), Keywords)
    if algorithm.own is None:
        if given:
            raise ConfigError(f"algorithm_settings = {given}: this algorithm adds no settings")
        return dict(values)
    names = annotations_of(algorithm.own).keys()
    flat = {name: value for name, value in values.items() if name in names}
    rest = {name: value for name, value in values.items() if name not in names}
    return {**rest, "algorithm_settings": algorithm.own.from_mapping({**given, **flat}).to_mapping()}


def require_sense(algorithm: str, settings: AgentConfig) -> None:
    """Raise `ConfigError` with the reason if a setting makes no sense with the algorithm or another switch."""
    refused = {(algorithm, name): reason for name, reason in algorithm_named(algorithm).refuses.items()}
    if settings.munchausen:
        refused |= {("munchausen", name): reason for name, reason in SOFT_VALUE.items()}
    for (who, name), reason in refused.items():
        if getattr(settings, name):
            raise ConfigError(f"{who} can't take {name}: {reason}; set {name} to false")


def make_agent(algorithm: str = "dqn", /, **config: Any) -> DQNAgent:
    """Return an agent built from the parts that its name and switches choose.

    Args:
        algorithm: one of `ALGORITHMS`, or one of the user's own: `module:name`, or the name that was registered.
        config: `state_dim`, `action_dim`, the other arguments of `DQNAgent` about states, any field of `AgentConfig`,
            which overrides the algorithm's settings, and the settings that only the algorithm has.

    Raises:
        ConfigError: the name or a setting is unknown, or a combination makes no sense; the message says why.
    """
    whole, settings, network, loss = put_together(algorithm, config)
    return DQNAgent(
        whole,
        network=network,
        loss=loss,
        next_action=next_action_of(settings),
        exploration=by_temperature if settings.exploration == "boltzmann" else by_epsilon,
        acting=algorithm_named(settings.algorithm).acting(settings),
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
    brought = {name: value for name, value in chosen.settings.items() if name in AgentConfig.__dataclass_fields__}
    whole = {**brought, **with_own_settings(chosen, current_names(config)), "algorithm": algorithm}
    values = dict(whole)
    state_shape, action_dim = pop_dims(values)
    states = pop_states(values, state_shape)
    pop_rewards_normalized(values)  # the agent's alone: no part differs
    settings = AgentConfig.from_mapping(values)
    require_sense(algorithm, settings)
    linear = partial(NoisyLinear, sigma0=settings.noisy_sigma) if settings.noisy else nn.Linear
    head = head_kind(settings)
    with seeded_initialisation(settings.seed):
        torso, features = states.torso(settings)
        parts = BuilderInput(
            settings,
            state_shape,
            states,
            action_dim,
            torso,
            features,
            lambda atoms: head(features, action_dim, atoms, linear),
            bootstrap_of(settings),
            None if chosen.own is None else chosen.own.from_mapping(settings.algorithm_settings),
        )
        network, loss = built(chosen, parts)
    return whole, settings, network, loss


def built(algorithm: Algorithm, parts: BuilderInput) -> tuple[DQNNetwork, Loss]:
    """Return the network and the loss of an algorithm, tried out if it is the user's own.

    Raises:
        ConfigError: they can't be built, or are no such parts.
    """
    name = parts.settings.algorithm
    if not is_import_name(name):
        return algorithm.family(parts)
    try:
        found = algorithm.family(parts)
    except NexusError:
        raise
    except Exception as error:  # foreign code
        raise ConfigError(f"algorithm {name!r} can't be built: {one_line(error)}") from error
    dtype = torch.float32 if isinstance(parts.states, PlainStates) else torch.uint8
    require_trainable(found, next_action_of(parts.settings), dtype, name)
    return found


def next_action_of(settings: AgentConfig) -> NextAction:
    """Return the choice of the next action that the settings name."""
    return greedy_on_online if settings.double else greedy_on_target
