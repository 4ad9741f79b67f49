"""The statistics that the networks of a bonus normalise observations by."""

from collections.abc import Iterable

from torch import nn

from nexus.core.state import State, below, part
from nexus.core.types import Steps
from nexus.models.normalization import ObservationStatistics
from nexus.models.states import PackedStates, PlainStates

__all__ = ["InputStatistics"]


class InputStatistics:
    """Follows the next states of new steps, where states have numbers to normalise; else it does nothing.

    Args:
        states: how states are read.
        networks: those that normalise by it.
    """

    def __init__(self, states: PlainStates | PackedStates, networks: Iterable[nn.Module]) -> None:
        self._observed = ObservationStatistics(states.numbers, states.normalized) if states.normalized else None
        if self._observed is not None:
            self._observed.feed(networks)

    def follow(self, steps: Steps) -> None:
        """Count the next state of each step."""
        if self._observed is not None:
            self._observed.follow(steps.next_states.numpy(force=True))

    def get_state(self) -> State:
        """Return the moments as `observed`, if there are any."""
        return {} if self._observed is None else below("observed", self._observed.get_state())

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned.

        Raises:
            RunError: something is missing or invalid.
        """
        if self._observed is not None:
            self._observed.set_state(part(state, "observed"))
