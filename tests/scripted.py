"""An environment whose episodes are a script, with options that break it, under an id that a run's folder can name."""

from typing import Any, SupportsInt

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from nexus.core.types import Array

__all__ = ["NAMES", "PAID", "Scripted", "frame_at", "state_at"]

NAMES = ["<b>left</b>", "right"]
PAID = (0.5, -2.0, 3.0)
HEIGHT, WIDTH = 2, 3  # of a frame


def state_at(step: int) -> Array:
    """What is seen: two numbers that a network can return as its Q-values."""
    return np.array([[1, 2], [4, 3], [5, 7], [6, 8]][step], np.float32)


def frame_at(step: int) -> Array:
    """What is rendered."""
    return np.full((HEIGHT, WIDTH, 3), 10 * step, np.uint8)


class Scripted(gym.Env[Any, Any]):
    """Three steps that pay `PAID`, whatever is done.

    Args:
        end: how an episode ends: terminated, truncated, or never, which goes on in the last state.
        renders: what rendering returns: frame, nothing, an odd array, an error; or none for no render mode.
        named: whether its actions have names.
        masked: whether only action 1 is legal, but for the last state.
        fails: at which step it fails.
        images: whether states are images, (3, 6, 6) of one shade per step.
        size: sides of what is rendered, of noise; 0 for the frames of the script.
    """

    action_space = spaces.Discrete(2)
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(
        self,
        render_mode: str | None = None,
        end: str = "terminated",
        renders: str = "frame",
        named: bool = True,
        masked: bool = False,
        fails: int = -1,
        images: bool = False,
        size: int = 0,
    ) -> None:
        self.render_mode = render_mode
        if renders == "none":
            self.metadata = {"render_modes": []}
        self.end, self.renders, self.masked, self.fails, self.images = end, renders, masked, fails, images
        self.size = size
        shape = (3, 6, 6) if images else (2,)
        self.observation_space = spaces.Box(0, 255, shape, np.uint8 if images else np.float32)
        if named:
            self.get_action_meanings = lambda: NAMES

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.at = 0
        return self.look()

    def step(self, action: SupportsInt) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.at == self.fails:
            raise ValueError("<i>the motor</i>\nis hot")
        paid = PAID[min(self.at, 2)]
        self.at += 1
        over = self.at >= 3
        state, info = self.look()
        return state, paid, over and self.end == "terminated", over and self.end == "truncated", info

    def look(self) -> tuple[Any, dict[str, Any]]:
        at = min(self.at, 3)
        state = np.full((3, 6, 6), 20 * at, np.uint8) if self.images else state_at(at)
        return state, {"action_mask": np.array([at == 3, 1], np.int8)} if self.masked else {}

    def render(self) -> Any:
        match self.renders:
            case "error":
                raise RuntimeError("no <u>screen</u>")
            case "odd":
                return np.zeros((2, 2))
            case "nothing":
                return None
        if self.size:
            return self.np_random.integers(0, 256, (self.size, self.size, 3), np.uint8)
        return frame_at(min(self.at, 3))


gym.register("Scripted-v0", entry_point="tests.scripted:Scripted")
