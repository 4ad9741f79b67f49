"""The torso of packed states: images through convolutions, all other parts through fully connected layers."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nexus.core import AgentConfig, ConfigError
from nexus.core.importable import is_import_name
from nexus.core.packing import Part, nested
from nexus.models.layers import Bounds, Normalizer, ValueRange
from nexus.models.own_torso import Scaled, make_own_torso
from nexus.models.torsos import make_torso, torso_of

__all__ = ["AS_THEY_ARE", "Entry", "NumberSlice", "UnpackingTorso", "make_unpacking_torso", "torsos_of_parts"]

AS_THEY_ARE: ValueRange = (0, 1)  # what is normalised is not scaled before
BYTES: ValueRange = (0, 255)
FOR_IMAGES: dict[str, Any] = {
    "precision": "auto",
    "standardize_images": False,
}  # at the mlp's defaults


class Entry(NamedTuple):
    """A part of packed states, with its scaling or normalisation."""

    part: Part
    where: slice  # its bytes in a row
    bounds: Bounds | None = None
    span: ValueRange | None = None
    normalized: bool = False


class NumberSlice(NamedTuple):
    """Adjacent numbers of one dtype in a row."""

    where: slice
    dtype: torch.dtype
    shape: tuple[int, ...]

    def of(self, states: Tensor) -> Tensor:
        """`[..., N]` uint8 `-> [..., *shape]`."""
        row = states[..., self.where]
        # To be read as float32, each row must start at a multiple of four bytes, as in a copy. `contiguous` would not
        # copy a single row.
        row = row.clone(memory_format=torch.contiguous_format) if self.dtype.itemsize > 1 else row
        return row.view(self.dtype).view(*row.shape[:-1], *self.shape)


class UnpackingTorso(nn.Module):
    """Splits a row of bytes, feeds each image to a torso and all other numbers to one, and joins their features.

    The joint layer is needed: heads are linear, so without it a Q-value would be a sum of an image term and a
    number term, and could not depend on combinations of the two.

    Args:
        width: bytes `N` of a row.
        images: position of each image, and its torso.
        runs: positions of all other numbers.
        numbers: the torso for all of these, concatenated; None if there are none.
        features: `D_i` of these torsos, the images' first.
        joint: units of the layer, with ReLU, after several torsos: the features `D`.
        layer_norm: whether to use layer norm on that layer.
    """

    def __init__(
        self,
        width: int,
        images: Sequence[tuple[NumberSlice, nn.Module]],
        runs: Sequence[NumberSlice],
        numbers: nn.Module | None,
        features: Sequence[int],
        joint: int,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.width = width
        self.frames = [run for run, _ in images]
        self.images = nn.ModuleList(torso for _, torso in images)
        self.runs = list(runs)
        self.numbers = numbers
        self.joint: nn.Module | None = None
        if len(features) > 1:
            norm = [nn.LayerNorm(joint)] if layer_norm else []
            self.joint = nn.Sequential(nn.Linear(sum(features), joint), *norm, nn.ReLU())

    def forward(self, states: Tensor) -> Tensor:
        """`[..., N]` uint8 `-> [..., D]`."""
        if states.dtype != torch.uint8 or states.shape[-1] != self.width:
            given = f"{str(states.dtype).removeprefix('torch.')}{list(states.shape)}"
            raise ConfigError(f"got states {given}: needs packed ones, uint8[..., {self.width}]")
        said = [torso(frame.of(states)) for frame, torso in zip(self.frames, self.images, strict=True)]
        if self.numbers is not None:
            said.append(self.numbers(torch.cat([run.of(states).float() for run in self.runs], -1)))
        features: Tensor = said[0] if self.joint is None else self.joint(torch.cat(said, -1))
        return features


class Unpacked(nn.Module):
    """Prepares packed states for a torso of the user's own: each part float32 and scaled, where an observation has it.

    Args:
        entries: the parts.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        super().__init__()
        self.width = max(entry.where.stop for entry in entries)
        self.runs = [run_of(entry, entry.part.shape) for entry in entries]
        self.paths = [entry.part.path for entry in entries]
        spans = [AS_THEY_ARE if entry.normalized else entry.span for entry in entries]
        self.parts = nn.ModuleList(
            Scaled(entry.part.shape, entry.bounds, span) for entry, span in zip(entries, spans, strict=True)
        )
        self.normalized = [place for place, entry in enumerate(entries) if entry.normalized]
        sizes = [entries[place].part.count for place in self.normalized]
        self.sizes, self.normalizer = sizes, Normalizer(sum(sizes)) if sizes else None

    def forward(self, states: Tensor) -> Any:
        """`[..., N]` uint8 -> a tensor `[B, *part]` for each part, in mappings and tuples as in an observation."""
        rows = states.reshape(-1, self.width)
        values: list[Tensor] = [part(run.of(rows)) for part, run in zip(self.parts, self.runs, strict=True)]
        if self.normalizer is not None:
            numbers = self.normalizer(torch.cat([values[place].flatten(1) for place in self.normalized], 1))
            for place, normal in zip(self.normalized, numbers.split(self.sizes, 1), strict=True):
                values[place] = normal.view(values[place].shape)
        return self.nested(values)

    @property
    def shape(self) -> Any:
        """The shape of each part, where an observation has it."""
        return self.nested([run.shape for run in self.runs])

    def examples(self, count: int) -> Any:
        """Return so many states as it returns them."""
        return self.nested([Scaled(run.shape).examples(count) for run in self.runs])

    def nested(self, values: Sequence[Any]) -> Any:
        """Return a value for each part, where an observation has the part."""
        return nested(dict(zip(self.paths, values, strict=True)))


