"""How a benchmark replaces a part of nexus, to measure what that part costs."""

from typing import Any

__all__ = ["replace"]


def replace(owner: Any, name: str, value: Any) -> None:
    """Replace what a module, a class or an object has under a name, until the process ends.

    Raises:
        AttributeError: there is nothing under this name. Setting it would change nothing, and the benchmark would
            measure the part that it means to leave out.
    """
    if not hasattr(owner, name):
        label = getattr(owner, "__name__", type(owner).__name__)
        raise AttributeError(f"{label} has no {name!r} to replace: the benchmark needs its present name")
    setattr(owner, name, value)
