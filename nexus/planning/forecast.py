"""What a run will take: plain arithmetic from its settings and from what a probe measured."""

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

LOG_LINE = 2_300  # bytes of a line of metrics.jsonl and of its scalars for TensorBoard, measured
EPISODE_LINE = 28  # bytes of a line of episodes.csv


@dataclass(frozen=True)
class Slice:
    """A short part of the probe: wall-clock seconds, and how many of them went into updates."""

    seconds: float
    steps: int
    updates: int
    learning: float


@dataclass(frozen=True)
class Measured:
    """What the probe saw on this machine."""

    startup: float  # seconds from nothing to the first update, compiling included
    slices: Sequence[Slice]
    eval_setup: float  # seconds to make and reset the copies of an evaluation
    eval_steps: Sequence[float]  # seconds of one vector step of an evaluation, a number per slice
    checkpoint: float = 0.0  # seconds of a checkpoint with next to no new rows
    checkpoint_row: float = 0.0  # seconds for each new row
    episode_length: float | None = None  # mean, in steps; None if no episode ended
    under_way: float = 0.0  # steps of the episodes that had not ended, on average
    base: int | None = None  # bytes of memory that the process holds beside its replay; None where nobody tells


@dataclass(frozen=True)
class Memory:
    """Bytes of memory."""

    replay: int  # when it is full
    filled: int  # of that, what this many steps fill
    base: int | None  # what the process holds beside it, measured; None where the system does not tell
    free: int | None  # before the probe

    @property
    def fits(self) -> bool:
        """False if replay and process together are more than was free."""
        return self.free is None or self.filled + (self.base or 0) <= self.free


@dataclass(frozen=True)
class Disk:
    """Bytes on the disk, at most."""

    checkpoints: int
    kept: int  # how many checkpoints
    logs: int
    free: int | None  # where the run would lie

    @property
    def total(self) -> int:
        """All of it."""
        return self.checkpoints + self.logs


@dataclass(frozen=True)
class Time:
    """Seconds, by what they go into, and the range that the probe's slices give."""

    startup: float
    acting: float  # and emulating
    learning: float
    evaluating: float
    saving: float
    low: float
    high: float
    steps_per_second: float  # while it trains: acting and learning

    @property
    def total(self) -> float:
        """The most likely number."""
        return self.startup + self.acting + self.learning + self.evaluating + self.saving

    @property
    def shares(self) -> dict[str, float]:
        """Parts of the whole, which sum to 1."""
        return {
            "acting and emulating": self.acting / self.total,
            "learning": self.learning / self.total,
            "evaluating": self.evaluating / self.total,
            "saving": self.saving / self.total,
            "starting": self.startup / self.total,
        }


@dataclass(frozen=True)
class Forecast:
    """What a run will take, and what it can be expected to score."""

    env: str
    rules: AtariProtocol | None  # of an Atari game
    preset: str | None
    config: TrainConfig
    parameters: int  # of one network
    memory: Memory
    disk: Disk
    time: Time
    expected: Expectation
    notes: tuple[str, ...] = ()

    @property
    def frames_per_second(self) -> float:
        """Frames, of which a step has `frame_skip`, per second of training."""
        return self.time.steps_per_second * self.config.frame_skip


def updates(config: TrainConfig, slices: Sequence[Slice]) -> float:
    """Return how many updates a run takes; where episodes trigger them, at the rate of the probe."""
    every = config.update_period
    if every.unit == "steps":
        return every.crossings(config.learning_starts, config.total_steps) * config.gradient_steps
    steps = sum(part.steps for part in slices)
    return (config.total_steps - config.learning_starts) * sum(part.updates for part in slices) / steps


def evaluations(config: TrainConfig, updates: float, episode_length: float | None) -> int:
    """Return how many evaluations a run makes; that of the last step is the final one too."""
    every, steps = config.eval_every, config.total_steps
    if every is None:
        return min(config.eval_episodes, 1)
    if every.unit == "steps":
        return ceil(steps / every.count)
    count = updates if every.unit == "updates" else steps / (episode_length or steps)
    return 1 + int(count / every.count)


def time_of(config: TrainConfig, measured: Measured, limit: int | None) -> Time:
    """Return the time of a whole run.

    Its range is from the 10th to the 90th percentile of what each slice would give alone. Evaluations are counted with
    episodes as long as their limit: an untrained agent's are no guide, and the longest of them all decides. The lower
    end takes the length of the probe's training episodes, or how far they came where none ended.

    Args:
        config: of the run.
        measured: by the probe.
        limit: steps of the longest episode; None if there is none, and the lengths of the probe count.
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
    """Return the seconds of one evaluation, whose copies play their shares of the episodes one after another."""
    rounds = ceil(config.eval_episodes / max(1, config.eval_copies))
    return setup + rounds * length * step


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the 10th percentile, the mean and the 90th percentile; the mean lies between."""
    low, high = np.percentile(values, [10, 90])
    mean = float(np.mean(values))
    return min(float(low), mean), mean, max(float(high), mean)


def disk_of(
    config: TrainConfig, network: int, row: float, free: int | None, episode_length: float | None = None
) -> Disk:
    """Return what a run leaves on the disk at most, its replay full.

    The chunks of the replay belong to all checkpoints together: one that is older needs older rows. A run has one
    checkpoint more than came with their period, that of its end.

    Args:
        config: of the run.
        network: bytes of one network; a checkpoint has two of them, and two moments of each weight.
        row: bytes of a transition.
        free: bytes where the run would lie.
        episode_length: mean, for the log of episodes; None leaves that out.
    """
    episodes = 0 if episode_length is None else int(config.total_steps / episode_length)
    every = config.log_every
    lines = {"steps": config.total_steps, "updates": updates_at_most(config), "episodes": episodes}[every.unit]
    # The last weights and the best ones, with both networks; the best as of the last checkpoint may be others still.
    weights = (2 if config.eval_every is None else 3) * 2 * network
    logs = lines // every.count * LOG_LINE + episodes * EPISODE_LINE + weights
    held = min(config.kept_transitions, config.total_steps)
    state = 4 * network + (8 * held if config.prioritized else 0)
    period = config.checkpoint_every
    older = 0 if period is None else min(config.keep_checkpoints, period.crossings(0, config.total_steps))
    rows = held + (0 if period is None else older * period.count)
    if config.has_rollouts:  # each checkpoint has its own rollout, and there is no replay
        state, rows = state + int(held * row), 0
    kept = older + 1
    # One more state: the next is written before the oldest goes.
    return Disk((kept + 1) * state + int(min(rows, config.total_steps) * row), kept, logs, free)


def updates_at_most(config: TrainConfig) -> int:
    """Return how many updates come of steps; where episodes trigger them, as if each step ended one."""
    return config.total_steps // config.update_period.count * config.gradient_steps


def require_disk(config: TrainConfig, disk: Disk, network: int, row: float) -> None:
    """Raise `ConfigError` if a run can't fit on its disk, and say what would."""
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
