"""Umbrella chain: the first action decides the last reward, and all rewards between are noise."""

from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from nexus.problems.arguments import check_whole
from nexus.problems.tables import Table, ending

__all__ = ["UmbrellaChain"]


class UmbrellaChain(gym.Env[Any, Any]):
    """Take an umbrella or leave it, by the forecast, before a walk on which nothing else matters.

    As bsuite defines it.

    - Observation: float32 `[3 + distractors]`: whether it will rain, whether you have the umbrella, the share of the
      walk that is left, and random bits that are drawn at each step.
    - Actions: 1 takes the umbrella and 0 leaves it, but only the first action of an episode counts.
    - Reward: at the last step 1 if the umbrella is there just when it rains, else -1; at all others 1 or -1 at random.
    - End: after `length` steps, terminated. The best mean return is 1, and that of random play 0.
    - `info["regret"]`: 2 at the end of a walk with the wrong choice, else 0.

    Args:
        length: steps of an episode.
        distractors: random bits in the observation.
        render_mode: None.

    Raises:
        ConfigError: an argument is out of range.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's form

    def __init__(self, length: int = 10, distractors: int = 20, render_mode: str | None = None) -> None:
        check_whole("length", length, 1)
        check_whole("distractors", distractors, 0)
        self.length, self.distractors = int(length), int(distractors)
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0.0, 1.0, (3 + self.distractors,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.steps, self.rain, self.umbrella = 0, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draw the forecast, and whether the umbrella is in the bag already."""
        super().reset(seed=seed)
        self.steps = 0
        self.rain, self.umbrella = int(self.np_random.integers(2)), int(self.np_random.integers(2))
        return self.observe(), {"regret": 0.0}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take the umbrella or leave it with the first step, and walk with the others."""
        if self.steps == 0:
            self.umbrella = int(action)
        self.steps += 1
        ends, right = self.steps == self.length, self.umbrella == self.rain
        agrees = right if ends else self.np_random.integers(2) == 1
        return self.observe(), 1.0 if agrees else -1.0, ends, False, {"regret": 2.0 * (ends and not right)}

    def observe(self) -> Any:
        """Return what can be seen."""
        state = self.rain, self.umbrella, 1 - self.steps / self.length
        return np.array([*state, *self.np_random.integers(2, size=self.distractors)], np.float32)

    @property
    def state_number(self) -> int:
        """`4 * step + 2 * rain + umbrella`, and the last number at the end."""
        return self.number(self.steps, self.rain, self.umbrella)

    def number(self, steps: int, rain: int, umbrella: int) -> int:
        """Return the number of a state."""
        return 4 * self.length if steps == self.length else 4 * steps + 2 * rain + umbrella

    @cached_property
    def P(self) -> Table:
        """The transitions; the bits that mean nothing are left out."""
        end = 4 * self.length
        table: Table = {end: ending(2, end)}
        for steps in range(self.length):
            ends = steps + 1 == self.length
            for rain in (0, 1):
                for umbrella in (0, 1):
                    outcomes = {}
                    for action in (0, 1):
                        after = action if steps == 0 else umbrella
                        following = self.number(steps + 1, rain, after)
                        rewards = {1.0 if after == rain else -1.0: 1.0} if ends else {1.0: 0.5, -1.0: 0.5}
                        outcomes[action] = [(share, following, reward, ends) for reward, share in rewards.items()]
                    table[self.number(steps, rain, umbrella)] = outcomes
        return table
