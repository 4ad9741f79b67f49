"""Classes and functions by their import name, `module:Name`, so that a file can store them."""

import importlib
import re
import sys
from operator import attrgetter
from typing import Any

from nexus.core.errors import ConfigError, nearest, one_line

__all__ = ["ImportNames", "import_names", "imported"]

FORM = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
EXAMPLE = "gymnasium.wrappers:NormalizeReward"


class ImportNames(tuple[str, ...]):
    """Names as in `gymnasium.wrappers:NormalizeReward`; a separate type, so that a setting can be declared with it."""

    __slots__ = ()


def import_names(setting: str, given: Any) -> ImportNames:
    """Return names, given as comma-separated text, or as a list of names, classes and functions.

    Raises:
        ConfigError: one is not such a name, or has no name to import it by.
    """
    if isinstance(given, str):
        given = [] if given.lower() == "none" else [part for part in map(str.strip, given.split(",")) if part]
    elif callable(given):
        given = [given]
    if not isinstance(given, list | tuple):
        raise ConfigError(f"{setting} = {given!r}: needs names as in {EXAMPLE}, classes or functions, in a list")
    return ImportNames(import_name(setting, one) for one in given)


def import_name(setting: str, given: Any) -> str:
    """Return the name of a class or function, given as such or already as its name.

    Raises:
        ConfigError: it is neither, or can't be imported by its name.
    """
    if callable(given):
        name = found_name(given)
        if name is not None:
            return name
        what = getattr(given, "__qualname__", f"an object of the type {type(given).__name__}")
        raise ConfigError(
            f"{setting} has {what}, which can't be imported by its name: needs a class or function at the top level "
            "of a module; or pass as the environment a function that makes and wraps it"
        )
    if isinstance(given, str) and FORM.fullmatch(given):
        return given
    module, _, last = str(given).rpartition(".")
    way = f"; did you mean {module}:{last}?" if FORM.fullmatch(f"{module}:{last}") else f", as in {EXAMPLE}"
    raise ConfigError(f"{setting} has {given!r}: needs module:Name{way}")


def found_name(thing: Any) -> str | None:
    """Return the shortest `module:Name` for this exact object, None if there is none."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    parts = module.split(".")
    for place in (".".join(parts[:count]) for count in range(1, len(parts) + 1)):
        try:
            if attrgetter(name)(sys.modules[place]) is thing:
                return f"{place}:{name}"
        except (KeyError, AttributeError):
            continue
    return None


def imported(name: str, what: str) -> Any:
    """Import the object with a name.

    Args:
        name: as in `gymnasium.wrappers:NormalizeReward`.
        what: the kind of object, for errors.

    Raises:
        ConfigError: there is no such module, or it has no such name; the message gives the nearest.
    """
    module, _, inside = name.partition(":")
    try:
        found = importlib.import_module(module)
    except Exception as error:  # a module's own code can raise anything
        raise ConfigError(f"{what} {name!r}: can't import module {module!r}: {one_line(error)}") from error
    for part in inside.split("."):
        known = [word for word in dir(found) if not word.startswith("_")]
        try:
            found = getattr(found, part)
        except AttributeError:
            where = "the running program; put it into a separate module" if module == "__main__" else repr(module)
            raise ConfigError(f"{what} {name!r}: there is no {part!r} in {where}{nearest(part, known)}") from None
    return found
