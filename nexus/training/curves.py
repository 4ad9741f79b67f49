"""Learning curves of run folders: scores during training, and the mean of several runs."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeGuard

import numpy as np

from nexus.core.errors import ConfigError, RunError
from nexus.core.types import Floats
from nexus.envs.atari import is_atari
from nexus.training.config import TrainConfig
from nexus.training.edited import named_now, read_run_or_copy
from nexus.training.files import file_in, read_json
from nexus.training.run_folder import EPISODES_FILE, EVALUATION_FILE, METRICS_FILE, RUN_FILE
from nexus.training.same_run import require_score_of_weights
from nexus.training.settings import EVERY_4_STEPS
from nexus.training.statistics import bootstrap_interval

__all__ = [
    "COLUMN_OF",
    "SCORE",
    "SPREAD",
    "Axis",
    "Curve",
    "ScoredRun",
    "Scores",
    "columns_in",
    "different_seeds",
    "episodes_per_evaluation",
    "grid_of",
    "mean_of",
    "points_of",
    "read_episodes",
    "read_evaluation",
    "read_one",
    "read_row",
    "read_runs",
    "read_scores",
    "require_one_protocol",
    "running_mean",
    "same_settings",
    "scored_run",
    "with_interval",
]

EPISODE_COLUMNS = ("step", "episode", "return", "length", "seconds")
STAGED_COLUMNS = ("step", "episode", "return", "length", "stage", "seconds")  # in a curriculum
SCORE, SPREAD = "eval/mean_reward", "eval/std_reward"  # names of an evaluation's scores in metrics.jsonl
GRID = 300  # points of a mean curve: more than a plot usually resolves
NORMAL = 1.96  # standard errors on either side of a mean, for 95 %

Axis: TypeAlias = Literal["steps", "episodes", "seconds"]
COLUMN_OF: Mapping[Axis, str] = {"steps": "step", "episodes": "episode", "seconds": "seconds"}
Scores: TypeAlias = dict[float, tuple[float, float, float]]  # step -> mean and ends of its interval
Damaged: TypeAlias = Callable[[RunError], object]
"""Called with what can't be read; if it returns, that part is left out."""


def raise_it(error: RunError) -> None:
    """Raise the error."""
    raise error


@dataclass(frozen=True)
class Curve:
    """A mean return along an axis, with its 95 % interval; all `[K]`."""

    x: Floats
    mean: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class ScoredRun:
    """The scores of one run over time, with its environment and settings.

    Args:
        folder: its path.
        env: the environment's id, or the name of the function that makes it.
        settings: everything that distinguishes one kind of run from another, without the seed.
        episodes: a column `[K]` for each of `EPISODE_COLUMNS`, one row per finished training episode.
        scores: scores of its evaluations, by step.
        seed: None if unknown.
        end: how far it got, under the names of `EPISODE_COLUMNS`.
        finished: whether the last evaluation is of its final weights.
        trained: the protocol of training; empty except for Atari games.
        evaluated: the protocol of evaluations, with their ε; None if the run was not evaluated.
        status: as in `run.json`; empty if unknown.
    """

    folder: Path
    env: str
    settings: Mapping[str, Any]
    episodes: Mapping[str, Floats]
    scores: Scores = field(default_factory=dict)
    seed: int | None = None
    end: Mapping[str, float] = field(default_factory=dict)
    finished: bool = False
    trained: Mapping[str, Any] = field(default_factory=dict)
    evaluated: Mapping[str, Any] | None = None
    status: str = ""

    def training(self, axis: Axis, window: int) -> Curve:
        """Return the running mean of the training returns over `window` episodes."""
        returns = running_mean(self.episodes["return"], window)
        return Curve(self.episodes[COLUMN_OF[axis]], returns, returns, returns)

    def evaluations(self, axis: Axis) -> Curve:
        """Return the evaluations, in order."""
        steps = np.array(sorted(self.scores))
        mean, low, high = np.array([self.scores[step] for step in steps]).reshape(-1, 3).T
        return Curve(self.along(axis, steps), mean, low, high)

    def along(self, axis: Axis, steps: Floats) -> Floats:
        """Return the positions on an axis at these steps, interpolated between the ends of episodes."""
        if axis == "steps":
            return steps
        column = COLUMN_OF[axis]
        known, there = (np.append(0.0, self.episodes[name]) for name in ("step", column))
        if self.end.get("step", 0.0) > known[-1]:
            known, there = np.append(known, self.end["step"]), np.append(there, self.end[column])
        at: Floats = np.interp(steps, known, there)
        return at


