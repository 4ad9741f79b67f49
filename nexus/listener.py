"""What a run reports: its plan, its events to a listener, and its result."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gymnasium.spaces import Space

from nexus.core.errors import warn
from nexus.core.period import Period
from nexus.core.state import State, below, part
from nexus.doctor.symptom import Symptom
from nexus.envs.atari import AtariProtocol
from nexus.models.rl.dqn import DQNAgent
from nexus.training import loop
from nexus.training.config import TrainConfig
from nexus.training.evaluation import Evaluation
from nexus.training.logs import EpisodeTracker
from nexus.training.replays import AnyReplay

__all__ = ["Listener", "Listeners", "LiveRun", "Observer", "Plan", "TrainResult", "observe"]


class LiveRun:
    """A run in progress, for its listeners: they can read the agent and the replay, log numbers, and request a stop.

    Args:
        agent: the agent in training.
        replay: the replay it learns from.
        counters: steps, episodes and updates so far; they change as the run proceeds.
        notice: shows a line of text like one of the run's notices.
    """

    def __init__(
        self, agent: DQNAgent, replay: AnyReplay, counters: loop.Counters, notice: Callable[[str], None]
    ) -> None:
        self.notice = notice
        self.agent = agent
        self.replay = replay
        self.counters = counters
        self.stop_reason: str | None = None
        self.symptoms: tuple[Symptom, ...] = ()  # what the doctor found last; none in a run too short to learn
        self._values: dict[str, float] = {}

    def log(self, values: Mapping[str, float]) -> None:
        """Write numbers to `metrics.jsonl` and TensorBoard at this step, under names such as `doctor/dead_units`."""
        self._values |= values

    def stop(self, reason: str) -> None:
        """End the training after this step as if it were the last: with a checkpoint and an evaluation."""
        self.stop_reason = reason

    def take_values(self) -> dict[str, float]:
        """Return what was logged since the last call."""
        values, self._values = self._values, {}
        return values


@dataclass(frozen=True)
class Plan:
    """The plan of a run: its settings, its parts and where it starts."""

    env: str
    preset: str | None
    config: TrainConfig
    agent: DQNAgent
    replay_bytes: int
    run_dir: Path
    first_step: int = 0  # step at which the run resumes
    seconds: float = 0.0  # training time before that step
    rules: AtariProtocol | None = None  # of an Atari game
    live: LiveRun | None = None  # the run itself; None for a plan made by hand
    space: Space[Any] | None = None  # observation space of a state; None likewise
    lineage: Mapping[str, Any] | None = None  # the run whose weights it started with, as in `run.json`


class Observer(Protocol):
    """Called after every vector step, or after those that reach a multiple of its period. A listener is one."""

    @property
    def every(self) -> Period | None:
        """How often it is called; None for every vector step."""

    def on_step(self, progress: loop.Progress, episodes: EpisodeTracker) -> None:
        """Called after a vector step."""


def observe(observers: Sequence[Observer], progress: loop.Progress, episodes: EpisodeTracker) -> None:
    """Call each observer whose period ends with this step, in order."""
    for observer in observers:
        if observer.every is None or progress.due(observer.every):
            observer.on_step(progress, episodes)


class Listener:
    """Observes a run. By default only `on_notice` does anything; implement the methods you need.

    `on_step` must not change what it sees: training gives the same bits with and without listeners. `plan.live` in
    `on_start` lets it log numbers and request a stop. An exception from `on_step` ends the run;
    `KeyboardInterrupt` does so like Ctrl-C, after a checkpoint.

    A listener with state returns it from `get_state` for checkpoints, as plain values and NumPy arrays by name, and
    gets it back in `set_state` when the run resumes.
    """

    every: Period | None = None  # how often `on_step` is called; None for every vector step

    def on_start(self, plan: Plan) -> None:
        """Called before the first step."""

    def on_step(self, progress: loop.Progress, episodes: EpisodeTracker) -> None:
        """Called after each vector step; it must be quick and must not wait for the device."""

    def on_evaluation_step(self, steps: int, ended: int, episodes: int) -> None:
        """Called after each vector step of an evaluation: the steps taken and the episodes ended so far."""

    def on_evaluation(self, steps: int, evaluation: Evaluation) -> None:
        """Called after each evaluation."""

    def on_scalars(self, steps: int, values: Mapping[str, float]) -> None:
        """Called with each line of scalars, as written to `metrics.jsonl` and TensorBoard."""

    def on_event(self, steps: int, text: str) -> None:
        """Called with a line on something expected that happened, such as a curriculum's change of stage."""

    def on_end(self, status: str) -> None:
        """Called once when the run has ended: `finished`, `interrupted`, `failed` or `diverged`, as in `run.json`."""

    def on_notice(self, text: str) -> None:
        """Called with something the user should know, such as a damaged checkpoint; by default warns in Python."""
        warn(text)

    def get_state(self) -> State:
        """Return the state needed to resume exactly."""
        return {}

    def set_state(self, state: State) -> None:
        """Restore the result of `get_state`; empty if the checkpoint has none for this listener."""


