"""Replacing a part of nexus, to measure its cost."""

from typing import Any

__all__ = ["replace"]


def replace(owner: Any, name: str, value: Any) -> None:
    """Replace an attribute of a module, class or object, until the process ends.

    Raises:
        AttributeError: there is no such attribute. Setting it would change nothing, and the benchmark would
            measure the part that it means to remove.
    """
    if not hasattr(owner, name):
        label = getattr(owner, "__name__", type(owner).__name__)
        raise AttributeError(f"{label} has no {name!r} to replace: the benchmark needs its current name")
    setattr(owner, name, value)
