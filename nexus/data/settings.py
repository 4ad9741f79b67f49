"""The settings of the replay, or of the rollout that replaces it."""

from dataclasses import dataclass
from typing import Literal

from nexus.core.checked import CheckedConfig

__all__ = ["PrioritySettings", "ReplaySettings", "RolloutSettings"]


@dataclass(frozen=True)
class ReplaySettings(CheckedConfig):
    """The replay."""

    replay_capacity: int = 100_000
    """Transitions kept for replay."""
    replay_store: Literal["auto", "full", "raw", "compressed", "device"] = "auto"
    """full: both states; raw, compressed, device (a GPU's memory): each frame once; auto, for stacked images: device
    if it has room, else compressed."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(self.replay_capacity >= 1, "replay_capacity", "at least 1")


@dataclass(frozen=True)
class PrioritySettings(CheckedConfig):
    """Prioritized replay."""

    prioritized: bool = False
    """Replay transitions with large errors more often (PER), with importance weights."""
    priority_exponent: float = 0.5
    """α, from 0 (uniform) to 1 (proportional to the priority)."""
    importance_exponent: float = 0.4
    """β at the start; it rises to 1 at the last step."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(0 <= self.priority_exponent <= 1, "priority_exponent", "a number in [0, 1]")
        self.require(0 <= self.importance_exponent <= 1, "importance_exponent", "a number in [0, 1]")


@dataclass(frozen=True)
class RolloutSettings(CheckedConfig):
    """The rollout that PQN uses instead of a replay."""

    rollout_steps: int = 1024
    """Steps of all environments together between updates, which learn from all of them."""
    trace_lambda: float | None = None
    """λ of its returns, from 0 (one step) to 1 (the rest of the rollout)."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(self.rollout_steps >= 1, "rollout_steps", "at least 1")
