"""An environment whose episodes can be told apart, and whose frames show how far an episode is."""

from typing import Any, ClassVar, SupportsInt, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces

State = np.ndarray[Any, np.dtype[np.float32]]


class Counting(gym.Env[State, SupportsInt]):
    """Three to seven steps; each pays a number drawn at random, minus it for action 0.

    The frame is black, with a white column of two pixels for each step taken.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space = spaces.Box(-20, 20, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[State, dict[str, Any]]:
        super().reset(seed=seed)
        self.at, self.end = 0, 3 + int(self.np_random.integers(5))
        return self.state(0.0), {}

    def state(self, drawn: float) -> State:
        return np.array([self.at, drawn], np.float32)

    def step(self, action: SupportsInt) -> tuple[State, float, bool, bool, dict[str, Any]]:
        self.at += 1
        drawn = float(self.np_random.integers(100)) / 8
        return self.state(drawn), drawn if int(action) else -drawn, self.at >= self.end, False, {}

    def render(self) -> Any:
        frame = np.zeros((20, 30, 3), np.uint8)
        frame[:, : 2 * self.at] = 255
        return frame


class Recording(Counting):
    """Notes each episode that has ended, in this process: its seed and the actions."""

    ended: ClassVar[list[tuple[int | None, list[int]]]] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[State, dict[str, Any]]:
        self.seed, self.actions = seed, list[int]()
        return super().reset(seed=seed)

    def step(self, action: SupportsInt) -> tuple[State, float, bool, bool, dict[str, Any]]:
        self.actions.append(int(action))
        taken = super().step(action)
        if taken[2]:
            self.ended.append((self.seed, self.actions))
        return taken


class Unlike(Counting):
    """Its episodes are a step longer."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[State, dict[str, Any]]:
        state, info = super().reset(seed=seed)
        self.end += 1
        return state, info


for name, kind in {"Counting-v0": Counting, "Recording-v0": Recording, "Unlike-v0": Unlike}.items():
    gym.register(name, entry_point=cast(Any, kind))
