"""Learning curves of run folders: reading and smoothing them, and the mean of several runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nexus.core.errors import ConfigError, RunError
from nexus.training.run_folder import read_run
from nexus.training.statistics import bootstrap_interval

__all__ = [
    "COLUMN_OF",
    "Axis",
    "Curve",
    "Run",
    "mean_curve",
    "read_episodes",
    "read_runs",
    "running_mean",
    "same_settings",
]

EPISODES_FILE = "episodes.csv"
COLUMNS = ("step", "episode", "return", "length", "seconds")
GRID = 300  # points of a mean curve: more than a picture of usual size resolves

Floats: TypeAlias = NDArray[np.float64]
Axis: TypeAlias = Literal["steps", "episodes", "seconds"]
COLUMN_OF: Mapping[Axis, str] = {"steps": "step", "episodes": "episode", "seconds": "seconds"}


@dataclass(frozen=True)
class Run:
    """The training episodes of one run, and what it was a run of.

    Args:
        folder: where it lies.
        env: the environment's id.
        settings: everything that distinguishes one kind of run from another; the seed doesn't.
        episodes: a column `[K]` for each of `COLUMNS`, one row per finished episode.
    """

    folder: Path
    env: str
    settings: Mapping[str, Any]
    episodes: Mapping[str, Floats]

    def curve(self, axis: Axis, window: int) -> "Curve":
        """Return the running mean of the returns over `window` episodes."""
        returns = running_mean(self.episodes["return"], window)
        return Curve(self.episodes[COLUMN_OF[axis]], returns, returns, returns)


@dataclass(frozen=True)
class Curve:
    """A mean return along an axis, with its 95 % interval; all `[K]`."""

    x: Floats
    mean: Floats
    low: Floats
    high: Floats


def read_runs(folders: Sequence[str]) -> list[Run]:
    """Read runs of one environment; a folder that is named twice counts once.

    Raises:
        RunError: a folder is no run, or its episodes are missing or damaged.
        ConfigError: the runs are of different environments.
    """
    unique = {Path(folder).resolve(): Path(folder) for folder in folders}
    runs = [read_one(folder) for folder in unique.values()]
    envs = sorted({run.env for run in runs})
    if len(envs) > 1:
        raise ConfigError(f"returns of {', '.join(envs)} can't share an axis: name the runs of one environment")
    return runs


def read_one(folder: Path) -> Run:
    """Read one run's folder."""
    about = read_run(folder)
    config = about.get("config")
    settings = {"algorithm": about.get("algorithm"), **(config if isinstance(config, dict) else {})}
    settings.pop("seed", None)
    return Run(folder, str(about.get("env")), settings, read_episodes(folder))


def read_episodes(folder: Path) -> dict[str, Floats]:
    """Read `episodes.csv` into a column `[K]` per name.

    A run that is still going may have written half of its last line; that line is left out.

    Raises:
        RunError: there is no such file, it is damaged, or no episode has ended yet.
    """
    path = folder / EPISODES_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"can't read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise RunError(f"{path} is damaged: it is no text") from None
    header, *lines = text[: text.rfind("\n") + 1].splitlines() or [""]
    if tuple(header.split(",")) != COLUMNS:
        raise RunError(f"{path} is damaged: needs the columns {', '.join(COLUMNS)}, got {header[:60]!r}")
    if not lines:
        raise RunError(f"{path} has no episodes: none had ended when the run did")
    rows = [read_row(path, number, line) for number, line in enumerate(lines, 2)]
    return {name: np.array(values) for name, values in zip(COLUMNS, zip(*rows, strict=True), strict=True)}


def read_row(path: Path, number: int, line: str) -> list[float]:
    """Return the numbers of one line."""
    try:
        row = [float(word) for word in line.split(",")]
    except ValueError:
        row = []
    if len(row) != len(COLUMNS) or not np.isfinite(row).all():
        raise RunError(f"{path} is damaged: line {number} needs {len(COLUMNS)} numbers, got {line[:60]!r}")
    return row


def running_mean(values: Floats, window: int) -> Floats:
    """Return the mean of each value and those before it, `window` in all; the first means are of fewer.

    Args:
        values: `[K]`.
        window: how many.

    Returns:
        `[K]`.
    """
    totals = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    means: Floats = (totals[ends] - totals[starts]) / (ends - starts)
    return means


def same_settings(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Group runs that differ in nothing but their seed, named by the settings in which the groups differ."""
    keys = sorted({key for run in runs for key in run.settings})
    differing = [key for key in keys if len({repr(run.settings.get(key)) for run in runs}) > 1]
    groups: dict[str, list[Run]] = {}
    for run in runs:
        name = ", ".join(f"{key} = {run.settings.get(key)}" for key in differing)
        groups.setdefault(name, []).append(run)
    return groups


def mean_curve(runs: Sequence[Run], axis: Axis, window: int) -> Curve:
    """Return the mean over runs of their running means, with a 95 % bootstrap interval at each point.

    It covers what all the runs cover: from where the last of them has begun to where the first has ended.

    Raises:
        ConfigError: the runs share no such range.
    """
    curves = [run.curve(axis, window) for run in runs]
    if len(curves) == 1:
        return curves[0]
    start, end = max(curve.x[0] for curve in curves), min(curve.x[-1] for curve in curves)
    if start > end:
        names = ", ".join(str(run.folder) for run in runs)
        raise ConfigError(f"these runs share no range of {axis}, so they have no mean: {names}")
    grid = np.linspace(start, end, GRID)
    values = np.stack([np.interp(grid, curve.x, curve.mean) for curve in curves])
    return Curve(grid, values.mean(axis=0), *bootstrap_interval(values))
