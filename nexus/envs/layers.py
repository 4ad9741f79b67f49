"""What lies inside of an environment: its wrappers, who uses it, and what it keeps of the past."""

import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from inspect import signature
from typing import Any

import gymnasium as gym

__all__ = ["IN_USE", "InUse", "attribute_of", "layers_of", "method_of", "of_old_gym", "running_statistics"]

INSIDE = ("env", "_env", "gym_env", "venv")  # attributes in which wrappers keep what they wrap
SCALED_BY_STATISTICS = {
    "NormalizeObservation": ("observation",),
    "NormalizeReward": ("reward",),
    "VecNormalize": ("observation", "reward"),
}
STATISTICS = {"obs_rms": "observation", "return_rms": "reward", "ret_rms": "reward"}  # attributes that hold them


def layers_of(env: Any) -> Iterator[Any]:
    """Yield an environment, what it wraps, what that wraps, and so on."""
    seen: set[int] = set()
    while env is not None and id(env) not in seen:
        seen.add(id(env))
        yield env
        env = inside(getattr(env, "__dict__", {}))


def inside(kept: Mapping[str, Any]) -> Any:
    """Return the environment among an object's attributes, or None."""
    named = [kept[name] for name in INSIDE if callable(attribute_of(kept.get(name), "step"))]
    others = (thing for thing in kept.values() if isinstance(thing, gym.Env))
    return named[0] if named else next(others, None)


def attribute_of(thing: Any, name: str, otherwise: Any = None) -> Any:
    """Return an attribute, or something else where there is none: asking for one can raise anything."""
    try:
        return getattr(thing, name, otherwise)
    except Exception:
        return otherwise


def method_of(env: Any, name: str) -> Callable[[], Any] | None:
    """Return the outermost method of this name that needs no arguments, or None; a property is read by it."""
    for layer in layers_of(env):
        if isinstance(getattr(type(layer), name, None), property):
            return partial(getattr, layer, name)
        try:
            found = getattr(layer, name, None)
            signature(found).bind()  # type: ignore[arg-type]
        except Exception:  # a property can raise anything
            continue
        return found
    return None


def running_statistics(env: Any) -> dict[str, str]:
    """Return which wrappers scale by what they have seen so far: of `observation` and of `reward`, by their class."""
    found: dict[str, str] = {}
    for layer in layers_of(env):
        kept = getattr(layer, "__dict__", {})
        frozen = not attribute_of(layer, "update_running_mean", True) or not kept.get("training", True)
        named = [what for kind in type(layer).__mro__ for what in SCALED_BY_STATISTICS.get(kind.__name__, ())]
        held = [what for place, what in STATISTICS.items() if kept.get(place) is not None]
        for what in [] if frozen else [*named, *held]:
            found.setdefault(what, type(layer).__name__)
    return found


def of_old_gym(thing: Any) -> bool:
    """True if an object's class, or one that it is made from, is of the package gym, which Gymnasium replaced."""
    return any(kind.__module__.split(".")[0] == "gym" for kind in type(thing).__mro__)


class InUse:
    """Which objects are an environment in use, or a part of one, and whose."""

    def __init__(self) -> None:
        self._owners: dict[int, tuple[Callable[[], Any], weakref.ref[Any]]] = {}
        self._process = os.getpid()

    def claim(self, env: Any, owner: Any) -> Any:
        """Let `owner` use an environment, until it is released or gone.

        Returns:
            What of it another one uses; None if all is free, and only then is it claimed.
        """
        taken = self.used(env)
        if taken is None:
            self._owners |= {id(layer): (reference(layer), weakref.ref(owner)) for layer in layers_of(env)}
        return taken

    def used(self, env: Any) -> Any:
        """Return the innermost part of an environment that is in use, or None."""
        if self._process != os.getpid():  # what another process uses is another object
            self._owners, self._process = {}, os.getpid()
        self._owners = {key: (it, who) for key, (it, who) in self._owners.items() if who() is not None}
        kept = [layer for layer in layers_of(env) if id(layer) in self._owners]
        return next((layer for layer in reversed(kept) if self._owners[id(layer)][0]() is layer), None)

    def release(self, owner: Any) -> None:
        """Let others use what `owner` did."""
        self._owners = {key: (it, who) for key, (it, who) in self._owners.items() if who() is not owner}


def reference(thing: Any) -> Callable[[], Any]:
    """Return what gives the object as long as it is there; it is kept where it can't be referred to weakly."""
    try:
        return weakref.ref(thing)
    except TypeError:
        return lambda: thing


IN_USE = InUse()
