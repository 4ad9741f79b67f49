"""A short run with the settings of a run, in a temporary folder, with its parts timed."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.vector import SyncVectorEnv, VectorEnv
from torch import Tensor

from nexus.core.period import Period
from nexus.core.types import Batch, Outcome
from nexus.envs.factory import EnvSpec, make_env, make_vector_env
from nexus.envs.stream import LONGEST_EPISODE, TransitionStream
from nexus.listener import Listener
from nexus.parts import SettlingLearner
from nexus.planning.forecast import Measured, Slice
from nexus.runner import Run
from nexus.training.config import TrainConfig
from nexus.training.logs import EpisodeTracker, RunLog
from nexus.training.loop import Progress, ReplayProtocol

__all__ = ["longest_episode", "measure", "probed"]

NEVER = Period(10**18, "steps")
WARM_UPDATES = 3  # the first updates load, allocate and compile
TRAINING, EVALUATING = 0.75, 0.2  # fractions of the probe; the rest is for checkpoints
SLICES = 20  # of each of the two
CHECKPOINTS_TIMED = 3

Clock = Callable[[], float]


class Enough(Exception):
    """Raised to leave the training loop."""


class Probe(Listener):
    """Cuts a run into slices, from its third update on, and ends it when the time is up.

    Args:
        run: the run that it listens to.
        seconds: total duration of the slices.
        started: time at which creating the run began.
        clock: returns the time.
    """

    def __init__(self, run: Run, seconds: float, started: float, clock: Clock) -> None:
        self.run, self.seconds, self.started, self.clock = run, seconds, started, clock
        self.learning = 0.0  # seconds in updates so far
        self.slices: list[Slice] = []
        self.episode_length: float | None = None
        self.under_way = 0.0
        self.startup: float | None = None  # seconds until the run is warmed up
        self.ends = self.until = float("inf")
        self.begin()

    def begin(self) -> None:
        """Begin a slice."""
        self.at, self.learned_before = self.clock(), self.learning
        self.steps, self.updates = self.run.parts.counters.steps, self.run.parts.counters.updates

    @contextmanager
    def learns(self) -> Iterator[None]:
        """Count what happens inside as learning."""
        before = self.clock()
        yield
        self.learning += self.clock() - before

    def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
        """End a slice if its time is up; raise `Enough` after the last one."""
        now = self.clock()
        if self.startup is None:
            # If no update happens within a fifth of the time, start timing without one.
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
        self.run.parts.learner.settle()  # pending work on the device belongs to this slice
        counters = self.run.parts.counters
        steps, updates = counters.steps - self.steps, counters.updates - self.updates
        if steps:
            self.slices.append(Slice(self.clock() - self.at, steps, updates, self.learning - self.learned_before))
        if episodes.lengths:
            self.episode_length = sum(episodes.lengths) / len(episodes.lengths)
        self.under_way = episodes.under_way
        self.begin()


class TimedLearner:
    """A learner whose updates are counted as learning."""

    def __init__(self, learner: SettlingLearner, probe: Probe) -> None:
        self.learner, self.probe = learner, probe
        self.optimizer, self.settle, self.observe = learner.optimizer, learner.settle, learner.observe

    def learn(self, batch: Batch) -> Outcome:
        """Take one optimizer step."""
        with self.probe.learns():
            return self.learner.learn(batch)

    def update_target_network(self) -> None:
        """Let θ⁻ follow θ."""
        with self.probe.learns():
            self.learner.update_target_network()


class TimedReplay:
    """A replay whose batches and priorities are counted as learning."""

    def __init__(self, replay: ReplayProtocol, probe: Probe) -> None:
        self.replay, self.probe = replay, probe
        self.remember, self.add, self.anneal = replay.remember, replay.add, replay.anneal

    def __len__(self) -> int:
        return len(self.replay)

    def sample(self, batch_size: int) -> Batch:
        """Draw a batch with its weights and indices."""
        with self.probe.learns():
            return self.replay.sample(batch_size)

    def update_priorities(self, indices: Tensor, priorities: Tensor) -> None:
        """Store the new priority of each sampled transition."""
        with self.probe.learns():
            self.replay.update_priorities(indices, priorities)


class Saves(Listener):
    """Times a few checkpoints with almost no steps between them, and then ends the run."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.times: list[float] = []

    def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
        """Record the time, since a checkpoint follows; raise `Enough` after the last one."""
        if progress.sound:
            self.times.append(self.clock())
        if len(self.times) > CHECKPOINTS_TIMED:
            raise Enough


