"""Everything that shapes a training run, in one frozen config."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from nexus.core.checked import CheckedConfig, Keywords, convert
from nexus.core.config import AgentConfig
from nexus.core.errors import ConfigError
from nexus.core.importable import is_import_name
from nexus.core.period import Period
from nexus.core.settings import (
    AlgorithmSettings,
    BoltzmannSettings,
    BootstrapSettings,
    C51Settings,
    DeviceSettings,
    ExplorationSettings,
    MunchausenSettings,
    NetworkSettings,
    NoisySettings,
    OptimizerSettings,
    QuantileSettings,
    TargetSettings,
)
from nexus.data.settings import (
    BonusSettings,
    HindsightSettings,
    PrioritySettings,
    ReplaySettings,
    RolloutSettings,
)
from nexus.envs.atari import is_atari
from nexus.envs.curriculum import CurriculumSettings
from nexus.envs.factory import EnvSource, EnvSpec, name_of
from nexus.envs.settings import AtariSettings, EnvironmentSettings
from nexus.ops import schedules
from nexus.training.own_schedule import EPSILON, FACTOR, TEMPERATURE, OwnSchedule
from nexus.training.settings import (
    EVERY_4_STEPS,
    CheckpointSettings,
    EvaluationSettings,
    LearningRateSettings,
    RunSettings,
    ScheduleSettings,
    ThreadSettings,
    UpdateSettings,
)

__all__ = ["APART", "GROUPS", "NOT_WITH_PQN", "TrainConfig", "kwargs_for"]

MOST_EVAL_ENVS = 100  # for an evaluation in this process
STILL_EXPLORING = 0.1  # fraction of ε's planned decay left at the end of the run that deserves a notice

APART: Mapping[tuple[str, str], str] = {
    ("potential", "her"): "another goal would change the potentials that the stored rewards hold",
    ("keep_episodes", "curriculum"): "a kept episode has no stage to be played again in",
}
"""Pairs of settings that make no sense together, with the reason."""

NOT_WITH_PQN: Mapping[str, str] = {
    "prioritized": "it learns from every step played",
    "her": "it keeps no replay whose goals could change",
    "bonus": "it keeps no replay to add it to",
}
"""Settings that make no sense with PQN's rollouts, with the reason."""

GROUPS: Mapping[str, tuple[type[CheckedConfig], ...]] = {
    "run": (AlgorithmSettings, RunSettings),
    "environment": (EnvironmentSettings,),
    "learning": (TargetSettings, UpdateSettings),
    "exploration": (ExplorationSettings, ScheduleSettings),
    "optimizer": (OptimizerSettings, LearningRateSettings),
    "network": (NetworkSettings,),
    "replay": (ReplaySettings,),
    "evaluation": (EvaluationSettings,),
    "checkpoints": (CheckpointSettings,),
    "device": (DeviceSettings, ThreadSettings),
    "Atari": (AtariSettings,),
    "prioritized replay": (PrioritySettings,),
    "curriculum": (CurriculumSettings,),
    "hindsight": (HindsightSettings,),
    "novelty": (BonusSettings,),
    "C51 and Rainbow": (C51Settings,),
    "QR-DQN and IQN": (QuantileSettings,),
    "Munchausen": (MunchausenSettings,),
    "Bootstrapped DQN": (BootstrapSettings,),
    "noisy nets": (NoisySettings,),
    "Boltzmann": (BoltzmannSettings,),
    "PQN": (RolloutSettings,),
}
"""The groups in reading order, common ones first: a title, and the classes that declare its settings."""


