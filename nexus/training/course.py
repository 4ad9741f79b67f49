"""The history of a run, in addition to its counters."""

from dataclasses import dataclass, field

from nexus.core.state import State, count_from, number_from, value_from
from nexus.core.types import Outcome
from nexus.training.config import TrainConfig
from nexus.training.evaluation import Evaluation
from nexus.training.loop import Progress

__all__ = ["MOST_ROLLBACKS", "Course"]

MOST_ROLLBACKS = 5  # the learning rate is then 1/32 of the original, so it is not the cause


@dataclass
class Course:
    """The run's own state: one part is saved in checkpoints, the other exists only in this process."""

    seconds: float = 0.0
    rollbacks: int = 0  # each halves the learning rate
    reached_target: bool = False
    evaluation: Evaluation | None = None  # of the current weights
    owed: int | None = None  # the step of an evaluation that is due but not completed
    metrics: dict[str, float] = field(default_factory=dict)  # of the last update, as numbers

    update: Outcome | None = None  # the last one in this process; from here down, nothing is saved
    sound: bool = True  # a checkpoint saved now would resume exactly
    checkpoint_due: bool = False
    said_endless: bool = False  # notices that are given once
    said_lost: bool = False
    divergence: str | None = None  # the divergence that ended the run, if any

    def note(self, progress: Progress, config: TrainConfig) -> None:
        """Record a vector step: the weights have no score yet, and an evaluation or a checkpoint may be due.

        Runs before the observers: if one of them fails, a checkpoint still knows what is due.
        """
        self.evaluation = None
        self.update = self.update if progress.update is None else progress.update
        if progress.due(config.eval_every):
            self.owed = progress.counters.steps
        self.checkpoint_due |= progress.due(config.checkpoint_every)

    def last_metrics(self) -> dict[str, float]:
        """Return the metrics of the last update as numbers, which waits for the device."""
        if self.update is not None:
            self.metrics = {name: float(value) for name, value in self.update.items()}
        return self.metrics

    def get_state(self) -> State:
        """Return the part saved in checkpoints."""
        return {
            "metrics": self.last_metrics(),
            "seconds": self.seconds,
            "rollbacks": self.rollbacks,
            "reached_target": self.reached_target,
            "evaluation": None if self.evaluation is None else self.evaluation.to_mapping(),
            "owed": self.owed,
        }

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned; older runs lack some of it.

        Raises:
            RunError: something is missing or does not fit.
        """
        self.seconds = number_from(state, "seconds", low=0)
        self.rollbacks = int(number_from({"rollbacks": 0, **state}, "rollbacks", 0, MOST_ROLLBACKS))
        self.reached_target = value_from(state, "reached_target", bool)
        saved = state.get("evaluation")
        self.evaluation = None if saved is None else Evaluation.from_mapping(saved)
        self.owed = None if state.get("owed") is None else count_from(state, "owed")
        metrics = value_from({"metrics": {}, **state}, "metrics", dict)
        self.metrics, self.update = {name: number_from(metrics, name) for name in metrics}, None
        self.checkpoint_due = False
