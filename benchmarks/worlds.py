"""Twelve environments that no preset of ours was tuned on, each made by a function without arguments."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

__all__ = ["WORLDS"]


class ImageGrid(gym.Env[Any, Any]):
    """A 6 x 6 room seen from above, as an image of 12 x 12 pixels: reach the green square, avoid the red ones."""

    observation_space = spaces.Box(0, 255, (12, 12, 3), np.uint8)
    action_space = spaces.Discrete(4)
    MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Place everything at random."""
        super().reset(seed=seed)
        cells = self.np_random.permutation(36)[:6]
        self.me, self.goal, *self.traps = [(int(cell) // 6, int(cell) % 6) for cell in cells]
        return self.look(), {}

    def step(self, action: Any) -> Any:
        """Move; +1 at the goal, -1 on a red square, and a little less for each step."""
        row, column = (min(5, max(0, at + by)) for at, by in zip(self.me, self.MOVES[int(action)], strict=True))
        self.me = row, column
        reward = 1.0 if self.me == self.goal else -1.0 if self.me in self.traps else -0.02
        return self.look(), reward, self.me == self.goal or self.me in self.traps, False, {}

    def look(self) -> Any:
        """Return the image."""
        cells = np.zeros((6, 6, 3), np.uint8)
        for place, colour in [(trap, 0) for trap in self.traps] + [(self.goal, 1), (self.me, 2)]:
            cells[place][colour] = 255
        return cells.repeat(2, 0).repeat(2, 1)


class Courier(gym.Env[Any, Any]):
    """A Dict: a map of an 8 x 8 town, and what the courier carries and how much fuel is left."""

    observation_space = spaces.Dict(
        {"map": spaces.Box(0, 1, (8, 8, 1), np.float32), "state": spaces.Box(-1, 1, (3,), np.float32)}
    )
    action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Place courier, parcel and customer."""
        super().reset(seed=seed)
        places = self.np_random.permutation(64)[:3]
        self.me, self.parcel, self.customer = [(int(place) // 8, int(place) % 8) for place in places]
        self.carries, self.fuel = False, 1.0
        return self.look(), {}

    def step(self, action: Any) -> Any:
        """Move; 0.3 for fetching the parcel, 1 for delivering it. Without fuel the day is over."""
        row, column = (min(7, max(0, at + by)) for at, by in zip(self.me, ImageGrid.MOVES[int(action)], strict=True))
        self.me, self.fuel, reward = (row, column), self.fuel - 0.02, 0.0
        if not self.carries and self.me == self.parcel:
            self.carries, reward = True, 0.3
        delivered = self.carries and self.me == self.customer
        return self.look(), 1.0 if delivered else reward, delivered or self.fuel <= 0.01, False, {}

    def look(self) -> Any:
        """Return the map with courier and the place to go to, and the numbers."""
        town = np.zeros((8, 8, 1), np.float32)
        target = self.customer if self.carries else self.parcel
        town[target], town[self.me] = 0.5, 1.0
        ahead = (np.array(target) - self.me) / 8
        return {"map": town, "state": np.array([self.carries, self.fuel, ahead[0]], np.float32)}


class Trading(gym.Env[Any, Any]):
    """Episodes of 2,000 steps: be short, out or long of a price that returns to its mean; each change costs."""

    observation_space = spaces.Box(-np.inf, np.inf, (5,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Begin with a price near its mean, and no position."""
        super().reset(seed=seed)
        self.t, self.position, self.level, self.drift = 0, 0, 0.0, 0.0
        self.past = [0.0, 0.0, 0.0]
        return self.look(), {}

    def step(self, action: Any) -> Any:
        """Earn what the position earns as the price moves, less what changing it costs."""
        new = int(action) - 1
        cost, self.position = 0.05 * abs(new - self.position), new
        before = self.level
        self.drift = 0.95 * self.drift + 0.05 * float(self.np_random.normal())
        self.level = 0.97 * self.level + self.drift + 0.3 * float(self.np_random.normal())
        self.past = [self.level, *self.past[:2]]
        self.t += 1
        return self.look(), self.position * (self.level - before) - cost, False, self.t == 2_000, {}

    def look(self) -> Any:
        """Return the last prices, the drift as somebody guesses it, and the position."""
        guess = self.drift + 0.05 * float(self.np_random.normal())
        return np.array([*self.past, guess, self.position], np.float32)


class Noughts(gym.Env[Any, Any]):
    """Noughts and crosses against a random opponent; legal actions are in `info["action_mask"]`.

    An illegal move loses, for libraries that do not read masks.
    """

    observation_space = spaces.Box(-1, 1, (9,), np.int8)
    action_space = spaces.Discrete(9)
    LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Clear the board; in half of the games the opponent begins."""
        super().reset(seed=seed)
        self.board = np.zeros(9, np.int8)
        if self.np_random.random() < 0.5:
            self.reply()
        return self.board.copy(), self.info()

    def step(self, action: Any) -> Any:
        """Play, and let the opponent reply."""
        if self.board[action]:
            return self.board.copy(), -1.0, True, False, self.info()
        self.board[action] = 1
        if not self.wins(1) and (self.board == 0).any():
            self.reply()
        reward = float(self.wins(1)) - float(self.wins(-1))
        return self.board.copy(), reward, bool(reward) or not (self.board == 0).any(), False, self.info()

    def reply(self) -> None:
        """Let the opponent play."""
        self.board[self.np_random.choice(np.flatnonzero(self.board == 0))] = -1

    def wins(self, player: int) -> bool:
        """True if a player has a line."""
        return any(all(self.board[place] == player for place in line) for line in self.LINES)

    def info(self) -> dict[str, Any]:
        """Return which actions are legal; all of them once the game is over, when none is chosen any more."""
        free = self.board == 0
        return {"action_mask": (free if free.any() else np.ones(9, bool)).astype(np.int8)}


def minigrid(name: str) -> Callable[[], Any]:
    """Return a maker of a MiniGrid room, seen as its own image of 7 x 7 x 3 codes."""

    def make() -> Any:
        import minigrid  # noqa: F401 - registers the rooms
        from minigrid.wrappers import ImgObsWrapper

        return ImgObsWrapper(gym.make(name))

    make.__name__ = name
    return make


def minatar(game: str, steps: int) -> Callable[[], Any]:
    """Return a maker of a MinAtar game, with its sticky actions and minimal actions."""

    def make() -> Any:
        from minatar.gym import register_envs

        if f"MinAtar/{game}-v1" not in gym.registry:
            register_envs()
        return gym.make(f"MinAtar/{game}-v1", max_episode_steps=steps)

    make.__name__ = f"MinAtar {game}"
    return make


def limited(name: str, steps: int | None = None) -> Callable[[], Any]:
    """Return a maker of a registered environment, with a time limit if it has none."""

    def make() -> Any:
        env = gym.make(name)
        return env if steps is None else TimeLimit(env, steps)

    make.__name__ = name
    return make


WORLDS: dict[str, Callable[[], Any]] = {
    "FrozenLake": limited("FrozenLake-v1"),
    "Taxi": limited("Taxi-v4"),
    "CliffWalking": limited("CliffWalking-v1", 200),
    "Blackjack": limited("Blackjack-v1"),
    "MiniGrid Empty 5x5": minigrid("MiniGrid-Empty-Random-5x5-v0"),
    "MiniGrid DoorKey 5x5": minigrid("MiniGrid-DoorKey-5x5-v0"),
    "MinAtar Breakout": minatar("Breakout", 5_000),
    "MinAtar Freeway": minatar("Freeway", 2_500),
    "image grid": lambda: TimeLimit(ImageGrid(), 50),
    "Dict courier": Courier,
    "trading": Trading,
    "masked noughts": Noughts,
}
