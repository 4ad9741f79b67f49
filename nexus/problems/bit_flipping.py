"""Bit flipping: a goal that random actions hardly ever reach."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from nexus.core.errors import ConfigError
from nexus.core.types import Array, Flags
from nexus.problems.arguments import check_whole
from nexus.problems.tables import Table, ending

__all__ = ["BitFlipping"]

MOST_TABLED = 6  # bits; 4^n states


class BitFlipping(gym.Env[Any, Any]):
    """Flip bits, one per step, until they equal a goal.

    Andrychowicz et al. 2017 (https://arxiv.org/abs/1707.01495), section 3.1; there an episode may take n steps.

    - Observation: a Dict of `observation`, `achieved_goal` and `desired_goal`, each float32 `[n]` of zeros and ones,
      the first two equal: Gymnasium's interface for goals.
    - Actions: n, one for each bit.
    - Reward: 0 for a step that reaches the goal, else -1.
    - End: at the goal, terminated; after n steps, truncated. From a distance of d bits the best return is 1 - d.
    - `info["steps"]`: steps of this episode, which `compute_truncated` needs; `info["is_success"]`: at the goal.

    Args:
        bits: n.
        render_mode: None.

    Raises:
        ConfigError: an argument is out of range.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's form

    def __init__(self, bits: int = 10, render_mode: str | None = None) -> None:
        check_whole("bits", bits, 1)
        self.size = int(bits)
        self.render_mode = render_mode
        goals = spaces.Box(0.0, 1.0, (self.size,), np.float32)
        self.observation_space = spaces.Dict(
            {"observation": goals, "achieved_goal": goals, "desired_goal": goals}  # equal spaces, and no state
        )
        self.action_space = spaces.Discrete(self.size)
        self.bits, self.goal, self.steps = np.zeros(self.size, np.float32), np.ones(self.size, np.float32), 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draw bits and another goal."""
        super().reset(seed=seed)
        self.bits = self.np_random.integers(2, size=self.size).astype(np.float32)
        self.goal, self.steps = self.bits.copy(), 0
        while np.array_equal(self.goal, self.bits):
            self.goal = self.np_random.integers(2, size=self.size).astype(np.float32)
        return self.observe(), self.info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Flip a bit."""
        self.bits[int(action)] = 1.0 - self.bits[int(action)]
        self.steps += 1
        info = self.info()
        reward = float(self.compute_reward(self.bits, self.goal, info))
        ends = bool(self.compute_terminated(self.bits, self.goal, info))
        return self.observe(), reward, ends, bool(self.compute_truncated(self.bits, self.goal, info)), info

    def compute_reward(self, achieved_goal: Array, desired_goal: Array, info: Any) -> Array:
        """Return 0 where a goal is reached, else -1: float32 `[...]` for goals `[..., n]`."""
        return reached(achieved_goal, desired_goal).astype(np.float32) - np.float32(1)

    def compute_terminated(self, achieved_goal: Array, desired_goal: Array, info: Any) -> Flags:
        """Return where a goal is reached, `[...]` for goals `[..., n]`."""
        return reached(achieved_goal, desired_goal)

    def compute_truncated(self, achieved_goal: Array, desired_goal: Array, info: Any) -> Flags:
        """Return where the steps are used up without reaching the goal, `[...]` for goals `[..., n]`.

        Args:
            achieved_goal: goals reached.
            desired_goal: goals to reach.
            info: `steps`, a number or one for each goal; without it nothing is truncated.
        """
        steps = info.get("steps", 0) if isinstance(info, Mapping) else 0
        return np.asarray((np.asarray(steps) >= self.size) & ~reached(achieved_goal, desired_goal))

    def observe(self) -> dict[str, Any]:
        """Return bits and goal."""
        return {"observation": self.bits.copy(), "achieved_goal": self.bits.copy(), "desired_goal": self.goal.copy()}

    def info(self) -> dict[str, Any]:
        """Return the steps, and whether the goal is reached."""
        return {"steps": self.steps, "is_success": bool(reached(self.bits, self.goal))}

    @property
    def state_number(self) -> int:
        """The number that the bits spell, the first the lowest, plus 2^n times that of the goal; 4^n at the goal."""
        places = 2 ** np.arange(self.size)
        return self.number(int(places @ self.bits), int(places @ self.goal))

    def number(self, bits: int, goal: int) -> int:
        """Return the number of a state."""
        return 1 << 2 * self.size if bits == goal else bits + (goal << self.size)

    @cached_property
    def P(self) -> Table:
        """The transitions, for at most 6 bits; states with a goal that is reached can't be left and are not entered.

        Raises:
            ConfigError: there are more bits.
        """
        if self.size > MOST_TABLED:
            raise ConfigError(f"bits = {self.size}: a table of 4^{self.size} states needs at most {MOST_TABLED} bits")
        end, words = 1 << 2 * self.size, range(1 << self.size)
        table: Table = {end: ending(self.size, end)}
        for goal in words:
            for bits in words:
                reaches = {place: bits ^ (1 << place) for place in range(self.size)}
                table[bits + (goal << self.size)] = (
                    {
                        place: [(1.0, self.number(after, goal), 0.0 if after == goal else -1.0, after == goal)]
                        for place, after in reaches.items()
                    }
                    if bits != goal
                    else ending(self.size, end)
                )
        return table


def reached(achieved_goal: Any, desired_goal: Any) -> Flags:
    """Return where all bits of two goals are equal."""
    return np.asarray((np.asarray(achieved_goal) == np.asarray(desired_goal)).all(-1))
