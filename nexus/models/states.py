"""The states of an agent: reading them from observations, and making the torso for them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor, nn

from nexus.core import AgentConfig, ConfigError
from nexus.core.packing import PART_DTYPES, Layout, Part, Path, find, place
from nexus.core.types import Array
from nexus.models.layers import Bounds, ValueRange
from nexus.models.setup import pop_bounds, pop_normalized, pop_scale, shape_in
from nexus.models.torsos import make_torso, torso_of
from nexus.models.unpacking import AS_THEY_ARE, Entry, make_unpacking_torso, torsos_of_parts

__all__ = ["PackedStates", "PlainStates", "Reading", "States", "pop_states"]

FOR_TORCH: tuple[Literal["C", "W"], ...] = ("C", "W")  # torch's requirements for an array whose memory it shares


class States(Protocol):
    """The description of states in an agent's config."""

    @property
    def widest(self) -> tuple[int, ...]:
        """The shape of the part with the most dimensions."""

    @property
    def composition(self) -> tuple[int, ...] | Layout:
        """The composition of a state: its shape, or the layout of its parts."""

    def read(self, given: Any, many: bool = True) -> Array:
        """Return observations as states for the network: one `[*obs]`, or many `[E, *obs]`.

        Args:
            given: observations or states.
            many: whether a batch is allowed.

        Raises:
            ConfigError: they are not such observations; the message says what would fit.
        """

    def masks(self, given: Any) -> Any:
        """Return the legal actions contained in an observation, or None."""

    def numbers(self, states: Array) -> Array:
        """Return the numbers `[K, D]` of states `[K, *obs]` that the torso normalises, in its order."""

    @property
    def normalized(self) -> int:
        """How many numbers of a state are normalised by running statistics: `D`, 0 for none."""

    def torso(self, settings: AgentConfig) -> tuple[nn.Module, int]:
        """Return the torso that the settings describe, and its number of features `D`.

        Raises:
            ConfigError: it can't handle such states, or a setting does not apply to it.
        """

    def torsos(self, settings: AgentConfig) -> list[str]:
        """Return the names of the torsos it consists of.

        Raises:
            ConfigError: as in `torso`.
        """

    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Reading:
    """How observed numbers become a state, or a part of one.

    Args:
        shape: shape of the state.
        name: name of the observation in errors.
        observed: shape of an observation; None for that of the state.
        starts: the first value of each observed whole number that becomes a one-hot vector; else empty.
        sizes: the number of values of each.
        dtype: dtype of the state; None keeps bytes, and makes everything else float32.
    """

    shape: tuple[int, ...]
    name: str = "observation"
    observed: tuple[int, ...] | None = None
    starts: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    dtype: str | None = None

    @property
    def is_part(self) -> bool:
        """Whether this is a part of packed states; callers can only pass such a part as observed."""
        return self.dtype is not None

    def read(self, given: Any, many: bool) -> Array:
        """Return `[*shape]`, or `[E, *shape]` if a batch is allowed.

        Accepts numbers of any type, and lists of them. For a one-hot state, the observed numbers are accepted
        as well as the state itself.

        Raises:
            ConfigError: these are not numbers, not finite, or of another shape; the message says what would fit.
        """
        numbers = numeric_array(given, self.wanted, self.name)
        if self.observed is not None and fits_shape(numbers.shape, self.observed, many):
            batch = numbers.shape[: numbers.ndim - len(self.observed)]
            if self.sizes and numbers.dtype.kind in "iu":
                numbers = self._one_hot(numbers.reshape((*batch, len(self.sizes))))
            elif not self.sizes and (self.is_part or not fits_shape(numbers.shape, self.shape, many)):
                numbers = numbers.reshape((*batch, *self.shape))
        if not fits_shape(numbers.shape, self.shape, many):
            raise ConfigError(self._misfit(numbers.shape, many))
        return self._stored(numbers)

    @property
    def wanted(self) -> tuple[int, ...]:
        """The shape that errors ask for: that of the observed numbers, or of one-hot vectors."""
        return self.shape if self.sizes or self.observed is None else self.observed

    def _stored(self, numbers: Array) -> Array:
        """Return numbers in the dtype of the state."""
        dtype = self.dtype or ("uint8" if numbers.dtype == np.uint8 else "float32")
        if dtype == "uint8" and numbers.dtype.kind == "f":
            raise ConfigError(
                f"{self.name} has dtype {numbers.dtype}: needs bytes from 0 to 255, as from the environment"
            )
        with np.errstate(all="ignore"):  # values beyond float32 become infinite
            states: Array = np.require(numbers, dtype, FOR_TORCH)
        if dtype == "float32":
            if not np.isfinite(states).all():
                raise ConfigError(f"{self.name} contains {states[~np.isfinite(states)][0]}: needs finite numbers")
        elif states.dtype != numbers.dtype and (states != numbers).any():
            raise ConfigError(f"{self.name} contains {numbers[states != numbers][0]}: {dtype} can't represent it")
        return states

    def _one_hot(self, numbers: Array) -> Array:
        """Return `[..., *shape]` float32 of numbers `[..., n]`, with a 1 at each number's position.

        Raises:
            ConfigError: a number is out of range.
        """
        starts, sizes = np.array(self.starts), np.array(self.sizes)
        places = numbers.astype(np.int64) - starts
        astray = (places < 0) | (places >= sizes)
        if astray.any():
            where = tuple(np.argwhere(astray)[0])
            low, high = starts[where[-1]], starts[where[-1]] + sizes[where[-1]] - 1
            raise ConfigError(f"{self.name} {numbers[where]}: needs a whole number from {low} to {high}")
        states = np.zeros((*numbers.shape[:-1], *self.shape), np.float32)
        np.put_along_axis(states, places + np.cumsum(sizes) - sizes, 1, -1)
        return states

    def _misfit(self, given: tuple[int, ...], many: bool) -> str:
        """Return a message that an observation has the wrong shape, and what would fit."""
        shape = self.wanted
        said = f"{self.name} of shape {given}: needs {shape}"
        if many:
            said += f", or {('E', *shape)} for E of them".replace("'E'", "E")
        elif given[1:] == shape:
            return f"{said}; use predict for many"
        if self.sizes and not self.observed:
            said += f", or whole numbers from {self.starts[0]} to {self.starts[0] + self.sizes[0] - 1}"
        elif self.sizes:
            said += f", or whole numbers of shape {self.observed}"
        return said + shape_hint(given, shape)


