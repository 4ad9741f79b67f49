"""The resources a run needs, computed from its settings and from a probe's measurements."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np

from nexus.core.errors import ConfigError
from nexus.envs.atari import AtariProtocol
from nexus.planning.expected import Expectation
from nexus.training.config import TrainConfig

__all__ = [
    "Disk",
    "Forecast",
    "Measured",
    "Memory",
    "Slice",
    "Time",
    "disk_of",
    "evaluations",
    "require_disk",
    "time_of",
    "updates",
]

LOG_LINE = 2_300  # bytes of a line of metrics.jsonl and its TensorBoard scalars, measured
EPISODE_LINE = 28  # bytes of a line of episodes.csv
ACTIONS_LINE = 24  # bytes of a line of actions.jsonl, besides one for each action


@dataclass(frozen=True)
class Slice:
    """A short part of the probe: its wall-clock seconds, and those spent in updates."""

    seconds: float
    steps: int
    updates: int
    learning: float


@dataclass(frozen=True)
class Measured:
    """The probe's measurements on this machine."""

    startup: float  # seconds from the start to the first update, compilation included
    slices: Sequence[Slice]
    eval_setup: float  # seconds to make and reset the sub-environments of an evaluation
    eval_steps: Sequence[float]  # seconds of one vector step of an evaluation, per slice
    checkpoint: float = 0.0  # seconds of a checkpoint with almost no new rows
    checkpoint_row: float = 0.0  # seconds for each new row
    episode_length: float | None = None  # mean, in steps; None if no episode ended
    under_way: float = 0.0  # mean steps of the unfinished episodes
    base: int | None = None  # bytes of memory of the process without its replay; None if unknown


@dataclass(frozen=True)
class Memory:
    """Bytes of memory."""

    replay: int  # when full
    filled: int  # the part of it that this many steps fill
    base: int | None  # measured bytes of the process without the replay; None if unknown
    free: int | None  # before the probe

    @property
    def fits(self) -> bool:
        """False if replay and process together need more than was free."""
        return self.free is None or self.filled + (self.base or 0) <= self.free


@dataclass(frozen=True)
class Disk:
    """Bytes on the disk, at most."""

    checkpoints: int
    kept: int  # number of checkpoints
    logs: int
    free: int | None  # free bytes where the run would be stored

    @property
    def total(self) -> int:
        """Total bytes."""
        return self.checkpoints + self.logs


@dataclass(frozen=True)
class Time:
    """Seconds by activity, and the range from the probe's slices."""

    startup: float
    acting: float  # including emulation
    learning: float
    evaluating: float
    saving: float
    low: float
    high: float
    steps_per_second: float  # during training: acting and learning

    @property
    def total(self) -> float:
        """The most likely total."""
        return self.startup + self.acting + self.learning + self.evaluating + self.saving

    @property
    def shares(self) -> dict[str, float]:
        """Fractions of the total, which sum to 1."""
        return {
            "acting and emulating": self.acting / self.total,
            "learning": self.learning / self.total,
            "evaluating": self.evaluating / self.total,
            "saving": self.saving / self.total,
            "starting": self.startup / self.total,
        }


@dataclass(frozen=True)
class Forecast:
    """The resources a run needs, and the score to expect."""

    env: str
    rules: AtariProtocol | None  # for an Atari game
    preset: str | None
    config: TrainConfig
    parameters: int  # of a single network
    memory: Memory
    disk: Disk
    time: Time
    expected: Expectation
    notes: tuple[str, ...] = ()

    @property
    def frames_per_second(self) -> float:
        """Frames per second of training; a step has `frame_skip` frames."""
        return self.time.steps_per_second * self.config.frame_skip


def updates(config: TrainConfig, slices: Sequence[Slice]) -> float:
    """Return the number of updates of a run; if episodes trigger them, at the probe's rate."""
    every = config.update_period
    if every.unit == "steps":
        return every.crossings(config.learning_starts, config.total_steps) * config.gradient_steps
    steps = sum(part.steps for part in slices)
    return (config.total_steps - config.learning_starts) * sum(part.updates for part in slices) / steps


def evaluations(config: TrainConfig, updates: float, episode_length: float | None) -> int:
    """Return the number of evaluations of a run; the one at the last step is also the final one."""
    every, steps = config.eval_every, config.total_steps
    if every is None:
        return min(config.eval_episodes, 1)
    if every.unit == "steps":
        return ceil(steps / every.count)
    count = updates if every.unit == "updates" else steps / (episode_length or steps)
    return 1 + int(count / every.count)


