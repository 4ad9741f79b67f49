"""Detecting divergence before its weights are saved or evaluated."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
from torch import Tensor, stack

from nexus.core.errors import DivergenceError, RunError
from nexus.core.state import State
from nexus.core.types import Array, Batch, Outcome
from nexus.training.files import write_tensors
from nexus.training.loop import Counters, LearnerProtocol

__all__ = ["BATCH_FILE", "WatchedLearner", "require_finite_state"]

BATCH_FILE = "diverged.safetensors"
WINDOW = 16  # updates between two checks where each check waits for a device


@dataclass(frozen=True, slots=True)
class UncheckedUpdate:
    """An update not checked yet, and its batch."""

    steps: int
    updates: int
    batch: Batch
    loss: Tensor
    norm: Tensor


class WatchedLearner:
    """A learner that checks its updates: a loss or gradient that is not finite ends the training.

    On the CPU, each update is checked before the next. On a device that would make every
    update wait, so they are checked `WINDOW` at a time, and by `settle` before anything is saved or evaluated.

    Args:
        learner: takes the updates.
        counters: the run's counters.
        folder: where to save the batch that caused the divergence.
        at_once: whether to check after each update.
        learn: another way to take an update from a batch; None for the learner's.

    Raises:
        DivergenceError: (`learn`, `settle`) with step, update and batch; the weights are already spoiled by then.
    """

    def __init__(
        self,
        learner: LearnerProtocol,
        counters: Counters,
        folder: Path,
        *,
        at_once: bool,
        learn: Callable[[Batch], Outcome] | None = None,
    ) -> None:
        self.learner = learner
        self.optimizer = learner.optimizer
        self._learn = learner.learn if learn is None else learn
        self.counters = counters
        self.folder = folder
        self.window = 1 if at_once else WINDOW
        self._counted = self._since = 0  # the counters' last number of updates, and those taken since
        self._pending: list[UncheckedUpdate] = []

    def observe(self, states: Array, rewards: Array, begins: Array, valid: Array) -> None:
        """Let the learner see a vector step."""
        self.learner.observe(states, rewards, begins, valid)

    def learn(self, batch: Batch) -> Outcome:
        """Take one optimizer step and check its result."""
        update = self._learn(batch)
        # The counters see a learning thread's updates only when it synchronises.
        self._since = self._since + 1 if self.counters.updates == self._counted else 1
        self._counted = self.counters.updates
        loss, norm = update.loss, update.metrics["grad_norm"]
        if self.window == 1 and isfinite(loss.item()) and isfinite(norm.item()):
            return update
        self._pending.append(UncheckedUpdate(self.counters.steps, self._counted + self._since, batch, loss, norm))
        if len(self._pending) >= self.window:
            self.settle()
        return update

    def update_target_network(self) -> None:
        """Let θ⁻ follow θ."""
        self.learner.update_target_network()

    def settle(self) -> None:
        """Check every update since the last check."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        numbers = stack([number for each in pending for number in (each.loss, each.norm)]).tolist()  # a single wait
        for each, loss, norm in zip(pending, numbers[::2], numbers[1::2], strict=True):
            if not (isfinite(loss) and isfinite(norm)):
                raise DivergenceError(
                    f"diverged at step {each.steps}, update {each.updates}: loss {loss:g}, gradient norm {norm:g}; "
                    f"{self._save(each.batch)}"
                )

    def _save(self, batch: Batch) -> str:
        path = self.folder / BATCH_FILE
        try:
            write_tensors(path, {name: value.numpy(force=True) for name, value in batch.items()})
        except RunError as error:
            return f"its batch could not be saved ({error})"
        return f"its batch was saved in {path}"


def require_finite_state(state: State, steps: int) -> None:
    """Raise `DivergenceError` if an agent's state contains NaN or infinity; checkpoints never may."""
    for name, value in state.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not np.isfinite(value).all():
            raise DivergenceError(f"diverged by step {steps}: {name} contains NaN or infinity")
