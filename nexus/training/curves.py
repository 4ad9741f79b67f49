"""Learning curves of run folders: reading and smoothing them, and the mean of several runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nexus.core.errors import ConfigError, RunError
from nexus.envs.atari import is_atari
from nexus.training.files import inside, read_json
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

EPISODES_FILE, EVALUATION_FILE = "episodes.csv", "evaluation.json"
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
        trained: under which protocol; empty but for Atari games.
        evaluated: likewise, with the ε that acted; None if the run was not evaluated.
    """

    folder: Path
    env: str
    settings: Mapping[str, Any]
    episodes: Mapping[str, Floats]
    trained: Mapping[str, Any] = field(default_factory=dict)
    evaluated: Mapping[str, Any] | None = None

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
    """Read runs of one environment under one protocol; a folder that is named twice counts once.

    Raises:
        RunError: a folder is no run, or its episodes are missing or damaged.
        ConfigError: the runs are of different environments or protocols.
    """
    unique = {Path(folder).resolve(): Path(folder) for folder in folders}
    runs = [read_one(folder) for folder in unique.values()]
    envs = sorted({run.env for run in runs})
    if len(envs) > 1:
        raise ConfigError(f"returns of {', '.join(envs)} can't share an axis: name the runs of one environment")
    require_one_protocol(runs)
    return runs


def require_one_protocol(runs: Sequence[Run]) -> None:
    """Raise `ConfigError` if runs were trained or evaluated under different protocols; runs without any count as one.

    How many episodes were played and on which seed is no part of it.
    """
    for how in ("trained", "evaluated"):
        known = [(run, getattr(run, how)) for run in runs if getattr(run, how) is not None]
        for run, protocol in known:
            first, expected = known[0]
            if protocol != expected:
                raise ConfigError(
                    f"{first.folder} was {how} under {shown(expected, protocol)}, {run.folder} under "
                    f"{shown(protocol, expected)}: scores under different protocols can't be compared"
                )


def shown(protocol: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Name a protocol; where another has that name too, in what they differ."""
    name = str(protocol.get("name", "no protocol"))
    if name != str(other.get("name", "no protocol")):
        return name
    own = [f"{key} {value}" for key, value in protocol.items() if other.get(key) != value]
    return f"{name} ({', '.join(own)})" if own else name


def read_one(folder: Path) -> Run:
    """Read one run's folder."""
    about = read_run(folder)
    config, env = about.get("config"), str(about.get("env"))
    settings = {"algorithm": about.get("algorithm"), **(config if isinstance(config, dict) else {})}
    settings.pop("seed", None)
    trained = {"name": settings.get("protocol") or "nature"} if is_atari(env) else {}
    evaluated = read_protocol(folder, must_carry=about["format"] > 1)
    return Run(folder, env, settings, read_episodes(folder), trained, evaluated)


def read_protocol(folder: Path, *, must_carry: bool) -> dict[str, Any] | None:
    """Return the rules and the ε of a run's evaluation, None if it has none.

    Raises:
        RunError: `evaluation.json` is damaged, or does not say how it was made.
    """
    if not (folder / EVALUATION_FILE).exists():
        return None
    protocol = read_json(inside(folder, EVALUATION_FILE), must_carry=must_carry).get("protocol")
    rules = protocol.get("rules") if isinstance(protocol, dict) else None
    if not isinstance(protocol, dict) or not isinstance(rules, dict | None) or "epsilon" not in protocol:
        raise RunError(f"{folder / EVALUATION_FILE} does not say under which protocol it was made")
    return {**(rules or {}), "epsilon": protocol["epsilon"]}


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