@dataclass(frozen=True)
class PlainStates:
    """States that are single arrays.

    Args:
        reading: how they are read.
        bounds: bounds of each number of a state, to map them to [-1, 1].
        span: bounds of all numbers, to map them to [0, 1].
        path: their path in a Dict observation that also has the legal actions.
        mask: the entry with the legal actions.
        is_normalized: whether its numbers are normalised by running statistics, instead of bounds or span.
    """

    reading: Reading
    bounds: Bounds | None = None
    span: ValueRange | None = None
    path: Path = ()
    mask: str | None = None
    is_normalized: bool = False

    @property
    def widest(self) -> tuple[int, ...]:
        """The shape of a state."""
        return self.reading.shape

    @property
    def composition(self) -> tuple[int, ...]:
        """The shape of a state."""
        return self.reading.shape

    def read(self, given: Any, many: bool = True) -> Array:
        """Return one state or many, as `Reading.read` does."""
        require_no_answer(given)
        return self.reading.read(at(given, self.path) if isinstance(given, Mapping) and self.path else given, many)

    def masks(self, given: Any) -> Any:
        """Return the legal actions in the observation."""
        return mask_entry(given, self.mask)

    def numbers(self, states: Array) -> Array:
        """Return all numbers of each state `[K, *obs] -> [K, D]`."""
        return states.reshape(len(states), -1)

    @property
    def normalized(self) -> int:
        """All or none."""
        return math.prod(self.reading.shape) if self.is_normalized else 0

    def torso(self, settings: AgentConfig) -> tuple[nn.Module, int]:
        """Return the torso and its features, as `make_torso` does."""
        span = AS_THEY_ARE if self.is_normalized else self.span
        return make_torso(settings, self.reading.shape, self.bounds, span, self.normalized)

    def torsos(self, settings: AgentConfig) -> list[str]:
        """Return the name of the torso."""
        return [torso_of(settings, self.reading.shape)]

    def __str__(self) -> str:
        return sides(self.reading.shape)


