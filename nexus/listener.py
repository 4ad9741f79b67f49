"""What a run tells: its plan, a listener that watches it, and its result."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gymnasium.spaces import Space

from nexus.core.errors import warn
from nexus.core.period import Period
from nexus.core.state import State, below, part
from nexus.envs.atari import AtariProtocol
from nexus.models.rl.dqn import DQNAgent
from nexus.training import loop
from nexus.training.config import TrainConfig
from nexus.training.evaluation import Evaluation
from nexus.training.logs import EpisodeTracker
from nexus.training.replays import AnyReplay

__all__ = ["Listener", "Listeners", "LiveRun", "Observer", "Plan", "TrainResult", "observe"]


class LiveRun:
    """A run that goes on, as its listeners may use it: they look at the agent and the replay, log, and ask for a stop.

    Args:
        agent: who learns.
        replay: what it learns from.
        counters: how far it has come; they move on.
        notice: shows a line of text as the run's own notices are shown.
    """

    def __init__(
        self, agent: DQNAgent, replay: AnyReplay, counters: loop.Counters, notice: Callable[[str], None]
    ) -> None:
        self.notice = notice
        self.agent = agent
        self.replay = replay
        self.counters = counters
        self.stop_reason: str | None = None
        self._values: dict[str, float] = {}

    def log(self, values: Mapping[str, float]) -> None:
        """Write numbers to `metrics.jsonl` and TensorBoard at this step, under names such as `doctor/dead_units`."""
        self._values |= values

    def stop(self, reason: str) -> None:
        """End the training after this step, as its last step would: with a checkpoint and an evaluation."""
        self.stop_reason = reason

    def take_values(self) -> dict[str, float]:
        """Return what was logged since the last call."""
        values, self._values = self._values, {}
        return values


@dataclass(frozen=True)
class Plan:
    """What a run is about to do."""

    env: str
    preset: str | None
    config: TrainConfig
    agent: DQNAgent
    replay_bytes: int
    run_dir: Path
    first_step: int = 0  # where it goes on, if it was begun before
    seconds: float = 0.0  # that it has taken until there
    rules: AtariProtocol | None = None  # of an Atari game
    live: LiveRun | None = None  # the run itself; None of a plan that was made by hand
    space: Space[Any] | None = None  # of a state, likewise
    lineage: Mapping[str, Any] | None = None  # the run whose weights it started with, as in `run.json`


class Observer(Protocol):
    """Does something after a vector step, or after those that reach a multiple of its period. A listener is one."""

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
    """Watches a run. Every method but one does nothing; a progress bar, a plot or a diagnosis fills those it needs.

    What `on_step` sees, it must not change: training comes to the same bits with and without listeners. `plan.live` of
    `on_start` lets it log numbers and ask for a stop. What `on_step` raises ends the run: `KeyboardInterrupt` as
    Ctrl-C does, after a checkpoint.

    A listener with a memory gives it to checkpoints by `get_state`, as plain values and NumPy arrays by name, and
    takes it back by `set_state` when the run goes on.
    """

    every: Period | None = None  # how often `on_step` is called; None for every vector step

    def on_start(self, plan: Plan) -> None:
        """Called before the first step."""

    def on_step(self, progress: loop.Progress, episodes: EpisodeTracker) -> None:
        """Called after each vector step; it must be quick and must not wait for the device."""

    def on_evaluation_step(self, steps: int, ended: int, episodes: int) -> None:
        """Called after each vector step of an evaluation: how many were taken, and how many episodes have ended."""

    def on_evaluation(self, steps: int, evaluation: Evaluation) -> None:
        """Called after each evaluation."""

    def on_scalars(self, steps: int, values: Mapping[str, float]) -> None:
        """Called with each line of scalars, as `metrics.jsonl` and TensorBoard get it."""

    def on_end(self, status: str) -> None:
        """Called once when the run has ended: `finished`, `interrupted`, `failed` or `diverged`, as in `run.json`."""

    def on_notice(self, text: str) -> None:
        """Called with what the user should know, such as a damaged checkpoint; a Python warning, if not filled."""
        warn(text)

    def get_state(self) -> State:
        """Return what must be known to go on exactly."""
        return {}

    def set_state(self, state: State) -> None:
        """Take back what `get_state` gave; empty where a checkpoint has nothing of this listener."""


class Listeners(Listener):
    """Several listeners as one.

    Args:
        listeners: called in this order. In checkpoints each is known by its class, and by its place among equal ones.
    """

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = listeners

    def on_start(self, plan: Plan) -> None:
        """Tell all."""
        for listener in self.listeners:
            listener.on_start(plan)

    def on_step(self, progress: loop.Progress, episodes: EpisodeTracker) -> None:
        """Tell those whose time has come."""
        observe(self.listeners, progress, episodes)

    def on_evaluation_step(self, steps: int, ended: int, episodes: int) -> None:
        """Tell all."""
        for listener in self.listeners:
            listener.on_evaluation_step(steps, ended, episodes)

    def on_evaluation(self, steps: int, evaluation: Evaluation) -> None:
        """Tell all."""
        for listener in self.listeners:
            listener.on_evaluation(steps, evaluation)

    def on_scalars(self, steps: int, values: Mapping[str, float]) -> None:
        """Tell all."""
        for listener in self.listeners:
            listener.on_scalars(steps, values)

    def on_end(self, status: str) -> None:
        """Tell all."""
        for listener in self.listeners:
            listener.on_end(status)

    def on_notice(self, text: str) -> None:
        """Tell those that have something to do with it; if none has, warn once."""
        told = [listener for listener in self.listeners if type(listener).on_notice is not Listener.on_notice]
        for listener in told:
            listener.on_notice(text)
        if not told:
            super().on_notice(text)

    def get_state(self) -> State:
        """Return what each has to keep, under its name."""
        states = [below(name, listener.get_state()) for name, listener in self._named().items()]
        return {key: value for state in states for key, value in state.items()}

    def set_state(self, state: State) -> None:
        """Give each what is under its name."""
        for name, listener in self._named().items():
            listener.set_state(part(state, name))

    def _named(self) -> dict[str, Listener]:
        kinds = [type(listener).__name__ for listener in self.listeners]
        names = [f"{kind}_{kinds[:place].count(kind)}" for place, kind in enumerate(kinds)]
        return dict(zip(names, self.listeners, strict=True))


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves behind."""

    agent: DQNAgent
    run_dir: Path
    evaluation: Evaluation | None  # of the final weights; None if the run was interrupted, or was to play none
    counters: loop.Counters
    seconds: float
    stopped_by: signal.Signals | None  # SIGINT (Ctrl-C) or SIGTERM
    resumes_from: int | None  # steps of the newest checkpoint
    reached_target: bool = False  # an evaluation reached `target_return`, which ended it
    stop_reason: str | None = None  # what a listener said when it asked for a stop

    @property
    def interrupted(self) -> bool:
        """True if a signal ended it."""
        return self.stopped_by is not None

    @property
    def exit_code(self) -> int:
        """0, or what shells use for the signal."""
        return 0 if self.stopped_by is None else 128 + self.stopped_by
