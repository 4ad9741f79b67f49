"""What a run's folder says: read as far as it can be read, with a remark on whatever can't."""

import json
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import isfinite, nan
from os import SEEK_END
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np

from nexus.api import config_of
from nexus.core.errors import ConfigError, NexusError, RunError
from nexus.core.types import Floats
from nexus.doctor.afterwards import diagnose
from nexus.doctor.diagnosis import Diagnosis
from nexus.training.config import TrainConfig
from nexus.training.curves import (
    Curve,
    Damaged,
    ScoredRun,
    Scores,
    episodes_per_evaluation,
    log_lines,
    read_episodes,
    read_evaluation,
    read_scores,
    require_one_protocol,
    scored_run,
)
from nexus.training.edited import read_run_or_copy
from nexus.training.evaluation import Evaluation
from nexus.training.files import file_in
from nexus.training.run_folder import EPISODES_FILE, METRICS_FILE, RUN_FILE

__all__ = [
    "EPISODES_OF_MEAN",
    "Logged",
    "Logs",
    "RunContents",
    "ScalarColumns",
    "by_environment",
    "enter_scalars",
    "read_contents",
    "read_several",
    "scalars_in",
]

EPISODES_OF_MEAN = 20  # episodes of the running mean, as in `nexus plot`
MOST_RUNS = 100  # on a page; more can't be told apart
MOST_REMARKS = 5  # of one run
Readable = TypeVar("Readable")
ScalarColumns: TypeAlias = "dict[str, tuple[array[float], array[float]]]"
"""Of each scalar: the steps at which it was logged, and its values."""
OF_SCORE = frozenset(field.name for field in fields(Evaluation))


@dataclass(frozen=True)
class Logged:
    """One scalar of `metrics.jsonl`: its steps and values, both `[K]`; nan where a value was not finite.

    Args:
        steps: where it was logged.
        values: what was logged.
        count: how often it was logged, if not all of that is here.
        gaps: how many of the logged values were not finite, likewise.
    """

    steps: Floats
    values: Floats
    count: int | None = None
    gaps: int | None = None


class Logs(Protocol):
    """What a run has logged so far. Each method calls `damaged` with what can't be read and is left out."""

    def scalars(self, damaged: Damaged) -> Mapping[str, Logged]:
        """Return the scalars of `metrics.jsonl`."""
        ...

    def scores(self, episodes: Any, damaged: Damaged) -> Scores:
        """Return the evaluations in `metrics.jsonl`, as `read_scores`."""
        ...

    def episodes(self, damaged: Damaged) -> Mapping[str, Floats]:
        """Return the columns of `episodes.csv`, as `read_episodes`."""
        ...

    def training(self, run: ScoredRun) -> Curve:
        """Return the running mean of the training returns over `EPISODES_OF_MEAN` episodes, by steps."""
        ...

    def diagnosis(self, about: Mapping[str, Any], config: TrainConfig) -> Diagnosis:
        """Return the doctor's diagnosis, given the contents of `run.json` and the settings there.

        Raises:
            RunError: a log is damaged.
        """
        ...


@dataclass(frozen=True)
class LogFiles:
    """The logs in a run's folder, read whole."""

    folder: Path

    def scalars(self, damaged: Damaged) -> Mapping[str, Logged]:
        """Read all scalars."""
        return read_scalars(self.folder / METRICS_FILE, damaged)

    def scores(self, episodes: Any, damaged: Damaged) -> Scores:
        """Read all evaluations."""
        return read_scores(self.folder, episodes, damaged)

    def episodes(self, damaged: Damaged) -> Mapping[str, Floats]:
        """Read all episodes."""
        return read_episodes(self.folder, damaged)

    def training(self, run: ScoredRun) -> Curve:
        """Return the means of all episodes."""
        return run.training("steps", EPISODES_OF_MEAN)

    def diagnosis(self, about: Mapping[str, Any], config: TrainConfig) -> Diagnosis:
        """Read the logs once more, as the doctor does."""
        return diagnose(self.folder)


@dataclass(frozen=True)
class RunContents:
    """Everything that a page shows of one run.

    Args:
        name: the end of its folder's path.
        about: the contents of `run.json`.
        scored: its episodes and evaluations.
        training: the running mean of its training returns.
        scalars: what was logged, by name.
        config: its settings; None if this version can't read them.
        evaluation: the final one; None if there is none.
        diagnosis: the doctor's; None if it could not read the run.
        remarks: what is missing or damaged, one line each.
    """

    name: str
    about: Mapping[str, Any]
    scored: ScoredRun
    training: Curve
    scalars: Mapping[str, Logged]
    config: TrainConfig | None
    evaluation: Evaluation | None
    diagnosis: Diagnosis | None
    remarks: Sequence[str]

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.scored.folder


