"""An update on a GPU as one CUDA graph, from the draw of a batch to its new priorities.

The loop asks a replay for a batch, lets the agent learn from it, and gives its rows new priorities. Where the replay is
on the device as well, all three are one function of tensors. It is recorded once and then launched as a whole:
an update takes only random numbers and the step size from the host.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from nexus.core.types import Array, Batch, Outcome, Transitions
from nexus.data.replay import Replay
from nexus.models.graph import Captured, Recorder, record
from nexus.models.rl.dqn.learner import Learner
from nexus.models.rl.dqn.learner_state import changes, flat, generators, unflat

__all__ = ["BatchToCome", "WholeUpdate"]


class BatchToCome(Mapping[str, Tensor]):
    """A batch that its update draws; readable after that, until one of its rows is overwritten.

    Args:
        replay: the replay it is drawn from.
        draws: random numbers `[B]` for the draw, on the host.
    """

    def __init__(self, replay: Replay, draws: Tensor) -> None:
        self.draws = draws
        self.indices = self.weights = torch.empty(0)  # [B], set when drawn
        self._replay = replay

    def __getitem__(self, name: str) -> Tensor:
        return self.indices if name == "indices" else self._gathered()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._gathered())

    def __len__(self) -> int:
        return len(self._gathered())

    def _gathered(self) -> dict[str, Tensor]:
        return self._replay.gather(self.indices, self.weights)


class WholeUpdate:
    """The updates of a learner from a replay on its device, each recorded as a whole. Replaces the replay in the loop.

    Calls outside an update are forwarded to the replay. `learn` draws and learns the batch that `sample` returns.

    Args:
        learner: the learner to update.
        replay: the replay it learns from.
        recorder: records a function as a CUDA graph.
    """

    def __init__(self, learner: Learner, replay: Replay, recorder: Recorder = record) -> None:
        self.learner = learner
        self.replay = replay
        self._captured: Captured[Any] = Captured(
            self._whole,
            list(generators(learner).values()),
            lambda: {**changes(learner), **replay.changes},
            recorder,
            lambda: replay.reads,
        )

    def sample(self, batch_size: int) -> BatchToCome:
        """Return a batch that `learn` will draw."""
        return BatchToCome(self.replay, torch.from_numpy(self.replay.draw(batch_size)))

    def learn(self, batch: Batch) -> Outcome:
        """Draw a batch that `sample` returned, take one optimizer step on it and give its rows new priorities."""
        assert isinstance(batch, BatchToCome)
        draws = batch.draws.to(self.replay.device, non_blocking=True)
        whole = self._captured({"draws": draws}, self.learner.optimizer.param_groups[0]["lr"])
        batch.indices, batch.weights = whole.indices, whole.weights
        return unflat(whole, "indices", "weights")

    def update_priorities(self, indices: Tensor, priorities: Tensor) -> None:
        """Do nothing: `learn` has done it."""

    def _whole(self, inputs: Mapping[str, Tensor], learning_rate: float | Tensor) -> Any:
        indices, weights = self.replay.pick(inputs["draws"])
        outcome = self.learner.step(self.replay.gather(indices, weights), learning_rate)
        self.replay.update_priorities(indices, outcome.priorities)
        return flat(outcome, indices=indices, weights=weights)

    def __len__(self) -> int:
        return len(self.replay)

    def remember(
        self, states: Array, next_states: Array, begins: NDArray[Any], valid: NDArray[Any]
    ) -> tuple[Array, Array]:
        """Store new frames in the replay."""
        return self.replay.remember(states, next_states, begins, valid)

    def add(self, transitions: Transitions) -> None:
        """Store a transition in the replay."""
        self.replay.add(transitions)

    def anneal(self, fraction: float) -> None:
        """Pass the progress of the training, from 0 to 1, to the replay."""
        self.replay.anneal(fraction)
