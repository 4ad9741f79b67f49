"""A short run with a run's own settings, in a temporary folder, with a stopwatch at its parts."""

import os
import time
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.vector import SyncVectorEnv, VectorEnv

from nexus.core.period import Period
from nexus.envs.factory import EnvSpec, make_env, make_vector_env
from nexus.envs.stream import LONGEST, TransitionStream
from nexus.listener import Listener
from nexus.planning.forecast import Measured, Slice
from nexus.runner import Run
from nexus.training.config import TrainConfig
from nexus.training.logs import EpisodeTracker, RunLog
from nexus.training.loop import Progress

__all__ = ["longest_episode", "measure", "probed"]

NEVER = Period(10**18, "steps")
WARM_UPDATES = 3  # the first ones load, allocate and compile
TRAINING, EVALUATING = 0.75, 0.2  # parts of the probe; the rest is for checkpoints
SLICES = 20  # of either
CHECKPOINTS = 3

Clock = Callable[[], float]


class Enough(Exception):
    """Leave the training loop."""


class Probe(Listener):
    """Cuts a run into slices, from its third update on, and ends it when its time is over.

    Args:
        run: that it listens to.
        seconds: of all slices.
        started: when the run was begun to be made.
        clock: what tells the time.
    """

    def __init__(self, run: Run, seconds: float, started: float, clock: Clock) -> None:
        self.run, self.seconds, self.started, self.clock = run, seconds, started, clock
        self.learning = 0.0  # seconds in updates so far
        self.slices: list[Slice] = []
        self.episode_length: float | None = None
        self.under_way = 0.0
        self.startup: float | None = None  # until it is warm
        self.ends = self.until = float("inf")
        self.begin()

    def begin(self) -> None:
        """Begin a slice here."""
        self.at, self.learned_before = self.clock(), self.learning
        self.steps, self.updates = self.run.parts.counters.steps, self.run.parts.counters.updates

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its seconds counted as learning."""

        def counted(*arguments: Any) -> Any:
            before = self.clock()
            result = function(*arguments)
            self.learning += self.clock() - before
            return result

        return counted

    def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
        """End a slice where one is over; raise `Enough` after the last."""
        now = self.clock()
        if self.startup is None:
            # What never learns within a fifth of the time is timed as it is.
            if progress.counters.updates < WARM_UPDATES and now - self.at < self.seconds / 5:
                return
            self.startup = now - self.started
            self.until, self.ends = now + self.seconds, now + self.seconds / SLICES
            self.begin()
        elif now >= self.ends:
            self.end(episodes)
            if self.clock() >= self.until:
                raise Enough
            self.ends = self.clock() + self.seconds / SLICES

    def end(self, episodes: EpisodeTracker) -> None:
        """End a slice."""
        self.run.parts.watched.settle()  # what a device has not done yet belongs to this slice
        counters = self.run.parts.counters
        steps, updates = counters.steps - self.steps, counters.updates - self.updates
        if steps:
            self.slices.append(Slice(self.clock() - self.at, steps, updates, self.learning - self.learned_before))
        if episodes.lengths:
            self.episode_length = sum(episodes.lengths) / len(episodes.lengths)
        self.under_way = episodes.under_way
        self.begin()


class Saves(Listener):
    """Times a few checkpoints with next to no steps between them, and ends the run after them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.times: list[float] = []

    def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
        """Note the time, since a checkpoint follows; raise `Enough` after the last."""
        if progress.sound:
            self.times.append(self.clock())
        if len(self.times) > CHECKPOINTS:
            raise Enough


def measure(run: Run, seconds: float, started: float, clock: Clock = time.perf_counter) -> Measured:
    """Train for a few seconds, play some steps of an evaluation, write a few checkpoints, and say what each took.

    Args:
        run: with the settings that `probed` gives; it is of no use afterwards.
        seconds: for all of it, roughly.
        started: when the run was begun to be made, by the clock.
        clock: what tells the time, in seconds.

    Raises:
        DivergenceError: the training diverged.
        EnvError: the environment failed.
    """
    probe = Probe(run, TRAINING * seconds, started, clock)
    if run.config.actor_sync_every is None:  # what learns beside the playing takes no time of its own
        for part, name in (
            (run.parts.watched, "learn"),
            (run.parts.watched, "update_target_network"),
            (run.parts.learned_from, "sample"),
            (run.parts.learned_from, "update_priorities"),
        ):
            setattr(part, name, probe.timed(getattr(part, name)))
    run.listener = probe
    with run.open_log() as log:
        with suppress(Enough):
            run.follow(log)
        run.stop.raise_if_asked()
        if not probe.slices:  # the whole run is shorter than a slice
            probe.end(run.parts.episodes)
        setup, steps = eval_steps(run, EVALUATING * seconds, clock)
        fixed, row = checkpoints(run, log, clock)
    return Measured(
        clock() - started if probe.startup is None else probe.startup,
        tuple(probe.slices),
        setup,
        steps,
        fixed,
        row,
        probe.episode_length,
        probe.under_way,
        base_bytes(run),
    )


