"""The settings of the replay, or of the rollout that replaces it."""

from dataclasses import dataclass
from typing import Literal

from nexus.core.checked import CheckedConfig
from nexus.core.importable import ImportName

__all__ = ["BonusSettings", "HindsightSettings", "PrioritySettings", "ReplaySettings", "RolloutSettings"]


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
class HindsightSettings(CheckedConfig):
    """Hindsight experience replay, for environments with goals."""

    her: Literal["future", "final", "episode"] | None = None
    """Learn from some transitions as if what their episode reached had been its goal: future, at a later step; final,
    at its last; episode, at any. Needs observations with achieved_goal and desired_goal."""
    her_share: float = 0.8
    """Share of the transitions drawn that get such a goal."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(0 < self.her_share <= 1, "her_share", "a share in (0, 1]")


@dataclass(frozen=True)
class BonusSettings(CheckedConfig):
    """A bonus for novelty, added to rewards when they are drawn; reported returns never have it."""

    bonus: Literal["counts", "episodic-counts", "rnd", "icm"] | None = None
    """counts: 1/√n of the visits of the next state; episodic-counts: of those in this episode; rnd: the error of a
    network that predicts another, random one; icm: that of a model that predicts the next state."""
    bonus_scale: float = 0.1
    """β, the factor of the bonus."""
    bonus_states: Literal["auto", "exact", "grid", "hash"] | ImportName = "auto"
    """What counts treat as the same state: exact, only itself; grid, bonus_bins for each number; hash, SimHash of 32
    bits; auto, the one that fits. Your own: a function from a state to text or numbers, as module:Name."""
    bonus_bins: int = 20
    """Bins for each number of a state, with grid."""
    bonus_learning_rate: float = 1e-4
    """Step size for the networks of rnd and icm."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(self.bonus_scale > 0, "bonus_scale", "above 0, or no bonus")
        self.require(self.bonus_bins >= 2, "bonus_bins", "at least 2")
        self.require(self.bonus_learning_rate > 0, "bonus_learning_rate", "above 0")


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
