"""The settings of a training run: how long it is, when it learns, and what it saves and evaluates.

The agent's are in `core/settings.py`, the environment's in `envs/settings.py`, the replay's in
`data/settings.py`.
"""

from dataclasses import dataclass
from typing import Literal

from nexus.core.checked import CheckedConfig
from nexus.core.importable import ImportName
from nexus.core.period import Period
from nexus.envs.stream import LONGEST_EPISODE

__all__ = [
    "EVERY_4_STEPS",
    "CheckpointSettings",
    "EvaluationSettings",
    "LearningRateSettings",
    "RunSettings",
    "ScheduleSettings",
    "ThreadSettings",
    "UpdateSettings",
]

EVERY_4_STEPS, EVERY_1000_STEPS, EVERY_10000_STEPS = (Period(count, "steps") for count in (4, 1_000, 10_000))
EVERY_500_UPDATES = Period(500, "updates")


@dataclass(frozen=True)
class RunSettings(CheckedConfig):
    """How long a run is, and how often it logs."""

    total_steps: int = 100_000
    """Steps to train for; the last vector step may overshoot by a few."""
    log_every: Period = EVERY_1000_STEPS
    """How often a line is logged."""
    doctor: Literal["on", "off"] = "on"
    """Examine the run thirty times, and report what keeps it from learning."""
    keep_episodes: bool = False
    """Keep the seed and actions of each training episode, a byte per action; nexus watch can then show it again."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(self.total_steps >= 1, "total_steps", "at least 1")


@dataclass(frozen=True)
class UpdateSettings(CheckedConfig):
    """When to learn, and from how many transitions."""

    learning_starts: int = 1_000
    """Steps before the first update; ε-greedy schedules by steps start here too."""
    update_every: Period | None = None
    """How often to learn, in steps or episodes; none for every 4 steps. pqn learns after each rollout."""
    gradient_steps: int = 1
    """Updates each time."""
    batch_size: int = 64
    """Transitions per update."""
    n_step: int = 1
    """Rewards folded into one transition before the bootstrap."""
    target_update_every: Period = EVERY_500_UPDATES
    """How often the target network is updated, in steps, updates or episodes."""
    actor_sync_every: Period | None = None
    """Learn in a second thread while a copy of the network plays, updated this often, in steps; none: take turns."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        for name in ("gradient_steps", "batch_size", "n_step"):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        self.require(self.learning_starts >= 0, "learning_starts", "0 or more steps")
        in_updates = self.update_every is not None and self.update_every.unit == "updates"
        self.require(not in_updates, "update_every", "steps or episodes, or none")
        in_steps = self.actor_sync_every is None or self.actor_sync_every.unit == "steps"
        self.require(in_steps, "actor_sync_every", "steps, or none")


@dataclass(frozen=True)
class ScheduleSettings(CheckedConfig):
    """How exploration decays."""

    epsilon_schedule: Literal["linear", "per_step", "per_episode", "constant"] | ImportName = "linear"
    """linear over epsilon_steps, or multiplied by epsilon_decay per step or episode; boltzmann's temperature too. Your
    own: a function from the progress of the run, 0 to 1, to ε."""
    epsilon_steps: int = 20_000
    """Steps over which a linear schedule goes from epsilon to epsilon_min."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(self.epsilon_steps >= 1, "epsilon_steps", "at least 1")


@dataclass(frozen=True)
class LearningRateSettings(CheckedConfig):
    """How the learning rate decays."""

    learning_rate_schedule: Literal["constant", "step", "linear", "cosine"] | ImportName = "constant"
    """step multiplies by learning_rate_factor; linear and cosine reach learning_rate_end with the last step. Your own:
    a function from the progress of the run, 0 to 1, to a factor for learning_rate."""
    learning_rate_end: float = 0.0
    """Final learning rate of a linear or cosine schedule."""
    learning_rate_step: int = 100_000
    """Updates between two cuts of a step schedule."""
    learning_rate_factor: float = 0.5
    """Factor of each cut of a step schedule."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(self.learning_rate_end >= 0, "learning_rate_end", "0 or more")
        self.require(self.learning_rate_step >= 1, "learning_rate_step", "at least 1")
        self.require(0 < self.learning_rate_factor <= 1, "learning_rate_factor", "a factor in (0, 1]")


@dataclass(frozen=True)
class EvaluationSettings(CheckedConfig):
    """Evaluations."""

    eval_every: Period | None = None
    """How often to evaluate while training; none for only at the end."""
    eval_episodes: int = 100
    """Episodes of an evaluation; 0 for none, not even at the end."""
    eval_max_steps: int = LONGEST_EPISODE
    """Steps after which an episode of an evaluation is cut off if nothing else ends it."""
    target_return: float | None = None
    """Stop once an evaluation's mean return reaches this; needs eval_every."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(self.eval_max_steps >= 1, "eval_max_steps", "at least 1")
        self.require(self.eval_max_steps <= LONGEST_EPISODE, "eval_max_steps", f"at most {LONGEST_EPISODE}")
        self.require(self.eval_episodes >= 0, "eval_episodes", "0 or more")
        plays = self.eval_every is None or self.eval_episodes > 0
        self.require(plays, "eval_episodes", f"at least 1 with eval_every = {self.eval_every}")
        is_played = self.target_return is None or self.eval_every is not None
        self.require(is_played, "target_return", "eval_every to be set too")


@dataclass(frozen=True)
class CheckpointSettings(CheckedConfig):
    """Checkpoints, and what happens to a run that diverges."""

    checkpoint_every: Period | None = EVERY_10000_STEPS
    """How often to save what `nexus resume` needs, in steps. None for never."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints to keep; the best by evaluation is kept too."""
    on_divergence: Literal["stop", "rollback"] = "stop"
    """When a loss or gradient is not finite: stop, or go back to the last checkpoint with half the learning rate."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(self.keep_checkpoints >= 1, "keep_checkpoints", "at least 1")
        in_steps = self.checkpoint_every is None or self.checkpoint_every.unit == "steps"
        self.require(in_steps, "checkpoint_every", "steps, or none")
        can_go_back = self.on_divergence == "stop" or self.checkpoint_every is not None
        self.require(can_go_back, "on_divergence", "checkpoint_every to be set too")


@dataclass(frozen=True)
class ThreadSettings(CheckedConfig):
    """Threads of the process."""

    threads: int | None = None
    """Threads for torch; none for 1, or for nature_cnn, nips_cnn and impala_cnn one per core, at most 8."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(self.threads is None or self.threads >= 1, "threads", "at least 1, or none")
