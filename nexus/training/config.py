"""Everything that shapes a training run, in one frozen config."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from nexus.core.config import AgentConfig, Keywords, convert
from nexus.core.errors import ConfigError
from nexus.core.period import Period
from nexus.envs.atari import is_atari
from nexus.envs.factory import EnvSource, EnvSpec, name_of
from nexus.envs.stream import LONGEST
from nexus.ops import schedules

__all__ = ["LEAST_FRAME", "MOST_FRAME", "TrainConfig", "kwargs_for"]


EVERY_4_STEPS, EVERY_1000_STEPS, EVERY_500_UPDATES = map(Period.parse, ("4 steps", "1000 steps", "500 updates"))
MOST_COPIES = 100  # that play an evaluation in this process
LEAST_FRAME, MOST_FRAME = 20, 210  # pixels: what the smallest torso takes, and the lines that the console has
MOST_ENVS = 1 << 16  # a typing error should not take the machine's memory
STILL_EXPLORING = 0.1  # of the way that ε was to fall, left at the end of the run: somebody should be told
EVERY_10000_STEPS = Period.parse("10000 steps")


@dataclass(frozen=True)
class TrainConfig(AgentConfig):
    """A training run: the agent's settings and how it meets its environment.

    Units: a step is one decision of the agent, summed over all environments; an update is one optimizer step.
    """

    total_steps: int = 100_000
    """Steps to train for; the last step of all environments together may go a few beyond."""
    num_envs: int = 8
    """Copies of the environment that are stepped together."""
    vectorization: Literal["auto", "sync", "async"] = "auto"
    """auto: the environment's own vector form or in turn; sync: in turn; async: a process each."""
    step_timeout: float | None = None
    """async: seconds for a step or reset of all copies together, before the run is given up; none for any time."""
    protocol: Literal["nature", "machado"] | None = None
    """Atari: nature (no-ops, a lost life ends learning) or machado (sticky actions); none for nature."""
    env_kwargs: Keywords = field(default_factory=dict, hash=False)
    """What its maker is told, as is_slippery=False max_episode_steps=200; values as in JSON or Python, else text."""
    frame_skip: int = 1
    """Times each action is repeated; images show the maximum of the last two frames."""
    frame_stack: int = 1
    """Observations shown to the agent at once."""
    frame_size: int | None = None
    """Atari: pixels on a side of a frame; none for 84."""
    flatten_actions: bool = False
    """Number the combinations of MultiDiscrete or MultiBinary actions, up to 1,024; Discrete ones stay as they are."""
    scale_observations: bool = False
    """Map each number of a state that has bounds to [-1, 1] by them."""
    reward_clip: float | None = None
    """Learn from rewards clipped to this size; reported returns are never clipped. None for no clipping."""
    n_step: int = 1
    """Rewards folded into one transition before the bootstrap."""
    trace_decay: float | None = None
    """pqn: λ of its returns, from 0 (one step) to 1 (all that was played)."""
    prioritized: bool = False
    """Replay what surprised most often (PER), with importance weights."""
    priority_exponent: float = 0.5
    """prioritized: α, from 0 (uniform) to 1 (in proportion to the priority)."""
    importance_exponent: float = 0.4
    """prioritized: β at the start; it rises to 1 with the last step."""
    replay_capacity: int = 100_000
    """Transitions kept for replay."""
    replay_store: Literal["auto", "full", "raw", "compressed", "device"] = "auto"
    """full: both states; raw, compressed, device (a GPU's memory): each frame once; auto, for stacked images: device
    if it has room, else compressed."""
    batch_size: int = 64
    """Transitions per update."""
    learning_starts: int = 1_000
    """Steps before the first update; ε-greedy schedules by steps start here too."""
    update_every: Period = EVERY_4_STEPS
    """How often to learn, in steps or episodes."""
    updates_each: int = 1
    """Updates each time."""
    actor_sync_every: Period | None = None
    """Learn in a second thread while a copy of the network plays, which follows so often, in steps; none: in turns."""
    target_update_every: Period = EVERY_500_UPDATES
    """How often the target network follows, in steps, updates or episodes."""
    epsilon_schedule: Literal["linear", "per_step", "per_episode", "constant"] = "linear"
    """linear over epsilon_steps, or multiplied by epsilon_decay per step or episode; boltzmann's temperature too."""
    epsilon_steps: int = 20_000
    """Steps over which a linear schedule goes from epsilon to epsilon_min."""
    learning_rate_schedule: Literal["constant", "step", "linear", "cosine"] = "constant"
    """step multiplies by learning_rate_factor; linear and cosine reach learning_rate_end with the last step."""
    learning_rate_end: float = 0.0
    """Where a linear or cosine schedule ends."""
    learning_rate_step: int = 100_000
    """Updates between two cuts of a step schedule."""
    learning_rate_factor: float = 0.5
    """What a step schedule multiplies by."""
    log_every: Period = EVERY_1000_STEPS
    """How often a line is logged."""
    eval_every: Period | None = None
    """How often to evaluate while training; none for only at the end."""
    eval_episodes: int = 100
    """Episodes of an evaluation; 0 for none, at the end neither."""
    eval_max_steps: int = LONGEST
    """Steps after which an episode of an evaluation is cut off, where nothing else ends it."""
    target_return: float | None = None
    """Stop once an evaluation's mean return reaches this; needs eval_every."""
    checkpoint_every: Period | None = EVERY_10000_STEPS
    """How often to save all that `nexus resume` needs, in steps; episodes under way end first. None for never."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints to keep; the best by evaluation is kept beside them."""
    on_divergence: Literal["stop", "rollback"] = "stop"
    """When a loss or gradient is not finite: stop, or go back to the last checkpoint with half the learning rate."""
    threads: int | None = None
    """Threads for torch; none for 1, or for nature_cnn, nips_cnn and impala_cnn one per core, at most 8."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible, alone or with another."""
        super().check()
        for name in ("total_steps", "num_envs", "frame_skip", "frame_stack", "n_step", "replay_capacity"):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        for name in (
            "batch_size",
            "updates_each",
            "epsilon_steps",
            "learning_rate_step",
            "eval_max_steps",
            "keep_checkpoints",
        ):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        self.require(self.eval_max_steps <= LONGEST, "eval_max_steps", f"at most {LONGEST}")
        self.require(self.eval_episodes >= 0, "eval_episodes", "0 or more")
        plays = self.eval_every is None or self.eval_episodes > 0
        self.require(plays, "eval_episodes", f"at least 1 with eval_every = {self.eval_every}")
        is_size = self.frame_size is None or LEAST_FRAME <= self.frame_size <= MOST_FRAME
        self.require(is_size, "frame_size", f"{LEAST_FRAME} to {MOST_FRAME} pixels, or none")
        self.require(self.step_timeout is None or self.step_timeout > 0, "step_timeout", "more than 0 seconds, or none")
        can_be_stopped = self.step_timeout is None or self.vectorization == "async"
        self.require(can_be_stopped, "step_timeout", "vectorization async: a step in this process can't be stopped")
        self.require(self.num_envs <= MOST_ENVS, "num_envs", f"at most {MOST_ENVS}")
        self.require(0 <= self.priority_exponent <= 1, "priority_exponent", "a number in [0, 1]")
        self.require(0 <= self.importance_exponent <= 1, "importance_exponent", "a number in [0, 1]")
        lowest_epsilon = self.epsilon if self.epsilon_schedule == "constant" else self.epsilon_min
        explores_by_noise = self.noisy and self.exploration == "epsilon_greedy"
        self.require(
            not explores_by_noise or lowest_epsilon < 1, "noisy", "an ε below 1, or its noise never acts: epsilon 0"
        )
        self.check_returns()
        self.require(self.learning_starts >= 0, "learning_starts", "0 or more steps")
        self.require(self.reward_clip is None or self.reward_clip > 0, "reward_clip", "a size above 0, or none")
        self.require(self.learning_rate_end >= 0, "learning_rate_end", "0 or more")
        self.require(0 < self.learning_rate_factor <= 1, "learning_rate_factor", "a factor in (0, 1]")
        self.require(self.threads is None or self.threads >= 1, "threads", "at least 1, or none")
        self.require(self.update_every.unit != "updates", "update_every", "steps or episodes")
        self.require(
            self.replay_store in ("auto", "full") or self.frame_stack >= 2,
            "replay_store",
            "frame_stack to be 2 or more",
        )
        in_steps = self.actor_sync_every is None or self.actor_sync_every.unit == "steps"
        self.require(in_steps, "actor_sync_every", "steps, or none")
        in_steps = self.checkpoint_every is None or self.checkpoint_every.unit == "steps"
        self.require(in_steps, "checkpoint_every", "steps, or none")
        can_go_back = self.on_divergence == "stop" or self.checkpoint_every is not None
        self.require(can_go_back, "on_divergence", "checkpoint_every to be set too")
        self.require(
            self.batch_size <= self.replay_capacity,
            "batch_size",
            f"at most replay_capacity = {self.replay_capacity}",
        )
        self.require(
            self.learning_starts < self.total_steps,
            "learning_starts",
            f"fewer than total_steps = {self.total_steps}, or nothing is learned",
        )
        self.require(
            self.target_return is None or self.eval_every is not None,
            "target_return",
            "eval_every to be set too",
        )

    def check_returns(self) -> None:
        """Raise `ConfigError` if λ-returns are asked for where there are none, or with what they take the place of."""
        if self.algorithm != "pqn":
            self.require(self.trace_decay is None, "trace_decay", "the algorithm pqn, or none; others have n_step")
            return
        has_decay = self.trace_decay is not None and 0 <= self.trace_decay <= 1
        self.require(has_decay, "trace_decay", "a number in [0, 1] for pqn")
        self.require(self.n_step == 1, "n_step", "1 with pqn, whose returns look ahead by trace_decay")
        self.require(not self.prioritized, "prioritized", "false with pqn: it learns from all that was played")
        self.require(self.replay_store in ("auto", "full"), "replay_store", "auto or full with pqn")
        period = Period(self.replay_capacity, "steps")
        self.require(self.update_every == period, "update_every", f"'{period}' with pqn: its replay_capacity")

    def spec_of(self, env: EnvSource) -> EnvSpec:
        """Return an environment as a run with these settings sees it.

        Raises:
            ConfigError: it takes no `env_kwargs` or no `protocol`.
        """
        kwargs = kwargs_for(env, self.env_kwargs)
        frames = self.frame_skip, self.frame_stack
        return EnvSpec(env, *frames, kwargs, self.protocol, self.frame_size, self.flatten_actions)

    @property
    def eval_copies(self) -> int:
        """Copies of the environment that play an evaluation together: as many as learn, where each has a process."""
        return min(self.eval_episodes, self.num_envs if self.vectorization == "async" else MOST_COPIES)

    def epsilon_at(self, steps: int, episodes: int) -> float:
        """Return ε after so many steps and finished episodes."""
        return self._explored_at(self.epsilon, self.epsilon_min, steps, episodes)

    def temperature_at(self, steps: int, episodes: int) -> float:
        """Return the temperature of Boltzmann exploration after so many steps and finished episodes."""
        return self._explored_at(self.temperature, self.temperature_min, steps, episodes)

    def _explored_at(self, start: float, end: float, steps: int, episodes: int) -> float:
        since_start = max(0, steps - self.learning_starts)
        if self.epsilon_schedule == "linear":
            return schedules.linear(start, end, self.epsilon_steps, since_start)
        if self.epsilon_schedule == "constant":
            return start
        count = episodes if self.epsilon_schedule == "per_episode" else since_start
        return schedules.exponential(start, end, self.epsilon_decay, count)

    @property
    def said_of_exploration(self) -> str | None:
        """Say that the exploration does not come down to its end before the run ends, None if it does."""
        boltzmann = self.exploration == "boltzmann"
        what, start, end = (
            ("the temperature", self.temperature, self.temperature_min)
            if boltzmann
            else ("ε", self.epsilon, self.epsilon_min)
        )
        last = self._explored_at(start, end, self.total_steps, 0)
        if self.epsilon_schedule not in ("linear", "per_step") or last - end <= STILL_EXPLORING * (start - end):
            return None
        if self.epsilon_schedule == "linear":
            left = self.total_steps - self.learning_starts
            why = f"epsilon_steps = {self.epsilon_steps:,} is more than the {left:,} from learning_starts on"
        else:
            why = f"epsilon_decay = {self.epsilon_decay:g} is too slow for {self.total_steps:,} steps"
        return f"{what} is still {last:.2g} where the run ends, and was to fall to {end:g}: {why}"

    def slowed(self, halvings: int) -> "TrainConfig":
        """Return these settings with the learning rate halved so many times, wherever its schedule stands."""
        factor = 0.5**halvings
        return replace(
            self,
            learning_rate=self.learning_rate * factor,
            learning_rate_end=self.learning_rate_end * factor,
        )

    def learning_rate_at(self, steps: int, updates: int) -> float:
        """Return the learning rate after so many steps and updates."""
        start, end = self.learning_rate, self.learning_rate_end
        if self.learning_rate_schedule == "linear":
            return schedules.linear(start, end, self.total_steps, steps)
        if self.learning_rate_schedule == "cosine":
            return schedules.cosine(start, end, self.total_steps, steps)
        if self.learning_rate_schedule == "step":
            return schedules.step_decay(start, self.learning_rate_factor, self.learning_rate_step, updates)
        return start


def kwargs_for(env: EnvSource, env_kwargs: Any) -> tuple[tuple[str, Any], ...]:
    """Return the keyword arguments for the maker of an environment as `EnvSpec` takes them.

    Raises:
        ConfigError: they are none, or this environment takes none.
    """
    kwargs = convert("env_kwargs", env_kwargs, Keywords)
    if kwargs and (is_atari(env) or not isinstance(env, str)):
        why = "is made by its protocol: leave them out" if is_atari(env) else "is a function: let it bring its own"
        raise ConfigError(f"env_kwargs = {kwargs}: {name_of(env)} {why}")
    return tuple(kwargs.items())