class NothingToDraw(RunError):
    """A run has neither an episode nor an evaluation yet."""


def read_runs(
    folders: Sequence[str], *, same_env: bool = False, notice: Callable[[str], object] = str
) -> list[ScoredRun]:
    """Read runs; a folder named twice counts once.

    Args:
        folders: the runs' folders. Of several, as from a shell's `runs/*`, those that are not runs or have nothing
            to draw yet are skipped.
        same_env: whether functions with the same name make the same environment; two lambdas share a name.
        notice: called with skipped folders and other warnings.

    Raises:
        RunError: a folder does not exist, a run's files are missing or damaged, or there is nothing to draw.
        ConfigError: runs of one environment have different protocols.
    """
    unique = {Path(folder).resolve(): Path(folder) for folder in folders}
    runs = []
    for folder in unique.values():
        others = len(unique) > 1
        if others and folder.exists() and not (folder / RUN_FILE).exists():
            notice(f"{folder} is skipped: it is not a run, since it has no {RUN_FILE}")
            continue
        try:
            runs.append(read_one(folder, same_env=same_env, notice=notice))
        except NothingToDraw as error:
            if not others:
                raise
            notice(f"{error}: skipped")
    if not runs:
        raise RunError("nothing to draw: none of these is a run with an episode or an evaluation")
    for env in dict.fromkeys(run.env for run in runs):
        require_one_protocol([run for run in runs if run.env == env])
    return runs


def require_one_protocol(runs: Sequence[ScoredRun]) -> None:
    """Raise `ConfigError` if runs were trained or evaluated under different protocols; having none counts as one.

    The number of episodes and the seed are not part of a protocol.
    """
    for how in ("trained", "evaluated"):
        known = [(run, getattr(run, how)) for run in runs if getattr(run, how) is not None]
        for run, protocol in known:
            first, expected = known[0]
            if protocol != expected:
                raise ConfigError(
                    f"{first.folder} was {how} under {protocol_text(expected, protocol)}, {run.folder} under "
                    f"{protocol_text(protocol, expected)}: scores under different protocols can't be compared"
                )


