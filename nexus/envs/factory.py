"""Making environments from an id or a function, and saying clearly why one can't be used."""

import importlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import FlattenObservation, FrameStackObservation

from nexus.core.errors import ConfigError, nearest, one_line
from nexus.envs.atari import (
    FRAME_SIZE,
    PROTOCOLS,
    AtariProtocol,
    canonical,
    hint,
    is_atari,
    make_atari,
    make_one_atari,
    short_names,
)
from nexus.envs.episodes import Replayable, SeededCartPole
from nexus.envs.workers import Reporter
from nexus.envs.wrappers import FrameSkip

__all__ = [
    "EnvSource",
    "EnvSpec",
    "bounds_of",
    "describe_spaces",
    "make_env",
    "make_vector_env",
    "name_of",
    "seen_by_agent",
]

Env: TypeAlias = gym.Env[Any, Any]
EnvSource: TypeAlias = str | Callable[[], Env]
"""An id such as `CartPole-v1`, a `module:Id`, or a function that makes an environment."""

UNBOUNDED = 1e6  # a bound beyond it stands for none
DISCRETE_START = "discrete_start"  # where a space of one-hot vectors says which number is the first

OTHER_FAMILIES = "DQN needs one Discrete action space; for continuous actions use SAC, TD3 or PPO"


@dataclass(frozen=True)
class EnvSpec:
    """An environment as the agent is to see it.

    Args:
        source: an id or a function.
        frame_skip: times each action is repeated.
        frame_stack: observations shown at once.
        kwargs: passed to `gymnasium.make`.
        protocol: of an Atari game, one of `PROTOCOLS`; None takes `nature`.
        frame_size: of an Atari game, pixels on a side of a frame; None takes 84.

    Raises:
        ConfigError: there is no such protocol, or the environment is no Atari game.
    """

    source: EnvSource
    frame_skip: int = 1
    frame_stack: int = 1
    kwargs: tuple[tuple[str, Any], ...] = ()
    protocol: str | None = None
    frame_size: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", canonical(self.source))
        for name, value in (("protocol", self.protocol), ("frame_size", self.frame_size)):
            if value is not None and not is_atari(self.source):
                raise ConfigError(f"{name} = {value!r}: {name_of(self.source)} is no Atari game; leave it out")
        if self.frame_size == FRAME_SIZE:
            object.__setattr__(self, "frame_size", None)  # one way to say it
        if self.protocol is not None and self.protocol not in PROTOCOLS:
            raise ConfigError(f"protocol = {self.protocol!r}: needs one of {', '.join(PROTOCOLS)}")

    @property
    def rules(self) -> AtariProtocol | None:
        """The protocol of an Atari game, None of all others."""
        return PROTOCOLS[self.protocol or "nature"] if is_atari(self.source) else None


def name_of(source: EnvSource) -> str:
    """Return the id, or the function's name."""
    return source if isinstance(source, str) else getattr(source, "__name__", type(source).__name__)


def make_env(spec: EnvSpec, render_mode: str | None = None) -> Env:
    """Return one environment with its wrappers.

    Raises:
        ConfigError: it is unknown, can't be made, or has spaces that DQN can't use.
    """
    if spec.rules is not None:
        frames = spec.frame_skip, spec.frame_stack, spec.frame_size
        return make_one_atari(name_of(spec.source), spec.rules, *frames, render_mode)
    if isinstance(spec.source, str):
        registered_id(spec.source)
        settings = dict(spec.kwargs) | ({} if render_mode is None else {"render_mode": render_mode})
        env = attempt(partial(gym.make, spec.source, disable_env_checker=True, **settings), spec)
    else:
        env = attempt(spec.source, spec)
        if not isinstance(env, gym.Env):
            raise ConfigError(f"{name_of(spec.source)}() returned {type(env).__name__}: needs a gymnasium.Env")
    describe_spaces(env.observation_space, env.action_space, name_of(spec.source))
    if spec.frame_skip > 1:
        env = FrameSkip(env, spec.frame_skip)
    raw = env.observation_space
    if not isinstance(raw, spaces.Box):
        env = FlattenObservation(env)  # Discrete and the like become one-hot vectors
    if isinstance(raw, spaces.Discrete):
        vars(env.observation_space)[DISCRETE_START] = int(raw.start)  # so that an agent can take the number as well
    if spec.frame_stack > 1:
        env = FrameStackObservation(env, spec.frame_stack, padding_type="zero")
    return env


def make_vector_env(
    spec: EnvSpec, num_envs: int, mode: Literal["auto", "sync", "async"] = "auto"
) -> VectorEnv[Any, Any, Any]:
    """Return `num_envs` copies as one vector environment.

    `auto` takes CartPole's own vector form (it steps 16 copies in the time of two) where no wrapper is wanted, else
    steps the copies in turn. `async` gives each copy a process, which pays where a step takes about a millisecond or
    more. Atari games have threads of their own.

    None resets by itself; each can be reset with a seed of its own, and brought back into an episode (`episodes.py`).
    """
    if spec.rules is not None:
        if mode != "auto":
            raise ConfigError(f"vectorization = {mode!r}: Atari games are stepped by threads of their own; use auto")
        frames = spec.frame_skip, spec.frame_stack, spec.frame_size
        return make_atari(name_of(spec.source), spec.rules, num_envs, *frames)
    if mode == "auto" and has_own_vector_form(spec):
        registered = registered_id(str(spec.source))
        settings = dict(registered.kwargs)
        if registered.max_episode_steps is not None:
            settings["max_episode_steps"] = registered.max_episode_steps
        return SeededCartPole(num_envs, **settings)
    if mode == "async":
        asked_by = os.getpid()
        return in_processes(
            [partial(make_reporter, spec, env, asked_by) for env in range(num_envs)], name_of(spec.source)
        )
    makers = [partial(make_replayable, spec, env) for env in range(num_envs)]
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)


