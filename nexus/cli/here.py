"""Modules in the current folder: `python` searches it, an installed command does not."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = ["look_here", "path_kept", "wrappers_in"]


def look_here(env: str | None, run: str | None = None, wrappers: Sequence[str] | None = ()) -> None:
    """Make Python find the modules of a `module:Id` and of wrappers in the current folder.

    Not in a run's folder or below it: a run must not supply code, neither as its environment's module nor as a package
    that is imported later.

    Args:
        env: an id; None for that of the run.
        run: a run's folder.
        wrappers: names as in `module:Wrapper`; None for those of the run.
    """
    from nexus.core.errors import RunError
    from nexus.training.edited import read_run_or_copy
    from nexus.training.run_folder import RUN_FILE

    names = [*([env] if env is not None else []), *(wrappers or ())]
    if run is not None and (env is None or wrappers is None):
        with suppress(RunError):  # reported later, when the run is read
            about = read_run_or_copy(run, str)
            names += [str(about.get("env"))] if env is None else []
            names += wrappers_in(about) if wrappers is None else []
    here = Path.cwd()
    of_run = any((folder / RUN_FILE).exists() for folder in (here, *here.parents))
    if any(":" in name for name in names) and not of_run and str(here) not in sys.path:
        sys.path.insert(0, str(here))


def wrappers_in(about: Mapping[str, Any]) -> list[str]:
    """Return the wrapper names in the contents of a `run.json`."""
    config = about.get("config")
    found = config.get("wrappers") if isinstance(config, Mapping) else None
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


@contextmanager
def path_kept() -> Iterator[None]:
    """Restore Python's path afterwards."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before
