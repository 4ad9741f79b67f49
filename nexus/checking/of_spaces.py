"""Checks that need nothing but spaces and settings."""

from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
from gymnasium import spaces
from torch import nn

from nexus.checking.report import Finding, fault, note, ok
from nexus.checking.sight import Sight
from nexus.core.errors import ConfigError, one_line
from nexus.data.memory import available_memory
from nexus.envs.edge import parts_of
from nexus.envs.factory import seen_by_agent
from nexus.models.setup import resolve_device
from nexus.models.torsos import image_form, torso_of
from nexus.parts import agent_for
from nexus.training.replays import replay_memory

__all__ = ["SPACES"]

MANY_ACTIONS = 1_000
USUAL_CHANNELS = 4
LARGE_SHARE = 0.5  # of the free memory


def observations(sight: Sight) -> Iterator[Finding]:
    """What a state is taken to be: a vector, an image with its channels, a number as one-hot."""
    numbers = prod(sight.shape)
    what = f"{sight.dtype}{list(sight.shape)}"
    evidence: dict[str, Any] = {"shape": list(sight.shape), "dtype": str(sight.dtype)}
    parts = parts_of(sight.own)
    if parts is not None:
        what = f"{what}, the entry {parts.rest!r} of a Dict beside its {parts.mask!r}"
    elif sight.own is not None and not isinstance(sight.own, spaces.Box):
        what = f"{what}, made from {sight.own}"
    elif sight.own is not None and sight.own.shape != sight.shape:
        what = f"{what}, made from {list(sight.own.shape or ())}"
    if not sight.is_image or torso_of(sight.config, sight.shape) == "mlp":
        return (yield ok(f"{what}: {numbers} number{'s' if numbers > 1 else ''} in a row", **evidence))
    form = image_form(sight.shape, sight.config.channels)
    channels, height, width = form.shape
    seen = (
        f"{what}: images of {height} x {width} with {channels} channel{'s' if channels > 1 else ''} ({form.channels})"
    )
    evidence |= {"height": height, "width": width, "channels": channels}
    high = float(np.max(sight.bounds()[1]))
    if form.guessed and channels > USUAL_CHANNELS:
        yield note(
            f"{seen}; that the channels come {form.channels} is a guess",
            "say where they are: --channels first or --channels last",
            **evidence,
        )
    elif sight.dtype.kind == "f" and not 0 < high <= 1:
        yield note(
            f"{seen}, as floats up to {high:g}, which are not scaled",
            "return bytes, with Box(0, 255, dtype=uint8): they are scaled to 0 to 1 and take a quarter of the memory",
            **evidence,
        )
    else:
        yield ok(seen, **evidence)


def actions(sight: Sight) -> Iterator[Finding]:
    """How many actions there are."""
    count = sight.action_dim
    if count == 1:
        yield fault("there is one action, so nothing to choose", "give the action space all actions", actions=count)
    elif count > MANY_ACTIONS:
        yield note(
            f"{count:,} actions, each of which has to be tried many times",
            "give fewer, or tell which are legal in info['action_mask']",
            actions=count,
        )
    else:
        yield ok(f"{count} actions", actions=count)


def memory(sight: Sight) -> Iterator[Finding]:
    """Whether the replay fits into the memory that is free."""
    config, free = sight.config, available_memory()
    name = "replay" if config.trace_lambda is None else "rollout"
    cure = "lower --replay-capacity, or show less: smaller images, bytes in place of floats"
    try:
        device = resolve_device(config.device, sight.shape)
        needed = replay_memory(config, sight.shape, sight.dtype, device)
    except ConfigError as error:
        return (yield fault(one_line(error), cure))
    said = f"a {name} of {config.replay_capacity:,} transitions takes {needed / 1e6:,.1f} MB when full"
    evidence = {"replay_bytes": needed, "free_bytes": free}
    if free is not None and needed > LARGE_SHARE * free:
        yield note(f"{said}, {free / 1e6:,.0f} MB are free", cure, **evidence)
    else:
        yield ok(said, **evidence)


def settings(sight: Sight) -> Iterator[Finding]:
    """Which settings it would be trained with, and whether they make an agent."""
    config = sight.config
    try:
        seen = seen_by_agent(sight.space, sight.name, config.scale_observations)
        network = agent_for(sight.shape, sight.action_dim, config, seen).q_network
    except ConfigError as error:
        return (yield fault(one_line(error), "leave the setting out, or give it what it needs"))
    widths = [layer.out_features for layer in network.torso.modules() if isinstance(layer, nn.Linear)]
    layers = "-".join(map(str, [torso_of(config, sight.shape), *widths, sight.action_dim]))
    given = f"the preset {sight.preset}" if sight.preset else "general ones, since there is no preset for it"
    yield ok(
        f"{given}: {config.algorithm}, {layers} with {network.num_parameters:,} parameters, "
        f"{config.num_envs} in parallel, {config.total_steps:,} steps",
        preset=sight.preset,
        parameters=network.num_parameters,
    )


SPACES: Mapping[str, Callable[[Sight], Iterator[Finding]]] = {
    "observations": observations,
    "actions": actions,
    "memory": memory,
    "settings": settings,
}
