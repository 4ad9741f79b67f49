"""The boundary to an environment: converts all that it returns to one form, and copies it."""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from traceback import walk_tb
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from nexus.core.errors import ConfigError, EnvError, warn
from nexus.core.packing import Path, place
from nexus.core.types import Array
from nexus.envs.action_masks import KEY, checked_mask
from nexus.envs.answers import (
    OLD_RESET,
    OLD_STEP,
    flag_in,
    form_of,
    is_grid,
    is_picture,
    number_in,
    outside,
    reset_answer,
    saying,
    step_answer,
    success_in,
)
from nexus.envs.atari import LIFE_LOST
from nexus.envs.checks import describe_error
from nexus.envs.layers import IN_USE, attribute_of, layers_of, method_of
from nexus.envs.packing import Packing, Structured
from nexus.envs.statistics import Running, out_of_reach

__all__ = ["MASK_KEYS", "NOTICE", "Edge", "MaskedSpace", "call_for", "space_without_mask"]

NOTICE = "nexus_notice"  # in our infos: notices on the environment for the user, one line for each kind
CHECKED = 1_000  # observations of a sub-environment that are checked against the bounds of their space
MASK_KEYS = (KEY, "action_masks")  # names of an entry with the legal actions, in an info or a Dict observation
UNREAD = ("legal_actions", "valid_actions", "available_actions", "avail_actions", "legal_moves")
METHOD = "action_masks"  # sb3-contrib's name
UNREAD_METHODS = ("action_mask", "valid_action_mask", "get_action_mask", "get_action_masks", *UNREAD)


class MaskedSpace(NamedTuple):
    """A Dict observation with the legal actions in one entry, split up."""

    mask: str  # the entry with the legal actions
    rest: str | None  # the other entry; None if there are several
    space: spaces.Space[Any]  # space of the observation without the mask

    @property
    def path(self) -> Path:
        """Path of the observation without the mask."""
        return () if self.rest is None else (self.rest,)


def masked_space_of(space: Any) -> MaskedSpace | None:
    """Return how to split observations if one of their entries is a mask, else None."""
    if not isinstance(space, spaces.Dict):
        return None
    masks = [name for name in space.spaces if name in MASK_KEYS]
    others = {name: other for name, other in space.spaces.items() if name not in MASK_KEYS}
    if len(masks) != 1 or not others:
        return None
    if len(others) == 1:
        (rest, only), *_ = others.items()
        return MaskedSpace(masks[0], rest, only)
    return MaskedSpace(masks[0], None, spaces.Dict(others))


