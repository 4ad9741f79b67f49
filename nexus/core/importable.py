"""Classes and functions by their import name, `module:Name`, so that a file can store them."""

import importlib
import re
import sys
from collections.abc import Mapping
from operator import attrgetter
from types import ModuleType
from typing import Any, TypeGuard

from nexus.core.errors import ConfigError, nearest, one_line

__all__ = [
    "ImportName",
    "ImportNames",
    "import_name",
    "import_names",
    "import_object",
    "imported_module",
    "is_import_name",
    "names_in",
]

FORM = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
NAMING = (
    "wrappers",
    "algorithm",
    "torso",
    "epsilon_schedule",
    "learning_rate_schedule",
    "potential",
    "bonus_states",
    "curriculum",
)
"""The settings that can have names to import."""
EXAMPLE = "gymnasium.wrappers:NormalizeReward"


class ImportName(str):
    """A name as in `my_nets:MyTorso`; a separate type, so that a setting can be declared by it."""

    __slots__ = ()


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
    way = "; or pass a function as the environment that makes and wraps it"
    return ImportNames(import_name(setting, one, way) for one in given)


def is_import_name(given: Any) -> TypeGuard[str]:
    """True for text of the form `module:Name`."""
    return isinstance(given, str) and FORM.fullmatch(given) is not None


def import_name(setting: str, given: Any, way_out: str = "") -> ImportName:
    """Return the name of a class or function, given as such or already as its name.

    Args:
        setting: for errors.
        given: the name, or what has it.
        way_out: what else to do with a class or function that has no such name, for errors.

    Raises:
        ConfigError: it is neither, or can't be imported by its name.
    """
    if callable(given):
        name = found_name(given)
        if name is not None:
            return ImportName(name)
        what = getattr(given, "__qualname__", f"an object of the type {type(given).__name__}")
        raise ConfigError(
            f"{setting} has {what}, which can't be imported by its name: needs a class or function at the top level "
            f"of a module{way_out}"
        )
    if is_import_name(given):
        return ImportName(given)
    module, _, last = str(given).rpartition(".")
    way = f"; did you mean {module}:{last}?" if FORM.fullmatch(f"{module}:{last}") else f", as in {EXAMPLE}"
    raise ConfigError(f"{setting} has {given!r}: needs module:Name{way}")


def names_in(config: Any) -> dict[str, list[str]]:
    """Return the names to import in what a `run.json` has for a config, by the setting that has them."""
    settings = config if isinstance(config, Mapping) else {}
    found: dict[str, list[str]] = {}
    for setting in NAMING:
        given = settings.get(setting)
        if setting == "curriculum":
            found |= {setting: envs} if (envs := envs_in(given)) else {}
            continue
        names = [name for name in (given if isinstance(given, list | tuple) else [given]) if is_import_name(name)]
        if names:
            found[setting] = names
    return found


def envs_in(curriculum: Any) -> list[str]:
    """Return the ids with a module, `module:Id`, in the stages of a curriculum."""
    stages = curriculum.get("stages") if isinstance(curriculum, Mapping) else None
    named = [stage.get("env") for stage in stages if isinstance(stage, Mapping)] if isinstance(stages, list) else []
    return [name for name in named if isinstance(name, str) and ":" in name]


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


def imported_module(name: str, what: str) -> ModuleType:
    """Return the module of a name, as `import_object` does what is in it."""
    module = name.partition(":")[0]
    try:
        return importlib.import_module(module)
    except Exception as error:  # a module's own code can raise anything
        raise ConfigError(f"{what} {name!r}: can't import module {module!r}: {one_line(error)}") from error


def import_object(name: str, what: str) -> Any:
    """Import the object with a name.

    Args:
        name: as in `gymnasium.wrappers:NormalizeReward`.
        what: the kind of object, for errors.

    Raises:
        ConfigError: there is no such module, or it has no such name; the message gives the nearest.
    """
    found: Any = imported_module(name, what)
    module, _, inside = name.partition(":")
    for part in inside.split("."):
        known = [word for word in dir(found) if not word.startswith("_")]
        try:
            found = getattr(found, part)
        except AttributeError:
            where = "the running program; put it into a separate module" if module == "__main__" else repr(module)
            raise ConfigError(f"{what} {name!r}: there is no {part!r} in {where}{nearest(part, known)}") from None
    return found
