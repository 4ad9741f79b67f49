"""A wrapper directly around the environment: it records raw answers before nexus reads or copies them."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from nexus.checking.watch import Watch
from nexus.core.types import Array

__all__ = ["Arrays", "Infos", "Times", "Witness", "arrays_in"]


class Witness(gym.Wrapper[Any, Any, Any, Any]):
    """Passes everything on unchanged, through a watch, and records it.

    Args:
        env: the environment as made.
        watch: tracks the call in progress.
    """

    def __init__(self, env: gym.Env[Any, Any], watch: Watch) -> None:
        super().__init__(env)
        self.watch = watch
        self.resets, self.steps = Times(), Times()
        self.since_reset = 0
        self.records = True  # whether arrays and infos are recorded
        self.answer: Any = None  # the last one; None if the call raised an error
        self.close_error: Exception | None = None
        self.arrays = Arrays()
        self.infos = Infos()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Reset."""
        self.since_reset = 0
        self._call(self.resets, "reset", self.env.reset, seed=seed, options=options)
        return self.answer

    def step(self, action: Any) -> Any:
        """Step."""
        self.since_reset += 1
        self._call(self.steps, "step", self.env.step, action)
        return self.answer

    def close(self) -> None:
        """Close."""
        try:
            self.watch.call("close", self.env.close)
        except Exception as error:
            self.close_error = error
            raise

    def _call(self, times: "Times", name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        self.answer = None
        doing = name if name == "reset" else f"step {self.since_reset} of an episode"
        begun = time.perf_counter()
        answer = self.watch.call(doing, function, *arguments, **options)
        times.add(time.perf_counter() - begun)
        self.answer = answer
        if self.records and isinstance(answer, tuple | list) and len(answer) in (2, 5):
            self.arrays.add(answer[0])
            self.infos.add(answer[-1])


class Times:
    """The number of calls and their total time."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = 0.0
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        """Count a call."""
        self.calls += 1
        self.seconds += seconds
        self.longest = max(self.longest, seconds)

    @property
    def mean(self) -> float:
        """Mean seconds of a call; 0 without calls."""
        return self.seconds / self.calls if self.calls else 0.0


class Arrays:
    """Whether the environment changes arrays that it has already returned."""

    def __init__(self) -> None:
        self.changed = 0  # observations that the next call overwrote
        self.last: list[Array] = []
        self._before: list[bytes] = []

    def add(self, observation: Any) -> None:
        """Check the last observation for changes, and record this one."""
        self.changed += any(array.tobytes() != before for array, before in zip(self.last, self._before, strict=True))
        self.last = list(arrays_in(observation))
        self._before = [array.tobytes() for array in self.last]


def arrays_in(observation: Any) -> Iterator[Array]:
    """Yield the arrays of an observation."""
    match observation:
        case np.ndarray() if observation.dtype != object:
            yield observation
        case Mapping():
            for part in observation.values():
                yield from arrays_in(part)
        case tuple() | list():
            for part in observation:
                yield from arrays_in(part)


class Infos:
    """The forms of each info entry."""

    def __init__(self) -> None:
        self.forms: dict[str, set[str]] = {}

    def add(self, info: Any) -> None:
        """Record the forms of one info."""
        for key, value in info.items() if isinstance(info, Mapping) else ():
            self.forms.setdefault(str(key), set()).add(kind_and_shape(value))

    @property
    def changing(self) -> dict[str, list[str]]:
        """The entries with several forms."""
        return {key: sorted(forms) for key, forms in self.forms.items() if len(forms) > 1}


def kind_and_shape(value: Any) -> str:
    """Return the type and shape of an info entry."""
    match value:
        case None:
            return "None"
        case bool() | int() | float() | np.generic():
            return "a number"
        case np.ndarray():
            return f"an array {list(value.shape)}"
        case list() | tuple():
            return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
