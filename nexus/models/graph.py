"""An update as a CUDA graph: recorded once, then launched as one piece instead of a hundred kernels from Python."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from nexus.core.errors import warn

__all__ = ["Captured", "Recorder", "Recording", "record"]

Inputs = Mapping[str, Tensor]
Result = TypeVar("Result", bound=tuple[Any, ...])
WARM_UP = 3  # runs before recording, in which libraries choose kernels and allocate workspaces
DIFFERENCE = 1e-3  # allowed between recorded and eager result due to rounding, relative to the result's norm
# The same for changed tensors. The length of Adam's first step is its step size whatever the gradient's length, so
# rounding may flip the sign of a weight's step where its gradient is almost zero.
CHANGE_DIFFERENCE = 0.1


class Recording(NamedTuple):
    """A recording: how to replay it, and where it leaves its results."""

    replay: Callable[[], None]
    results: Sequence[Tensor]


class Recorder(Protocol):
    """Records a function without arguments; its random draws come from `generators`."""

    def __call__(self, function: Callable[[], Sequence[Tensor]], generators: Sequence[torch.Generator]) -> Recording:
        """Return the recording, not yet replayed."""


def record(function: Callable[[], Sequence[Tensor]], generators: Sequence[torch.Generator]) -> Recording:
    """Record the operations that a function launches on the current CUDA device.

    Raises:
        RuntimeError: it does something a graph can't record, such as waiting for the device.
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
    """A function of named tensors and of numbers, recorded at its first call and replayed from then on.

    The first call also runs the function eagerly and compares. If the two differ, or the function can't be
    recorded, a warning says so and every call runs eagerly; calls with other shapes than the first also run eagerly.

    Args:
        function: takes a dictionary of tensors, followed by numbers, which are tensors `[]` of float32 in the
            recording; returns a named tuple of tensors.
        generators: all generators it draws from.
        changes: returns by name the tensors that it changes in place; nothing else it writes is read later.
            If these are not the recorded tensors (`load_state_dict` of an optimizer makes new ones), the function is
            recorded again.
        recorder: how to record.
        reads: returns by name the other tensors that it reads; if one is replaced, the function is recorded again.
    """

    def __init__(
        self,
        function: Callable[..., Result],
        generators: Sequence[torch.Generator],
        changes: Callable[[], Mapping[str, Tensor]],
        recorder: Recorder = record,
        reads: Callable[[], Mapping[str, Tensor]] = dict,
    ) -> None:
        self._function = function
        self._generators = generators
        self._changes = changes
        self._changed: Mapping[str, Tensor] = {}  # tensors that the recording changes
        self._reads = reads
        self._read: list[tuple[int, torch.Size]] = []  # addresses, so that replaced tensors are not kept alive
        self._recorder = recorder
        self._given: dict[str, Tensor] = {}  # the input memory of the recording
        self._given_numbers: list[Tensor] = []
        self._recording: Recording | None = None
        self._kind: Callable[..., Result]  # makes the named tuple
        self._eager = False

    def __call__(self, inputs: Inputs, *numbers: float) -> Result:
        """Return the function's result, in newly allocated memory."""
        if self._eager:
            return self._function(inputs, *numbers)
        changes, read = self._changes(), [(tensor.data_ptr(), tensor.shape) for tensor in self._reads().values()]
        replaced = read != self._read or any(changes[name] is not tensor for name, tensor in self._changed.items())
        if self._recording is None or replaced:
            self._changed, self._read = changes, read
            return self._first(inputs, *numbers)
        if shapes(inputs) != shapes(self._given):
            return self._function(inputs, *numbers)
        for name, given in self._given.items():
            given.copy_(inputs[name], non_blocking=True)
        for given, number in zip(self._given_numbers, numbers, strict=True):
            given.fill_(number)
        self._recording.replay()
        return self._kept(self._recording.results)

    def _first(self, inputs: Inputs, *numbers: float) -> Result:
        """Run the function, record it, replay it, and compare, all from the same weights with the same random draws."""
        before = self._state()
        expected = self._function(inputs, *numbers)
        after = self._state()
        self._kind = type(expected)._make  # type: ignore[attr-defined]
        try:
            self._given = {name: tensor.clone() for name, tensor in inputs.items()}
            device = next(iter(self._given.values())).device
            self._given_numbers = [torch.tensor(number, dtype=torch.float32, device=device) for number in numbers]
            recording = self._recorder(lambda: self._function(self._given, *self._given_numbers), self._generators)
            self._restore(before)
            recording.replay()
            found = self._kind(recording.results)
            trouble = difference(expected._asdict(), found._asdict(), DIFFERENCE)  # type: ignore[attr-defined]
            trouble = trouble or difference(
                moved(before.tensors, after.tensors), moved(before.tensors, self._changed), CHANGE_DIFFERENCE
            )
        except RuntimeError as error:  # from CUDA, its memory, or something a graph can't record
            trouble = (str(error).splitlines() or [type(error).__name__])[0]
        if trouble is None:
            self._recording = recording
            return self._kept(recording.results)
        warn(f"updates run without a CUDA graph: {trouble}")
        self._eager, self._given, self._recording = True, {}, None
        self._restore(after)
        return expected

    def _kept(self, results: Sequence[Tensor]) -> Result:
        """Return a copy: the next replay overwrites this memory."""
        return self._kind(result.clone() for result in results)

    def _state(self) -> "Moment":
        """Return copies of everything a call changes."""
        tensors = {name: tensor.detach().clone() for name, tensor in self._changed.items()}
        return Moment(tensors, [generator.get_state() for generator in self._generators])

    def _restore(self, moment: "Moment") -> None:
        """Restore everything to a saved moment."""
        with torch.no_grad():
            for name, tensor in self._changed.items():
                tensor.copy_(moment.tensors[name])
        for generator, state in zip(self._generators, moment.draws, strict=True):
            generator.set_state(state)


class Moment(NamedTuple):
    """A copy of everything a function's calls change."""

    tensors: dict[str, Tensor]
    draws: list[Tensor]


def shapes(tensors: Inputs) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Return the properties of inputs that a recording fixes."""
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return how much each tensor changed."""
    return {name: after[name].detach() - tensor for name, tensor in before.items()}


def difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], allowed: float) -> str | None:
    """Return the first tensor that differs by more than the allowed fraction of its norm, or None."""
    for name, one in expected.items():
        size, apart = (torch.linalg.vector_norm(tensor.double()) for tensor in (one, found[name] - one))
        if not apart <= allowed * size + 1e-8:  # written so that NaN is a difference
            return f"its {name} is off by {float(apart / size):.1e} of its norm"
    return None
