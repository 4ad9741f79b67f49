"""Discounting chain: the best of five rewards, at once or after a hundred steps."""

from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from nexus.problems.arguments import check_whole
from nexus.problems.tables import Table, ending

__all__ = ["DiscountingChain"]

STEPS = 100
DELAYS = (1, 3, 10, 30, 100)  # the step of each chain that pays


class DiscountingChain(gym.Env[Any, Any]):
    """Choose one of five chains with the first action; each pays once, after 1, 3, 10, 30 or 100 steps.

    One pays 1.1 and the others 1, so a discount that is too low prefers the wrong one. As bsuite defines it.

    - Observation: float32 `[2]`: the chain, -1 before the choice, and the step divided by 100.
    - Actions: 5, of which only the first of an episode counts.
    - Reward: 1 or 1.1 once, 0 otherwise.
    - End: after 100 steps, terminated. The best return is 1.1.

    Args:
        mapping_seed: which chain pays 1.1, modulo 5, as in bsuite.
        render_mode: None.

    Raises:
        ConfigError: an argument is out of range.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's form

    def __init__(self, mapping_seed: int = 0, render_mode: str | None = None) -> None:
        check_whole("mapping_seed", mapping_seed, 0)
        self.render_mode = render_mode
        self.observation_space = spaces.Box(
            np.array([-1.0, 0.0], np.float32), np.array([len(DELAYS) - 1, 1.0], np.float32)
        )
        self.action_space = spaces.Discrete(len(DELAYS))
        self.pays = [1.0] * len(DELAYS)
        self.pays[mapping_seed % len(DELAYS)] += 0.1
        self.steps, self.chain = 0, -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Offer the chains."""
        super().reset(seed=seed)
        self.steps, self.chain = 0, -1
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Choose a chain with the first step, and follow it with the others."""
        if self.steps == 0:
            self.chain = int(action)
        self.steps += 1
        return self.observe(), self.pay(self.chain, self.steps), self.steps == STEPS, False, {}

    def pay(self, chain: int, steps: int) -> float:
        """Return the reward of a step of a chain, counted from 1."""
        return self.pays[chain] if steps == DELAYS[chain] else 0.0

    def observe(self) -> Any:
        """Return the chain and the share of the episode that is over."""
        return np.array([self.chain, self.steps / STEPS], np.float32)

    @property
    def state_number(self) -> int:
        """0 before the choice, then `chain * 99 + step`; the last number at the end."""
        return 0 if self.steps == 0 else self.number(self.chain, self.steps)

    def number(self, chain: int, steps: int) -> int:
        """Return the number of a state after some steps in a chain."""
        return (STEPS - 1) * len(DELAYS) + 1 if steps == STEPS else chain * (STEPS - 1) + steps

    @cached_property
    def P(self) -> Table:
        """The transitions."""
        end, chains = self.number(0, STEPS), range(len(DELAYS))
        table: Table = {
            0: {chain: [(1.0, self.number(chain, 1), self.pay(chain, 1), False)] for chain in chains},
            end: ending(len(DELAYS), end),
        }
        for chain in chains:
            for steps in range(1, STEPS):
                following = self.number(chain, steps + 1), self.pay(chain, steps + 1), steps + 1 == STEPS
                table[self.number(chain, steps)] = {action: [(1.0, *following)] for action in chains}
        return table
