"""Running statistics of wrappers such as `NormalizeObservation` and `NormalizeReward`: reading and restoring them.

Gymnasium's wrappers keep a mean, a variance and a count, and stop updating if `update_running_mean` is false. So
do all wrappers of that form. Others, whose statistics can't be read, are only reported by name.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nexus.core.errors import RunError
from nexus.core.state import State
from nexus.core.types import Array
from nexus.envs.layers import attribute_of, layers_of

__all__ = [
    "Running",
    "Statistics",
    "differing",
    "merged",
    "of_rewards",
    "out_of_reach",
    "require_statistics",
    "stack_statistics",
    "statistics_from",
    "unstack_statistics",
]

Statistics: TypeAlias = dict[str, Array]
"""By `LAYER.PLACE.MOMENT`, layer 0 outermost: `0.obs_rms.mean` `[*obs]`. For `E` sub-environments `[E, ...]`."""

PLACES = {
    "obs_rms": "observation",
    "return_rms": "reward",
    "ret_rms": "reward",
}  # the attributes that hold them, and what they scale
MOMENTS = ("mean", "var", "count")
CARRIED = "discounted_reward"  # in NormalizeReward, carried from each step and episode to the next
FLAG = "update_running_mean"
BY_CLASS = {
    "NormalizeObservation": ("observation",),
    "NormalizeReward": ("reward",),
    "VecNormalize": ("observation", "reward"),
}


class Running:
    """The running statistics of an environment, in the form of Gymnasium's wrappers.

    Args:
        env: the environment; its layers are inspected once.
    """

    def __init__(self, env: Any) -> None:
        self.layers = [layer for layer in layers_of(env) if is_in_reach(layer) and is_running(layer)]

    def kinds(self, what: str) -> list[str]:
        """Return the classes of the layers that scale an `observation` or `reward` and still update."""
        running = [layer for layer in self.layers if is_running(layer)]
        return [type(layer).__name__ for layer in running for place in places_of(layer) if PLACES[place] == what]

    def get(self) -> Statistics:
        """Return copies of the layers' current statistics."""
        found: Statistics = {}
        for number, layer in enumerate(self.layers):
            for place in places_of(layer):
                kept = getattr(layer, place)
                found |= {f"{number}.{place}.{moment}": np.array(getattr(kept, moment)) for moment in MOMENTS}
            if CARRIED in vars(layer):
                found[f"{number}.{CARRIED}"] = np.array(vars(layer)[CARRIED])
        return found

    def put(self, statistics: Mapping[str, Array]) -> None:
        """Restore what `get` returned; the layers continue from there."""
        self._set(statistics)
        self._gather(True)

    def freeze(self, statistics: Mapping[str, Array]) -> bool:
        """Make the layers scale by these statistics and stop updating; return False if they belong to other layers.

        The value carried from step to step is left unchanged: it has no effect without updates.
        """
        own = {name: value.shape for name, value in self.get().items() if not name.endswith(CARRIED)}
        given = {name: value.shape for name, value in statistics.items() if not name.endswith(CARRIED)}
        if own != given:
            return False
        self._set({name: statistics[name] for name in given})
        self._gather(False)
        return True

    def _set(self, statistics: Mapping[str, Array]) -> None:
        for number, layer in enumerate(self.layers):
            for place in places_of(layer):
                kept = getattr(layer, place)
                for moment in MOMENTS:
                    value = statistics[f"{number}.{place}.{moment}"]
                    # Back to a plain number: a NumPy scalar would turn float32 arrays into float64.
                    setattr(kept, moment, float(value) if moment == "count" else value.copy())
            if f"{number}.{CARRIED}" in statistics:
                setattr(layer, CARRIED, statistics[f"{number}.{CARRIED}"].copy())

    def _gather(self, on: bool) -> None:
        for layer in self.layers:
            setattr(layer, FLAG, on)


def places_of(layer: Any) -> list[str]:
    """Return the attributes of a layer that hold a mean, a variance and a count."""
    kept = getattr(layer, "__dict__", {})
    return [place for place in PLACES if all(is_moment(getattr(kept.get(place), moment, None)) for moment in MOMENTS)]


def is_moment(value: Any) -> bool:
    """True for a number, or an array of them."""
    return isinstance(value, int | float | np.ndarray | np.generic) and np.asarray(value).dtype.kind in "iuf"


def is_in_reach(layer: Any) -> bool:
    """True if the statistics of a layer can be read, put back and frozen."""
    return attribute_of(layer, FLAG, None) is not None and bool(places_of(layer))


