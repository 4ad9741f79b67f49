"""Catch: the reward comes at the end of a short episode."""

from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from nexus.problems.arguments import check_number, check_whole
from nexus.problems.pictures import Pixels, grid_picture
from nexus.problems.tables import Table, ending

__all__ = ["Catch"]

BALL, PADDLE = (240, 200, 60), (80, 170, 250)


class Catch(gym.Env[Any, Any]):
    """Move a paddle at the bottom under a ball that falls straight down, a row per step.

    As bsuite defines it.

    - Observation: float32 `[rows, columns]`, 1 at the ball and at the paddle, 0 elsewhere.
    - Actions: 0 left, 1 stay, 2 right.
    - Reward: 1 for a ball that is caught and -1 for one that is not, 0 before.
    - End: when the ball arrives after rows - 1 steps, terminated. The best return is 1.
    - `info["regret"]`: the loss of this step against the best return, without noise and scale; 2 for a missed ball.

    Args:
        rows: rows of the board.
        columns: columns of the board; the paddle begins in their middle.
        reward_noise: standard deviation of noise added to each reward.
        reward_scale: factor of each reward.
        render_mode: None or rgb_array.

    Raises:
        ConfigError: an argument is out of range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's form

    def __init__(
        self,
        rows: int = 10,
        columns: int = 5,
        reward_noise: float = 0.0,
        reward_scale: float = 1.0,
        render_mode: str | None = None,
    ) -> None:
        check_whole("rows", rows, 2)
        check_whole("columns", columns, 1)
        check_number("reward_noise", reward_noise, 0)
        check_number("reward_scale", reward_scale)
        self.rows, self.columns = int(rows), int(columns)
        self.reward_noise, self.reward_scale = float(reward_noise), float(reward_scale)
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0.0, 1.0, (self.rows, self.columns), np.float32)
        self.action_space = spaces.Discrete(3)
        self.row, self.ball, self.paddle = 0, 0, self.columns // 2

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Drop a ball in a random column."""
        super().reset(seed=seed)
        self.row, self.ball, self.paddle = 0, int(self.np_random.integers(self.columns)), self.columns // 2
        return self.observe(), {"regret": 0.0}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move the paddle, then let the ball fall by a row."""
        self.paddle = self.moved(self.paddle, int(action))
        self.row += 1
        ends = self.row == self.rows - 1
        reward = (1.0 if self.paddle == self.ball else -1.0) if ends else 0.0
        regret = 1.0 - reward if ends else 0.0
        reward *= self.reward_scale
        if self.reward_noise:
            reward += self.reward_noise * self.np_random.normal()
        return self.observe(), reward, ends, False, {"regret": regret}

    def moved(self, paddle: int, action: int) -> int:
        """Return the column of the paddle after an action."""
        return min(max(paddle + action - 1, 0), self.columns - 1)

    def observe(self) -> Any:
        """Return the board."""
        board = np.zeros((self.rows, self.columns), np.float32)
        board[self.row, self.ball] = board[self.rows - 1, self.paddle] = 1.0
        return board

    def render(self) -> Pixels | None:
        """Return the board `[16 rows, 16 columns, 3]`, or None without `render_mode`."""
        if self.render_mode is None:
            return None
        cells = [((self.rows - 1, self.paddle), PADDLE), ((self.row, self.ball), BALL)]
        return grid_picture(self.rows, self.columns, cells)

    @property
    def state_number(self) -> int:
        """`(row * columns + column of the ball) * columns + column of the paddle`; the last number at the end."""
        if self.row == self.rows - 1:
            return self.number(self.rows - 1, 0, 0)
        return self.number(self.row, self.ball, self.paddle)

    def number(self, row: int, ball: int, paddle: int) -> int:
        """Return the number of a state."""
        return (row * self.columns + ball) * self.columns + paddle

    @cached_property
    def P(self) -> Table:
        """The transitions, without the noise of rewards, which has the mean 0."""
        end = self.number(self.rows - 1, 0, 0)
        table: Table = {end: ending(3, end)}
        for row in range(self.rows - 1):
            ends = row == self.rows - 2
            for ball in range(self.columns):
                for paddle in range(self.columns):
                    outcomes = {}
                    for action in range(3):
                        after = self.moved(paddle, action)
                        reward = (1.0 if after == ball else -1.0) * self.reward_scale if ends else 0.0
                        following = end if ends else self.number(row + 1, ball, after)
                        outcomes[action] = [(1.0, following, reward, ends)]
                    table[self.number(row, ball, paddle)] = outcomes
        return table
