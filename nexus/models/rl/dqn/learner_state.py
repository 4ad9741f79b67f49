"""The state of a learner: what it changes and draws from, for saving, restoring and recording."""

from collections import namedtuple
from collections.abc import Callable
from functools import cache
from typing import Any

from torch import Generator, Tensor

from nexus.core.state import State, arrays_of, below, number_from, part, restore_tensors, restore_torch_generator
from nexus.core.types import Batch, Outcome
from nexus.models.graph import Captured, Recorder, record
from nexus.models.normalization import ObservationStatistics, ReturnStatistics
from nexus.models.rl.dqn.dqn import DQNNetwork
from nexus.models.rl.dqn.learner import Learner

__all__ = [
    "CapturedStep",
    "changes",
    "flat",
    "generators",
    "learner_state",
    "networks",
    "restore_learner",
    "statistics",
    "tensors",
    "unflat",
]


def networks(learner: Learner) -> dict[str, DQNNetwork]:
    """Return all networks by name."""
    averaged = {} if learner.average is None else {"averaged_network": learner.average.network}
    return {"q_network": learner.q_network, "target_network": learner.target_network, **averaged}


def generators(learner: Learner) -> dict[str, Generator]:
    """Return the torch generators by name: the one of the layers' noise, and those of the loss."""
    return {"noise": learner.noise, **below("loss", learner.own.generators)}


def statistics(learner: Learner) -> dict[str, ObservationStatistics | ReturnStatistics]:
    """Return the running statistics by name."""
    found = {"observations": learner.observed, "returns": learner.returns}
    return {name: kept for name, kept in found.items() if kept is not None}


def changes(learner: Learner) -> dict[str, Tensor]:
    """Return the tensors an optimizer step changes, by name: θ `[P]`, the moments, and the loss's trainable parts."""
    averaged = {} if learner.average is None else learner.average.changes
    own = below("loss", learner.own.changes)
    return {"theta": learner.theta, **learner.optimizer.state[learner.theta], **averaged, **own}


def tensors(learner: Learner) -> dict[str, Tensor]:
    """Return the tensors that learning changes in place, by name: networks, the optimizer's moments, the loss's parts.

    The layers' noise is not included: acting and learning redraw it before using it.
    """
    weights = {
        key: value for name, net in networks(learner).items() for key, value in below(name, net.state_dict()).items()
    }
    averaged = {} if learner.average is None else learner.average.tensors
    moments = below("optimizer", learner.optimizer.state[learner.theta])
    return {**weights, **moments, **averaged, **below("loss", learner.own.tensors)}


def learner_state(learner: Learner) -> State:
    """Return everything learning changes: tensors, generators, the step size."""
    states = {name: generator.get_state() for name, generator in generators(learner).items()}
    running = {name: kept.get_state() for name, kept in statistics(learner).items()}
    return {
        **arrays_of({**tensors(learner), **below("generators", states)}),
        **{key: value for name, state in running.items() for key, value in below(name, state).items()},
        "learning_rate": learner.optimizer.param_groups[0]["lr"],
    }


def restore_learner(learner: Learner, state: State) -> None:
    """Restore what `learner_state` returned.

    Raises:
        RunError: something is missing, does not fit, or is not finite.
    """
    restore_tensors(tensors(learner), state)
    for name, kept in statistics(learner).items():
        kept.set_state(part(state, name))
    learner.optimizer.param_groups[0]["lr"] = number_from(state, "learning_rate", low=0)
    for name, generator in generators(learner).items():
        restore_torch_generator(generator, state, f"generators.{name}")


class CapturedStep:
    """A learner's `step` as a CUDA graph.

    Args:
        learner: the learner.
        recorder: how to record.
    """

    def __init__(self, learner: Learner, recorder: Recorder = record) -> None:
        self.captured: Captured[Any] = Captured(
            lambda batch, rate: flat(learner.step(batch, rate)),
            list(generators(learner).values()),
            lambda: changes(learner),
            recorder,
        )

    def __call__(self, batch: Batch, learning_rate: float) -> Outcome:
        """Take one step."""
        return unflat(self.captured(batch, learning_rate))


def flat(outcome: Outcome, **more: Tensor) -> Any:
    """Return an outcome, and more tensors, as a named tuple, which a graph can record."""
    values = {**more, "loss": outcome.loss, "priorities": outcome.priorities, **outcome.metrics}
    return kind_of(tuple(values))(*values.values())


@cache
def kind_of(names: tuple[str, ...]) -> Callable[..., Any]:
    """Return the constructor of a named tuple with these names."""
    return namedtuple("Flat", names)


def unflat(values: Any, *others: str) -> Outcome:
    """Return the outcome in such a tuple, without the names in `others`."""
    metrics = values._asdict()
    loss, priorities = metrics.pop("loss"), metrics.pop("priorities")
    return Outcome(loss, priorities, {name: value for name, value in metrics.items() if name not in others})
