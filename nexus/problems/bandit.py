"""Bandit: episodes of one step."""

from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from nexus.problems.arguments import check_number, check_seed, check_whole
from nexus.problems.tables import Table, ending

__all__ = ["Bandit"]


class Bandit(gym.Env[Any, Any]):
    """Pull one of several arms, which pay from 0 to 1 in equal steps, always the same.

    As bsuite defines it.

    - Observation: float32 `[1]`, always 1.
    - Actions: one for each arm.
    - Reward: of 11 arms, one pays 0, one 0.1, and so on up to 1.
    - End: after one step, terminated. The best return is 1.
    - `info["regret"]`: 1 less the reward, without noise and scale.

    Args:
        arms: number of arms.
        mapping_seed: draws which arm pays what, the same as in bsuite; None: each arm pays more than the one before.
        reward_noise: standard deviation of noise added to each reward.
        reward_scale: factor of each reward.
        render_mode: None.

    Raises:
        ConfigError: an argument is out of range.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's form

    def __init__(
        self,
        arms: int = 11,
        mapping_seed: int | None = 0,
        reward_noise: float = 0.0,
        reward_scale: float = 1.0,
        render_mode: str | None = None,
    ) -> None:
        check_whole("arms", arms, 2)
        check_seed("mapping_seed", mapping_seed)
        check_number("reward_noise", reward_noise, 0)
        check_number("reward_scale", reward_scale)
        self.reward_noise, self.reward_scale = float(reward_noise), float(reward_scale)
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Discrete(arms)
        self.pays = np.linspace(0.0, 1.0, arms)  # [arms]
        if mapping_seed is not None:
            # bsuite's generator, whose stream NumPy keeps.
            self.pays = self.pays[np.random.RandomState(mapping_seed).choice(arms, size=arms, replace=False)]
        self.state_number = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Offer the arms."""
        super().reset(seed=seed)
        self.state_number = 0
        return np.ones(1, np.float32), {"regret": 0.0}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Pull an arm."""
        self.state_number = 1
        pay = float(self.pays[int(action)])
        reward = self.reward_scale * pay
        if self.reward_noise:
            reward += self.reward_noise * self.np_random.normal()
        return np.ones(1, np.float32), reward, True, False, {"regret": 1.0 - pay}

    @cached_property
    def P(self) -> Table:
        """The transitions, without the noise of rewards, which has the mean 0. State 1 is the end."""
        arms = {arm: [(1.0, 1, self.reward_scale * float(pay), True)] for arm, pay in enumerate(self.pays)}
        return {0: arms, 1: ending(len(self.pays), 1)}
