"""Environments whose observations or actions have several parts, and whose best returns are known."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Xor(gym.Env[Any, Any]):
    """Is exactly one of the lamp in the picture and the switch on? Each right answer pays 1.

    Neither part says anything without the other: who sees one of them alone is right half of the time.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space: spaces.Space[Any] = spaces.Dict(
        {"camera": spaces.Box(0, 255, (4, 4, 1), np.uint8), "panel": spaces.Dict({"switch": spaces.Discrete(2)})}
    )
    action_space: spaces.Space[Any] = spaces.Discrete(2)
    length = 1

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def look(self) -> Any:
        self.lamp, self.switch = map(int, self.np_random.integers(2, size=2))
        camera = self.np_random.integers(0, 60, (4, 4, 1), np.uint8)
        camera[:, :2] += np.uint8(150 * self.lamp)
        camera[:, 2:] += np.uint8(150 * (1 - self.lamp))  # as bright in all
        return {"camera": camera, "panel": {"switch": self.switch}}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.at = 0
        return self.look(), {}

    def step(self, action: Any) -> Any:
        reward = float(action == self.lamp ^ self.switch)
        self.at += 1
        return self.look(), reward, self.at == self.length, False, {}

    def render(self) -> Any:
        return np.full((16, 16, 3), 255 * self.lamp, np.uint8)


class LongXor(Xor):
    """Seven questions, of which a restored run finds itself in the midst."""

    length = 7


class MaskedXor(LongXor):
    """With three actions, of which one is illegal at each step: taking it raises."""

    action_space = spaces.Discrete(3)
    observation_space = spaces.Dict(
        {"action_mask": spaces.MultiBinary(3), "camera": Xor.observation_space["camera"], "switch": spaces.Discrete(2)}  # type: ignore[index]
    )

    def look(self) -> Any:
        seen = super().look()
        self.illegal = int(self.np_random.choice([2, 1 - (self.lamp ^ self.switch)]))
        mask = np.arange(3) != self.illegal
        return {"action_mask": mask.astype(np.int8), "camera": seen["camera"], "switch": self.switch}

    def step(self, action: Any) -> Any:
        assert action != self.illegal, f"{action} is illegal"
        return super().step(action)


class Pair(LongXor):
    """In a Tuple."""

    observation_space = spaces.Tuple(Xor.observation_space.spaces.values())  # type: ignore[attr-defined]

    def look(self) -> Any:
        seen = super().look()
        return seen["camera"], seen["panel"]


class Levers(gym.Env[Any, Any]):
    """A lever with two positions and one with three, numbered from -1; which are right depends on a sign.

    Both right pays 1, one right a quarter: 8 steps pay 8 at best.
    """

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space: spaces.Space[Any] = spaces.MultiDiscrete([2, 3], start=[0, -1])
    right: ClassVar[dict[int, tuple[int, ...]]] = {-1: (0, 1), 1: (1, -1)}

    def look(self) -> Any:
        self.sign = int(self.np_random.choice([-1, 1]))
        return np.array([self.sign], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.at = 0
        return self.look(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), f"{action!r} is no action"
        hits = sum(np.asarray(action) == self.right[self.sign])
        self.at += 1
        return self.look(), {0: 0.0, 1: 0.25, 2: 1.0}[int(hits)], self.at == 8, False, {}


class Switches(Levers):
    """Two switches."""

    action_space = spaces.MultiBinary(2)
    right: ClassVar[dict[int, tuple[int, ...]]] = {-1: (0, 1), 1: (1, 0)}


for kind in (Xor, LongXor, MaskedXor, Pair, Levers, Switches):
    gym.register(f"{kind.__name__}-v0", entry_point=f"tests.structured:{kind.__name__}")
