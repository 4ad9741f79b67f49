"""The edge between an environment and what is built here: all that it answers is taken in one form, and copied."""

import warnings
from collections.abc import Mapping
from inspect import signature
from traceback import walk_tb
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from nexus.core.errors import ConfigError, EnvError
from nexus.core.types import Array
from nexus.envs.action_masks import KEY, mask_in
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
    step_answer,
)
from nexus.envs.atari import LIFE_LOST
from nexus.envs.checks import told
from nexus.envs.layers import IN_USE, attribute_of, layers_of, method_of, running_statistics

__all__ = ["MASKS", "NOTICE", "Edge", "Parts", "call_for", "parts_of"]

NOTICE = "nexus_notice"  # in our infos: what a user should know of the environment, one line for each kind
CHECKED = 1_000  # observations of a copy that are held against the bounds of their space
MASKS = (KEY, "action_masks")  # what an entry with the legal actions is called, in an info or a Dict observation
UNREAD = ("legal_actions", "valid_actions", "available_actions", "avail_actions", "legal_moves")
METHOD = "action_masks"  # as sb3-contrib has it
UNREAD_METHODS = ("action_mask", "valid_action_mask", "get_action_mask", "get_action_masks", *UNREAD)


class Parts(NamedTuple):
    """The two entries of a Dict observation that tells the legal actions."""

    mask: str
    rest: str


def parts_of(space: Any) -> Parts | None:
    """Return what the two entries of observations are called, if one of them is a mask; None for all others."""
    if not isinstance(space, spaces.Dict) or len(space.spaces) != 2:
        return None
    names = list(space.spaces)
    masks = [name for name in names if name in MASKS]
    return Parts(masks[0], names[1 - names.index(masks[0])]) if len(masks) == 1 else None


class Edge(gym.Wrapper[Any, Any, Any, Any]):
    """Takes what an environment answers; the innermost of our wrappers.

    - An observation becomes an array of its own, of its space's dtype: many environments change one array in place.
      Numbers that count something become one-hot vectors, a large grey picture gets an axis for its channel.
    - A reward becomes a float, and how an episode ends two truth values.
    - Of the info stays what is read here. The rest could only fail to be stacked with that of other copies.
    - The legal actions come into `info["action_mask"]`, also where a method `action_masks()` or an entry of a Dict
      observation tells them.

    `info[NOTICE]` says what was taken for what, and what looks like a mistake.

    Args:
        env: the environment as it was made.
        name: what it is called.
        stacked: whether its observations will be stacked, and pictures need no axis for a channel.

    Raises:
        ConfigError: another one uses it already.
        NotImplementedError: its observations can't become one array.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str, stacked: bool = False) -> None:
        super().__init__(env)
        self.name = name
        self.actions = int(getattr(env.action_space, "n", 0))
        self.parts = parts_of(env.observation_space)
        space = env.observation_space
        if self.parts is not None and isinstance(space, spaces.Dict):
            space = space[self.parts.rest]
        form = form_of(space, is_picture(space) and not stacked)
        self.read = form.read
        self.bounds = form.space if isinstance(space, spaces.Box) and isinstance(form.space, spaces.Box) else None
        self.unchecked = 0 if self.bounds is None or not bounded(self.bounds) else CHECKED
        self.observation_space = form.space
        self.masks = method_of(env, METHOD)
        self.begun = False
        self.notices = {f"{what} statistics": said for what, said in of_statistics(env, name).items()}
        if is_grid(space) and not stacked:
            self.notices["grid"] = of_grid(space.shape or (), form.space.shape or (), name)
        taken = IN_USE.claim(env, self)
        if taken is not None:
            raise ConfigError(
                f"{name} gave one and the same {type(taken).__name__} again while it is in use: each copy, and the "
                f"evaluation, needs its own; pass a function that makes a new one at each call, {call_for(taken)}, or "
                "set num_envs = 1 where there can be only one"
            )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Reset, and take the answer."""
        try:
            answer = self.env.reset(seed=seed, options=options)
        except (TypeError, ValueError) as error:
            if "reset() got an unexpected keyword argument" in str(error):
                raise EnvError(f"its reset takes no {str(error).split()[-1]}; {OLD_RESET}") from error
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
        """Step, and take the answer."""
        try:
            answer = self.env.step(action)
        except ValueError as error:
            if not could_not_unpack(error):
                raise
            raise EnvError(f"its step did not return five values; {OLD_STEP}") from error
        observation, reward, terminated, truncated, info = step_answer(answer)
        ended = flag_in(terminated, "terminated")
        state, told = self._taken(observation, info, ended)
        return state, number_in(reward), ended, flag_in(truncated, "truncated"), told

    def close(self) -> None:
        """Close the environment, and leave it to others; an error in it is a warning, for all is done by then."""
        try:
            super().close()
        except Exception as error:
            warnings.warn(f"{self.name}: its close {told(error)}", RuntimeWarning, stacklevel=2)
        finally:
            IN_USE.release(self)

    def _taken(self, observation: Any, info: Mapping[str, Any], terminated: bool) -> tuple[Array, dict[str, Any]]:
        """Return the state, and what of the info is read here; a terminal state is not asked for its actions."""
        told: dict[str, Any] = {}
        mask = next((info[name] for name in MASKS if info.get(name) is not None), None) if info else None
        if self.parts is not None:
            inside, observation = self._split(observation)
            mask = inside if mask is None else mask
        elif mask is None and self.masks is not None and not terminated:
            mask = self.masks()
        if mask is not None:
            told[KEY] = mask_in(mask, self.actions)
        if LIFE_LOST in info:
            told[LIFE_LOST] = bool(info[LIFE_LOST])
        state = self.read(observation)
        if self.unchecked and self.bounds is not None:
            self.unchecked -= 1
            wrong = outside(state, self.bounds)
            if wrong is not None:
                self.unchecked = 0
                self.notices["bounds"] = (
                    f"{self.name}: {wrong}; states may be scaled by these bounds: correct the space"
                )
                told[NOTICE] = self.notices
        return state, told

    def _split(self, observation: Any) -> tuple[Any, Any]:
        """Return the mask and the rest of a Dict observation."""
        assert self.parts is not None
        try:
            return observation[self.parts.mask], observation[self.parts.rest]
        except (KeyError, TypeError, IndexError) as error:
            had = ", ".join(observation) if isinstance(observation, Mapping) else type(observation).__name__
            raise EnvError(f"got an observation with {had}: needs {' and '.join(self.parts)}") from error

    def _seen_first(self, info: Mapping[str, Any], told: dict[str, Any]) -> dict[str, str]:
        """Return what the first answer shows of where legal actions are told, or are not."""
        name = self.name
        if info.get(KEY) is not None:
            return {}
        if info.get(MASKS[1]) is not None:
            return {"masks": f"{name}: takes the legal actions from info[{MASKS[1]!r}]"}
        if self.parts is not None:
            return {
                "masks": f"{name}: takes the legal actions from observation[{self.parts.mask!r}], "
                f"and observation[{self.parts.rest!r}] as the observation"
            }
        if KEY in told:
            return {"masks": f"{name}: takes the legal actions from its {METHOD}()"}
        if any(parts_of(attribute_of(layer, "observation_space")) for layer in layers_of(self.env)):
            return {
                "masks": f"{name}: its {KEY} is flattened into the observation, so illegal actions are taken: "
                "leave the Dict as it is, and the mask is read"
            }
        unread = [f"info[{key!r}]" for key in UNREAD if key in info]
        unread += [f"its {method}()" for method in UNREAD_METHODS if method_of(self.env, method)]
        where = f"legal actions are told by info[{KEY!r}] or {METHOD}(), an array of {self.actions} with 1 where legal"
        return {"masks": f"{name}: {unread[0]} is not read: {where}"} if unread else {}