def measure(run: Run, seconds: float, started: float, clock: Clock = time.perf_counter) -> Measured:
    """Train for a few seconds, play some steps of an evaluation, write a few checkpoints, and return their times.

    Args:
        run: a run with the settings from `probed`; it can't be used afterwards.
        seconds: approximate total duration.
        started: time at which creating the run began.
        clock: returns the time in seconds.

    Raises:
        DivergenceError: training diverged.
        EnvError: the environment failed.
    """
    probe = Probe(run, TRAINING * seconds, started, clock)
    if run.config.actor_sync_every is None:  # concurrent learning takes no separate time
        run.parts.learner = TimedLearner(run.parts.learner, probe)
        run.parts.learned_from = TimedReplay(run.parts.learned_from, probe)
    run.listener = probe
    with run.open_log() as log:
        with suppress(Enough):
            run.follow(log, run.evaluations(log))
        run.stop.raise_if_asked()
        if not probe.slices:  # the whole run was shorter than a slice
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
    """Return the settings of a probe: the run's, except that it learns at once and is never interrupted."""
    return replace(
        config,
        learning_starts=min(config.learning_starts, config.batch_size),
        eval_every=None,
        target_return=None,
        doctor="off",  # at most 2 % of a run
        checkpoint_every=None if config.checkpoint_every is None else NEVER,  # it decides how frames are stored
    )


def eval_steps(run: Run, seconds: float, clock: Clock) -> tuple[float, tuple[float, ...]]:
    """Return the seconds to create an evaluation's environments, and those of one of its vector steps, per slice."""
    if run.config.eval_episodes == 0:
        return 0.0, (0.0,)
    rules, begun = run.parts.spec.rules, clock()
    epsilon = 0.0 if rules is None else rules.eval_epsilon
    alone, count = run.parts.one_alone, run.config.eval_envs
    under_way = {} if alone is None else run.parts.stream.get_state()
    with closing(make_vector_env(run.parts.spec, count)) if alone is None else nullcontext(alone) as envs:
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
            slices.append((clock() - before) / steps * (count / stream.num_envs))  # missing ones play afterwards
    if under_way:
        run.parts.bring_back(under_way)
    return setup, tuple(slices)


def checkpoints(run: Run, log: RunLog, clock: Clock) -> tuple[float, float]:
    """Return the seconds of a checkpoint without new rows, and those per row; zeros without checkpoints."""
    if run.config.checkpoint_every is None:
        return 0.0, 0.0
    rows, saves = len(run.parts.replay), Saves(clock)
    run.listener = saves
    run.config = replace(run.config, checkpoint_every=Period(1, "steps"))
    with suppress(Enough):
        run.follow(log, run.evaluations(log))
    durations = [after - before for before, after in zip(saves.times, saves.times[1:], strict=False)]
    if len(durations) < CHECKPOINTS_TIMED:  # the whole run was that short
        return 0.0, 0.0
    first, *later = durations
    fixed = min(later)
    return fixed, max(0.0, first - fixed) / rows if rows else 0.0  # a rollout is saved whole each time, or not at all


def base_bytes(run: Run) -> int | None:
    """Return the memory of this process in bytes, without the rows of its replay, or None if unknown."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        held = pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
    return max(0, held - run.plan.replay_bytes * len(run.parts.replay) // run.config.kept_transitions)


def longest_episode(
    spec: EnvSpec, eval_max_steps: int = LONGEST_EPISODE, alone: VectorEnv[Any, Any, Any] | None = None
) -> int | None:
    """Return the steps after which an evaluated episode is cut off, or None if only `LONGEST_EPISODE` does.

    Args:
        spec: the environment's spec.
        eval_max_steps: the setting of that name.
        alone: the only environment, if no other can be made; one in another process does not report its limit.
    """
    if spec.rules is not None:
        return min(eval_max_steps, spec.rules.eval_frames // spec.frame_skip)
    if alone is None:
        with closing(make_env(spec)) as env:
            frames = time_limit_of(env)
    else:
        frames = time_limit_of(alone.envs[0]) if isinstance(alone, SyncVectorEnv) else None
    if frames is None:
        return None if eval_max_steps == LONGEST_EPISODE else eval_max_steps
    return min(eval_max_steps, -(-frames // spec.frame_skip))


def time_limit_of(env: gym.Env[Any, Any]) -> int | None:
    """Return the time limit of an environment, in environment steps."""
    return None if env.spec is None else env.spec.max_episode_steps
