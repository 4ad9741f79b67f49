"""Making environments from an id or a function, with a clear error if one can't be used."""

import importlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, signature
from math import prod
from typing import Any, Literal, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import FrameStackObservation

import nexus.problems  # noqa: F401 - registers nexus/DeepSea-v0 and so on
from nexus.core.errors import ConfigError, nearest, one_line
from nexus.core.packing import Layout
from nexus.envs.answers import said_in
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
from nexus.envs.edge import Edge, call_for, space_without_mask
from nexus.envs.episodes import Replayable, SeededCartPole
from nexus.envs.flat_actions import FlatActions, sizes_of, way_for_actions
from nexus.envs.layers import IN_USE, of_old_gym
from nexus.envs.packing import Packed, Structured, packed_in, way_for
from nexus.envs.workers import Reporter
from nexus.envs.wrappers import FrameSkip
from nexus.envs.wrapping import wrapped

__all__ = [
    "Env",
    "EnvSource",
    "EnvSpec",
    "allows_several",
    "as_seen",
    "can_be_normalized",
    "composition",
    "describe_spaces",
    "difference_of_spaces",
    "in_turn",
    "make_env",
    "make_raw",
    "make_vector_env",
    "name_of",
    "observation_bounds",
    "registered_id",
    "require_env",
    "scale_of",
    "seen_by_agent",
    "widest_part",
]

Env: TypeAlias = gym.Env[Any, Any]
EnvSource: TypeAlias = str | Callable[[], Env]
"""An id such as `CartPole-v1`, a `module:Id`, or a function that makes an environment."""

BY_NUMBERS = {"state_bounds", "state_normalized"}  # in an agent's config: each number gets a range of about 1
UNBOUNDED = 1e6  # a larger bound counts as none
MOST_TOLD_APART = 1_000_000  # number of network inputs or outputs

OLD_GYM = (
    "is from the package gym, which Gymnasium replaced: write `import gymnasium as gym` in its code, or install shimmy "
    "and pass lambda: gymnasium.make('GymV26Environment-v0', env=...), for gym before 0.26 'GymV21Environment-v0'"
)


@dataclass(frozen=True)
class EnvSpec:
    """An environment as the agent sees it.

    Args:
        source: an id or a function.
        frame_skip: times each action is repeated.
        frame_stack: observations per state.
        kwargs: passed to `gymnasium.make`, for an id.
        protocol: for an Atari game, one of `PROTOCOLS`; None takes `nature`.
        frame_size: for an Atari game, pixels on a side of a frame; None takes 84.
        flatten_actions: whether several discrete actions become one, with a value for each combination.
        wrappers: wrappers around the environment, innermost first.

    Raises:
        ConfigError: the source is neither an id nor a function, the protocol is unknown, or an argument only for Atari
            games, or only for other environments, is set for the wrong kind.
    """

    source: EnvSource
    frame_skip: int = 1
    frame_stack: int = 1
    kwargs: tuple[tuple[str, Any], ...] = ()
    protocol: str | None = None
    frame_size: int | None = None
    flatten_actions: bool = False
    wrappers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", canonical(self.source))
        require_source(self.source)
        object.__setattr__(self, "kwargs", tuple(dict(self.kwargs).items()))
        if self.kwargs and (not isinstance(self.source, str) or is_atari(self.source)):
            given = ", ".join(name for name, _ in self.kwargs)
            way = "a game takes protocol and frame_size" if is_atari(self.source) else "let the function set them"
            raise ConfigError(f"kwargs {given}: {name_of(self.source)} is not made by gymnasium.make; {way}")
        if self.wrappers and is_atari(self.source):
            given = ", ".join(self.wrappers)
            raise ConfigError(f"wrappers {given}: {name_of(self.source)} is made by its protocol; leave them out")
        for name, value in (("protocol", self.protocol), ("frame_size", self.frame_size)):
            if value is not None and not is_atari(self.source):
                raise ConfigError(f"{name} = {value!r}: {name_of(self.source)} is not an Atari game; leave it out")
        if self.frame_size == FRAME_SIZE:
            object.__setattr__(self, "frame_size", None)  # one representation of the default
        if self.protocol is not None and self.protocol not in PROTOCOLS:
            raise ConfigError(f"protocol = {self.protocol!r}: needs one of {', '.join(PROTOCOLS)}")

    @property
    def rules(self) -> AtariProtocol | None:
        """The protocol of an Atari game, None for other environments."""
        return PROTOCOLS[self.protocol or "nature"] if is_atari(self.source) else None


