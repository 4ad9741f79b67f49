"""Trying out a loss of the user's own on a made-up batch, before anything is learned with it."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from nexus.core import ConfigError, Outcome
from nexus.core.errors import NexusError, one_line
from nexus.models.rl.dqn.dqn import DQNNetwork, NextAction

__all__ = ["require_trainable"]

TRIAL_TRANSITIONS = 3  # transitions


def require_trainable(built: Any, next_action: NextAction, dtype: torch.dtype, name: str) -> None:
    """Raise `ConfigError` unless an algorithm was built as a network and a loss that returns one value per transition.

    Args:
        built: what the algorithm's function returned.
        next_action: the choice of the next action.
        dtype: of states.
        name: the algorithm's.
    """
    match built:
        case (DQNNetwork() as network, loss) if callable(loss):
            pass
        case _:
            given = ", ".join(type(part).__name__ for part in (built if isinstance(built, tuple) else [built]))
            raise ConfigError(f"algorithm {name!r} was built as {given}: needs a DQNNetwork and a loss")
    if network.device.type == "meta":  # it is only measured
        return
    states = torch.zeros(TRIAL_TRANSITIONS, *network.state_shape, dtype=dtype)
    numbers = torch.zeros(TRIAL_TRANSITIONS)
    batch = {"states": states, "actions": numbers.long(), "rewards": numbers, "discounts": numbers}
    batch |= {"next_states": states, "returns": numbers, "weights": numbers + 1}
    try:
        copy, target = deepcopy((loss, network)), deepcopy(network).requires_grad_(False)
        outcome = copy[0](copy[1], target, next_action, batch)
    except NexusError:
        raise
    except Exception as error:  # foreign code
        raise ConfigError(
            f"algorithm {name!r}: its loss fails on {TRIAL_TRANSITIONS} transitions: {one_line(error)}"
        ) from error
    require_outcome(outcome, f"algorithm {name!r}: its loss returned")


def require_outcome(outcome: Any, said: str) -> None:
    """Raise `ConfigError` unless this is an `Outcome` with a loss and a priority for each transition."""
    if not isinstance(outcome, Outcome):
        raise ConfigError(f"{said} {shown(outcome)}: needs an Outcome")
    for what in ("loss", "priorities"):
        values: Any = getattr(outcome, what)
        if not isinstance(values, Tensor) or values.shape != (TRIAL_TRANSITIONS,):
            raise ConfigError(
                f"{said} as {what} {shown(values)} for {TRIAL_TRANSITIONS} transitions: needs one value for each"
            )
    if not outcome.loss.requires_grad:
        raise ConfigError(
            f"{said} a loss without a gradient: it must be computed from the q_network, not under no_grad"
        )
    metrics: Any = outcome.metrics
    if not isinstance(metrics, Mapping) or not all(isinstance(each, Tensor) for each in metrics.values()):
        raise ConfigError(f"{said} as metrics {metrics}: needs tensors by name")


def shown(value: Any) -> str:
    """Return what something is, with the shape of a tensor."""
    return f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