def bounded(space: spaces.Box) -> bool:
    """True if a number of this dtype can be beyond a bound."""
    if space.dtype.kind == "f":
        return bool(np.isfinite(space.low).any() or np.isfinite(space.high).any())
    if space.dtype.kind == "b":
        return False
    limits: Any = np.iinfo(space.dtype)
    return bool(space.low.max() > limits.min or space.high.min() < limits.max)


def could_not_unpack(error: Exception) -> bool:
    """True where one of Gymnasium's own wrappers was given fewer or more values than there should be."""
    *_, (last, _) = walk_tb(error.__traceback__)
    return "unpack" in str(error) and str(last.f_globals.get("__name__", "")).startswith("gymnasium.")


def of_statistics(env: Any, name: str) -> dict[str, str]:
    """Say what running statistics do to scores."""
    found = running_statistics(env)
    said = {}
    if "observation" in found:
        said["observation"] = (
            f"{name}: {found['observation']} scales observations by what its own copy has seen, and each evaluation "
            "begins anew: scores are of other inputs than the training's; scale by fixed numbers in their place "
            "(TransformObservation, or scale_observations with a space that has bounds)"
        )
    if "reward" in found:
        said["reward"] = (
            f"{name}: {found['reward']} scales rewards by what its own copy has seen, so returns and scores are not in "
            "the environment's own units; leave it out, and set reward_clip, which training alone sees"
        )
    return said


def of_grid(shape: tuple[int, ...], taken: tuple[int, ...], name: str) -> str:
    """Say what bytes in two dimensions are taken for."""
    if taken != shape:
        return f"{name}: observations {shape} are taken for grey images, {taken}"
    numbers = shape[0] * shape[1]
    return f"{name}: observations {shape} are taken for {numbers} numbers; give images an axis more, {(1, *shape)}"


def call_for(env: Any) -> str:
    """Return a function that makes an environment like this one, as it would be written."""
    name = getattr(attribute_of(env, "spec"), "id", None)
    if isinstance(name, str):
        return f"lambda: gymnasium.make({name!r})"
    kind = type(env)
    try:
        signature(kind).bind()
    except (TypeError, ValueError):
        return f"lambda: {kind.__name__}(...)"
    return f"lambda: {kind.__name__}()"