def name_of(source: EnvSource) -> str:
    """Return the id, or the function's name."""
    return source if isinstance(source, str) else getattr(source, "__name__", type(source).__name__)


def require_source(given: Any) -> None:
    """Raise `ConfigError` unless this is an id or a function; the error says what to pass instead."""
    if isinstance(given, str) or (callable(given) and not isinstance(given, gym.Env | VectorEnv)):
        return
    needs, kind = "needs an id, or a function that makes a new environment at each call", type(given).__name__
    match given:
        case gym.Env():
            raise ConfigError(f"got an environment, {type(given.unwrapped).__name__}: {needs}: {call_for(given)}")
        case VectorEnv():
            raise ConfigError(f"got {kind}, a vector of environments: {needs}, called num_envs times")
        case gym.envs.registration.EnvSpec():
            raise ConfigError(f"got the spec of an environment: {needs}: {given.id!r}")
    raise ConfigError(f"got {kind} as the environment: {needs}")


def make_env(spec: EnvSpec, render_mode: str | None = None) -> Env:
    """Return one environment with its wrappers.

    Raises:
        ConfigError: it is unknown, can't be made, is already in use, or has spaces that DQN can't use.
    """
    if spec.rules is not None:
        frames = spec.frame_skip, spec.frame_stack, spec.frame_size
        return make_one_atari(name_of(spec.source), spec.rules, *frames, render_mode)
    return as_seen(make_raw(spec, render_mode), spec)


def make_raw(spec: EnvSpec, render_mode: str | None = None) -> Any:
    """Return one environment as its function or `gymnasium.make` returns it, without our wrappers; not for Atari games.

    Raises:
        ConfigError: it is unknown or can't be made.
    """
    if not isinstance(spec.source, str):
        return attempt(spec.source, spec)
    registered_id(spec.source)
    settings = {"disable_env_checker": True} | dict(spec.kwargs)
    settings |= {} if render_mode is None else {"render_mode": render_mode}
    return attempt(partial(gym.make, spec.source, **settings), spec)


def as_seen(env: Any, spec: EnvSpec) -> Env:
    """Return an environment with the wrappers through which an agent sees it.

    Raises:
        ConfigError: it is not an environment, is already in use, or has spaces that DQN can't use.
    """
    name = name_of(spec.source)
    require_env(env, name)
    with closed_if_refused(env):
        env = wrapped(env, spec.wrappers, name)
        observations, actions = spaces_of(env, name)
        if spec.flatten_actions and sizes_of(actions) is not None:
            env = FlatActions(env, name)
            actions = env.action_space
        seen = space_without_mask(observations)
        if isinstance(seen, Structured):
            require_discrete(actions, name)
        else:
            describe_spaces(seen, actions, name)
        require_countable(seen, actions, name)
        try:
            edge: Env = Edge(env, name, stacked=spec.frame_stack > 1)
        except NotImplementedError:
            raise ConfigError(
                f"{name} has observations {observations}: needs an array that Gymnasium can flatten"
            ) from None
        if spec.frame_skip > 1:
            edge = FrameSkip(edge, spec.frame_skip)
        if spec.frame_stack > 1:
            edge = FrameStackObservation(edge, spec.frame_stack, padding_type="zero")
        return edge


def require_env(env: Any, name: str) -> None:
    """Raise `ConfigError` unless a function made one of Gymnasium's environments."""
    if isinstance(env, gym.Env):
        return
    if of_old_gym(env):
        raise ConfigError(f"{name}() returned {type(env).__name__}, which {OLD_GYM}")
    what = f"the class {env.__name__}" if isinstance(env, type) else type(env).__name__
    hint = ""
    if isinstance(env, type) and issubclass(env, gym.Env):
        hint = f": pass {env.__name__} itself, or return {env.__name__}()"
    elif isinstance(env, VectorEnv):
        hint = ", a single one, since the function is called num_envs times"
    elif env is None:
        hint = "; does the function end with return?"
    raise ConfigError(f"{name}() returned {what}: needs a gymnasium.Env{hint}")


