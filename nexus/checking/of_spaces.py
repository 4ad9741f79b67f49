"""Checks that need nothing but spaces and settings."""

from collections.abc import Callable, Iterator, Mapping
from math import prod

import numpy as np
from gymnasium import spaces
from torch import nn

from nexus.checking.report import Finding, fault, note, ok
from nexus.checking.sight import Facet, Sight
from nexus.core.errors import ConfigError, one_line
from nexus.core.importable import is_import_name
from nexus.data.memory import available_memory
from nexus.envs.edge import space_without_mask
from nexus.envs.factory import seen_by_agent, widest_part
from nexus.models.setup import resolve_device
from nexus.models.torsos import image_form
from nexus.parts import agent_for
from nexus.training.config import TrainConfig
from nexus.training.replays import replay_memory

__all__ = ["SPACE_CHECKS"]

MANY_ACTIONS = 1_024
USUAL_CHANNELS, SMALLEST_IMAGE = 4, 3
LARGE_SHARE = 0.5  # fraction of the free memory


def observations(sight: Sight) -> Iterator[Finding]:
    """How a state is interpreted: a vector, an image with its channels, a one-hot number, or several of them."""
    numbers, several = sum(prod(facet.shape) for facet in sight.facets), len(sight.facets) > 1
    evidence = {"shape": list(sight.shape), "dtype": str(sight.dtype), "numbers": numbers}
    looks = [(facet, *look_of(facet, sight.config)) for facet in sight.facets]
    for facet, look, doubt, cure in looks:
        if doubt:
            yield note(f"{f'{facet.label} ' if several else ''}{look}{doubt}", cure, **evidence)
    if not any(doubt for _, _, doubt, _ in looks):
        said = "; ".join(f"{facet.label if several else 'as'} {look}" for facet, look, _, _ in looks)
        yield ok(f"{made_from(sight)}{said.removeprefix('as ')}", **evidence)


def look_of(facet: Facet, config: TrainConfig) -> tuple[str, str, str]:
    """Return how an array is interpreted, what is doubtful about that, and the cure."""
    count = prod(facet.shape)
    what = f"{facet.dtype}{list(facet.shape)}"
    if is_import_name(config.torso):
        return f"{what} for {config.torso}", "", ""
    form = image_form(facet.shape, config.channels) if facet.is_image and config.torso != "mlp" else None
    if form is None or min(form.shape[1:]) < SMALLEST_IMAGE:
        return f"{what}: {count} number{'s' if count > 1 else ''} in a row", "", ""
    channels, height, width = form.shape
    seen = f"{what}: images of {height} x {width} with {channels} channel{'s' if channels > 1 else ''}"
    if form.guessed and channels > USUAL_CHANNELS:
        doubt = f"; that the channels come {form.channels} is a guess"
        return seen, doubt, "specify them: --channels first or --channels last"
    high = float(facet.space.high.max()) if isinstance(facet.space, spaces.Box) else np.inf
    if facet.dtype.kind == "f" and not 0 < high <= 1:
        return (
            seen,
            f", as floats up to {high:g}, which are not scaled",
            "return bytes, with Box(0, 255, dtype=uint8): they are scaled to 0 to 1 and take a quarter of the memory",
        )
    return f"{seen} ({form.channels})", "", ""


def made_from(sight: Sight) -> str:
    """Return what observations are, if a state differs."""
    if sight.own is None:
        return ""
    seen = space_without_mask(sight.own)
    if not isinstance(seen, spaces.Box):
        return f"a {type(seen).__name__} as " if isinstance(seen, spaces.Dict | spaces.Tuple) else f"{seen} as "
    if seen is not sight.own:
        return "an entry of a Dict, as "
    return "" if seen.shape == sight.shape else f"{list(seen.shape or ())} as "


def actions(sight: Sight) -> Iterator[Finding]:
    """The number of actions."""
    count = sight.action_dim
    if count == 1:
        yield fault("there is only one action, so no choice", "give the action space all actions", actions=count)
    elif count > MANY_ACTIONS:
        yield note(
            f"{count:,} actions, each of which must be tried many times",
            "use fewer, or mask illegal ones in info['action_mask']",
            actions=count,
        )
    else:
        yield ok(f"{count} actions", actions=count)


def replay_size(sight: Sight) -> Iterator[Finding]:
    """Whether the replay fits into the free memory."""
    config, free = sight.config, available_memory()
    name = "replay" if config.trace_lambda is None else "rollout"
    cure = "lower --replay-capacity, or make observations smaller: smaller images, bytes instead of floats"
    try:
        device = resolve_device(config.device, widest_part(sight.space))
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
    """The settings it would be trained with, and whether they make an agent."""
    config = sight.config
    try:
        seen = seen_by_agent(sight.space, sight.name, config.scale_observations, config.normalize_observations)
        agent = agent_for(sight.shape, sight.action_dim, config, seen)
    except ConfigError as error:
        return (yield fault(one_line(error), "leave the setting out, or set it to what it needs"))
    network, torsos = agent.q_network, [name for name in agent.states.torsos(config) if name != "mlp"]
    widths = [layer.out_features for layer in network.torso.modules() if isinstance(layer, nn.Linear)]
    layers = "-".join(map(str, [agent.states, *torsos, *widths, sight.action_dim]))
    given = f"the preset {sight.preset}" if sight.preset else "settings as given"
    yield ok(
        f"{given}: {config.algorithm}, {layers} with {network.num_parameters:,} parameters, "
        f"{config.num_envs} in parallel, {config.total_steps:,} steps",
        preset=sight.preset,
        parameters=network.num_parameters,
    )


SPACE_CHECKS: Mapping[str, Callable[[Sight], Iterator[Finding]]] = {
    "observations": observations,
    "actions": actions,
    "memory": replay_size,
    "settings": settings,
}