def make_replayable(spec: EnvSpec, index: int) -> Env:
    """Return the sub-environment number `index` of a vector."""
    return Replayable(make_env(spec), index)


def make_reporter(spec: EnvSpec, index: int, asked_by: int) -> Env:
    """Return a sub-environment for a process of its own, of which the process `asked_by` asks it for a look, too."""
    if os.getpid() != asked_by:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the run, which finishes its step and saves
    return Reporter(make_replayable(spec, index))


def in_processes(makers: list[Callable[[], Env]], name: str) -> VectorEnv[Any, Any, Any]:
    """Return a process for each environment.

    Raises:
        ConfigError: one ended before it could be used.
    """
    try:
        return AsyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)
    except (EOFError, OSError) as error:
        raise ConfigError(f"a process for {name} can't be made, or died at once: {one_line(error)}") from error


def has_own_vector_form(spec: EnvSpec) -> bool:
    """True for CartPole, if it needs no wrapper."""
    if not isinstance(spec.source, str) or spec.kwargs or spec.frame_skip > 1 or spec.frame_stack > 1:
        return False
    return registered_id(spec.source).vector_entry_point == "gymnasium.envs.classic_control.cartpole:CartPoleVectorEnv"


def registered_id(name: str) -> gym.envs.registration.EnvSpec:
    """Return Gymnasium's spec of an id; of `module:Id` the module is imported first.

    Raises:
        ConfigError: there is no such module or id; names the nearest.
    """
    module, _, plain = name.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except Exception as error:  # a module's own code can raise anything
            raise ConfigError(f"environment {name!r}: can't import module {module!r}: {one_line(error)}") from error
    if plain not in gym.registry:
        raise ConfigError(
            f"no environment {plain!r}{nearest(plain, [*gym.registry, *short_names(plain)])}{hint(plain)}"
        )
    return gym.registry[plain]


def attempt(make: Callable[[], Env], spec: EnvSpec) -> Env:
    """Make an environment; any failure of foreign code becomes one line."""
    try:
        return make()
    except Exception as error:
        raise ConfigError(f"environment {name_of(spec.source)!r} can't be made: {one_line(error)}") from error


def describe_spaces(
    observations: spaces.Space[Any], actions: spaces.Space[Any], name: str
) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape and dtype of a state and the number of actions.

    Raises:
        ConfigError: DQN can't use these spaces; says why and what would fit.
    """
    if not isinstance(actions, spaces.Discrete):
        raise ConfigError(f"{name} has actions {actions}: {OTHER_FAMILIES}{multi_discrete_hint(actions)}")
    if actions.start != 0:
        raise ConfigError(f"{name} has actions {actions}: needs them to start at 0; wrap it in TransformAction")
    if isinstance(observations, spaces.Dict | spaces.Tuple | spaces.Text | spaces.Graph | spaces.Sequence):
        kind = type(observations).__name__
        raise ConfigError(
            f"{name} has {kind} observations: needs one array; wrap it in gymnasium.wrappers.FlattenObservation"
        )
    shape, dtype = observations.shape, observations.dtype
    if shape is None or dtype is None:
        raise ConfigError(f"{name} has observations {observations}: needs an array of a fixed shape")
    return shape, dtype, int(actions.n)


def bounds_of(observations: spaces.Space[Any], name: str) -> tuple[list[float], list[float]]:
    """Return the lowest and highest value of each number of a flattened state; -1 and 1 where there is no bound.

    A bound beyond 1e6 stands for none: mapping it to 1 would leave nothing of what is seen in between.

    Raises:
        ConfigError: no number has two bounds, or bytes are observed, which are scaled anyway.
    """
    if not isinstance(observations, spaces.Box) or observations.dtype == np.uint8:
        raise ConfigError(f"scale_observations: {name} has observations {observations}, which need no scaling")
    low, high = (bound.astype(np.float64).reshape(-1) for bound in (observations.low, observations.high))
    bounded = (np.abs(low) < UNBOUNDED) & (np.abs(high) < UNBOUNDED) & (low < high)
    if not bounded.any():
        raise ConfigError(f"scale_observations: the observations of {name} have no bounds to scale by: leave it out")
    return np.where(bounded, low, -1.0).tolist(), np.where(bounded, high, 1.0).tolist()


def scale_of(observations: spaces.Space[Any]) -> list[float] | None:
    """Return the lowest and the highest of whole numbers that are observed, or None where they have no bounds."""
    if not isinstance(observations, spaces.Box) or observations.dtype.kind not in "iu":
        return None
    low, high = float(observations.low.min()), float(observations.high.max())
    return [low, high] if low < high and max(abs(low), abs(high)) < UNBOUNDED else None


def seen_by_agent(observations: spaces.Space[Any], name: str, scale_observations: bool) -> dict[str, Any]:
    """Return what an agent's config says of observations beside their shape: how to scale and how to read them.

    Raises:
        ConfigError: they are to be scaled by their bounds, and have none.
    """
    entries = {
        "state_bounds": bounds_of(observations, name) if scale_observations else None,
        "state_scale": None if scale_observations else scale_of(observations),
        "discrete_start": vars(observations).get(DISCRETE_START),
    }
    return {name: value for name, value in entries.items() if value is not None}


def multi_discrete_hint(actions: spaces.Space[Any]) -> str:
    """Say how several discrete actions can become one."""
    if isinstance(actions, spaces.MultiDiscrete):
        return f", or number the {int(np.prod(actions.nvec))} combinations in an ActionWrapper"
    return ""
