"""The torso of packed states: images through convolutions, all other parts through fully connected layers."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nexus.core import AgentConfig, ConfigError
from nexus.core.packing import Part
from nexus.models.layers import Bounds, Span
from nexus.models.torsos import make_torso, torso_of

__all__ = ["Entry", "Run", "UnpackingTorso", "make_unpacking_torso", "torsos_of_parts"]

BYTES: Span = (0, 255)
FOR_IMAGES: dict[str, Any] = {
    "precision": "auto",
    "standardize_images": False,
}  # at the mlp's defaults


class Entry(NamedTuple):
    """A part of packed states, with its scaling."""

    part: Part
    where: slice  # its bytes in a row
    bounds: Bounds | None = None
    span: Span | None = None


class Run(NamedTuple):
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
        images: Sequence[tuple[Run, nn.Module]],
        runs: Sequence[Run],
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


def make_unpacking_torso(settings: AgentConfig, entries: Sequence[Entry]) -> tuple[nn.Module, int]:
    """Return the torso that the settings describe for packed states, and its number of features `D`.

    Each image gets the torso that it would get on its own, with separate weights; all other parts share one. The
    joint layer is as wide as the widest torso.

    Raises:
        ConfigError: the requested torso can't handle an image, or a setting applies to no part.
    """
    names = torsos_of_parts(settings, [entry.part for entry in entries])
    images = [entry for entry, name in zip(entries, names, strict=True) if name != "mlp"]
    others = [entry for entry, name in zip(entries, names, strict=True) if name == "mlp"]
    of_image = replace(settings, hidden_layers=None) if others else settings
    made = [make_torso(of_image, entry.part.shape, entry.bounds, entry.span) for entry in images]
    numbers = None
    if others:
        of_numbers = replace(settings, torso="mlp", channels="auto", **(FOR_IMAGES if images else {}))
        made.append(make_torso(of_numbers, (sum(entry.part.count for entry in others),), bounds_of(others)))
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
    may_be_images = [len(part.shape) in (3, 4) for part in parts]
    beside = replace(settings, torso="mlp", channels="auto") if any(may_be_images) else settings
    return [
        torso_of(settings if may_be else beside, part.shape) for part, may_be in zip(parts, may_be_images, strict=True)
    ]


def run_of(entry: Entry, shape: tuple[int, ...]) -> Run:
    """Return the position of a part, to be read in this shape."""
    return Run(entry.where, getattr(torch, entry.part.dtype), shape)


def joined(runs: Iterable[Run]) -> list[Run]:
    """Return the same numbers `[n]` in as few runs as possible, since each costs several operations."""
    found: list[Run] = []
    for run in runs:
        if found and (found[-1].where.stop, found[-1].dtype) == (run.where.start, run.dtype):
            before = found.pop()
            run = Run(slice(before.where.start, run.where.stop), run.dtype, (before.shape[0] + run.shape[0],))
        found.append(run)
    return found


def bounds_of(entries: Sequence[Entry]) -> Bounds | None:
    """Return bounds that scale each number in a row as its part is scaled; None if no part is."""
    low, high = list[float](), list[float]()
    for part, _, bounds, span in entries:
        if bounds is not None:
            low.extend(bounds[0])
            high.extend(bounds[1])
            continue
        span = BYTES if span is None and part.dtype == "uint8" else span
        # An equal range below the lowest value maps to [-1, 0], so that the span itself maps to [0, 1].
        lowest, highest = (-1, 1) if span is None else (2 * span[0] - span[1], span[1])
        low.extend([lowest] * part.count)
        high.extend([highest] * part.count)
    return None if set(low) == {-1} and set(high) == {1} else (low, high)