@dataclass(frozen=True)
class PackedStates:
    """States that are rows of bytes with several parts.

    Args:
        layout: layout of a row.
        readings: how each part is read.
        entries: the parts and their scaling.
        mask: the entry of an observation with the legal actions.
    """

    layout: Layout
    readings: tuple[Reading, ...]
    entries: tuple[Entry, ...] = field(repr=False)
    mask: str | None = None

    @property
    def widest(self) -> tuple[int, ...]:
        """The shape of the part with the most dimensions."""
        return max((part.shape for part in self.layout.parts), key=len)

    @property
    def composition(self) -> Layout:
        """The layout."""
        return self.layout

    def read(self, given: Any, many: bool = True) -> Array:
        """Return `[N]` uint8 of one observation, or `[E, N]` of one whose parts have a leading axis E."""
        if isinstance(given, np.ndarray | Tensor) and numeric_array(given, self.shape).dtype == np.uint8:
            return Reading(self.shape).read(given, many)
        if isinstance(self.layout.parts[0].path[0], str):
            require_no_answer(given)
        parts = self.layout.parts
        values = [reading.read(at(given, part.path), many) for part, reading in zip(parts, self.readings, strict=True)]
        batches = [value.shape[: value.ndim - len(part.shape)] for part, value in zip(parts, values, strict=True)]
        for part, batch in zip(parts, batches, strict=True):
            if batch != batches[0]:
                counts = f"{count_of(batch)} in {place(part.path)} and {count_of(batches[0])} in {place(parts[0].path)}"
                raise ConfigError(f"observation has {counts}: needs the same number in each part")
        return self.layout.pack(values)

    @property
    def shape(self) -> tuple[int, ...]:
        """The layout of a row."""
        return (self.layout.nbytes,)

    def masks(self, given: Any) -> Any:
        """Return the legal actions in the observation."""
        return mask_entry(given, self.mask)

    def numbers(self, states: Array) -> Array:
        """Return the numbers of all parts that are normalised `[K, N] -> [K, D]`."""
        normalized = [entry for entry in self.entries if entry.normalized]
        parts = [np.ascontiguousarray(states[:, entry.where]).view(entry.part.dtype) for entry in normalized]
        return np.concatenate([part.astype(np.float64) for part in parts], 1)

    @property
    def normalized(self) -> int:
        """The numbers of those parts."""
        return sum(entry.part.count for entry in self.entries if entry.normalized)

    def torso(self, settings: AgentConfig) -> tuple[nn.Module, int]:
        """Return the torso and its features, as `make_unpacking_torso` does."""
        return make_unpacking_torso(settings, self.entries)

    def torsos(self, settings: AgentConfig) -> list[str]:
        """Return the names of the torsos of all parts, each once."""
        return list(dict.fromkeys(torsos_of_parts(settings, self.layout.parts)))

    def __str__(self) -> str:
        return " + ".join(sides(part.shape) for part in self.layout.parts)


def pop_states(settings: dict[str, Any], state_shape: tuple[int, ...]) -> PlainStates | PackedStates:
    """Pop the description of states from an agent's config.

    Args:
        settings: the config, changed in place.
        state_shape: shape of a state.

    Raises:
        ConfigError: an entry is impossible.
    """
    parts, mask = settings.pop("state_parts", None), settings.pop("mask_entry", None)
    if not isinstance(mask, str | None):
        raise ConfigError(f"mask_entry = {mask!r}: needs text")
    if parts is not None:
        return packed_states(parts, state_shape, mask)
    bounds = pop_bounds(settings, state_shape)
    span = pop_scale(settings, bounds)
    path, normalized = pop_path(settings), pop_normalized(settings, bounds)
    reading = Reading(state_shape, **pop_reading(settings, state_shape))
    return PlainStates(reading, bounds, span, path, mask, normalized)


def packed_states(parts: Any, state_shape: tuple[int, ...], mask: str | None) -> PackedStates:
    """Return states with these parts, each described like a single state, plus its path in observations and dtype.

    Raises:
        ConfigError: an entry is impossible, or the parts' length differs from a state's.
    """
    if not isinstance(parts, list | tuple) or not all(isinstance(part, Mapping) for part in parts) or not parts:
        raise ConfigError(f"state_parts = {parts!r}: needs a list of mappings")
    found = []
    for entries in map(dict, parts):
        path, shape, dtype = pop_path(entries), shape_in(entries.pop("state_dim", None)), entries.pop("dtype", None)
        if not path or dtype not in PART_DTYPES or min(shape, default=1) < 1:
            raise ConfigError(
                f"state_parts has {place(path)} of dtype {dtype!r} and shape {shape}: needs a path, one of "
                f"{', '.join(PART_DTYPES)}, and sizes of at least 1"
            )
        bounds = pop_bounds(entries, shape)
        scaled = bounds, pop_scale(entries, bounds), pop_normalized(entries, bounds)
        reading = Reading(shape, place(path), dtype=dtype, **({"observed": shape} | pop_reading(entries, shape)))
        if entries:
            raise ConfigError(f"state_parts has unknown entries {', '.join(map(repr, entries))} for {place(path)}")
        found.append((Part(path, shape, dtype), reading, scaled))
    layout = Layout(tuple(part for part, _, _ in found))
    if (layout.nbytes,) != state_shape:
        raise ConfigError(f"state_parts take {layout.nbytes} bytes: needs as many as a state {state_shape} has")
    readings = tuple(reading for _, reading, _ in found)
    entries_of = zip(layout.parts, layout.slices, (scaled for _, _, scaled in found), strict=True)
    return PackedStates(
        layout, readings, tuple(Entry(part, where, *scaled) for part, where, scaled in entries_of), mask
    )


