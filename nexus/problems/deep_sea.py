"""Deep sea: exploration that random actions do not achieve."""

from functools import cached_property
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from nexus.core.types import Ints
from nexus.problems.arguments import check_choice, check_number, check_seed, check_whole
from nexus.problems.pictures import Pixels, grid_picture
from nexus.problems.tables import Table, ending

__all__ = ["DeepSea"]

WATER, TREASURE, DIVER = 30, (240, 200, 60), (80, 170, 250)


class DeepSea(gym.Env[Any, Any]):
    """Dive from the top left of an N × N grid, a row per step, to the left or to the right; the treasure is right.

    Only N moves to the right in a row find the treasure, which random actions do in one of 2^N episodes, and each move
    to the right costs a little, so that greedy learning avoids it. Osband et al. 2019
    (https://arxiv.org/abs/1703.07608), as bsuite defines it.

    - Observation: float32 `[N, N]`, 1 at the diver and 0 elsewhere, all 0 at the end; or float32 `[2]`, row and column
      divided by N.
    - Actions: 2. Which of them moves right differs between cells.
    - Reward: -move_cost/N for a move to the right, and 1 more for one in the last column. Stochastic: a move to the
      right leaves the diver in the column with probability 1/N, and the last row pays N(0, 1) more in its first
      and last column.
    - End: after N steps, terminated. The best return is 1 - move_cost.
    - `info["bad_episode"]`: whether a move to the left has left the diagonal, which is what bsuite counts.

    Args:
        size: N.
        stochastic: whether moves to the right can fail and the last row is noisy.
        mapping_seed: draws which action moves right in each cell, the same as in bsuite; None: action 1 everywhere.
        observation: grid or place.
        move_cost: cost of N moves to the right.
        render_mode: None or rgb_array.

    Raises:
        ConfigError: an argument is out of range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's form

    def __init__(
        self,
        size: int = 10,
        stochastic: bool = False,
        mapping_seed: int | None = 42,
        observation: Literal["grid", "place"] = "grid",
        move_cost: float = 0.01,
        render_mode: str | None = None,
    ) -> None:
        check_whole("size", size, 1)
        check_choice("stochastic", stochastic, (True, False))
        check_seed("mapping_seed", mapping_seed)
        check_choice("observation", observation, ("grid", "place"))
        check_number("move_cost", move_cost)
        self.size, self.stochastic, self.move_cost = int(size), bool(stochastic), float(move_cost)
        self.shows_grid = observation == "grid"
        self.render_mode = render_mode
        shape = (self.size, self.size) if self.shows_grid else (2,)
        self.observation_space = spaces.Box(0.0, 1.0, shape, np.float32)
        self.action_space = spaces.Discrete(2)
        self.right: Ints = np.ones((self.size, self.size), np.int64)  # [row, column], the action that moves right
        if mapping_seed is not None:
            # bsuite's generator, whose stream NumPy keeps: seed 42 is the published sea.
            self.right = np.random.RandomState(mapping_seed).binomial(1, 0.5, self.right.shape)
        self.row, self.column, self.bad_episode = 0, 0, False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin at the top left."""
        super().reset(seed=seed)
        self.row, self.column, self.bad_episode = 0, 0, False
        return self.observe(), {"bad_episode": False}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Go down a row, to the left or to the right."""
        moves_right = int(action) == self.right[self.row, self.column]
        reward = self.mean_reward(self.row, self.column, moves_right)
        if self.is_noisy(self.row, self.column):
            reward += self.np_random.normal()
        if moves_right:
            if not self.stochastic or self.np_random.random() > 1 / self.size:
                self.column = min(self.column + 1, self.size - 1)
        else:
            self.bad_episode |= self.row == self.column
            self.column = max(self.column - 1, 0)
        self.row += 1
        return self.observe(), reward, self.row == self.size, False, {"bad_episode": self.bad_episode}

    def mean_reward(self, row: int, column: int, moves_right: bool) -> float:
        """Return the reward of a move without its noise."""
        if not moves_right:
            return 0.0
        return float(column == self.size - 1) - self.move_cost / self.size

    def is_noisy(self, row: int, column: int) -> bool:
        """True in the cells whose reward is noisy."""
        return self.stochastic and row == self.size - 1 and column in (0, self.size - 1)

    def observe(self) -> Any:
        """Return the observation."""
        if not self.shows_grid:
            return np.array([self.row, self.column], np.float32) / np.float32(self.size)
        grid = np.zeros((self.size, self.size), np.float32)
        if self.row < self.size:
            grid[self.row, self.column] = 1.0
        return grid

    def render(self) -> Pixels | None:
        """Return the sea with diver and treasure `[16 N, 16 N, 3]`, or None without `render_mode`."""
        if self.render_mode is None:
            return None
        last = self.size - 1
        diver = min(self.row, last), self.column
        return grid_picture(self.size, self.size, [((last, last), TREASURE), (diver, DIVER)], WATER)

    @property
    def state_number(self) -> int:
        """`N * row + column`, and `N²` at the end."""
        return min(self.size * self.row + self.column, self.size**2)

    @cached_property
    def P(self) -> Table:
        """The transitions; the noise of rewards has the mean 0 and is left out."""
        table: Table = {self.size**2: ending(2, self.size**2)}
        for row in range(self.size):
            for column in range(self.size):
                table[self.size * row + column] = {action: self.outcomes(row, column, action) for action in (0, 1)}
        return table

    def outcomes(self, row: int, column: int, action: int) -> list[tuple[float, int, float, bool]]:
        """Return the outcomes of one action in one cell."""
        moves_right = action == self.right[row, column]
        reward, ends = self.mean_reward(row, column, moves_right), row == self.size - 1
        columns = {max(column - 1, 0): 1.0}
        if moves_right:
            stays = 1 / self.size if self.stochastic else 0.0
            columns = {column: stays}
            ahead = min(column + 1, self.size - 1)
            columns[ahead] = columns.get(ahead, 0.0) + 1 - stays
        return [
            (probability, self.size**2 if ends else self.size * (row + 1) + to, reward, ends)
            for to, probability in columns.items()
            if probability > 0
        ]
