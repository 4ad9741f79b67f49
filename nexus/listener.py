"""What a run tells: its plan, a listener that watches it, and its result."""

import signal
import warnings
from dataclasses import dataclass
from pathlib import Path

from nexus.envs.atari import AtariProtocol
from nexus.models.rl.dqn import DQNAgent
from nexus.training import loop
from nexus.training.config import TrainConfig
from nexus.training.evaluation import Evaluation
from nexus.training.logs import EpisodeTracker

__all__ = ["Listener", "Plan", "TrainResult"]


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


class Listener:
    """Watches a run. Every method but one does nothing; a progress bar or a plot fills those that it needs.

    What `on_step` raises ends the run: `KeyboardInterrupt` as Ctrl-C does, after a checkpoint.
    """

    def on_start(self, plan: Plan) -> None:
        """Called before the first step."""

    def on_step(self, progress: loop.Progress, episodes: EpisodeTracker) -> None:
        """Called after each vector step; it must be quick and must not wait for the device."""

    def on_evaluation_step(self, steps: int, ended: int, episodes: int) -> None:
        """Called after each vector step of an evaluation: how many were taken, and how many episodes have ended."""

    def on_evaluation(self, steps: int, evaluation: Evaluation) -> None:
        """Called after each evaluation."""

    def on_notice(self, text: str) -> None:
        """Called with what the user should know, such as a damaged checkpoint; a Python warning, if not filled."""
        warnings.warn(text, RuntimeWarning, stacklevel=2)


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves behind."""

    agent: DQNAgent
    run_dir: Path
    evaluation: Evaluation | None  # of the final weights; None if the run was interrupted
    counters: loop.Counters
    seconds: float
    stopped_by: signal.Signals | None  # SIGINT (Ctrl-C) or SIGTERM
    resumes_from: int | None  # steps of the newest checkpoint
    reached_target: bool = False  # an evaluation reached `target_return`, which ended it

    @property
    def interrupted(self) -> bool:
        """True if a signal ended it."""
        return self.stopped_by is not None

    @property
    def exit_code(self) -> int:
        """0, or what shells use for the signal."""
        return 0 if self.stopped_by is None else 128 + self.stopped_by
