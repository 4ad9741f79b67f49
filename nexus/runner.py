"""One training run: the loop and its observers, what ends it, and how it resumes from a checkpoint."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from nexus.core.errors import ConfigError, DivergenceError, EnvError, NexusError, RunError, Terminated
from nexus.core.seeding import seed_of
from nexus.core.state import State, below, part
from nexus.doctor.doctor import Doctor
from nexus.envs.atari import canonical
from nexus.envs.factory import EnvSource
from nexus.listener import Listener, Listeners, LiveRun, Observer, Plan, TrainResult, observe
from nexus.models.rl.dqn import DQNAgent
from nexus.observers import (
    EpisodeLog,
    Evaluations,
    ListenerCall,
    PeriodicCheckpoint,
    ScalarLog,
)
from nexus.parts import Parts, agent_for, agent_from
from nexus.run_files import RunFiles, version_changes
from nexus.training import loop
from nexus.training.checkpoint import Checkpoint, log_damage, read_checkpoint
from nexus.training.config import TrainConfig
from nexus.training.course import MOST_ROLLBACKS, Course
from nexus.training.evaluation import Evaluation
from nexus.training.logs import RunLog
from nexus.training.narrowed import narrowed, narrowed_series, times_as_wide
from nexus.training.replays import replay_for
from nexus.training.run_folder import locked, new_run_folder, require_empty, require_no_links_out
from nexus.training.same_run import require_same_run
from nexus.training.signals import StopRequest, stop_requests

__all__ = ["MOST_ROLLBACKS", "Run", "agent_for", "agent_from", "replay_for"]

FINAL = 10_000  # offset of the seed of a final evaluation, whose episodes differ from those before
TO_TRY = "a smaller --learning-rate, --reward-clip 1, a smaller --max-grad-norm"


class Run:
    """One training run, new or resumed. Use as a context manager.

    Args:
        env: the environment.
        preset: the name of the preset the settings came from.
        config: its settings.
        run_dir: the run's folder; None makes one below `runs/`.
        listener: called as the run proceeds.
        begun: whether the folder already holds the run, which then continues from its newest checkpoint.
        agent: the agent to train; None makes one for the config.
        lineage: where its weights started, for `run.json`; None for fresh ones.
        fill: fills the parts of a new run that starts from another one.
    """

    def __init__(
        self,
        env: EnvSource,
        preset: str | None,
        config: TrainConfig,
        run_dir: str | os.PathLike[str] | None,
        listener: Listener,
        begun: bool = False,
        agent: DQNAgent | None = None,
        lineage: Mapping[str, Any] | None = None,
        fill: Callable[[Parts], None] | None = None,
    ) -> None:
        self.listener = listener
        self.doctor = Doctor() if config.doctor == "on" else Listener()
        self.course = Course()
        self.stop = StopRequest()
        self.from_checkpoint: Checkpoint | None = None
        with ExitStack() as stack:
            self.parts = Parts(canonical(env), config, stack, agent)
            self.config = self.parts.config
            if fill is not None:
                fill(self.parts)  # before there is a folder: what doesn't fit leaves none behind
            name = self.parts.name
            folder = Path(run_dir) if begun and run_dir is not None else new_run_folder(name, config.seed, run_dir)
            # After the environment: its worker processes must not inherit the lock, or it would outlive a killed run.
            stack.enter_context(locked(folder))
            self.parts.watch(folder)
            self.files = RunFiles(folder, self.parts, preset, lineage)
            self.live = LiveRun(self.parts.agent, self.parts.replay, self.parts.counters, listener.on_notice)
            if begun:
                require_no_links_out(folder)
                self.restore()
            else:
                require_empty(folder)  # again: another process may have got here first
            about = name, preset, self.config, self.parts.agent, self.parts.replay_bytes, folder
            come = self.parts.counters.steps, self.course.seconds
            self.plan = Plan(*about, *come, self.parts.spec.rules, self.live, self.parts.stream.space, lineage)
            self.stack = stack.pop_all()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def run(self) -> TrainResult:
        """Train to the end, the target return or a signal; save in each case, and also if an error ends the run."""
        self.files.go_back_to(self.from_checkpoint)
        self.files.save("running", self.course)
        self.listener.on_start(self.plan)
        self.doctor.on_start(self.plan)
        evaluation, stopped_by = None, None
        try:
            with stop_requests() as self.stop:
                evaluation = self.to_the_end()
            stopped_by = self.stop.signal
        except KeyboardInterrupt as stop:  # a second signal, or one that the calling program turned into this
            stopped_by = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        except BaseException:
            status = "failed" if self.course.divergence is None else "diverged"
            with suppress(RunError):  # on a full disk, report the first error
                self.files.save(status, self.course)
            with suppress(Exception):
                self.doctor.on_end(status)
                self.listener.on_end(status)
            raise
        status = "finished" if stopped_by is None else "interrupted"
        self.files.save(status, self.course, evaluation)
        self.doctor.on_end(status)
        self.listener.on_end(status)
        return TrainResult(
            self.parts.agent,
            self.files.folder,
            evaluation,
            self.parts.counters,
            self.course.seconds,
            stopped_by,
            max(self.files.checkpoints.kept, default=None),
            self.course.reached_target,
            self.live.stop_reason,
        )

    def to_the_end(self) -> Evaluation | None:
        """Train and evaluate; after a divergence, continue from the last checkpoint if the settings allow it."""
        while True:
            try:
                with self.open_log() as log:
                    try:
                        return self.once(log)
                    except DivergenceError:
                        raise
                    except BaseException as error:
                        self.save_if_sound(log, error)
                        raise
                    finally:
                        self.course.seconds = log.seconds
            except DivergenceError as fault:
                self.recover(fault)

    def once(self, log: RunLog) -> Evaluation | None:
        """Train to the end and return the evaluation of the final weights, or None if a signal came first."""
        evaluations = self.evaluations(log)
        self.follow(log, evaluations)
        try:
            self.checkpoint(log)  # first, so that a failing evaluation loses nothing learned
        except RunError as error:
            self.listener.on_notice(f"{error}; the weights are saved, but the run can't continue from here")
        if self.stop.signal is not None:
            return None
        known = self.course.evaluation is not None and not self.course.reached_target
        if known or self.config.eval_episodes == 0:
            return self.course.evaluation
        # On other episodes: the score that stopped a run is biased upwards, so it must not be the one reported.
        evaluation = evaluations.play(self.parts.counters.steps, seed_of(self.config.seed, "evaluation") + FINAL)
        self.files.best.keep_for(self.files.checkpoints.kept)
        return evaluation

    def save_if_sound(self, log: RunLog, error: BaseException) -> None:
        """Write a checkpoint if the error came between two steps or before a step changed anything.

        A failing environment raises before its step is stored, but a second thread may be learning at that moment.
        """
        failed_first = isinstance(error, EnvError) and self.config.actor_sync_every is None
        if self.course.sound or failed_first:
            with suppress(NexusError):  # report the first error
                self.checkpoint(log)

    def open_log(self) -> RunLog:
        """Open the log files, truncated to the checkpoint the run resumes from."""
        logs = None if self.from_checkpoint is None else self.from_checkpoint.logs
        action_dim = self.parts.agent.action_dim if self.config.keep_episodes else None
        staged = self.config.curriculum is not None
        return RunLog(
            self.files.folder, logs, self.course.seconds, self.listener.on_scalars, action_dim=action_dim, staged=staged
        )

    def follow(self, log: RunLog, evaluations: Evaluations) -> None:
        """Iterate the loop to its end, until an evaluation reaches the target return, or until a stop is requested."""
        course, episodes = self.course, self.parts.episodes
        if self.files.lineage is not None and self.parts.counters.steps == 0:
            self.course.checkpoint_due = True  # an uninterrupted run has this one too
            self.checkpoint(log)
            evaluations.play_first(self.files.lineage)
        evaluations.play_due()
        if course.reached_target:
            return
        observers = self.observers(log, evaluations)
        for progress in self.steps():
            course.note(progress, self.config)
            observe(observers, progress, episodes)
            asked = self.stop.signal is not None or self.live.stop_reason is not None
            if progress.sound and (asked or course.reached_target):
                return

    def observers(self, log: RunLog, evaluations: Evaluations) -> list[Observer]:
        """Return the observers to call after each step, in order."""
        return [
            EpisodeLog(self.parts, self.course, self.listener, log),
            ScalarLog(self.parts, self.course, self.config.slowed(self.course.rollbacks), log),
            ListenerCall(self.listener, self.live, self.stop, log),
            ListenerCall(self.doctor, self.live, self.stop, log),
            evaluations,
            PeriodicCheckpoint(self.course, partial(self.checkpoint, log)),
        ]

    def evaluations(self, log: RunLog) -> Evaluations:
        """Return the observer that plays evaluations."""
        told = Listeners(self.listener, self.doctor)
        return Evaluations(self.parts, self.files, self.course, told, self.stop, log)

    def steps(self) -> Iterator[loop.Progress]:
        """Yield the loop's progress, and record whether the run is between two steps."""
        for progress in self.parts.steps(self.config.slowed(self.course.rollbacks)):
            self.course.sound = progress.sound
            yield progress
            self.course.sound = False
        self.course.sound = True

    def checkpoint(self, log: RunLog) -> None:
        """Write a checkpoint unless one of this step exists; never write a diverged agent."""
        periodic, self.course.checkpoint_due = self.course.checkpoint_due, False
        if self.files.has_checkpoint():
            return
        self.parts.learner.settle()
        self.course.seconds = log.seconds
        self.parts.replay.seal()
        self.files.write_checkpoint(self.get_state(), log.marks(), periodic)

    def recover(self, fault: DivergenceError) -> None:
        """Go back to the last checkpoint and continue with half the learning rate, if the settings allow it.

        A run killed after this also resumes from that checkpoint, diverges at the same place and decides the same.
        Later checkpoints keep the count. Checkpoints written on a signal are skipped: an uninterrupted run would not
        have them.

        Raises:
            DivergenceError: rollback is off, did not help, or has no checkpoint to go back to. The agent then has the
                weights of the last checkpoint.
        """
        course, unwatched = self.course, self.parts.counters.steps
        rollbacks, seconds = course.rollbacks + 1, course.seconds
        self.from_checkpoint, _ = self.newest_whole(only_periodic=True)
        course.rollbacks, course.seconds = rollbacks, seconds
        if self.from_checkpoint is None:
            last = "there is no earlier checkpoint"
        else:
            last = f"the last good checkpoint is at step {self.from_checkpoint.steps}"
        wanted = self.config.on_divergence == "rollback"
        if not wanted or self.from_checkpoint is None or rollbacks > MOST_ROLLBACKS:
            again = f"{MOST_ROLLBACKS} rollbacks did not help" if rollbacks > MOST_ROLLBACKS else last
            course.rollbacks = rollbacks - 1
            course.divergence = f"{fault}; {again}; try {TO_TRY}{'' if wanted else ', --on-divergence rollback'}"
            raise DivergenceError(course.divergence) from None
        self.files.go_back_to(self.from_checkpoint)
        counters = self.parts.counters
        rate = self.config.slowed(rollbacks).learning_rate_at(counters.steps, counters.updates)
        self.listener.on_notice(
            f"{fault}; rollback {rollbacks} of at most {MOST_ROLLBACKS}: from step {unwatched} back to step "
            f"{counters.steps}, learning rate {rate:g}"
        )

    def get_state(self) -> State:
        """Return everything that training has changed, except what the replay saves in chunks."""
        return {
            **self.parts.get_state(),
            **self.course.get_state(),
            **below("listeners", self.listener.get_state()),
            **below("doctor", self.doctor.get_state()),
        }

    def restore(self) -> None:
        """Resume from the newest undamaged checkpoint, or start over if nothing was learned yet.

        Raises:
            RunError: there are checkpoints, but all are damaged.
            ConfigError: the run is already past `total_steps`.
        """
        self.from_checkpoint, damage = self.newest_whole()
        if damage and self.from_checkpoint is None:
            raise RunError(f"nothing to resume from: {'; '.join(damage)}")
        if self.from_checkpoint is None:
            self.listener.on_notice("the run was stopped before its first checkpoint, so it starts over")
            return
        steps, end = self.parts.counters.steps, self.config.total_steps
        if damage:
            self.listener.on_notice(f"{'; '.join(damage)}; resuming from step {steps}")
        for text in log_damage(self.files.folder, self.from_checkpoint.logs):
            self.listener.on_notice(f"{text}; the run itself is undamaged and continues")
        for text in version_changes(self.from_checkpoint.versions):
            self.listener.on_notice(text)
        if steps >= end + self.config.num_envs:  # the last vector step may overshoot
            raise ConfigError(f"total_steps = {end}: the run is already at step {steps}")

    def newest_whole(self, only_periodic: bool = False) -> tuple[Checkpoint | None, list[str]]:
        """Restore the newest undamaged checkpoint; return it, and what is wrong with newer ones."""
        damage: list[str] = []
        for steps in self.files.checkpoints.present():
            try:
                checkpoint = read_checkpoint(self.files.folder, steps)
                if checkpoint.periodic or not only_periodic:
                    return self.restored(checkpoint), damage
            except (RunError, ConfigError) as error:
                damage.append(f"checkpoint {steps}: {error}")
        return None, damage

    def restored(self, checkpoint: Checkpoint) -> Checkpoint:
        """Restore everything from a checkpoint and return it.

        Raises:
            RunError: it belongs to another run, or a file is missing, damaged or does not fit the run.
        """
        parts = self.parts
        require_same_run(self.files.about(), checkpoint.about, "it")
        seen = parts.agent.state_shape, parts.state_dtype
        read = checkpoint.read_state(limit=times_as_wide(parts.state_dtype) * parts.most_state_bytes())
        state = narrowed(read, *seen)
        parts.set_state(state)
        self.course.set_state(state)
        if parts.counters.steps != checkpoint.steps:
            raise RunError(f"its folder says step {checkpoint.steps}, its state step {parts.counters.steps}")
        for series in narrowed_series(parts.series(), read, *seen):
            checkpoint.restore_series(series)
        lost = parts.go_on_with_episodes(state)
        if lost:
            self.listener.on_notice(
                f"{parts.name} does not repeat an episode from its seed and actions: {lost} of "
                f"{self.config.num_envs} environments start a new one instead, so the numbers differ from those of an "
                "uninterrupted run"
            )
        self.listener.set_state(part(state, "listeners"))
        self.doctor.set_state(part(state, "doctor"))
        return checkpoint
