"""The settings of an environment: how it is made, stepped and shown to the agent."""

from dataclasses import dataclass, field
from typing import Literal

from nexus.core.checked import CheckedConfig, Keywords
from nexus.core.importable import ImportName, ImportNames

__all__ = ["LEAST_FRAME", "MOST_FRAME", "AtariSettings", "EnvironmentSettings"]

LEAST_FRAME, MOST_FRAME = 20, 210  # pixels: the smallest torso's input, and the console's number of lines
MOST_ENVS = 1 << 16  # a typo should not exhaust the machine's memory


@dataclass(frozen=True)
class EnvironmentSettings(CheckedConfig):
    """How an environment is made, stepped and shown to the agent."""

    num_envs: int = 8
    """Sub-environments that are stepped together."""
    vectorization: Literal["auto", "sync", "async"] = "auto"
    """auto: the environment's own vector form or in turn; sync: in turn; async: a process each."""
    step_timeout: float | None = None
    """async: seconds for a step or reset of all of them together, before the run fails; none for no limit."""
    env_kwargs: Keywords = field(default_factory=dict, hash=False)
    """Arguments of the environment: is_slippery=False max_episode_steps=200; values as in JSON or Python, else text."""
    wrappers: ImportNames = field(default_factory=ImportNames)
    """Wrappers around each environment, innermost first: module:Wrapper,module:function; none for no wrapper."""
    frame_skip: int = 1
    """Times each action is repeated; images show the maximum of the last two frames."""
    frame_stack: int = 1
    """Consecutive observations stacked into one state."""
    flatten_actions: bool = False
    """Number the combinations of MultiDiscrete or MultiBinary actions, up to 1,024; Discrete ones are unchanged."""
    scale_observations: bool = False
    """Scale each number of a state that has bounds to [-1, 1]."""
    normalize_observations: bool = False
    """Give each number of a state mean 0 and deviation 1 by running statistics, in place of scale_observations."""
    normalize_rewards: bool = False
    """Learn from rewards divided by the running deviation of discounted returns; reported returns never are."""
    reward_clip: float | None = None
    """Learn from rewards clipped to this size; reported returns are never clipped. None for no clipping."""
    potential: ImportName | None = None
    """Learn from rewards + γ Φ(s') - Φ(s), shaped by your Φ: a function from a state to a number, higher nearer the
    goal, as module:Name. Reported returns are never shaped."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        for name in ("num_envs", "frame_skip", "frame_stack"):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        self.require(self.num_envs <= MOST_ENVS, "num_envs", f"at most {MOST_ENVS}")
        self.require(self.step_timeout is None or self.step_timeout > 0, "step_timeout", "more than 0 seconds, or none")
        can_be_stopped = self.step_timeout is None or self.vectorization == "async"
        self.require(can_be_stopped, "step_timeout", "vectorization async: a step in this process can't be stopped")
        self.require(self.reward_clip is None or self.reward_clip > 0, "reward_clip", "a size above 0, or none")


@dataclass(frozen=True)
class AtariSettings(CheckedConfig):
    """How an Atari game is played and shown."""

    protocol: Literal["nature", "machado"] | None = None
    """nature: no-ops, and a lost life ends learning; machado: sticky actions; none for nature."""
    frame_size: int | None = None
    """Pixels on a side of a frame; none for 84."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        is_size = self.frame_size is None or LEAST_FRAME <= self.frame_size <= MOST_FRAME
        self.require(is_size, "frame_size", f"{LEAST_FRAME} to {MOST_FRAME} pixels, or none")