def space_without_mask(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return the part of an observation space that the agent sees: all but a mask."""
    parts = masked_space_of(space)
    return space if parts is None else parts.space


class Edge(gym.Wrapper[Any, Any, Any, Any]):
    """Converts what an environment returns; the innermost of our wrappers.

    - An observation becomes a new array of its space's dtype, since many environments change one array in place.
      Discrete numbers become one-hot vectors, and a large grey image gets a channel axis. A Dict or
      Tuple becomes one row of bytes (`packing.py`).
    - A reward becomes a float, and the two flags become bools.
    - Only the info keys read here are kept; the others are never used, and may fail to stack with those of other
      sub-environments.
    - The legal actions go into `info["action_mask"]`, also if a method `action_masks()` or an entry of a Dict
      observation has them.

    `info[NOTICE]` reports how observations were interpreted, and what looks like a mistake.

    Args:
        env: the environment as it was made.
        name: name of the environment, for messages.
        stacked: whether its observations will be stacked, so that images need no channel axis.

    Raises:
        ConfigError: it is already in use, or a network can't read a part of its observations.
        NotImplementedError: its observations can't be flattened to one array.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str, stacked: bool = False) -> None:
        super().__init__(env)
        self.name = name
        self.actions = int(getattr(env.action_space, "n", 0))
        self.parts = masked_space_of(env.observation_space)
        self.notices = {f"{what} statistics": said for what, said in of_statistics(env, name).items()}
        taking = taken_apart if isinstance(space_without_mask(env.observation_space), Structured) else taken_whole
        self.read, self.beyond, self.observation_space, grids = taking(env.observation_space, name, stacked)
        self.notices |= grids
        self.unchecked = 0 if self.beyond is None else CHECKED
        self.masks = method_of(env, METHOD)
        self.begun = False
        taken = IN_USE.claim(env, self)
        if taken is not None:
            raise ConfigError(
                f"{name} returned the same {type(taken).__name__} again while it is in use: each sub-environment, "
                f"and the evaluation, needs its own; pass a function that makes a new one at each call, "
                f"{call_for(taken)}, or set num_envs = 1 if there can be only one"
            )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Reset, and convert the answer."""
        try:
            answer = self.env.reset(seed=seed, options=options)
        except (TypeError, ValueError) as error:
            if "reset() got an unexpected keyword argument" in str(error):
                raise EnvError(f"its reset does not accept {str(error).split()[-1]}; {OLD_RESET}") from error
            if not could_not_unpack(error):
                raise
            raise EnvError(f"its reset did not return (observation, info); {OLD_RESET}") from error
        observation, info = reset_answer(answer)
        state, told = self._taken(observation, info, False)
        if not self.begun:
            self.begun = True
            self.notices |= self._seen_first(info, told)
        if self.notices:
            told[NOTICE] = self.notices
        return state, told

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Step, and convert the answer."""
        try:
            answer = self.env.step(action)
        except ValueError as error:
            if not could_not_unpack(error):
                raise
            raise EnvError(f"its step did not return five values; {OLD_STEP}") from error
        observation, reward, terminated, truncated, info = step_answer(answer)
        ended = flag_in(terminated, "terminated")
        state, told = self._taken(observation, info, ended)
        number, cut = number_in(reward), flag_in(truncated, "truncated")
        if ended or cut:
            told |= success_in(info)
        return state, number, ended, cut, told

    def close(self) -> None:
        """Close the environment and release it; an error only warns, since the work is done by then."""
        try:
            super().close()
        except Exception as error:
            warn(f"{self.name}: its close {describe_error(error)}")
        finally:
            IN_USE.release(self)

    def _taken(self, observation: Any, info: Mapping[str, Any], terminated: bool) -> tuple[Array, dict[str, Any]]:
        """Return the state, and the info keys read here; a terminal state is not queried for its legal actions."""
        told: dict[str, Any] = {}
        mask = next((info[name] for name in MASK_KEYS if info.get(name) is not None), None) if info else None
        if self.parts is not None:
            inside, observation = self.split(observation)
            mask = inside if mask is None else mask
        elif mask is None and self.masks is not None and not terminated:
            mask = self.masks()
        if mask is not None:
            told[KEY] = checked_mask(mask, self.actions)
        if LIFE_LOST in info:
            told[LIFE_LOST] = bool(info[LIFE_LOST])
        state = self.read(observation)
        if self.unchecked and self.beyond is not None:
            self.unchecked -= 1
            wrong = self.beyond(state)
            if wrong is not None:
                self.unchecked = 0
                self.notices["bounds"] = (
                    f"{self.name}: {wrong}; states may be scaled by these bounds: correct the space"
                )
                told[NOTICE] = self.notices
        return state, told

    def split(self, observation: Any) -> tuple[Any, Any]:
        """Return the mask of a Dict observation, and the rest."""
        assert self.parts is not None
        mask, rest, space = self.parts
        whole = rest is None or isinstance(space, Structured)  # a structure's reader looks up its parts
        try:
            return observation[mask], observation if whole else observation[rest]
        except (KeyError, TypeError, IndexError) as error:
            had = ", ".join(observation) if isinstance(observation, Mapping) else type(observation).__name__
            needed = " and ".join(filter(None, (mask, rest)))
            raise EnvError(f"got an observation with {had}: needs {needed}") from error

    def _seen_first(self, info: Mapping[str, Any], told: dict[str, Any]) -> dict[str, str]:
        """Return a notice on where the first answer has the legal actions, or why they are not read."""
        name = self.name
        if info.get(KEY) is not None:
            return {}
        if info.get(MASK_KEYS[1]) is not None:
            return {"masks": f"{name}: takes the legal actions from info[{MASK_KEYS[1]!r}]"}
        if self.parts is not None:
            rest = "" if self.parts.rest is None else f", and observation[{self.parts.rest!r}] as the observation"
            return {"masks": f"{name}: takes the legal actions from observation[{self.parts.mask!r}]{rest}"}
        if KEY in told:
            return {"masks": f"{name}: takes the legal actions from its {METHOD}()"}
        if any(masked_space_of(attribute_of(layer, "observation_space")) for layer in layers_of(self.env)):
            return {
                "masks": f"{name}: its {KEY} is flattened into the observation, so illegal actions are not excluded: "
                "leave the Dict unflattened, and the mask is read"
            }
        unread = [f"info[{key!r}]" for key in UNREAD if key in info]
        unread += [f"its {method}()" for method in UNREAD_METHODS if method_of(self.env, method)]
        where = (
            f"return legal actions in info[{KEY!r}] or from {METHOD}(), an array of {self.actions} with 1 where legal"
        )
        return {"masks": f"{name}: {unread[0]} is not read: {where}"} if unread else {}


class Taking(NamedTuple):
    """How observations are converted."""

    read: Callable[[Any], Array]  # from an observation to a state
    beyond: Callable[[Array], str | None] | None  # reports a number beyond its bound; None if there are no bounds
    space: spaces.Space[Any]  # space of the states
    notices: dict[str, str]


def taken_whole(space: spaces.Space[Any], name: str, stacked: bool) -> Taking:
    """Return how to convert observations that are one array, or one array and a mask."""
    parts = masked_space_of(space)
    if parts is not None:
        space = parts.space
    form = form_of(space, is_picture(space) and not stacked)
    beyond, states, notices = None, form.space, dict[str, str]()
    if isinstance(space, spaces.Box) and isinstance(states, spaces.Box) and bounded(states):
        beyond = partial(outside, space=states)
    if parts is not None and isinstance(states, spaces.Box):
        states = saying(states, path=list(parts.path), mask_entry=parts.mask)
    if is_grid(space) and not stacked:
        notices["grid"] = of_grid(space.shape or (), form.space.shape or (), name)
    return Taking(form.read, beyond, states, notices)


def taken_apart(space: spaces.Space[Any], name: str, stacked: bool) -> Taking:
    """Return how to convert observations of several parts.

    Raises:
        ConfigError: they can't be converted.
    """
    parts, seen = masked_space_of(space), space_without_mask(space)
    assert isinstance(seen, Structured)
    if stacked:
        raise ConfigError(
            f"frame_stack: {name} has {type(seen).__name__} observations, which nexus does not stack: wrap it in "
            "gymnasium.wrappers.FrameStackObservation, or leave frame_stack out"
        )
    packing = Packing(seen, name, () if parts is None else parts.path)
    astray = [place(part.path) for part in packing.layout.parts if not set(MASK_KEYS).isdisjoint(part.path)]
    if astray:
        raise ConfigError(
            f"{name} has {' and '.join(astray)}: needs a single mask, at the top level of a Dict with other entries"
        )
    states = packing.space if parts is None else saying(packing.space, mask_entry=parts.mask)
    boxes = [leaf.form.space for leaf in packing.leaves if isinstance(leaf.space, spaces.Box)]
    beyond = packing.beyond if any(isinstance(box, spaces.Box) and bounded(box) for box in boxes) else None
    grids = {
        f"grid {place(leaf.part.path)}": of_grid(leaf.space.shape or (), leaf.part.shape, name, place(leaf.part.path))
        for leaf in packing.leaves
        if is_grid(leaf.space)
    }
    return Taking(packing.read, beyond, states, grids)


def bounded(space: spaces.Box) -> bool:
    """True if a number of this dtype can be beyond a bound."""
    if space.dtype.kind == "f":
        return bool(np.isfinite(space.low).any() or np.isfinite(space.high).any())
    if space.dtype.kind == "b":
        return False
    limits: Any = np.iinfo(space.dtype)
    return bool(space.low.max() > limits.min or space.high.min() < limits.max)


def could_not_unpack(error: Exception) -> bool:
    """True if one of Gymnasium's wrappers got the wrong number of values from an environment."""
    *_, (last, _) = walk_tb(error.__traceback__)
    return "unpack" in str(error) and str(last.f_globals.get("__name__", "")).startswith("gymnasium.")


def of_statistics(env: Any, name: str) -> dict[str, str]:
    """Return notices on how running statistics affect scores.

    Readable statistics of observations carry over to evaluations, so they need no notice.
    """
    unread, said = out_of_reach(env), {}
    if "observation" in unread:
        said["observation"] = (
            f"{name}: {unread['observation']} scales observations by running statistics per sub-environment, and each "
            "evaluation starts them over, so scores are for inputs scaled differently; scale by fixed numbers instead "
            "(TransformObservation, or scale_observations with a space that has bounds)"
        )
    rewards = [*Running(env).kinds("reward"), *([unread["reward"]] if "reward" in unread else [])]
    if rewards:
        said["reward"] = (
            f"{name}: {rewards[0]} scales rewards by running statistics, so returns and scores are not in the "
            "environment's units; leave it out, and set reward_clip, which affects only training"
        )
    return said


def of_grid(shape: tuple[int, ...], taken: tuple[int, ...], name: str, what: str = "observations") -> str:
    """Return a notice on how two-dimensional bytes are interpreted."""
    if taken != shape:
        return f"{name}: {what} {shape} are taken as grey images, {taken}"
    numbers = shape[0] * shape[1]
    return f"{name}: {what} {shape} are taken as {numbers} numbers; for images, add an axis, as in {(1, *shape)}"


def call_for(env: Any) -> str:
    """Return code for a function that makes an environment like this one."""
    name = getattr(attribute_of(env, "spec"), "id", None)
    if isinstance(name, str):
        return f"lambda: gymnasium.make({name!r})"
    kind = type(env)
    try:
        signature(kind).bind()
    except (TypeError, ValueError):
        return f"lambda: {kind.__name__}(...)"
    return f"lambda: {kind.__name__}()"