@contextmanager
def closed_if_refused(env: Env) -> Iterator[None]:
    """Close an environment that can't be used, unless another run uses it: it may hold a port, or a robot."""
    try:
        yield
    except BaseException:
        if IN_USE.used(env) is None:
            with suppress(Exception):  # report the first error
                env.close()
        raise


def spaces_of(env: Env, name: str) -> tuple[Any, Any]:
    """Return the spaces of observations and actions.

    Raises:
        ConfigError: one is missing, or is not a Gymnasium space.
    """
    found = []
    for place in ("observation_space", "action_space"):
        try:
            space = getattr(env, place, None)
        except Exception as error:  # a property can raise anything
            raise ConfigError(f"{name} has no {place}: {one_line(error)}") from error
        if not isinstance(space, spaces.Space):
            raise ConfigError(no_space(space, place, name))
        found.append(space)
    return found[0], found[1]


def require_countable(observations: Any, actions: Any, name: str) -> None:
    """Raise `ConfigError` if the network would need too many inputs or outputs."""
    for what, space, way in (
        ("observations", observations, "encode the number in parts, such as its digits"),
        ("actions", actions, "split the choice into several steps"),
    ):
        count = numbers_told_apart(space)
        if count > MOST_TOLD_APART:
            raise ConfigError(
                f"{name} has {what} {space}, which needs {count:,} inputs or outputs of a network: needs at most "
                f"{MOST_TOLD_APART:,}; {way}"
            )


def numbers_told_apart(space: Any) -> int:
    """Return the length of the one-hot encoding of whole numbers in a space, or its number of actions."""
    match space:
        case spaces.Discrete():
            return int(space.n)
        case spaces.MultiDiscrete():
            return sum(space.nvec.ravel().tolist())
        case spaces.MultiBinary():
            return prod(space.shape)
        case spaces.Dict():
            return sum(map(numbers_told_apart, space.spaces.values()))
        case spaces.Tuple():
            return sum(map(numbers_told_apart, space.spaces))
    return 0


def no_space(space: Any, place: str, name: str) -> str:
    """Return a message on what is wrong with a value that should be a space."""
    if of_old_gym(space):
        return f"{name} has an {place} {type(space).__module__}.{type(space).__qualname__}: it {OLD_GYM}"
    kind = "Discrete(number of actions)" if place == "action_space" else "Box(low, high, shape, dtype)"
    if space is None:
        return f"{name} has no {place}: its __init__ must set one, as gymnasium.spaces.{kind}"
    what = f"the class {space.__name__}" if isinstance(space, type) else type(space).__name__
    return f"{name} has an {place} that is {what}: needs one from gymnasium.spaces, such as {kind}"


def make_vector_env(
    spec: EnvSpec,
    num_envs: int,
    mode: Literal["auto", "sync", "async"] = "auto",
    make: Callable[[int], Env] | None = None,
) -> VectorEnv[Any, Any, Any]:
    """Return `num_envs` sub-environments as one vector environment.

    `auto` takes CartPole's own vector form (it steps 16 in the time of two) if there are no wrappers, else steps
    the sub-environments in turn. `async` gives each a process, which pays off if a step takes about a millisecond or
    more. Atari games run in ale-py's threads.

    None autoresets; each can be reset with a separate seed, and restored to the middle of an episode (`episodes.py`).

    `make` makes the sub-environment of an index, if not just `make_env(spec)`: no vector form of the environment's own
    is used then, and there are no Atari games.
    """
    if spec.rules is not None:
        if mode != "auto":
            raise ConfigError(f"vectorization = {mode!r}: Atari games are stepped by ale-py's threads; use auto")
        frames = spec.frame_skip, spec.frame_stack, spec.frame_size
        return make_atari(name_of(spec.source), spec.rules, num_envs, *frames)
    if mode == "auto" and make is None and has_own_vector_form(spec):
        registered = registered_id(str(spec.source))
        settings = dict(registered.kwargs)
        if registered.max_episode_steps is not None:
            settings["max_episode_steps"] = registered.max_episode_steps
        return SeededCartPole(num_envs, **settings)
    make = partial(make_alike, spec) if make is None else make
    if mode == "async":
        asked_by = os.getpid()
        return in_processes(
            [partial(make_reporter, make, env, asked_by) for env in range(num_envs)], name_of(spec.source)
        )
    return in_turn([partial(make_replayable, make, env) for env in range(num_envs)], name_of(spec.source))


