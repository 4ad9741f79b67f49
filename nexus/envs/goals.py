"""The goals of an environment, in the packed rows that the replay stores (gymnasium-robotics' interface for goals)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from nexus.core.errors import ConfigError, EnvError, one_line
from nexus.core.packing import Part
from nexus.core.types import Array
from nexus.envs.packing import packed_in

__all__ = ["EnvGoals"]

ACHIEVED, DESIRED = "achieved_goal", "desired_goal"
Computes = Callable[[Array, Array, Any], Any]


class EnvGoals:
    """Reads and writes goals in packed states, and computes what a goal pays.

    Args:
        env: the environment, without the wrappers through which the agent sees it.
        observed: the space of packed states.
        clip: the size that rewards are clipped to, if they are.
        name: name of the environment.

    Raises:
        ConfigError: the observations have no goals of one shape and kind, or there is no `compute_reward`.
    """

    def __init__(self, env: Any, observed: spaces.Space[Any], clip: float | None, name: str) -> None:
        own, packed = env.observation_space, packed_in(observed)
        if packed is None or not isinstance(own, spaces.Dict) or not {ACHIEVED, DESIRED} <= own.keys():
            raise without_goals(name, f"observations {own}")
        self.name, self.clip = name, clip
        self.reward, self.terminated = goal_functions(env, name)
        self._checked = False
        found = {
            part.path: (part, where) for part, where in zip(packed.layout.parts, packed.layout.slices, strict=True)
        }
        kinds = []
        for key in (ACHIEVED, DESIRED):
            space = own[key]
            if not isinstance(space, spaces.Box | spaces.MultiBinary) or (key,) not in found:
                raise ConfigError(f"her: {name} has {space} as {key}: needs a Box or MultiBinary")
            kinds.append((space.shape, space.dtype))
        if kinds[0] != kinds[1]:
            raise ConfigError(
                f"her: {name} has {own[ACHIEVED]} as {ACHIEVED} and {own[DESIRED]} as {DESIRED}: needs the same shape "
                "and dtype"
            )
        self.shape, self.dtype = kinds[0]
        self._achieved: tuple[Part, slice] = found[ACHIEVED,]
        self._desired: tuple[Part, slice] = found[DESIRED,]

    def achieved(self, states: Array) -> Array:
        """Return what states `[K, N]` achieved, `[K, *goal]`, in the environment's dtype."""
        return self._read(states, *self._achieved)

    def desired(self, states: Array) -> Array:
        """Return the goals of states `[K, N]`, `[K, *goal]`, in the environment's dtype."""
        return self._read(states, *self._desired)

    def with_goals(self, states: Array, goals: Array) -> Array:
        """Return states `[K, N]` with other goals `[K, *goal]`."""
        part, where = self._desired
        changed = states.copy()
        changed[:, where] = np.ascontiguousarray(goals, part.dtype).reshape(len(goals), -1).view(np.uint8)
        return changed

    def outcomes(self, achieved: Array, desired: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Return the rewards `[K]` float32, clipped if rewards are, and whether an episode ends there `[K]`.

        Raises:
            EnvError: the environment can't compute them for many goals at once, or not the same as one by one.
        """
        rewards = self._computed(self.reward, "compute_reward", achieved, desired)
        ended = self._computed(self.terminated, "compute_terminated", achieved, desired)
        self._checked = self._checked or bool(len(achieved) > 1)
        if self.clip is not None:
            rewards = np.clip(rewards, -self.clip, self.clip)
        return rewards.astype(np.float32), ended.astype(bool)

    def _read(self, states: Array, part: Part, where: slice) -> Array:
        values = np.ascontiguousarray(states[:, where]).view(part.dtype)
        return values.reshape(len(states), *self.shape).astype(self.dtype, copy=False)

    def _computed(self, function: Computes, what: str, achieved: Array, desired: Array) -> Array:
        """Return what a function says of many goals `[K]`; the first time, compare it with what it says of each."""
        try:
            found = np.asarray(function(achieved, desired, {}))
            if found.ndim == 0 and what == "compute_terminated":  # as in an environment whose goals end no episode
                found = np.full(len(achieved), found)
            if found.shape != (len(achieved),):
                raise EnvError(f"it returned the shape {found.shape} for {len(achieved)} goals")
            if not np.isfinite(found.astype(np.float64)).all():
                raise EnvError(f"it returned {found[~np.isfinite(found.astype(np.float64))][0]}")
            if not self._checked:
                single = [function(one, goal, {}) for one, goal in zip(achieved, desired, strict=True)]
                wrong = np.flatnonzero(~np.isclose(found.astype(np.float64), np.array(single, np.float64)))
                if len(wrong):
                    at = wrong[0]
                    raise EnvError(f"it returned {found[at]} for a goal among others and {single[at]} for it alone")
        except Exception as error:  # foreign code
            raise EnvError(
                f"her: {what} of {self.name}: {one_line(error)}; it must take goals [K, ...] and return [K]"
            ) from error
        return found


def goal_functions(env: Any, name: str) -> tuple[Computes, Computes]:
    """Return `compute_reward` and `compute_terminated` of an environment; without the latter, goals end no episode.

    Raises:
        ConfigError: it has no `compute_reward`.
    """
    found = []
    for method in ("compute_reward", "compute_terminated"):
        try:
            found.append(env.get_wrapper_attr(method))
        except AttributeError:
            found.append(None)
    reward, terminated = found
    if not callable(reward):
        raise without_goals(name, "no method compute_reward")
    return reward, terminated if callable(terminated) else never


def never(achieved: Array, desired: Array, info: Any) -> bool:
    """Return that no goal ends an episode."""
    return False


def without_goals(name: str, has: str) -> ConfigError:
    """Return the error of an environment without goals."""
    return ConfigError(
        f"her: {name} has {has}: needs goals, that is observations with {ACHIEVED} and {DESIRED}, and a method "
        "compute_reward(achieved_goal, desired_goal, info)"
    )