def make_unpacking_torso(settings: AgentConfig, entries: Sequence[Entry]) -> tuple[nn.Module, int]:
    """Return the torso that the settings describe for packed states, and its number of features `D`.

    Each image gets the torso that it would get on its own, with separate weights; all other parts share one. The
    joint layer is as wide as the widest torso.

    Raises:
        ConfigError: the requested torso can't handle an image, or a setting applies to no part.
    """
    if is_import_name(settings.torso):
        return make_own_torso(settings.torso, Unpacked(entries), state_dims=1)
    names = torsos_of_parts(settings, [entry.part for entry in entries])
    images = [entry for entry, name in zip(entries, names, strict=True) if name != "mlp"]
    others = [entry for entry, name in zip(entries, names, strict=True) if name == "mlp"]
    others.sort(key=lambda entry: not entry.normalized)  # those of the normalizer first; else the order stays
    of_image = replace(settings, hidden_layers=None) if others else settings
    made = [make_torso(of_image, entry.part.shape, entry.bounds, entry.span) for entry in images]
    numbers = None
    if others:
        of_numbers = replace(settings, torso="mlp", channels="auto", **(FOR_IMAGES if images else {}))
        normalized = sum(entry.part.count for entry in others if entry.normalized)
        shape = (sum(entry.part.count for entry in others),)
        made.append(make_torso(of_numbers, shape, row_bounds(others), normalized=normalized))
        numbers = made[-1][0]
    features = [count for _, count in made]
    torso = UnpackingTorso(
        max(entry.where.stop for entry in entries),
        [(run_of(entry, entry.part.shape), torso) for entry, (torso, _) in zip(images, made, strict=False)],
        joined(run_of(entry, (entry.part.count,)) for entry in others),
        numbers,
        features,
        max(features),
        settings.layer_norm,
    )
    return torso, max(features)


def torsos_of_parts(settings: AgentConfig, parts: Sequence[Part]) -> list[str]:
    """Return the name of the torso of each part.

    Raises:
        ConfigError: the requested torso can't handle an image, or there is no image.
    """
    if is_import_name(settings.torso):
        return [settings.torso] * len(parts)
    may_be_images = [len(part.shape) in (3, 4) for part in parts]
    beside = replace(settings, torso="mlp", channels="auto") if any(may_be_images) else settings
    return [
        torso_of(settings if may_be else beside, part.shape) for part, may_be in zip(parts, may_be_images, strict=True)
    ]


def run_of(entry: Entry, shape: tuple[int, ...]) -> NumberSlice:
    """Return the position of a part, to be read in this shape."""
    return NumberSlice(entry.where, getattr(torch, entry.part.dtype), shape)


def joined(runs: Iterable[NumberSlice]) -> list[NumberSlice]:
    """Return the same numbers `[n]` in as few runs as possible, since each costs several operations."""
    found: list[NumberSlice] = []
    for run in runs:
        if found and (found[-1].where.stop, found[-1].dtype) == (run.where.start, run.dtype):
            before = found.pop()
            run = NumberSlice(slice(before.where.start, run.where.stop), run.dtype, (before.shape[0] + run.shape[0],))
        found.append(run)
    return found


def row_bounds(entries: Sequence[Entry]) -> Bounds | None:
    """Return bounds that scale each number in a row as its part is scaled; None if no part is."""
    low, high = list[float](), list[float]()
    for part, _, bounds, span, normalized in entries:
        if bounds is not None:
            low.extend(bounds[0])
            high.extend(bounds[1])
            continue
        if normalized:  # statistics are of the numbers as they are
            span = None
        elif span is None and part.dtype == "uint8":
            span = BYTES
        # An equal range below the lowest value maps to [-1, 0], so that the span itself maps to [0, 1].
        lowest, highest = (-1, 1) if span is None else (2 * span[0] - span[1], span[1])
        low.extend([lowest] * part.count)
        high.extend([highest] * part.count)
    return None if set(low) == {-1} and set(high) == {1} else (low, high)