def make_alike(spec: EnvSpec, _index: int) -> Env:
    """Return a sub-environment that does not depend on its index."""
    return make_env(spec)


def make_replayable(make: Callable[[int], Env], index: int) -> Env:
    """Return the sub-environment number `index` of a vector."""
    return Replayable(make(index), index)


def make_reporter(make: Callable[[int], Env], index: int, asked_by: int) -> Env:
    """Return a sub-environment for a worker process; the process `asked_by` also makes one, to read its spaces."""
    if os.getpid() != asked_by:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run handles Ctrl-C: it finishes its step and saves
    return Reporter(make_replayable(make, index))


def in_turn(makers: list[Callable[[], Env]], name: str) -> VectorEnv[Any, Any, Any]:
    """Return a vector that steps one environment after the other.

    Raises:
        ConfigError: one can't be made, or has other spaces than the first; the others are closed.
    """
    made: list[Env] = []
    try:
        for make in makers:
            made.append(make())
            require_alike(made[-1], made[0], len(made) - 1, name)
        return SyncVectorEnv([partial(given, env) for env in made], autoreset_mode=AutoresetMode.DISABLED)
    except BaseException:
        for env in made:
            with suppress(Exception):  # report the first error
                env.close()
        raise


def given(env: Env) -> Env:
    """Return an environment made earlier."""
    return env


def require_alike(env: Env, first: Env, index: int, name: str) -> None:
    """Raise `ConfigError` unless a sub-environment has the spaces of the first one."""
    if (unlike := difference_of_spaces(env, first)) is not None:
        what, its, needed = unlike
        raise ConfigError(
            f"{name}: sub-environment {index} has {what}s {its}, sub-environment 0 has {needed}: all must be equal"
        )


def difference_of_spaces(env: Env, first: Env) -> tuple[str, Any, Any] | None:
    """Return the first difference between two environments as agents see them: what differs, and both; or None."""
    for what in ("observation", "action"):
        its, needed = getattr(env, f"{what}_space"), getattr(first, f"{what}_space")
        if packed_in(its) is not None and packed_in(needed) is not None:
            its, needed = composition(its), composition(needed)
        if its != needed:
            return what, its, needed
    return None


def in_processes(makers: list[Callable[[], Env]], name: str) -> VectorEnv[Any, Any, Any]:
    """Return a process for each environment.

    Raises:
        ConfigError: one ended before use, or has other spaces than the first.
    """
    try:
        return AsyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)
    except (EOFError, OSError) as error:
        raise ConfigError(f"a process for {name} can't be made, or died at once: {one_line(error)}") from error
    except RuntimeError as error:  # Gymnasium compares the spaces
        raise ConfigError(
            f"{name}: the sub-environments' spaces differ from the first one's: all must be equal"
        ) from error


def has_own_vector_form(spec: EnvSpec) -> bool:
    """True for CartPole, if it needs no wrapper."""
    if not isinstance(spec.source, str) or spec.kwargs or spec.wrappers or spec.frame_skip > 1 or spec.frame_stack > 1:
        return False
    return registered_id(spec.source).vector_entry_point == "gymnasium.envs.classic_control.cartpole:CartPoleVectorEnv"


def allows_several(spec: EnvSpec) -> bool:
    """True if a second instance is known to be harmless: for Gymnasium's environments, ours and Atari games.

    Others may allow only one in a process or on a port, or there may be only one robot.
    """
    if spec.rules is not None or not isinstance(spec.source, str):
        return spec.rules is not None
    parts = (str(registered_id(spec.source).entry_point), *spec.wrappers)
    return all(part.startswith(("gymnasium.", "nexus.problems.")) for part in parts)


