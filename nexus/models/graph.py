"""An update as a CUDA graph: recorded once, then launched as one piece, where Python would launch a hundred kernels."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

__all__ = ["Captured", "Recorder", "Recording", "record"]

Inputs = Mapping[str, Tensor]
Result = TypeVar("Result", bound=tuple[Any, ...])
WARM_UP = 3  # runs before recording, in which libraries choose their kernels and make their workspaces
DIFFERENCE = 1e-3  # between record and eager result that rounding explains, of the result's norm


class Recording(NamedTuple):
    """What was recorded: how to run it again, and where it leaves its results."""

    replay: Callable[[], None]
    results: Sequence[Tensor]


class Recorder(Protocol):
    """Records a function without arguments; what it draws comes from `generators`."""

    def __call__(self, function: Callable[[], Sequence[Tensor]], generators: Sequence[torch.Generator]) -> Recording:
        """Return the recording; it has not been replayed yet."""


def record(function: Callable[[], Sequence[Tensor]], generators: Sequence[torch.Generator]) -> Recording:
    """Record what a function launches on the current CUDA device.

    Raises:
        RuntimeError: it does what a graph can't hold, such as waiting for the device.
    """
    side, main = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
    side.wait_stream(main)
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            function()
    main.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        results = function()
    return Recording(graph.replay, results)


class Captured(Generic[Result]):
    """A function of named tensors that is recorded at its first call and replayed from then on.

    The first call runs the function as it is, too, and compares. Where the two differ, or the function can't be
    recorded, a warning says so and every call runs it as it is; so does a call with other shapes than the first.

    Args:
        function: takes a dictionary of tensors and returns a named tuple of tensors; it changes nothing but the
            state of its generators.
        generators: all that it draws from.
        recorder: how to record.
    """

    def __init__(
        self,
        function: Callable[[Inputs], Result],
        generators: Sequence[torch.Generator] = (),
        recorder: Recorder = record,
    ) -> None:
        self._function = function
        self._generators = generators
        self._recorder = recorder
        self._given: dict[str, Tensor] = {}  # the memory that the recording reads
        self._recording: Recording | None = None
        self._kind: Callable[..., Result]  # makes the named tuple
        self._eager = False

    def __call__(self, inputs: Inputs) -> Result:
        """Return the function's result, in memory of its own."""
        if self._eager:
            return self._function(inputs)
        if self._recording is None:
            return self._first(inputs)
        if shapes(inputs) != shapes(self._given):
            return self._function(inputs)
        for name, given in self._given.items():
            given.copy_(inputs[name], non_blocking=True)
        self._recording.replay()
        return self._kept(self._recording.results)

    def _first(self, inputs: Inputs) -> Result:
        """Run the function, record it, replay it, and compare, all with the same draws."""
        before = [generator.get_state() for generator in self._generators]
        expected = self._function(inputs)
        after = [generator.get_state() for generator in self._generators]
        self._kind = type(expected)._make  # type: ignore[attr-defined]
        try:
            self._given = {name: tensor.clone() for name, tensor in inputs.items()}
            recording = self._recorder(lambda: self._function(self._given), self._generators)
            restore(self._generators, before)
            recording.replay()
            trouble = difference(expected, recording.results)
        except RuntimeError as error:  # of CUDA, of its memory, or of what a graph can't hold
            trouble = (str(error).splitlines() or [type(error).__name__])[0]
        if trouble is None:
            self._recording = recording
            return self._kept(recording.results)
        warnings.warn(f"updates run without a CUDA graph: {trouble}", RuntimeWarning, stacklevel=4)
        self._eager, self._given = True, {}
        restore(self._generators, after)
        return expected

    def _kept(self, results: Sequence[Tensor]) -> Result:
        """Return a copy: the next replay writes where this one did."""
        return self._kind(result.clone() for result in results)


def shapes(tensors: Inputs) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Return what a recording can't change about its inputs."""
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def restore(generators: Sequence[torch.Generator], states: Sequence[Tensor]) -> None:
    """Give generators their states back."""
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)


def difference(expected: Sequence[Tensor], found: Sequence[Tensor]) -> str | None:
    """Return what differs by more than rounding, or None."""
    for name, one, other in zip(getattr(expected, "_fields", range(len(expected))), expected, found, strict=True):
        apart, size = torch.linalg.vector_norm(other - one), torch.linalg.vector_norm(one)
        if not apart <= DIFFERENCE * size + 1e-8:  # written so that NaN is a difference
            return f"its {name} is off by {float(apart / size):.1e} of its norm"
    return None