def protocol_text(protocol: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return a protocol's name; if the other has the same name, how they differ."""
    name = str(protocol.get("name", "no protocol"))
    if name != str(other.get("name", "no protocol")):
        return name
    own = [f"{key} {value}" for key, value in protocol.items() if other.get(key) != value]
    return f"{name} ({', '.join(own)})" if own else name


def read_one(
    folder: Path, *, same_env: bool = False, notice: Callable[[str], object] = str, damaged: Damaged = raise_it
) -> ScoredRun:
    """Read one run's folder.

    Args:
        folder: its path.
        same_env: as in `read_runs`.
        notice: called with warnings.
        damaged: called with what is wrong with a log or the evaluation, and if there is nothing to draw.

    Raises:
        RunError: there is no such run, or `damaged` raises.
    """
    about = read_run_or_copy(folder, notice)
    episodes, scores = read_episodes(folder, damaged), read_scores(folder, episodes_per_evaluation(about), damaged)
    return scored_run(folder, about, episodes, scores, same_env=same_env, damaged=damaged)


def episodes_per_evaluation(about: Mapping[str, Any]) -> Any:
    """Return how many episodes each evaluation of a run played, as its settings say; any value if they are damaged."""
    config = about.get("config")
    usual = TrainConfig().eval_episodes
    return named_now(config).get("eval_episodes", usual) if isinstance(config, dict) else usual


def scored_run(
    folder: Path,
    about: Mapping[str, Any],
    episodes: Mapping[str, Floats],
    scores: Scores,
    *,
    same_env: bool = False,
    damaged: Damaged = raise_it,
) -> ScoredRun:
    """Return a run of which the logs have been read.

    Args:
        folder: its path.
        about: the contents of `run.json`.
        episodes: as `read_episodes` returns them.
        scores: the evaluations in `metrics.jsonl`; the final one is added.
        same_env: as in `read_runs`.
        damaged: called with what is wrong with the evaluation, and if there is nothing to draw.

    Raises:
        RunError: `damaged` raises.
    """
    config, env = about.get("config"), str(about.get("env"))
    config = config if isinstance(config, dict) else {}
    # A setting that did not exist yet gets its default, so that older and newer runs can be compared.
    settings = {**TrainConfig().to_mapping(), "algorithm": about.get("algorithm"), **named_now(config)}
    del settings["rollout_steps" if settings["trace_lambda"] is None else "replay_capacity"]  # the run does not use it
    if settings["update_every"] is None:
        settings["update_every"] = str(EVERY_4_STEPS)  # as older runs store it
    seed, kwargs, wrappers = config.get("seed"), settings.pop("env_kwargs"), settings.pop("wrappers")
    del settings["seed"]
    own = settings.pop("algorithm_settings")
    settings |= own if isinstance(own, dict) else {}
    if isinstance(kwargs, dict):
        env += "".join(f", {name}={value}" for name, value in kwargs.items())
    if isinstance(wrappers, list) and wrappers:
        env += f", in {', '.join(map(str, wrappers))}"
    if not (about.get("env_is_id", True) or same_env):
        settings["run"] = str(folder)
    match about.get("from"):
        case {"env": start, "keep": keep}:  # its curve is not that of fresh weights
            settings["from"] = f"{start}, {keep}"
    scores = dict(scores)
    end, final, protocol = end_of(about), None, None
    try:
        final = read_evaluation(folder, about)
        protocol = None if final is None else protocol_in(final, folder / EVALUATION_FILE)
        interval = None if final is None else interval_of(final, folder / EVALUATION_FILE)
    except RunError as error:
        damaged(error)
        interval = None
    finished = about.get("status") == "finished" and interval is not None
    if interval is not None and finished:
        scores[end.get("step", max(scores, default=0.0))] = interval
    if not (scores or episodes["step"].size):
        damaged(NothingToDraw(f"{folder} has nothing to draw yet: no episode has ended, and there was no evaluation"))
    return ScoredRun(
        folder,
        env,
        settings,
        episodes,
        scores,
        seed if isinstance(seed, int) else None,
        end,
        finished,
        {"name": settings.get("protocol") or "nature"} if is_atari(str(about.get("env"))) else {},
        protocol,
        str(about.get("status")),
    )


def end_of(about: Mapping[str, Any]) -> dict[str, float]:
    """Return how far a run got according to its `run.json`; empty if unknown."""
    progress = about.get("progress")
    progress = progress if isinstance(progress, dict) else {}
    end = {"step": progress.get("steps"), "episode": progress.get("episodes"), "seconds": about.get("seconds")}
    known = {name: float(value) for name, value in end.items() if is_number(value)}
    return known if len(known) == len(end) else {}


def read_evaluation(folder: Path, about: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the contents of `evaluation.json`, None if there is none.

    Raises:
        RunError: it can't be read, or scores other weights than those named in `run.json`.
    """
    if not (folder / EVALUATION_FILE).exists():
        return None
    path = file_in(folder, EVALUATION_FILE)
    evaluation = read_json(path, must_carry=about["format"] > 1)
    require_score_of_weights(about, evaluation, path)
    return evaluation


def protocol_in(evaluation: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the rules and the ε of an evaluation.

    Raises:
        RunError: the evaluation does not say how it was played.
    """
    protocol = evaluation.get("protocol")
    rules = protocol.get("rules") if isinstance(protocol, dict) else None
    if not isinstance(protocol, dict) or not isinstance(rules, dict | None) or "epsilon" not in protocol:
        raise RunError(f"{path} does not name its protocol")
    return {**(rules or {}), "epsilon": protocol["epsilon"]}


def interval_of(evaluation: Mapping[str, Any], path: Path) -> tuple[float, float, float]:
    """Return the mean of an evaluation and both ends of its interval.

    Raises:
        RunError: one of them is not a number.
    """
    mean, low, high = (evaluation.get(name) for name in ("mean", "low", "high"))
    if not (is_number(mean) and is_number(low) and is_number(high)):
        raise RunError(f"{path} is damaged: needs numbers for mean, low and high")
    return float(mean), float(low), float(high)


def read_scores(folder: Path, episodes: Any, damaged: Damaged = raise_it) -> Scores:
    """Read the evaluations in `metrics.jsonl`; of two at one step the last counts, played on different episodes.

    Args:
        folder: the run's folder.
        episodes: episodes per evaluation, if known, from which intervals are computed.
        damaged: called with each damaged line.

    Raises:
        RunError: the file can't be read or is damaged, and `damaged` raises.
    """
    path, scores = folder / METRICS_FILE, Scores()
    if not path.exists():
        return scores
    for number, line in enumerate(log_lines(path, damaged), 1):
        if SCORE not in line:
            continue
        try:
            values = json.loads(line)
        except ValueError:
            values = None
        step, mean, spread = (values.get(key) if isinstance(values, dict) else None for key in ("step", SCORE, SPREAD))
        if not (is_number(step) and is_number(mean) and is_number(spread)):
            damaged(RunError(f"{path} is damaged: line {number} needs numbers for step, {SCORE} and {SPREAD}"))
            continue
        scores[float(step)] = with_interval(mean, spread, episodes)
    return scores


def with_interval(mean: float, spread: float, episodes: Any) -> tuple[float, float, float]:
    """Return a mean return and both ends of its 95 % interval, which is empty if the number of episodes is unknown."""
    half = NORMAL * spread / np.sqrt(episodes) if isinstance(episodes, int) and episodes > 1 else 0.0
    return float(mean), float(mean - half), float(mean + half)


def is_number(value: Any) -> TypeGuard[float]:
    """True for a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def whole_lines(path: Path) -> list[str]:
    """Return the complete lines of a log, without a partial last line that a running run may have written.

    Raises:
        RunError: it can't be read, or is not text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"can't read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise RunError(f"{path} is damaged: it is not text") from None
    return text[: text.rfind("\n") + 1].splitlines()


def log_lines(path: Path, damaged: Damaged) -> list[str]:
    """Return the complete lines of a log; none if it can't be read and `damaged` does not raise."""
    try:
        return whole_lines(path)
    except RunError as error:
        damaged(error)
        return []


def read_episodes(folder: Path, damaged: Damaged = raise_it) -> dict[str, Floats]:
    """Read `episodes.csv` into a column `[K]` per name; `stage` is among them if the run had a curriculum.

    Args:
        folder: the run's folder.
        damaged: called if there is no such file, and with each damaged line.

    Raises:
        RunError: `damaged` raises.
    """
    path = folder / EPISODES_FILE
    header, *lines = log_lines(path, damaged) or [""]
    columns = columns_in(header)
    if columns is None:
        needs = f"needs the columns {', '.join(EPISODE_COLUMNS)}"
        damaged(RunError(f"{path} is damaged: {needs}, got {header[:60]!r}" if header else f"{path} is empty: {needs}"))
        columns, lines = EPISODE_COLUMNS, []
    read = [read_row(path, number, line, damaged, columns) for number, line in enumerate(lines, 2)]
    rows = np.array([row for row in read if row]).reshape(-1, len(columns))
    return dict(zip(columns, rows.T, strict=True))


def columns_in(header: str) -> tuple[str, ...] | None:
    """Return the columns that a header of `episodes.csv` names, None if they are not those of a run."""
    named = tuple(header.strip().split(","))
    return named if named in (EPISODE_COLUMNS, STAGED_COLUMNS) else None


def read_row(path: Path, number: int, line: str, damaged: Damaged, columns: Sequence[str]) -> list[float]:
    """Return the numbers of one line; none if it is damaged and `damaged` does not raise."""
    try:
        row = [float(word) for word in line.split(",")]
    except ValueError:
        row = []
    if len(row) != len(columns) or not all(map(isfinite, row)):
        damaged(RunError(f"{path} is damaged: line {number} needs {len(columns)} numbers, got {line[:60]!r}"))
        return []
    return row


def running_mean(values: Floats, window: int) -> Floats:
    """Return the mean over each value and those before it, `window` in all, and fewer at the start.

    Args:
        values: `[K]`.
        window: number of values.

    Returns:
        `[K]`.
    """
    totals = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    means: Floats = (totals[ends] - totals[starts]) / (ends - starts)
    return means


def same_settings(runs: Sequence[ScoredRun]) -> dict[str, list[ScoredRun]]:
    """Group runs that differ only in their seed, named by the settings in which the groups differ."""
    keys = sorted({key for run in runs for key in run.settings})
    differing = [key for key in keys if len({repr(run.settings.get(key)) for run in runs}) > 1]
    groups: dict[str, list[ScoredRun]] = {}
    for run in runs:
        name = ", ".join(f"{key} = {run.settings.get(key)}" for key in differing)
        groups.setdefault(name, []).append(run)
    return groups


def different_seeds(runs: Iterable[ScoredRun]) -> tuple[list[ScoredRun], list[str]]:
    """Skip runs with another run's seed and settings, since they are not independent; keep the longer one.

    Returns:
        The remaining runs, and a line for each one skipped.
    """
    same: dict[str, list[ScoredRun]] = {}
    for run in runs:
        which = run.folder if run.seed is None else run.seed
        same.setdefault(repr((run.env, sorted(run.settings.items()), which)), []).append(run)
    kept = [max(group, key=lambda run: run.end.get("step", 0.0)) for group in same.values()]
    said = [
        f"{run.folder} is skipped: it has the same seed {run.seed} and settings as {first.folder}"
        for first, group in zip(kept, same.values(), strict=True)
        for run in group
        if run is not first
    ]
    return kept, said


def grid_of(curves: Sequence[Curve]) -> Floats:
    """Return evenly spaced points over the range that all curves cover."""
    start, end = shared_range(curves)
    return np.linspace(start, end, GRID) if start <= end else np.empty(0)


def points_of(curves: Sequence[Curve]) -> Floats:
    """Return the points of the curve with the fewest, clipped to the range that all curves cover.

    The steps of evaluations differ slightly between runs, since all environments step together.
    """
    start, end = shared_range(curves)
    fewest = min((curve.x for curve in curves), key=len)
    return np.unique(fewest.clip(start, end)) if start <= end else np.empty(0)


def shared_range(curves: Sequence[Curve]) -> tuple[float, float]:
    """Return the first and last point that all curves cover; the range is empty if the last is before the first."""
    return max(curve.x[0] for curve in curves), min(curve.x[-1] for curve in curves)


def mean_of(curves: Sequence[Curve], x: Floats) -> Curve:
    """Return the mean of several curves at some points, with a 95 % bootstrap interval at each."""
    values = np.stack([np.interp(x, curve.x, curve.mean) for curve in curves])
    return Curve(x, values.mean(axis=0), *bootstrap_interval(values))
