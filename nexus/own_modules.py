"""Modules of the user's own that a run names: where they are, and where they must not be."""

from collections.abc import Collection
from contextlib import suppress
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nexus.core.errors import ConfigError, RunError
from nexus.core.importable import NAMING, import_object, names_in
from nexus.core.names import REGISTERED

__all__ = ["require_foreign_module", "require_present", "said_of_programs"]

NEAR = 4  # folders around a run in which a module is looked for


def require_present(config: Any, run: Path, settings: Collection[str] = NAMING) -> None:
    """Raise `RunError` if a module named in a run's settings is not found; says where it is, if that is near the run.

    Args:
        config: what `run.json` has for it.
        run: the run's folder.
        settings: those to look at.
    """
    for setting, names in names_in(config).items():
        for name in names if setting in settings else ():
            top = name.partition(":")[0].partition(".")[0]
            if top == "__main__":
                require_in_program(setting, name, run)
                continue
            if found(top) is not None:
                continue
            near = [folder for folder in list(run.resolve().parents)[:NEAR] if is_module(folder, top)]
            where = (
                f"it is in {near[0]}: run this there, or add that folder to PYTHONPATH"
                if near
                else f"run this in the folder that has {top}.py, or add that to PYTHONPATH"
            )
            raise RunError(f"{run} was trained with {setting} {name}, and there is no module {top!r} here; {where}")


def require_in_program(setting: str, name: str, run: Path) -> None:
    """Raise `RunError` unless the program that runs now defines a part that the one that trained the run defined."""
    if name in REGISTERED.values():
        return
    with suppress(ConfigError):
        import_object(name, setting)
        return
    raise RunError(
        f"{run} was trained with {setting} {name}, which was defined in the program that trained it: run this "
        "from that program, or train with a module that both import"
    )


def said_of_programs(config: Any) -> list[str]:
    """Return a notice on each part in a run's settings that only the program which runs now can find again."""
    return [
        f"{setting} {name} is defined in the program that runs now, so only this program can evaluate or resume the "
        "run: put it into a module and import it"
        for setting, names in names_in(config).items()
        for name in names
        if name.startswith("__main__:")
    ]


def found(top: str) -> ModuleSpec | None:
    """Return where a module that is not inside a package would be imported from, None if nowhere; it is not."""
    try:
        return find_spec(top)
    except (ImportError, ValueError):
        return None


def is_module(folder: Path, top: str) -> bool:
    """True if a folder has a module or a package of this name."""
    return (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file()


def require_foreign_module(name: str, run: Path, setting: str = "env") -> None:
    """Raise `RunError` if the module of a `module:Id` lies inside the run: a run must not supply code.

    Args:
        name: the `module:Id`, or a `module:Wrapper`.
        run: the run's folder.
        setting: which names it.
    """
    module, colon, _ = name.rpartition(":")
    if not colon:
        return
    top, *rest = module.split(".")
    spec = found(top)
    places = [] if spec is None else [*(spec.submodule_search_locations or []), spec.origin or ""]
    if any(Path(place, *rest).resolve().is_relative_to(run.resolve()) for place in places if place):
        raise RunError(f"{run} names a module in its folder, {module}, which is not imported: pass another {setting}=")
