"""The unit of a bonus: the size of the errors that it is made of."""

import numpy as np

from nexus.core.state import State, number_from
from nexus.core.types import Array

__all__ = ["ErrorUnit"]


class ErrorUnit:
    """The root mean square of all errors so far, so that a bonus begins at about 1 and fades as errors do."""

    def __init__(self) -> None:
        self._squares, self._count = 0.0, 0

    @property
    def value(self) -> float:
        """The unit, 1 before the first error."""
        return float(np.sqrt(self._squares / self._count)) if self._squares else 1.0

    def follow(self, errors: Array) -> None:
        """Count errors `[K]`."""
        self._squares += float(np.square(errors, dtype=np.float64).sum())
        self._count += len(errors)

    def get_state(self) -> State:
        """Return the sum of squares, and of how many."""
        return {"squares": self._squares, "count": self._count}

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned.

        Raises:
            RunError: something is missing or invalid.
        """
        self._squares = float(number_from(state, "squares", 0))
        self._count = int(number_from(state, "count", 0))
