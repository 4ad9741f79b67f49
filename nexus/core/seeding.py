"""One seed, from which each purpose gets an independent generator."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["Purpose", "generator", "seed_at", "seed_of", "seeded_initialisation", "torch_generator"]

# Append new ones at the end: the position is the key, and existing runs must not change.
Purpose = Literal[
    "initialisation",
    "exploration",
    "replay",
    "environments",
    "evaluation",
    "noise",
    "levels",
    "goals",
    "novelty",
    "heads",
    "bootstrap",
    "curriculum",
]

# Torch functions that draw from a given generator, or else from the global one.
DRAWS: frozenset[Callable[..., Any]] = frozenset(
    [
        *(torch.bernoulli, torch.multinomial, torch.normal, torch.poisson),
        *(torch.rand, torch.randint, torch.randn, torch.randperm),
        *(Tensor.bernoulli_, Tensor.cauchy_, Tensor.exponential_, Tensor.geometric_),
        *(Tensor.log_normal_, Tensor.normal_, Tensor.random_, Tensor.uniform_),
        *(nn.init.kaiming_uniform_, nn.init.normal_, nn.init.uniform_),  # these pass their generator on
    ]
)


def generator(seed: int, purpose: Purpose) -> np.random.Generator:
    """Return the generator for one purpose; those of other purposes and of other seeds are independent of it."""
    return np.random.default_rng(sequence(seed, purpose))


def seed_of(seed: int, purpose: Purpose) -> int:
    """Return a plain 31-bit seed for one purpose, for libraries that do not accept a generator."""
    return int(sequence(seed, purpose).generate_state(1)[0] >> 1)


def seed_at(seed: int, purpose: Purpose, steps: int) -> int:
    """Return the seed of a purpose for the part of a run that begins after `steps` steps; `seed_of` at 0."""
    if steps == 0:
        return seed_of(seed, purpose)
    key = (get_args(Purpose).index(purpose), steps)
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0] >> 1)


def torch_generator(seed: int, purpose: Purpose, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the torch generator for one purpose, on a device."""
    return torch.Generator(device).manual_seed(seed_of(seed, purpose))


def seeded_initialisation(seed: int, purpose: Purpose = "initialisation") -> TorchFunctionMode:
    """Return a context in which new networks draw their initial weights from one seed."""
    return DrawsFrom(seed_of(seed, purpose))


class DrawsFrom(TorchFunctionMode):
    """Makes torch draw from a seed in this thread, as if the global generator had that seed.

    The global generator is not touched: threads share it, so one could draw from what another just seeded.

    Args:
        seed: seed of the generator on each device used.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a torch function, adding a generator if it draws and has none."""
        given = dict(kwargs or {})
        if func in DRAWS and given.get("generator") is None:
            given["generator"] = self._generator(device_of(args, given))
        return func(*args, **given)

    def _generator(self, device: torch.device) -> torch.Generator:
        """Return the generator of a device; the CPU's for `meta`, where nothing is really drawn."""
        device = torch.device("cpu") if device.type == "meta" else device
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]


def device_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.device:
    """Return the device that a torch function works on, from its arguments."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            return value.device
    device = kwargs.get("device")
    return torch.get_default_device() if device is None else torch.device(device)


def sequence(seed: int, purpose: Purpose) -> np.random.SeedSequence:
    """Return the seed sequence for one purpose."""
    return np.random.SeedSequence(seed, spawn_key=(get_args(Purpose).index(purpose),))
