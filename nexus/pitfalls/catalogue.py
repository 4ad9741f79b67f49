"""All pitfalls, by name."""

from collections.abc import Mapping

from nexus.core.errors import ConfigError, nearest
from nexus.pitfalls.catastrophic_forgetting import CATASTROPHIC_FORGETTING
from nexus.pitfalls.correlated_samples import CORRELATED_SAMPLES
from nexus.pitfalls.deadly_triad import DEADLY_TRIAD
from nexus.pitfalls.insufficient_exploration import INSUFFICIENT_EXPLORATION
from nexus.pitfalls.moving_target import MOVING_TARGET
from nexus.pitfalls.overestimation import OVERESTIMATION
from nexus.pitfalls.pitfall import Pitfall
from nexus.pitfalls.sparse_rewards import SPARSE_REWARDS
from nexus.pitfalls.wrong_loss import WRONG_LOSS

__all__ = ["PITFALLS", "pitfall_named"]

ALL = (
    OVERESTIMATION,
    CATASTROPHIC_FORGETTING,
    DEADLY_TRIAD,
    INSUFFICIENT_EXPLORATION,
    SPARSE_REWARDS,
    CORRELATED_SAMPLES,
    MOVING_TARGET,
    WRONG_LOSS,
)
PITFALLS: Mapping[str, Pitfall] = {pitfall.name: pitfall for pitfall in ALL}


def pitfall_named(name: str) -> Pitfall:
    """Return a pitfall.

    Raises:
        ConfigError: there is none of this name; suggests the nearest.
    """
    if name not in PITFALLS:
        raise ConfigError(f"no pitfall {name!r}: there are {', '.join(PITFALLS)}{nearest(name, PITFALLS, 1)}")
    return PITFALLS[name]
