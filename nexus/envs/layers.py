"""Looking inside an environment: its wrappers, and whether it is in use."""

import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from inspect import signature
from typing import Any

import gymnasium as gym

__all__ = ["IN_USE", "InUse", "attribute_of", "layers_of", "method_of", "of_old_gym"]

INSIDE = ("env", "_env", "gym_env", "venv")  # attributes in which wrappers keep the wrapped environment


def layers_of(env: Any) -> Iterator[Any]:
    """Yield an environment and all environments it wraps, from the outside in."""
    seen: set[int] = set()
    while env is not None and id(env) not in seen:
        seen.add(id(env))
        yield env
        env = inner_env(getattr(env, "__dict__", {}))


def inner_env(kept: Mapping[str, Any]) -> Any:
    """Return the environment among an object's attributes, or None."""
    named = [kept[name] for name in INSIDE if callable(attribute_of(kept.get(name), "step"))]
    others = (thing for thing in kept.values() if isinstance(thing, gym.Env))
    return named[0] if named else next(others, None)


def attribute_of(thing: Any, name: str, otherwise: Any = None) -> Any:
    """Return an attribute, or a default if reading it fails: a property can raise anything."""
    try:
        return getattr(thing, name, otherwise)
    except Exception:
        return otherwise


def method_of(env: Any, name: str) -> Callable[[], Any] | None:
    """Return the outermost method or property of this name that needs no arguments as a callable, or None."""
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


def of_old_gym(thing: Any) -> bool:
    """True if an object's class or a base class is from the package gym, which Gymnasium replaced."""
    return any(kind.__module__.split(".")[0] == "gym" for kind in type(thing).__mro__)


class InUse:
    """Records which objects are part of an environment in use, and their owners."""

    def __init__(self) -> None:
        self._owners: dict[int, tuple[Callable[[], Any], weakref.ref[Any]]] = {}
        self._process = os.getpid()

    def claim(self, env: Any, owner: Any) -> Any:
        """Reserve an environment for `owner`, until it is released or the owner is gone.

        Returns:
            The part that another owner uses; None if all of it was free and is now claimed.
        """
        taken = self.used(env)
        if taken is None:
            self._owners |= {id(layer): (reference(layer), weakref.ref(owner)) for layer in layers_of(env)}
        return taken

    def used(self, env: Any) -> Any:
        """Return the innermost part of an environment that is in use, or None."""
        if self._process != os.getpid():  # objects in use elsewhere are another process's
            self._owners, self._process = {}, os.getpid()
        self._owners = {key: (it, who) for key, (it, who) in self._owners.items() if who() is not None}
        kept = [layer for layer in layers_of(env) if id(layer) in self._owners]
        return next((layer for layer in reversed(kept) if self._owners[id(layer)][0]() is layer), None)

    def release(self, owner: Any) -> None:
        """Release everything reserved for `owner`."""
        self._owners = {key: (it, who) for key, (it, who) in self._owners.items() if who() is not owner}


def reference(thing: Any) -> Callable[[], Any]:
    """Return a callable that gives the object while it exists; objects without weak references are kept alive."""
    try:
        return weakref.ref(thing)
    except TypeError:
        return lambda: thing


IN_USE = InUse()