def registered_id(name: str) -> gym.envs.registration.EnvSpec:
    """Return Gymnasium's spec of an id; for a `module:Id` the module is imported first.

    Raises:
        ConfigError: there is no such module or id; the message names the nearest.
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
    """Make an environment; any error of user code becomes one line."""
    try:
        return make()
    except Exception as error:
        why = (unknown_argument(spec) if isinstance(error, TypeError) else None) or one_line(error)
        raise ConfigError(f"environment {name_of(spec.source)!r} can't be made: {why}") from error


def unknown_argument(spec: EnvSpec) -> str | None:
    """Return text on the first of the `env_kwargs` that a registered environment does not take, with the nearest."""
    if not isinstance(spec.source, str) or not spec.kwargs:
        return None
    entry = registered_id(spec.source).entry_point
    try:
        maker = load_env_creator(entry) if isinstance(entry, str) else entry
        taken = signature(maker).parameters if maker is not None else {}
    except Exception:  # foreign code, and not every callable has a signature
        return None
    if not taken or any(one.kind is Parameter.VAR_KEYWORD for one in taken.values()):
        return None
    for word, _ in spec.kwargs:
        if word not in taken and word not in signature(gym.make).parameters:
            return f"it has no argument {word!r}{nearest(word, taken) or '; it has ' + ', '.join(taken)}"
    return None


def describe_spaces(
    observations: spaces.Space[Any], actions: spaces.Space[Any], name: str
) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return the shape and dtype of a state and the number of actions.

    Raises:
        ConfigError: DQN can't use these spaces; the message says why and what would fit.
    """
    if of_old_gym(observations):
        raise ConfigError(no_space(observations, "observation_space", name))
    action_dim = require_discrete(actions, name)
    if isinstance(observations, spaces.Dict | spaces.Tuple | spaces.Text | spaces.Graph | spaces.Sequence):
        kind = type(observations).__name__
        raise ConfigError(f"{name} has {kind} observations: needs numbers of a fixed shape; {way_for(observations)}")
    shape, dtype = observations.shape, observations.dtype
    if shape is None or dtype is None:
        raise ConfigError(f"{name} has observations {observations}: needs an array of a fixed shape")
    if 0 in shape:
        raise ConfigError(f"{name} has observations {observations}: needs at least one number")
    return shape, dtype, action_dim


def require_discrete(actions: spaces.Space[Any], name: str) -> int:
    """Return the number of actions.

    Raises:
        ConfigError: DQN can't use them; the message says why and what would fit.
    """
    if of_old_gym(actions):
        raise ConfigError(no_space(actions, "action_space", name))
    if not isinstance(actions, spaces.Discrete):
        raise ConfigError(f"{name} has actions {actions}: {way_for_actions(actions)}")
    if actions.start != 0:
        raise ConfigError(f"{name} has actions {actions}: needs them to start at 0; wrap it in TransformAction")
    return int(actions.n)


def observation_bounds(observations: spaces.Space[Any], name: str) -> tuple[list[float], list[float]]:
    """Return the lowest and highest value of each number of a flattened state; -1 and 1 without bounds.

    A bound beyond 1e6 counts as none: mapping it to 1 would squash all realistic values to nearly 0.

    Raises:
        ConfigError: no number has two bounds, or observations are bytes, which are always scaled.
    """
    if not isinstance(observations, spaces.Box) or observations.dtype == np.uint8:
        raise ConfigError(f"scale_observations: {name} has observations {observations}, which need no scaling")
    bounds = bounds_where_given(observations)
    if bounds is None:
        raise without_bounds(name)
    return bounds


def without_bounds(name: str) -> ConfigError:
    """Return the error for observations to be scaled by bounds that they lack."""
    return ConfigError(f"scale_observations: the observations of {name} have no bounds to scale by: leave it out")


def bounds_where_given(observations: spaces.Box) -> tuple[list[float], list[float]] | None:
    """Like `observation_bounds`, but None if no number has two bounds."""
    low, high = (bound.astype(np.float64).reshape(-1) for bound in (observations.low, observations.high))
    bounded = (np.abs(low) < UNBOUNDED) & (np.abs(high) < UNBOUNDED) & (low < high)
    if not bounded.any():
        return None
    return np.where(bounded, low, -1.0).tolist(), np.where(bounded, high, 1.0).tolist()