def is_running(layer: Any) -> bool:
    """True unless a layer's updates are off."""
    return bool(attribute_of(layer, FLAG, True)) and bool(vars(layer).get("training", True))


def of_class(layer: Any) -> list[str]:
    """Return what a layer keeps statistics of, judged by its class or its attributes' names."""
    named = [what for kind in type(layer).__mro__ for what in BY_CLASS.get(kind.__name__, ())]
    held = [what for place, what in PLACES.items() if getattr(layer, "__dict__", {}).get(place) is not None]
    return [*named, *held]


def out_of_reach(env: Any) -> dict[str, str]:
    """Return what is scaled by unreadable running statistics, and the class that scales it."""
    found: dict[str, str] = {}
    for layer in layers_of(env):
        if hasattr(layer, "__dict__") and not is_in_reach(layer) and is_running(layer):
            for what in of_class(layer):
                found.setdefault(what, type(layer).__name__)
    return found


def of_rewards(statistics: Statistics) -> Statistics:
    """Return those that scale rewards."""
    return {
        name: values
        for name, values in statistics.items()
        if (place := name.split(".")[1]) == CARRIED or PLACES[place] == "reward"
    }


def stack_statistics(envs: Sequence[Statistics]) -> Statistics:
    """Return the statistics of several sub-environments as `[E, ...]` by name; empty if they have different ones."""
    shapes = [{name: values.shape for name, values in env.items()} for env in envs]
    if any(shape != shapes[0] for shape in shapes):
        return {}
    return {name: np.stack([env[name] for env in envs]) for name in (envs[0] if envs else ())}


def unstack_statistics(statistics: Mapping[str, Array], count: int) -> list[Statistics]:
    """Undo `stack_statistics`: return the statistics of each sub-environment."""
    return [{name: values[index] for name, values in statistics.items()} for index in range(count)]


def differing(ones: Mapping[str, Array], others: Mapping[str, Array]) -> NDArray[np.bool_]:
    """Return the sub-environments `[E]` whose stacked statistics differ."""
    apart = [(ones[name] != others[name]).reshape(len(ones[name]), -1).any(1) for name in ones]
    return np.asarray(np.any(apart, 0), bool)


def statistics_from(state: State, like: Mapping[str, Array]) -> Statistics:
    """Return stacked statistics from a checkpoint; empty if it is from an older version.

    Raises:
        RunError: they belong to other wrappers, or are not valid statistics.
    """
    if state and {name: np.shape(values) for name, values in state.items()} != {
        name: values.shape for name, values in like.items()
    }:
        raise RunError("the running statistics do not match the environments' wrappers")
    return require_statistics(state, "the episodes in progress")


def merged(stacked: Mapping[str, Array]) -> Statistics:
    """Return the pooled statistics of several sub-environments, weighted by their counts.

    Args:
        stacked: `[E, ...]` by name.
    """
    whole: Statistics = {}
    for prefix in (name.removesuffix(".count") for name in stacked if name.endswith(".count")):
        means, variances, counts = (stacked[f"{prefix}.{moment}"] for moment in MOMENTS)
        if len(counts) == 1:
            whole |= {f"{prefix}.{moment}": np.array(stacked[f"{prefix}.{moment}"][0]) for moment in MOMENTS}
            continue
        shares = (counts / counts.sum()).reshape(-1, *[1] * (means.ndim - 1))  # [E, 1, ...]
        mean = (shares * means).sum(0)
        variance = (shares * (variances + np.square(means - mean))).sum(0)
        moments = mean.astype(means.dtype), variance.astype(variances.dtype), counts.sum()
        whole |= {f"{prefix}.{moment}": np.array(value) for moment, value in zip(MOMENTS, moments, strict=True)}
    return whole


def require_statistics(statistics: Mapping[str, Any], where: str) -> Statistics:
    """Return statistics from a file if they are valid.

    Args:
        statistics: by name.
        where: the file they are from, for errors.

    Raises:
        RunError: a name is unknown, a number is not finite, a variance is negative or a count not positive.
    """
    for name, values in statistics.items():
        number, _, rest = name.partition(".")
        place, _, moment = rest.partition(".")
        known = number.isdecimal() and (rest == CARRIED or (place in PLACES and moment in MOMENTS))
        if not known or not isinstance(values, np.ndarray) or values.dtype.kind != "f" or not np.isfinite(values).all():
            raise RunError(f"{where}: {name} is not a running statistic of a wrapper")
        if (moment == "var" and (values < 0).any()) or (moment == "count" and not (values > 0).all()):
            raise RunError(f"{where}: {name} is too low for a running statistic")
    return dict(statistics)
