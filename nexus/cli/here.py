"""Modules in the current folder: `python` searches it, an installed command does not."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["look_here", "path_kept"]


def look_here(env: str | None, run: str | None = None) -> None:
    """Make Python find the module of a `module:Id` in the current folder.

    Not in a run's folder or below it: a run must not supply code, neither as its environment's module nor as a package
    that is imported later.

    Args:
        env: an id; None for that of the run.
        run: a run's folder.
    """
    from nexus.core.errors import RunError
    from nexus.training.edited import read_run_or_copy
    from nexus.training.run_folder import RUN_FILE

    if env is None and run is not None:
        with suppress(RunError):  # reported later, where the run is read
            env = str(read_run_or_copy(run, str).get("env"))
    here = Path.cwd()
    of_run = any((folder / RUN_FILE).exists() for folder in (here, *here.parents))
    if env is not None and ":" in env and not of_run and str(here) not in sys.path:
        sys.path.insert(0, str(here))


@contextmanager
def path_kept() -> Iterator[None]:
    """Restore Python's path afterwards."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before