def scale_of(observations: spaces.Space[Any]) -> list[float] | None:
    """Return the lowest and highest value of whole-number observations, or None without bounds."""
    if not isinstance(observations, spaces.Box) or observations.dtype.kind not in "iu":
        return None
    low, high = float(observations.low.min()), float(observations.high.max())
    return [low, high] if low < high and max(abs(low), abs(high)) < UNBOUNDED else None


def seen_by_agent(
    observations: spaces.Space[Any], name: str, scale_observations: bool, normalize_observations: bool = False
) -> dict[str, Any]:
    """Return the entries of an agent's config that describe how to scale and read observations.

    Raises:
        ConfigError: they are to be scaled by their bounds but have none; or normalised, and have no numbers to.
    """
    packed = packed_in(observations)
    if packed is not None:
        parts = seen_parts(packed, name, scale_observations, normalize_observations)
        return {"state_parts": parts, **said_in(observations)}
    if normalize_observations:
        if not can_be_normalized(observations):
            raise without_numbers(name, observations)
        return {"state_normalized": True, **said_in(observations)}
    entries = {
        "state_bounds": observation_bounds(observations, name) if scale_observations else None,
        "state_scale": None if scale_observations else scale_of(observations),
        **said_in(observations),
    }
    return {name: value for name, value in entries.items() if value is not None}


def can_be_normalized(observations: spaces.Space[Any]) -> bool:
    """True for plain numbers: no image, which is scaled to [0, 1] already, and no one-hot vector."""
    return len(observations.shape or ()) < 3 and "discrete_start" not in said_in(observations)


def without_numbers(name: str, observations: spaces.Space[Any] | str) -> ConfigError:
    """Return the error of observations that are to be normalised and have no numbers for it."""
    return ConfigError(
        f"normalize_observations: {name} has observations {observations}: needs vectors of numbers, since images and "
        "discrete states are scaled already; leave it out"
    )


def seen_parts(
    packed: Packed, name: str, scale_observations: bool, normalize_observations: bool
) -> list[dict[str, Any]]:
    """Return the config entries for each part of packed observations, with the part's path.

    Bytes, images and parts without bounds keep their scale even if scaling is on. What is normalised is not
    scaled as well.

    Raises:
        ConfigError: they are to be scaled by their bounds, but no part has any; or normalised, and no part can be.
    """
    said = []
    for part, space in zip(packed.layout.parts, packed.spaces, strict=True):
        if normalize_observations and can_be_normalized(space):
            entries = {"path": list(part.path), "state_dim": list(part.shape), "dtype": part.dtype}
            said.append({**entries, "state_normalized": True, **said_in(space)})
            continue
        may_be_scaled = scale_observations and part.dtype != "uint8" and len(part.shape) < 3
        bounds = bounds_where_given(space) if may_be_scaled else None
        scale = {"state_scale": scale_of(space)} if bounds is None else {"state_bounds": bounds}
        entries = {"path": list(part.path), "state_dim": list(part.shape), "dtype": part.dtype}
        entries |= {**scale, **said_in(space)}
        said.append({name: value for name, value in entries.items() if value is not None})
    if normalize_observations and not any("state_normalized" in entries for entries in said):
        raise without_numbers(name, str(packed.layout))
    if scale_observations and not any(BY_NUMBERS & entries.keys() for entries in said):
        raise without_bounds(name)
    return said


def composition(observations: spaces.Space[Any]) -> tuple[int, ...] | Layout:
    """Return the composition of a state: its shape, or the layout of its parts."""
    packed = packed_in(observations)
    return observations.shape or () if packed is None else packed.layout


def widest_part(observations: spaces.Space[Any]) -> tuple[int, ...]:
    """Return the shape of the part of a state with the most dimensions."""
    packed = packed_in(observations)
    if packed is None:
        return observations.shape or ()
    return max((part.shape for part in packed.layout.parts), key=len)
