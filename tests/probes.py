"""Environments so small that every Q-value is known: what can't be learned here is broken."""

from typing import Any, SupportsInt

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from nexus.envs.atari import LIFE_LOST

State = np.ndarray[Any, np.dtype[np.float32]]


class Probe(gym.Env[State, SupportsInt]):
    """A chain of `length` steps; subclasses say what each step pays.

    The state is `[position, signal]`; the signal is drawn anew at each reset, +1 or -1.
    """

    observation_space = spaces.Box(-2, 10, (2,), np.float32)
    action_space = spaces.Discrete(2)
    length = 1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[State, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = 0
        self.signal = float(self.np_random.choice([-1.0, 1.0]))
        return self.state(), {}

    def state(self) -> State:
        return np.array([self.position, self.signal], np.float32)

    def step(self, action: SupportsInt) -> tuple[State, float, bool, bool, dict[str, Any]]:
        reward = self.reward(int(action))
        self.position += 1
        return self.state(), reward, self.position >= self.length, False, {}

    def reward(self, action: int) -> float:
        raise NotImplementedError


class ConstantReward(Probe):
    """One step that pays 1: Q = 1 everywhere. Fails if the loss does not reach the weights."""

    def reward(self, action: int) -> float:
        return 1.0


class SignalReward(Probe):
    """One step that pays the signal: Q = signal. Fails if the network can't see its input."""

    def reward(self, action: int) -> float:
        return self.signal


class DelayedReward(Probe):
    """Two steps, the second pays 1: Q(first) = γ. Fails if the bootstrap is wrong."""

    length = 2

    def reward(self, action: int) -> float:
        return float(self.position == 1)


class ActionReward(Probe):
    """One step that pays 1 for action 1 and -1 for action 0. Fails if actions are mixed up."""

    def reward(self, action: int) -> float:
        return 1.0 if action == 1 else -1.0


class MatchReward(Probe):
    """Two steps that pay 1 where the action agrees with the signal. Fails if states and actions don't meet."""

    length = 2

    def reward(self, action: int) -> float:
        return float(action == int(self.signal > 0))


class NoisyReward(Probe):
    """One step that pays -1 or 3 by chance: Q = 1, the mean. Needs the squared loss."""

    def reward(self, action: int) -> float:
        return float(self.np_random.choice([-1.0, 3.0]))


class CutOff(Probe):
    """Pays 1 for ever but is truncated after four steps: Q = 1 / (1 - γ). Fails if truncation ends the future."""

    length = 4

    def state(self) -> State:
        return np.array([0.0, 0.0], np.float32)

    def step(self, action: SupportsInt) -> tuple[State, float, bool, bool, dict[str, Any]]:
        self.position += 1
        return self.state(), 1.0, False, self.position >= self.length, {}


class Flicker(gym.Env[Any, Any]):
    """Random frames, some of them black, some like the one before; random ends of both kinds and lost lives."""

    observation_space = spaces.Box(0, 255, (3, 5), np.uint8)
    action_space = spaces.Discrete(2)

    def __init__(self, mean_length: float = 12.0) -> None:
        self.end = 1 / mean_length

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.frame = np.zeros((3, 5), np.uint8)
        return self.look(), {LIFE_LOST: False}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        terminated, truncated, life_lost = self.np_random.random(3) < (self.end / 2, self.end / 2, 0.1)
        return (
            self.look(),
            float(self.np_random.normal()),
            bool(terminated),
            bool(truncated),
            {LIFE_LOST: bool(life_lost)},
        )

    def look(self) -> Any:
        kind = self.np_random.random()
        if kind > 0.1:
            self.frame = self.np_random.integers(0, 256, (3, 5), dtype=np.uint8) * np.uint8(kind > 0.3)
        return self.frame


gym.register(
    "Flicker-v0", entry_point="tests.probes:Flicker"
)  # so that a run folder can name it: tests.probes:Flicker-v0