def read_several(folders: Sequence[Path], notice: Callable[[str], object]) -> list[RunContents]:
    """Read runs; a folder named twice counts once.

    Args:
        folders: the runs' folders. Of several, as from a shell's `runs/*`, those that are not runs are skipped.
        notice: called with each folder that is skipped.

    Raises:
        RunError: a folder does not exist, or a `run.json` can't be read.
        ConfigError: there are no runs, too many, or runs of one environment have different protocols.
    """
    unique = list({folder.resolve(): folder for folder in folders}.values())
    if not unique:
        raise ConfigError("name at least one run, as in: nexus report runs/*")
    chosen = []
    for folder in unique:
        if len(unique) > 1 and folder.exists() and not (folder / RUN_FILE).exists():
            notice(f"{folder} is skipped: it is not a run, since it has no {RUN_FILE}")
        else:
            chosen.append(folder)
    if not chosen:
        raise RunError("nothing to report: none of these folders is a run")
    if len(chosen) > MOST_RUNS:
        raise ConfigError(f"{len(chosen)} runs: a report has room for {MOST_RUNS}")
    runs = [read_contents(folder, name) for folder, name in zip(chosen, names_of(chosen), strict=True)]
    for group in by_environment(runs).values():
        require_one_protocol([run.scored for run in group.values()])
    return runs


def by_environment(runs: Iterable[RunContents]) -> dict[str, dict[int, RunContents]]:
    """Group runs by their environments: for each, its runs by their places in the order given."""
    groups: dict[str, dict[int, RunContents]] = {}
    for place, run in enumerate(runs):
        groups.setdefault(run.scored.env, {})[place] = run
    return groups


def names_of(folders: Sequence[Path]) -> list[str]:
    """Return a name for each folder: as many of the last parts of its path as tell all of them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def read_contents(folder: Path, name: str, logs: Logs | None = None) -> RunContents:
    """Read one run's folder, and leave out what is damaged.

    Args:
        folder: its path.
        name: what the run is called on the page.
        logs: what it has logged; None to read that now.

    Raises:
        RunError: it is not a run, or its `run.json` can't be read.
    """
    logs = LogFiles(folder) if logs is None else logs
    remarks: list[str] = []

    def remark(what: object) -> None:
        remarks.append(str(what))

    about = read_run_or_copy(folder, remark)
    for file in (METRICS_FILE, EPISODES_FILE):
        if is_cut_off(folder / file):
            remark(f"the last line of {file} is incomplete and left out: the run is writing it, or was killed")
    scores = logs.scores(episodes_per_evaluation(about), remark)
    scored = scored_run(folder, about, logs.episodes(remark), scores, damaged=remark)
    scalars = logs.scalars(remark)
    config = usable(lambda: config_of(about, folder), remark)
    diagnosis = (
        None if config is None else usable(lambda: logs.diagnosis(about, config), remark, "the doctor can't judge: ")
    )
    evaluation = usable(lambda: final_evaluation(folder, about), str)  # `scored_run` has said what is wrong with it
    return RunContents(
        name, about, scored, logs.training(scored), scalars, config, evaluation, diagnosis, shortened(remarks)
    )


def is_cut_off(log: Path) -> bool:
    """True if a log does not end with a whole line."""
    try:
        with file_in(log.parent, log.name).open("rb") as file:
            return file.seek(0, SEEK_END) > 0 and file.seek(-1, SEEK_END) >= 0 and file.read(1) != b"\n"
    except (OSError, RunError):
        return False  # said by the code that reads it


def usable(read: Callable[[], Readable], remark: Callable[[str], object], before: str = "") -> Readable | None:
    """Return what a function reads; if it can't, say why and return None."""
    try:
        return read()
    except NexusError as error:
        remark(f"{before}{error}")
        return None


def shortened(remarks: Iterable[str]) -> tuple[str, ...]:
    """Return remarks without repetitions; of many the first few, and how many more there are."""
    unique = tuple(dict.fromkeys(remarks))
    more = len(unique) - MOST_REMARKS
    return unique if more <= 0 else (*unique[:MOST_REMARKS], f"and {more:,} more like these")


def final_evaluation(folder: Path, about: Mapping[str, Any]) -> Evaluation | None:
    """Return a run's final evaluation, None if there is none.

    Raises:
        RunError: it can't be read, or is of other weights.
    """
    found = read_evaluation(folder, about)
    return None if found is None else Evaluation.from_mapping({key: found[key] for key in found.keys() & OF_SCORE})


def read_scalars(path: Path, damaged: Damaged) -> dict[str, Logged]:
    """Read `metrics.jsonl`.

    Args:
        path: the file.
        damaged: called with each line that can't be read and is left out, and if nothing was logged.
    """
    columns: ScalarColumns = {}
    for number, line in enumerate(log_lines(path, damaged), 1):
        values = scalars_in(line)
        if values is None:
            damaged(RunError(f"{path} is damaged: line {number} needs a step and numbers, got {line[:60]!r}"))
            continue
        enter_scalars(columns, values)
    if not columns:
        damaged(RunError(f"{path} has no complete line: nothing was logged yet"))
    return {name: Logged(np.array(steps), np.array(numbers)) for name, (steps, numbers) in columns.items()}


def enter_scalars(columns: ScalarColumns, values: Mapping[str, float]) -> None:
    """Append the step and value of each scalar of a line, as `scalars_in` returns it; nan if one is not finite."""
    for name, value in values.items():
        if name != "step":
            steps, numbers = columns.setdefault(name, (array("d"), array("d")))
            steps.append(values["step"])
            numbers.append(value if isfinite(value) else nan)


def scalars_in(line: str) -> dict[str, float] | None:
    """Return step and scalars of one line, None if it has anything else."""
    try:
        values: Any = json.loads(line)
        numbers = {
            str(name): float(value)
            for name, value in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
    except (ValueError, AttributeError, OverflowError, RecursionError):
        return None
    return numbers if len(numbers) == len(values) and isfinite(numbers.get("step", nan)) else None