def pop_path(settings: dict[str, Any]) -> Path:
    """Pop `path` from the description of states."""
    path = settings.pop("path", ())
    if not isinstance(path, list | tuple) or not all(isinstance(step, str | int) for step in path):
        raise ConfigError(f"path = {path!r}: needs a list of keys and indices")
    return tuple(path)


def pop_reading(settings: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """Pop `observed_dim`, `discrete_start` and `discrete_sizes`, in the form of `Reading`'s arguments."""
    observed, start, sizes = (settings.pop(name, None) for name in ("observed_dim", "discrete_start", "discrete_sizes"))
    if start is None and sizes is None:
        if observed is None:
            return {}
        taken = shape_in(observed)
        if math.prod(taken) != math.prod(shape):
            raise ConfigError(f"observed_dim = {observed}: needs as many numbers as a state of shape {shape}")
        return {"observed": taken}
    if sizes is None:
        if not isinstance(start, int):
            raise ConfigError(f"discrete_start = {start!r}: needs a whole number")
        if len(shape) != 1:
            raise ConfigError(f"discrete_start = {start}: needs states of shape (n,), got {shape}")
        return {"observed": (), "starts": (start,), "sizes": shape}
    starts, counts = whole_numbers("discrete_start", start), whole_numbers("discrete_sizes", sizes)
    if starts.shape != counts.shape or counts.min() < 1 or (int(counts.sum()),) != shape:
        raise ConfigError(
            f"discrete_sizes = {sizes}: needs sizes of at least 1, one per number of discrete_start = {start}, that "
            f"add up to states of shape {shape}"
        )
    return {
        "observed": counts.shape,
        "starts": tuple(starts.ravel().tolist()),
        "sizes": tuple(counts.ravel().tolist()),
    }


def whole_numbers(name: str, given: Any) -> Array:
    """Return nested lists of whole numbers as an array."""
    try:
        numbers = np.asarray(given)
    except ValueError:  # lists of different lengths
        numbers = np.empty(0)
    if numbers.dtype.kind != "i" or not numbers.size:
        raise ConfigError(f"{name} = {given!r}: needs whole numbers")
    return numbers


def at(observation: Any, path: Path) -> Any:
    """Return the value at a path of an observation, or raise `ConfigError` that lists what there is."""
    try:
        return find(observation, path)
    except LookupError as error:
        raise ConfigError(str(error)) from None


def mask_entry(observation: Any, entry: str | None) -> Any:
    """Return an entry of a Dict observation, or None."""
    return observation.get(entry) if entry is not None and isinstance(observation, Mapping) else None


def require_no_answer(given: Any) -> None:
    """Raise `ConfigError` if this is the whole result of `reset` or `step`."""
    if isinstance(given, tuple) and given and isinstance(given[-1], Mapping):
        call, way = ("reset", "env.reset()[0]") if len(given) == 2 else ("step", "its first element")
        raise ConfigError(f"observation is the whole result of env.{call}(): pass {way}")


def numeric_array(given: Any, shape: tuple[int, ...], name: str = "observation") -> Array:
    """Return numbers as an array, or raise `ConfigError` that says what was given."""
    try:
        array = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given)
    except ValueError:  # lists of different lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        kind = given.dtype if isinstance(given, np.ndarray) else type(given).__name__
        raise ConfigError(f"{name} of type {kind}: needs numbers of shape {shape}")
    return array


def fits_shape(given: tuple[int, ...], shape: tuple[int, ...], many: bool) -> bool:
    """True for the shape of one, or of a batch if allowed."""
    return given == shape or (many and len(given) > 0 and given[1:] == shape)


def count_of(batch: tuple[int, ...]) -> str:
    """Return text on the number of observations."""
    return str(batch[0]) if batch else "a single one"


def sides(shape: tuple[int, ...]) -> str:
    """Return a shape for a message."""
    return "x".join(map(str, shape)) or "1"


def shape_hint(given: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """Return advice for an array that nearly fits: to move its axes or to reshape it."""
    like = np.broadcast_to(0, given)  # an array of that shape without memory
    for end, axes in (("last", (-1, -3)), ("first", (-3, -1))):
        if len(given) >= len(shape) >= 3 and np.moveaxis(like, *axes).shape[-len(shape) :] == shape:
            return f"; its channels are {end}: pass np.moveaxis(x, {axes[0]}, {axes[1]})"
    states, rest = divmod(math.prod(given), math.prod(shape))
    in_order = len(given) == 1 or given[len(given) - len(shape) :] == shape
    if states == 1 and not rest and (in_order or sides_of(given) == sides_of(shape)):
        return f"; pass x.reshape({shape})"
    if states > 1 and not rest and in_order:
        return f"; for {states} pass x.reshape({(-1, *shape)})"
    return ""


def sides_of(shape: tuple[int, ...]) -> list[int]:
    """Return the sides that are longer than 1."""
    return [side for side in shape if side > 1]