@dataclass(frozen=True)
class TrainConfig(
    AtariSettings,
    RolloutSettings,
    BonusSettings,
    HindsightSettings,
    PrioritySettings,
    ThreadSettings,
    CheckpointSettings,
    EvaluationSettings,
    ReplaySettings,
    LearningRateSettings,
    ScheduleSettings,
    UpdateSettings,
    CurriculumSettings,
    EnvironmentSettings,
    RunSettings,
    AgentConfig,
):
    """A training run: the agent's settings and how it meets its environment.

    Units: a step is one decision of the agent, summed over all environments; an update is one optimizer step.
    """

    def check(self) -> None:
        """Raise `ConfigError` if settings of different groups contradict each other."""
        lowest_epsilon = self.epsilon if self.epsilon_schedule == "constant" else self.epsilon_min
        explores_by_noise = self.noisy and self.exploration == "epsilon_greedy"
        self.require(
            not explores_by_noise or lowest_epsilon < 1, "noisy", "an ε below 1, or its noise never acts: epsilon 0"
        )
        self.check_returns()
        for (name, other), reason in APART.items():
            both = all(getattr(self, each) not in (None, False) for each in (name, other))
            self.require(not both, name, f"no {other}: {reason}")
        self.require(
            self.replay_store in ("auto", "full") or self.frame_stack >= 2,
            "replay_store",
            "frame_stack to be 2 or more",
        )
        self.require(
            self.batch_size <= self.kept_transitions,
            "batch_size",
            f"at most {self.capacity_setting} = {self.kept_transitions}",
        )
        self.require(
            self.learning_starts < self.total_steps,
            "learning_starts",
            f"fewer than total_steps = {self.total_steps}, or the agent learns nothing",
        )

    def check_returns(self) -> None:
        """Raise `ConfigError` if λ-returns are set without support for them, or together with settings they replace."""
        if self.algorithm != "pqn":
            self.require(self.trace_lambda is None, "trace_lambda", "the algorithm pqn, or none; others have n_step")
            return
        has_decay = self.trace_lambda is not None and 0 <= self.trace_lambda <= 1
        self.require(has_decay, "trace_lambda", "a number in [0, 1] for pqn")
        self.require(self.n_step == 1, "n_step", "1 with pqn, whose returns look ahead by trace_lambda")
        self.require(self.replay_store in ("auto", "full"), "replay_store", "auto or full with pqn")
        for name, reason in NOT_WITH_PQN.items():
            given = getattr(self, name)
            off = "false" if given is True else "none"
            self.require(given in (None, False), name, f"{off} with pqn: {reason}")
        by_rollout = self.update_every in (None, Period(self.rollout_steps, "steps"))
        self.require(by_rollout, "update_every", f"none with pqn: it learns every rollout_steps = {self.rollout_steps}")

    @property
    def has_rollouts(self) -> bool:
        """True if the run uses rollouts instead of a replay."""
        return self.trace_lambda is not None

    @property
    def folds_when_drawn(self) -> bool:
        """True if n-step returns are folded when they are drawn, since their rewards change while they are stored."""
        return self.her is not None or self.bonus is not None

    @property
    def stored_steps(self) -> int:
        """The most steps that a stored transition spans."""
        return 1 if self.folds_when_drawn else self.n_step

    @property
    def update_period(self) -> Period:
        """How often to learn: after each rollout of pqn, else every `update_every`."""
        if self.has_rollouts:
            return Period(self.rollout_steps, "steps")
        return EVERY_4_STEPS if self.update_every is None else self.update_every

    @property
    def capacity_setting(self) -> str:
        """The setting that says how many transitions are kept."""
        return "rollout_steps" if self.has_rollouts else "replay_capacity"

    @property
    def kept_transitions(self) -> int:
        """The replay's capacity in transitions, or those of a pqn rollout."""
        capacity: int = getattr(self, self.capacity_setting)
        return capacity

    def spec_of(self, env: EnvSource) -> EnvSpec:
        """Return the spec of an environment under these settings.

        Raises:
            ConfigError: the environment does not accept `env_kwargs`, `wrappers` or `protocol`.
        """
        kwargs = kwargs_for(env, self.env_kwargs)
        frames = self.frame_skip, self.frame_stack
        return EnvSpec(env, *frames, kwargs, self.protocol, self.frame_size, self.flatten_actions, self.wrappers)

    @property
    def eval_envs(self) -> int:
        """Sub-environments in an evaluation: as many as in training if each has a process."""
        return min(self.eval_episodes, self.num_envs if self.vectorization == "async" else MOST_EVAL_ENVS)

    def epsilon_at(self, steps: int, episodes: int) -> float:
        """Return ε after this many steps and finished episodes.

        Raises:
            ConfigError: a schedule of the user's own can't be called, or returns no probability; names the step.
        """
        return self._explored_at(self.epsilon, self.epsilon_min, steps, episodes, self.exploration == "epsilon_greedy")

    def temperature_at(self, steps: int, episodes: int) -> float:
        """Return the temperature of Boltzmann exploration after this many steps and finished episodes."""
        return self._explored_at(
            self.temperature, self.temperature_min, steps, episodes, self.exploration == "boltzmann"
        )

    def _explored_at(self, start: float, end: float, steps: int, episodes: int, is_used: bool) -> float:
        since_start = max(0, steps - self.learning_starts)
        if self.epsilon_schedule == "linear":
            return schedules.linear(start, end, self.epsilon_steps, since_start)
        if self.epsilon_schedule == "constant":
            return start
        if self.epsilon_schedule in ("per_episode", "per_step"):
            count = episodes if self.epsilon_schedule == "per_episode" else since_start
            return schedules.exponential(start, end, self.epsilon_decay, count)
        return self.own_schedules["epsilon_schedule"].at(steps) if is_used else start

    @cached_property
    def own_schedules(self) -> Mapping[str, OwnSchedule]:
        """The schedules of the user's own, by the setting that names them.

        Raises:
            ConfigError: one can't be imported, or can't be called.
        """
        explored = EPSILON if self.exploration == "epsilon_greedy" else TEMPERATURE
        ranges = {"epsilon_schedule": explored, "learning_rate_schedule": FACTOR}
        return {
            setting: OwnSchedule(setting, name, self.total_steps, bounds)
            for setting, bounds in ranges.items()
            if is_import_name(name := getattr(self, setting))
        }

    @property
    def said_of_exploration(self) -> str | None:
        """Return a notice if the run ends before exploration has decayed to its minimum, else None."""
        boltzmann = self.exploration == "boltzmann"
        what, start, end = (
            ("the temperature", self.temperature, self.temperature_min)
            if boltzmann
            else ("ε", self.epsilon, self.epsilon_min)
        )
        if self.epsilon_schedule not in ("linear", "per_step"):
            return None
        last = self._explored_at(start, end, self.total_steps, 0, True)
        if last - end <= STILL_EXPLORING * (start - end):
            return None
        if self.epsilon_schedule == "linear":
            left = self.total_steps - self.learning_starts
            why = f"epsilon_steps = {self.epsilon_steps:,} is more than the {left:,} from learning_starts on"
        else:
            why = f"epsilon_decay = {self.epsilon_decay:g} is too slow for {self.total_steps:,} steps"
        return f"{what} is still {last:.2g} at the end of the run, but should fall to {end:g}: {why}"

    def slowed(self, halvings: int) -> "TrainConfig":
        """Return these settings with the learning rate halved this many times, at every point of its schedule."""
        factor = 0.5**halvings
        return replace(
            self,
            learning_rate=self.learning_rate * factor,
            learning_rate_end=self.learning_rate_end * factor,
        )

    def learning_rate_at(self, steps: int, updates: int) -> float:
        """Return the learning rate after this many steps and updates.

        Raises:
            ConfigError: a schedule of the user's own can't be called, or returns no factor; names the step.
        """
        start, end = self.learning_rate, self.learning_rate_end
        if self.learning_rate_schedule == "linear":
            return schedules.linear(start, end, self.total_steps, steps)
        if self.learning_rate_schedule == "cosine":
            return schedules.cosine(start, end, self.total_steps, steps)
        if self.learning_rate_schedule == "step":
            return schedules.step_decay(start, self.learning_rate_factor, self.learning_rate_step, updates)
        if self.learning_rate_schedule == "constant":
            return start
        return start * self.own_schedules["learning_rate_schedule"].at(steps)


def kwargs_for(env: EnvSource, env_kwargs: Any) -> tuple[tuple[str, Any], ...]:
    """Return the keyword arguments of an environment as `EnvSpec` takes them.

    Raises:
        ConfigError: they are not keyword arguments, or this environment takes none.
    """
    kwargs = convert("env_kwargs", env_kwargs, Keywords)
    if kwargs and (is_atari(env) or not isinstance(env, str)):
        why = "is made by its protocol: leave them out" if is_atari(env) else "is a function: set them in it"
        raise ConfigError(f"env_kwargs = {kwargs}: {name_of(env)} {why}")
    return tuple(kwargs.items())