class Listeners(Listener):
    """Several listeners as one.

    Args:
        listeners: called in this order. Checkpoints identify each by class, and by position within a class.
    """

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = listeners

    def on_start(self, plan: Plan) -> None:
        """Call all."""
        for listener in self.listeners:
            listener.on_start(plan)

    def on_step(self, progress: loop.Progress, episodes: EpisodeTracker) -> None:
        """Call those whose period ends with this step."""
        observe(self.listeners, progress, episodes)

    def on_evaluation_step(self, steps: int, ended: int, episodes: int) -> None:
        """Call all."""
        for listener in self.listeners:
            listener.on_evaluation_step(steps, ended, episodes)

    def on_evaluation(self, steps: int, evaluation: Evaluation) -> None:
        """Call all."""
        for listener in self.listeners:
            listener.on_evaluation(steps, evaluation)

    def on_scalars(self, steps: int, values: Mapping[str, float]) -> None:
        """Call all."""
        for listener in self.listeners:
            listener.on_scalars(steps, values)

    def on_event(self, steps: int, text: str) -> None:
        """Call all."""
        for listener in self.listeners:
            listener.on_event(steps, text)

    def on_end(self, status: str) -> None:
        """Call all."""
        for listener in self.listeners:
            listener.on_end(status)

    def on_notice(self, text: str) -> None:
        """Call those that implement it; if none does, warn once."""
        told = [listener for listener in self.listeners if type(listener).on_notice is not Listener.on_notice]
        for listener in told:
            listener.on_notice(text)
        if not told:
            super().on_notice(text)

    def get_state(self) -> State:
        """Return each listener's state, under its name."""
        states = [below(name, listener.get_state()) for name, listener in self._named().items()]
        return {key: value for state in states for key, value in state.items()}

    def set_state(self, state: State) -> None:
        """Pass each listener the state under its name."""
        for name, listener in self._named().items():
            listener.set_state(part(state, name))

    def _named(self) -> dict[str, Listener]:
        kinds = [type(listener).__name__ for listener in self.listeners]
        names = [f"{kind}_{kinds[:place].count(kind)}" for place, kind in enumerate(kinds)]
        return dict(zip(names, self.listeners, strict=True))


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a run."""

    agent: DQNAgent
    run_dir: Path
    evaluation: Evaluation | None  # of the final weights; None if the run was interrupted or `eval_episodes` is 0
    counters: loop.Counters
    seconds: float
    stopped_by: signal.Signals | None  # SIGINT (Ctrl-C) or SIGTERM
    resumes_from: int | None  # steps of the newest checkpoint
    reached_target: bool = False  # an evaluation reached `target_return`, which ended it
    stop_reason: str | None = None  # the reason a listener gave for its stop request

    @property
    def interrupted(self) -> bool:
        """True if a signal ended it."""
        return self.stopped_by is not None

    @property
    def exit_code(self) -> int:
        """0, or the shell's exit code for the signal."""
        return 0 if self.stopped_by is None else 128 + self.stopped_by

    def _repr_html_(self) -> str:
        """Return it as a notebook shows it: a curve, the score and the folder."""
        from nexus.cli.notebook import result_html

        return result_html(self)
