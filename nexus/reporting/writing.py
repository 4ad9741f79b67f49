"""Writing a page to a file, without overwriting anything else."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from nexus.comparing.reading_runs import MOST_LEVELS, search
from nexus.core.errors import ConfigError, RunError
from nexus.listener import TrainResult
from nexus.reporting.film import film_of_run
from nexus.reporting.page import NO_EXTRAS, SIGNATURE, Extras, page_of
from nexus.reporting.reading import RunContents, read_several
from nexus.reporting.replay_panel import panel_of_run

__all__ = ["report"]

RunOrFolder: TypeAlias = str | os.PathLike[str] | TrainResult

SUFFIXES = (".html", ".htm")
SIGNED_WITHIN = 1_000  # bytes at the beginning of a page


def report(
    runs: RunOrFolder | Sequence[RunOrFolder],
    out: str | os.PathLike[str] = "report.html",
    *,
    force: bool = False,
    film: bool = True,
    film_seed: int = 0,
    notice: Callable[[str], object] = str,
) -> Path:
    """Write a page about one or several runs: scores, the doctor's findings, curves, settings.

    It is one HTML file that loads nothing else, made from the runs' folders alone, so it works for runs in progress and
    for those that were killed, diverged or are damaged in parts. Of older runs less is known. The page of a single run
    has a film of one greedy episode, which is played for it, and the replay of the newest checkpoint; if that can't be,
    it says why.

    Args:
        runs: folders of runs, folders of such folders, as of a study, or results of `nexus.train`; one or several.
        out: the file to write.
        force: whether to overwrite a file that is not such a page.
        film: whether to play the episode; it takes seconds, and runs the code of the environment.
        film_seed: seed of the episode.
        notice: called with each folder that is skipped.

    Returns:
        The path of the file.

    Raises:
        ConfigError: there is no run, the seed is negative, `out` is not a name for a page or belongs to something else,
            or runs of one environment have different protocols.
        RunError: a folder is not a run, or the file can't be written.
    """
    several = [runs] if isinstance(runs, str | os.PathLike | TrainResult) else list(runs)
    path = Path(out)
    require_place(path, force)
    if film_seed < 0:
        raise ConfigError(f"film_seed = {film_seed}: needs a whole number from 0")
    folders = [run.run_dir if isinstance(run, TrainResult) else Path(run) for run in several]
    read = read_several(runs_in(folders), notice)
    text = page_of(read, extras_for_page(read[0], film, film_seed) if len(read) == 1 else NO_EXTRAS)
    # Names of folders may contain bytes that are not text.
    write_whole(path, text.encode("utf-8", errors="replace"))
    return path


def runs_in(folders: Sequence[Path]) -> list[Path]:
    """Return folders with each one that is no run, but has runs in it, such as a study, replaced by those."""
    found: list[Path] = []
    for folder in folders:
        inside = list(search(folder, MOST_LEVELS)) if folder.is_dir() else []
        found += inside or [folder]
    return found


def extras_for_page(run: RunContents, film: bool, seed: int) -> Extras:
    """Return the film of a run, if it is wanted, and its replay."""
    return Extras(
        film_of_run(run.folder, run.about, run.config, seed) if film else None,
        replay=panel_of_run(run.folder, run.about, run.config, run.scored.episodes, plays=film),
    )


def require_place(path: Path, force: bool) -> None:
    """Raise an error unless a page can be written there.

    Raises:
        ConfigError: the name is not that of a page, or the file is there and is not such a page.
        RunError: there is no such folder, or what is there can't be read.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"out = {str(path)!r}: needs a file name that ends in {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise RunError(f"can't write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise RunError(f"can't write {path}: it is a folder")
    if force or not path.exists():
        return
    try:
        with path.open("rb") as file:
            ours = SIGNATURE.encode() in file.read(SIGNED_WITHIN)
    except OSError as error:
        raise RunError(f"can't read {path}: {error.strerror or error}") from None
    if not ours:
        raise ConfigError(f"{path} exists and is not a report: name another file, or overwrite it with --force")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file by replacing it, so that a reader never sees a part of it."""
    draft = path.with_name(f"{path.name}.tmp")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise RunError(f"can't write {path}: {error.strerror or error}") from None
