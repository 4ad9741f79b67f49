"""What a run does after each vector step: it logs, calls its listeners, evaluates and saves, in this order.

Each is an `Observer` of the loop's `Progress`. `Run.observers` lists them.
"""

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nexus.core.errors import Terminated
from nexus.core.period import Period
from nexus.core.seeding import seed_of
from nexus.core.state import State
from nexus.listener import Listener, LiveRun
from nexus.parts import Parts
from nexus.run_files import RunFiles
from nexus.training.config import TrainConfig
from nexus.training.course import Course
from nexus.training.evaluation import Evaluation, evaluate_policy, long_evaluation
from nexus.training.logs import EpisodeTracker, Rate, RunLog, scalars, stage_scalars
from nexus.training.loop import Progress
from nexus.training.signals import StopRequest

__all__ = ["EpisodeLog", "Evaluations", "ListenerCall", "PeriodicCheckpoint", "ScalarLog"]


@dataclass(frozen=True)
class EpisodeLog:
    """Counts and logs the episodes that ended, and passes on the environments' notices."""

    parts: Parts
    course: Course
    listener: Listener
    log: RunLog
    every: Period | None = None

    def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
        """Write a line per episode."""
        self.log.episodes(progress, episodes.add(progress))
        if progress.step.staged is not None and progress.step.staged.news:
            self.log.scalars(progress.counters.steps, stage_scalars(progress.step.staged))
            for text in progress.step.staged.news:
                self.listener.on_event(progress.counters.steps, text)
        stream = self.parts.stream
        for text in stream.pop_notices():
            self.listener.on_notice(text)
        if stream.cut and not self.course.said_endless:
            self.course.said_endless = True
            self.listener.on_notice(
                f"an episode of {self.parts.name} did not end within {stream.longest:,} steps: it was truncated, "
                "as every later one of this length will be"
            )


class ScalarLog:
    """Writes a line of scalars every `log_every` steps.

    Args:
        parts: the run's parts.
        course: the run's course.
        config: the run's settings, with the learning rate in effect.
        log: the log to write to.
    """

    def __init__(self, parts: Parts, course: Course, config: TrainConfig, log: RunLog) -> None:
        self.parts = parts
        self.course = course
        self.config = config
        self.log = log
        self.every: Period | None = config.log_every
        self.rate = Rate(parts.counters.steps, log.seconds)

    def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
        """Write a line."""
        steps = progress.counters.steps
        per_second, metrics = self.rate.at(steps, self.log.seconds), self.course.last_metrics()
        values = scalars(progress, episodes, self.parts.replay, self.config, per_second, metrics)
        rollbacks, bonus = self.course.rollbacks, self.parts.mean_bonus
        values |= {"train/rollbacks": rollbacks} if rollbacks else {}
        self.log.scalars(steps, values | ({} if bonus is None else {"replay/bonus": bonus}))


@dataclass(frozen=True)
class ListenerCall:
    """Calls a listener, and writes the numbers that it logs; its `KeyboardInterrupt` stops the run as Ctrl-C does."""

    listener: Listener
    live: LiveRun
    stop: StopRequest
    log: RunLog

    @property
    def every(self) -> Period | None:
        """The listener's period."""
        return self.listener.every

    def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
        """Call the listener."""
        try:
            self.listener.on_step(progress, episodes)
        except KeyboardInterrupt as stop:
            self.stop.signal = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        if values := self.live.take_values():
            self.log.scalars(progress.counters.steps, values)


@dataclass(frozen=True)
class Evaluations:
    """Plays the evaluations that are due, logs them, and keeps the weights that scored best."""

    parts: Parts
    files: RunFiles
    course: Course
    listener: Listener
    stop: StopRequest
    log: RunLog

    @property
    def every(self) -> Period | None:
        """From the settings, where None means never; then `on_step` finds nothing to play."""
        return self.parts.config.eval_every

    def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
        """Play the evaluation due now."""
        self.play_due()

    def play_due(self) -> None:
        """Play the evaluation that is due; if a stop was requested, leave it for when the run resumes."""
        course = self.course
        if course.owed is None or self.stop.signal is not None:
            return
        course.evaluation = self.play(course.owed)
        if course.evaluation is not None:
            course.owed = None
            target = self.parts.config.target_return
            course.reached_target = target is not None and course.evaluation.mean >= target

    def play_first(self, lineage: Mapping[str, Any]) -> None:
        """Evaluate the weights of another run before they learn, if evaluations are wanted.

        The episodes are those of their evaluation there: in the same environment the score is the same.
        """
        if self.every is None or self.parts.config.eval_episodes == 0:
            return
        match lineage:
            case {"evaluation_seed": int(seed)} if seed >= 0:
                self.play(0, seed)
            case _:
                self.play(0)

    def play(self, steps: int, seed: int | None = None) -> Evaluation | None:
        """Play greedy episodes on seeds that training never sees, log the result and keep the weights if they are best.

        Args:
            steps: the step to report it at.
            seed: of the episodes; None for those of the evaluations during the training.

        Returns:
            The evaluation, or None if a signal interrupted it.
        """
        self.parts.learner.settle()
        config, alone = self.parts.config, self.parts.one_alone
        under_way = {} if alone is None else self.parts.stream.get_state()
        try:
            evaluation = evaluate_policy(
                self.parts.agent,
                self.parts.spec,
                config.eval_episodes,
                seed=seed_of(config.seed, "evaluation") if seed is None else seed,
                max_episode_steps=config.eval_max_steps,
                num_envs=config.eval_envs,
                # Environments that may hang or die train in processes, so they are evaluated in processes too.
                vectorization="async" if config.vectorization == "async" else "auto",
                step_timeout=config.step_timeout,
                watch=self.watch,
                vector_env=alone,
                statistics=self.parts.statistics(),
            )
        except EvaluationStopped:
            evaluation = None
        if under_way:
            self.bring_back(under_way)
        if evaluation is None:
            return None
        values = {
            "eval/mean_reward": evaluation.mean,
            "eval/std_reward": evaluation.std,
            "eval/mean_ep_length": evaluation.mean_length,
        }
        self.log.scalars(steps, values)
        self.files.offer_best(steps, evaluation)
        self.listener.on_evaluation(steps, evaluation)
        return evaluation

    def watch(self, steps: int, ended: int) -> None:
        """Report the progress of an evaluation, and end it on a signal."""
        config = self.parts.config
        self.listener.on_evaluation_step(steps, ended, config.eval_episodes)
        text = long_evaluation(self.parts.spec, steps, ended, config.eval_episodes, config.eval_max_steps)
        if text is not None:
            self.listener.on_notice(text)
        if self.stop.signal is not None:
            raise EvaluationStopped

    def bring_back(self, under_way: State) -> None:
        """Return to the training episode in a shared environment; warn once if that fails."""
        if self.parts.bring_back(under_way) and not self.course.said_lost:
            self.course.said_lost = True
            self.listener.on_notice(
                f"{self.parts.name} does not repeat an episode from its seed and actions: with one environment for "
                "both, each evaluation ends the current training episode"
            )


@dataclass(frozen=True)
class PeriodicCheckpoint:
    """Saves the run when a checkpoint is due and the run can be resumed exactly from here."""

    course: Course
    save: Callable[[], None]
    every: Period | None = None  # one due at a step that can't be resumed exactly waits for the next that can

    def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
        """Write a checkpoint if one is due."""
        if progress.sound and self.course.checkpoint_due:
            self.save()


class EvaluationStopped(Exception):
    """A signal interrupted an evaluation."""
