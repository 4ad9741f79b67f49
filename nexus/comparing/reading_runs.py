"""Finding the runs to compare, and reading their evaluations."""

from collections.abc import Callable, Iterator, Sequence
from os import PathLike, fspath, scandir
from pathlib import Path
from typing import TypeAlias

import numpy as np

from nexus.core.errors import ConfigError, RunError
from nexus.listener import TrainResult
from nexus.training.curves import (
    NothingToDraw,
    ScoredRun,
    different_seeds,
    episodes_per_evaluation,
    read_scores,
    require_one_protocol,
    scored_run,
)
from nexus.training.edited import read_run_or_copy
from nexus.training.run_folder import RUN_FILE

__all__ = ["RunsOrFolders", "read_evaluations"]

RunsOrFolders: TypeAlias = str | PathLike[str] | TrainResult | Sequence[str | PathLike[str] | TrainResult]

MOST_LEVELS = 3  # levels of folders below one that is named: study/setting/seed
MOST_COMPARED = 2_000  # 10,000 resamples of so many scores are 160 MB
NO_EPISODES = dict.fromkeys(("step", "episode", "return", "length", "seconds"), np.empty(0))


def read_evaluations(
    runs: RunsOrFolders, *, same_env: bool = False, notice: Callable[[str], object] = str
) -> list[ScoredRun]:
    """Read the evaluations of runs; of their episodes nothing is needed.

    Args:
        runs: folders of runs, folders of such folders, or results of `nexus.train`; one or several.
        same_env: as in `read_runs`.
        notice: called with each folder that is skipped, and with what could not be read.

    Raises:
        RunError: a folder does not exist, or there is no run.
        ConfigError: runs of one environment have different protocols.
    """
    several = [runs] if isinstance(runs, str | PathLike | TrainResult) else list(runs)
    if not several:
        raise ConfigError("name at least one run, as in: nexus compare runs/*")
    named = [Path(run.run_dir if isinstance(run, TrainResult) else fspath(run)) for run in several]
    folders = {found.resolve(): found for folder in named for found in runs_named(folder, len(named) > 1, notice)}
    if not folders:
        raise RunError(f"nothing to compare: there is no run in {', '.join(map(str, named[:3]))}")
    if len(folders) > MOST_COMPARED:
        raise ConfigError(f"{len(folders):,} runs: at most {MOST_COMPARED:,} can be compared")
    read = [read_scored(folder, same_env, notice) for folder in sorted(folders.values())]
    for env in dict.fromkeys(run.env for run in read):
        require_one_protocol([run for run in read if run.env == env])
    kept, skipped = different_seeds(read)
    for line in skipped:
        notice(line)
    return kept


def runs_named(folder: Path, others: bool, notice: Callable[[str], object]) -> Iterator[Path]:
    """Yield a folder if it is a run, else the runs in it.

    Raises:
        RunError: it does not exist, or has no run and nothing else was named.
    """
    if not folder.exists():
        raise RunError(f"no run {folder}: there is no such folder")
    found = list(search(folder, MOST_LEVELS)) if folder.is_dir() else []
    if not found:
        said = f"{folder} is not a run, since it has no {RUN_FILE}, and has none in it"
        if not others:
            raise RunError(said)
        notice(f"{folder} is skipped: it is not a run, and has none in it")
    yield from found


def search(folder: Path, levels: int) -> Iterator[Path]:
    """Yield the runs in a folder, down to some level, in the order of their names."""
    if (folder / RUN_FILE).exists():
        yield folder
    elif levels:
        try:
            with scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        except OSError as error:
            raise RunError(f"can't read {folder}: {error.strerror or error}") from None
        for name in names:
            yield from search(folder / name, levels - 1)


def read_scored(folder: Path, same_env: bool, notice: Callable[[str], object]) -> ScoredRun:
    """Read one run's evaluations, leaving out what is damaged; `notice` is called with the first such part."""
    damage: list[RunError] = []

    def damaged(error: RunError) -> None:
        if not isinstance(error, NothingToDraw):
            damage.append(error)

    about = read_run_or_copy(folder, notice)
    scores = read_scores(folder, episodes_per_evaluation(about), damaged)
    run = scored_run(folder, about, NO_EPISODES, scores, same_env=same_env, damaged=damaged)
    if damage:
        more = f", and so are {len(damage) - 1:,} more parts" if len(damage) > 1 else ""
        notice(f"{damage[0]}; it is left out{more}")
    return run