def time_of(config: TrainConfig, measured: Measured, limit: int | None) -> Time:
    """Return the time of a whole run.

    Its range is the 10th to the 90th percentile of the estimates from single slices. Evaluations are counted with
    episodes as long as their limit: an untrained agent's episodes are no guide, and the longest one sets the time.
    The lower end uses the length of the probe's training episodes, or how far they got if none ended.

    Args:
        config: the run's settings.
        measured: the probe's measurements.
        limit: steps of the longest episode; None without a limit, which uses the probe's lengths.
    """
    slices, total = measured.slices, config.total_steps
    count = updates(config, slices)
    learned = sum(part.updates for part in slices)
    per_update = sum(part.learning for part in slices) / learned if learned else 0.0
    acting = total * sum(part.seconds - part.learning for part in slices) / sum(part.steps for part in slices)
    alone = [
        total * (part.seconds - part.learning) / part.steps
        + count * (part.learning / part.updates if part.updates else per_update)
        for part in slices
    ]
    times = evaluations(config, count, measured.episode_length)
    seen = measured.episode_length or measured.under_way
    longest = (measured.episode_length or total) if limit is None else limit
    step_low, step, step_high = spread(measured.eval_steps)
    evaluating = times * evaluation(config, measured.eval_setup, step, longest)
    saves = 0 if config.checkpoint_every is None else config.checkpoint_every.crossings(0, total)
    rows = 0 if config.checkpoint_every is None else config.checkpoint_every.count
    saving = saves * (measured.checkpoint + rows * measured.checkpoint_row)
    fixed, training = measured.startup + saving, acting + count * per_update
    low, _, high = spread(alone)
    return Time(
        measured.startup,
        acting,
        count * per_update,
        evaluating,
        saving,
        fixed + min(low, training) + times * evaluation(config, measured.eval_setup, step_low, min(seen, longest)),
        fixed + max(high, training) + times * evaluation(config, measured.eval_setup, step_high, longest),
        total / training,
    )


def evaluation(config: TrainConfig, setup: float, step: float, length: float) -> float:
    """Return the seconds of one evaluation, in which each sub-environment plays its share of episodes in sequence."""
    rounds = ceil(config.eval_episodes / max(1, config.eval_envs))
    return setup + rounds * length * step


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the 10th percentile, the mean and the 90th percentile, widened to include the mean."""
    low, high = np.percentile(values, [10, 90])
    mean = float(np.mean(values))
    return min(float(low), mean), mean, max(float(high), mean)


def disk_of(
    config: TrainConfig, network: int, row: float, free: int | None, episode_length: float | None = None
) -> Disk:
    """Return the most that a run leaves on disk, with a full replay.

    The chunks of the replay are shared by all checkpoints; an older checkpoint needs older rows. A run has one
    checkpoint more than the periodic ones, that of its end.

    Args:
        config: the run's settings.
        network: bytes of one network; a checkpoint has two networks, and two moments of each weight.
        row: bytes of a transition.
        free: free bytes where the run would be stored.
        episode_length: mean length, for the log of episodes; None leaves that log out.
    """
    episodes = 0 if episode_length is None else int(config.total_steps / episode_length)
    every = config.log_every
    lines = {"steps": config.total_steps, "updates": updates_at_most(config), "episodes": episodes}[every.unit]
    # The last and the best weights, with both networks; the best as of the last checkpoint may be a third set.
    weights = (2 if config.eval_every is None else 3) * 2 * network
    logs = lines // every.count * LOG_LINE + episodes * EPISODE_LINE + weights
    logs += config.total_steps + episodes * ACTIONS_LINE if config.keep_episodes else 0
    held = min(config.kept_transitions, config.total_steps)
    state = 4 * network + (8 * held if config.prioritized else 0)
    period = config.checkpoint_every
    older = 0 if period is None else min(config.keep_checkpoints, period.crossings(0, config.total_steps))
    rows = held + (0 if period is None else older * period.count)
    if config.has_rollouts:  # each checkpoint has its own rollout, and there is no replay
        state, rows = state + int(held * row), 0
    kept = older + 1
    # One more state: the next is written before the oldest is deleted.
    return Disk((kept + 1) * state + int(min(rows, config.total_steps) * row), kept, logs, free)


def updates_at_most(config: TrainConfig) -> int:
    """Return an upper bound on the number of updates; if episodes trigger them, as if every step ended one."""
    return config.total_steps // config.update_period.count * config.gradient_steps


def require_disk(config: TrainConfig, disk: Disk, network: int, row: float) -> None:
    """Raise `ConfigError` if a run can't fit on its disk; the message says what would."""
    if disk.free is None or disk.total <= disk.free:
        return

    def fits(**changes: Any) -> bool:
        return disk_of(replace(config, **changes), network, row, None).total <= (disk.free or 0)

    would = ["checkpoint_every none"] if config.checkpoint_every is not None and fits(checkpoint_every=None) else []
    low, high = config.batch_size, config.replay_capacity
    if not config.has_rollouts and fits(replay_capacity=low):
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(replay_capacity=middle) else (low, middle)
        would.insert(0, f"a replay_capacity of at most {low}")
    advice = f"{' or '.join(would)} would fit" if would else "make room"
    raise ConfigError(
        f"checkpoint_every = {config.checkpoint_every}: {disk.kept} checkpoint(s) and the logs need "
        f"{disk.total / 1e6:,.1f} MB on the disk, {disk.free / 1e6:,.1f} MB are free: {advice}"
    )
