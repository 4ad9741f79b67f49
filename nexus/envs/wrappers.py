"""Wrappers that are not in Gymnasium."""

from typing import Any

import gymnasium as gym
import numpy as np

from nexus.core.types import Flags
from nexus.envs.action_masks import KEY
from nexus.envs.packing import packed_in

__all__ = ["FrameSkip"]


class FrameSkip(gym.Wrapper[Any, Any, Any, Any]):
    """Repeats each action and sums the rewards; images are the maximum of the last two raw frames.

    The maximum removes the flicker of consoles that draw some sprites only on every other frame (Mnih et al. 2015).

    Args:
        env: the environment.
        skip: number of repeats; fewer if the episode ends or the action becomes illegal.
    """

    def __init__(self, env: gym.Env[Any, Any], skip: int) -> None:
        super().__init__(env)
        self.skip = skip
        self.pictures = pictures_in(env.observation_space)
        self.max_of_two = bool(np.any(self.pictures))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Repeat `action` up to `skip` times."""
        total = 0.0
        previous: Any = None
        observation: Any = None
        for _ in range(self.skip):
            previous = observation.copy() if self.max_of_two and observation is not None else None
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated or became_illegal(action, info):
                break
        if self.max_of_two and previous is not None:
            observation = np.where(self.pictures, np.maximum(previous, observation), observation)
        return observation, total, terminated, truncated, info


def pictures_in(space: gym.Space[Any]) -> Flags:
    """Return which of a state's values are images: all or none, or for packed states a mask over the bytes `[N]`."""
    packed = packed_in(space)
    if packed is None:
        return np.array(space.dtype == np.uint8 and len(space.shape or ()) >= 2)
    are = [np.full(part.nbytes, part.dtype == "uint8" and len(part.shape) >= 2) for part in packed.layout.parts]
    return np.concatenate(are)


def became_illegal(action: Any, info: dict[str, Any]) -> bool:
    """True if there is a mask and it forbids the action."""
    mask = info.get(KEY)
    return mask is not None and int(action) < len(mask) and not mask[int(action)]
