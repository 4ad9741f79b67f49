"""Running statistics of wrappers: what `NormalizeObservation` and `NormalizeReward` have gathered, read and put back.

Gymnasium's wrappers keep a mean, a variance and a count, and stop gathering where `update_running_mean` is false. So
does every wrapper of that form. Others, whose statistics can't be read, are only named.
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
    "out_of_reach",
    "require_statistics",
    "stack_statistics",
    "statistics_from",
    "unstack_statistics",
]

Statistics: TypeAlias = dict[str, Array]
"""By `LAYER.PLACE.MOMENT`, from the outermost layer: `0.obs_rms.mean` `[*obs]`. Of `E` sub-environments `[E, ...]`."""

PLACES = {"obs_rms": "observation", "return_rms": "reward", "ret_rms": "reward"}  # where layers keep them, and of what
MOMENTS = ("mean", "var", "count")
CARRIED = "discounted_reward"  # of NormalizeReward, from one step and episode to the next
FLAG = "update_running_mean"
BY_CLASS = {
    "NormalizeObservation": ("observation",),
    "NormalizeReward": ("reward",),
    "VecNormalize": ("observation", "reward"),
}


class Running:
    """The statistics of an environment that go on with each observation or reward, in the form of Gymnasium's wrappers.

    Args:
        env: the environment; its layers are looked at once.
    """

    def __init__(self, env: Any) -> None:
        self.layers = [layer for layer in layers_of(env) if is_in_reach(layer) and is_running(layer)]

    def kinds(self, what: str) -> list[str]:
        """Return the classes of the layers that scale by statistics of `observation` or `reward`, and still gather."""
        running = [layer for layer in self.layers if is_running(layer)]
        return [type(layer).__name__ for layer in running for place in places_of(layer) if PLACES[place] == what]

    def get(self) -> Statistics:
        """Return copies of all that the layers go on with."""
        found: Statistics = {}
        for number, layer in enumerate(self.layers):
            for place in places_of(layer):
                kept = getattr(layer, place)
                found |= {f"{number}.{place}.{moment}": np.array(getattr(kept, moment)) for moment in MOMENTS}
            if CARRIED in vars(layer):
                found[f"{number}.{CARRIED}"] = np.array(vars(layer)[CARRIED])
        return found

    def put(self, statistics: Mapping[str, Array]) -> None:
        """Put back what `get` returned, and let the layers go on from there."""
        self._set(statistics)
        self._gather(True)

    def freeze(self, statistics: Mapping[str, Array]) -> bool:
        """Let the layers scale by these statistics and gather no more; return False where they are not of these layers.

        What is carried from step to step is left as it is: it moves nothing where nothing is gathered.
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
                    # A plain number, as it was: one of NumPy's would make float64 of what is float32.
                    setattr(kept, moment, float(value) if moment == "count" else value.copy())
            if f"{number}.{CARRIED}" in statistics:
                setattr(layer, CARRIED, statistics[f"{number}.{CARRIED}"].copy())

    def _gather(self, on: bool) -> None:
        for layer in self.layers:
            setattr(layer, FLAG, on)


def places_of(layer: Any) -> list[str]:
    """Return where a layer keeps a mean, a variance and a count."""
    kept = getattr(layer, "__dict__", {})
    return [place for place in PLACES if all(is_moment(getattr(kept.get(place), moment, None)) for moment in MOMENTS)]


def is_moment(value: Any) -> bool:
    """True for a number, or an array of them."""
    return isinstance(value, int | float | np.ndarray | np.generic) and np.asarray(value).dtype.kind in "iuf"


def is_in_reach(layer: Any) -> bool:
    """True if the statistics of a layer can be read, put back and frozen."""
    return attribute_of(layer, FLAG, None) is not None and bool(places_of(layer))


def is_running(layer: Any) -> bool:
    """True unless a layer was told to gather no more."""
    return bool(attribute_of(layer, FLAG, True)) and bool(vars(layer).get("training", True))


def of_class(layer: Any) -> list[str]:
    """Return of what a layer keeps statistics, by its class or by the names of its attributes."""
    named = [what for kind in type(layer).__mro__ for what in BY_CLASS.get(kind.__name__, ())]
    held = [what for place, what in PLACES.items() if getattr(layer, "__dict__", {}).get(place) is not None]
    return [*named, *held]


def out_of_reach(env: Any) -> dict[str, str]:
    """Return what is scaled by running statistics that can't be read, and by which class."""
    found: dict[str, str] = {}
    for layer in layers_of(env):
        if hasattr(layer, "__dict__") and not is_in_reach(layer) and is_running(layer):
            for what in of_class(layer):
                found.setdefault(what, type(layer).__name__)
    return found


def stack_statistics(envs: Sequence[Statistics]) -> Statistics:
    """Return the statistics of several sub-environments as `[E, ...]` by name; none where any has others."""
    shapes = [{name: values.shape for name, values in env.items()} for env in envs]
    if any(shape != shapes[0] for shape in shapes):
        return {}
    return {name: np.stack([env[name] for env in envs]) for name in (envs[0] if envs else ())}


def unstack_statistics(statistics: Mapping[str, Array], count: int) -> list[Statistics]:
    """Return what `stack_statistics` put together, for each of so many sub-environments."""
    return [{name: values[index] for name, values in statistics.items()} for index in range(count)]


def differing(ones: Mapping[str, Array], others: Mapping[str, Array]) -> NDArray[np.bool_]:
    """Return in which sub-environments `[E]` stacked statistics differ."""
    apart = [(ones[name] != others[name]).reshape(len(ones[name]), -1).any(1) for name in ones]
    return np.asarray(np.any(apart, 0), bool)


def statistics_from(state: State, like: Mapping[str, Array]) -> Statistics:
    """Return stacked statistics from a checkpoint; none where it has none, of an older version.

    Raises:
        RunError: they are not of such wrappers as there are, or can't be statistics.
    """
    if state and {name: np.shape(values) for name, values in state.items()} != {
        name: values.shape for name, values in like.items()
    }:
        raise RunError("the running statistics are not those of the wrappers that the environments have")
    return require_statistics(state, "the episodes under way")


def merged(stacked: Mapping[str, Array]) -> Statistics:
    """Return the statistics of all that several sub-environments have seen, each counted as often as it gathered.

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
    """Return statistics from a file that can be such.

    Args:
        statistics: by name.
        where: they are from, for errors.

    Raises:
        RunError: a name is none of theirs, a number is not finite, a variance is below 0 or a count not above it.
    """
    for name, values in statistics.items():
        number, _, rest = name.partition(".")
        place, _, moment = rest.partition(".")
        known = number.isdecimal() and (rest == CARRIED or (place in PLACES and moment in MOMENTS))
        if not known or not isinstance(values, np.ndarray) or values.dtype.kind != "f" or not np.isfinite(values).all():
            raise RunError(f"{where}: {name} is no running statistic of a wrapper")
        if (moment == "var" and (values < 0).any()) or (moment == "count" and not (values > 0).all()):
            raise RunError(f"{where}: {name} is below what a running statistic can be")
    return dict(statistics)