def probed(config: TrainConfig) -> TrainConfig:
    """Return the settings of a probe: the run's own, but that it learns at once and is never interrupted."""
    return replace(
        config,
        learning_starts=min(config.learning_starts, config.batch_size),
        eval_every=None,
        target_return=None,
        checkpoint_every=None if config.checkpoint_every is None else NEVER,  # it decides how frames are stored
    )


def eval_steps(run: Run, seconds: float, clock: Clock) -> tuple[float, tuple[float, ...]]:
    """Return the seconds to make the copies of an evaluation, and those of one of their vector steps, by slice."""
    if run.config.eval_episodes == 0:
        return 0.0, (0.0,)
    rules, begun = run.parts.spec.rules, clock()
    epsilon = 0.0 if rules is None else rules.eval_epsilon
    alone, copies = run.parts.one_alone, run.config.eval_copies
    under_way = {} if alone is None else run.parts.stream.get_state()
    with closing(make_vector_env(run.parts.spec, copies)) if alone is None else nullcontext(alone) as envs:
        stream = TransitionStream(envs, run.plan.env)
        stream.reset(run.config.seed)
        setup = clock() - begun
        slices: list[float] = []
        until = clock() + seconds
        while not slices or clock() < until:
            before, steps = clock(), 0
            while not steps or clock() - before < seconds / SLICES:
                stream.step(run.parts.agent.act(stream.states, epsilon, False, stream.action_masks))
                steps += 1
            slices.append((clock() - before) / steps * (copies / stream.num_envs))  # those not there play afterwards
    if under_way:
        run.parts.bring_back(under_way)
    return setup, tuple(slices)


def checkpoints(run: Run, log: RunLog, clock: Clock) -> tuple[float, float]:
    """Return the seconds of a checkpoint without new rows, and those of each row; zeros where there are none."""
    if run.config.checkpoint_every is None:
        return 0.0, 0.0
    rows, saves = len(run.parts.replay), Saves(clock)
    run.listener = saves
    run.config = replace(run.config, checkpoint_every=Period(1, "steps"))
    with suppress(Enough):
        run.follow(log)
    durations = [after - before for before, after in zip(saves.times, saves.times[1:], strict=False)]
    if len(durations) < CHECKPOINTS:  # the whole run is that short
        return 0.0, 0.0
    first, *later = durations
    fixed = min(later)
    return fixed, max(0.0, first - fixed) / rows if rows else 0.0  # a rollout is saved whole each time, or not there


def base_bytes(run: Run) -> int | None:
    """Return the bytes of memory that this process holds beside the rows of its replay, or None if nobody tells."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        held = pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
    return max(0, held - run.plan.replay_bytes * len(run.parts.replay) // run.config.kept_transitions)


def longest_episode(
    spec: EnvSpec, eval_max_steps: int = LONGEST, alone: VectorEnv[Any, Any, Any] | None = None
) -> int | None:
    """Return the steps after which an evaluated episode is cut off, or None if only `LONGEST` does.

    Args:
        spec: of the environment.
        eval_max_steps: the setting.
        alone: the one environment where no other may be made; one in a process does not tell its limit.
    """
    if spec.rules is not None:
        return min(eval_max_steps, spec.rules.eval_frames // spec.frame_skip)
    if alone is None:
        with closing(make_env(spec)) as env:
            frames = limit_of(env)
    else:
        frames = limit_of(alone.envs[0]) if isinstance(alone, SyncVectorEnv) else None
    if frames is None:
        return None if eval_max_steps == LONGEST else eval_max_steps
    return min(eval_max_steps, -(-frames // spec.frame_skip))


def limit_of(env: gym.Env[Any, Any]) -> int | None:
    """Return the time limit of an environment, in its own steps."""
    return None if env.spec is None else env.spec.max_episode_steps
