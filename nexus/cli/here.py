"""Modules in the current folder: `python` looks for them there, a command does not."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["look_here", "path_kept"]


def look_here(env: str | None, run: str | None = None) -> None:
    """Let Python find the module of a `module:Id` in the current folder.

    Not in that of a run or below it: a run must not bring code along, neither under its environment's name nor under
    that of a package that is imported later.

    Args:
        env: an id; None is that of the run.
        run: a run's folder.
    """
    from nexus.core.errors import RunError
    from nexus.training.edited import read_run_or_copy
    from nexus.training.run_folder import RUN_FILE

    if env is None and run is not None:
        with suppress(RunError):  # whoever needs the run says what is wrong with it
            env = str(read_run_or_copy(run, str).get("env"))
    here = Path.cwd()
    of_run = any((folder / RUN_FILE).exists() for folder in (here, *here.parents))
    if env is not None and ":" in env and not of_run and str(here) not in sys.path:
        sys.path.insert(0, str(here))


@contextmanager
def path_kept() -> Iterator[None]:
    """Leave Python's path as it was."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before
