"""Modules in the current folder: `python` searches it, an installed command does not."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["look_here", "path_kept"]


def look_here(
    env: str | None, run: str | None = None, wrappers: Sequence[str] | None = (), parts: Sequence[str] = ()
) -> None:
    """Make Python find the modules of a `module:Id`, of wrappers and of own parts in the current folder.

    Not in a run's folder or below it: a run must not supply code, neither as its environment's module nor as a package
    that is imported later.

    Args:
        env: an id; None for that of the run.
        run: a run's folder.
        wrappers: names as in `module:Wrapper`; None for those of the run.
        parts: other names as in `module:Name`, in addition to those of the run.
    """
    from nexus.core.errors import RunError
    from nexus.core.importable import names_in
    from nexus.training.edited import read_run_or_copy
    from nexus.training.run_folder import RUN_FILE

    names = [*([env] if env is not None else []), *(wrappers or ()), *parts]
    if run is not None:
        with suppress(RunError):  # reported later, when the run is read
            about = read_run_or_copy(run, str)
            names += [str(about.get("env"))] if env is None else []
            of_run = names_in(about.get("config"))
            if wrappers is not None:
                of_run.pop("wrappers", None)
            names += [name for several in of_run.values() for name in several]
    here = Path.cwd()
    in_run = any((folder / RUN_FILE).exists() for folder in (here, *here.parents))
    if any(":" in name for name in names) and not in_run and str(here) not in sys.path:
        sys.path.insert(0, str(here))


@contextmanager
def path_kept() -> Iterator[None]:
    """Restore Python's path afterwards."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before
