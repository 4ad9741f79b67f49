"""The logs of a run as they grow: read once, kept in bounded memory."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np

from nexus.core.errors import RunError
from nexus.core.types import Floats
from nexus.dashboard.growing import GrowingLog, read_spread
from nexus.dashboard.thinned import Thinned
from nexus.doctor.afterwards import completed, diagnosed
from nexus.doctor.chart import Chart
from nexus.doctor.diagnosis import Diagnosis
from nexus.reporting.reading import EPISODES_OF_MEAN, Logged, ScalarColumns, enter_scalars, scalars_in
from nexus.training.config import TrainConfig
from nexus.training.curves import (
    EPISODE_COLUMNS,
    SCORE,
    SPREAD,
    Curve,
    Damaged,
    ScoredRun,
    Scores,
    columns_in,
    read_row,
    running_mean,
    with_interval,
)
from nexus.training.run_folder import EPISODES_FILE, METRICS_FILE

__all__ = ["KeptLogs"]

PIECE = 2 << 20  # bytes read at a time
LONG_LOG = 32 << 20  # bytes of a log from which the first look is at a sample of its lines
SAMPLE = 2_000  # lines
MOST_SERIES = 400  # scalars of a run
LONGEST_KEY = 200  # characters of a scalar's name
MOST_SCORES = 10_000  # evaluations of a run
MOST_DAMAGES = 1_000  # lines that are remembered


class KeptLogs:
    """The numbers that a run has logged so far. They satisfy `Logs`, of the report.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.version = 0  # changes with whatever is read
        self.refused: dict[str, str] = {}  # name of a log that can't be read -> why
        self.metrics, self.csv = GrowingLog(folder, METRICS_FILE), GrowingLog(folder, EPISODES_FILE)
        self.forget_metrics()
        self.forget_episodes()

    def forget_metrics(self) -> None:
        """Begin with an empty `metrics.jsonl`."""
        self.series: dict[str, Thinned] = {}
        self.sample: dict[str, Thinned] | None = None
        self.found: dict[float, tuple[float, float]] = {}  # step -> mean and deviation of an evaluation
        self.lines = 0
        self.damages_of_metrics: list[str] = []

    def forget_episodes(self) -> None:
        """Begin with an empty `episodes.csv`."""
        self.columns = {name: Thinned() for name in (*EPISODE_COLUMNS[1:], "mean")}
        self.last_returns: deque[float] = deque(maxlen=EPISODES_OF_MEAN - 1)
        self.header: str | None = None
        self.rows = 0
        self.damages_of_episodes: list[str] = []

    def read_on(self, seconds: float) -> bool:
        """Read what is new, for about so long; return whether more is left."""
        until = time.monotonic() + seconds
        while self.read_piece():
            if time.monotonic() >= until:
                return True
        return False

    def read_piece(self) -> bool:
        """Read the next piece of each log; return whether there was one."""
        before = self.csv.place, self.metrics.place
        rows = self.piece_of(self.csv, self.forget_episodes)
        if rows:
            self.add_rows(rows)
        lines = self.piece_of(self.metrics, self.forget_metrics)
        if lines:
            self.add_lines(lines)
        if self.metrics.left > LONG_LOG and self.sample is None:
            self.sample = {}
            self.add_scalars(read_spread(self.folder, METRICS_FILE, SAMPLE), self.sample, [])
        moved = (self.csv.place, self.metrics.place) != before
        if not moved:
            self.sample = None
        return moved

    def piece_of(self, log: GrowingLog, forget: Callable[[], None]) -> list[bytes]:
        """Return the next lines of a log, after forgetting what was read of another one in its place."""
        try:
            lines, again = log.lines(PIECE)
        except RunError as error:
            self.refused[log.name] = str(error)
            return []
        self.refused.pop(log.name, None)
        if again:
            forget()
        self.version += bool(lines or again)
        return lines

    @property
    def fraction(self) -> float:
        """The part of `metrics.jsonl` that has been read."""
        return self.metrics.place / max(1, self.metrics.place + self.metrics.left)

    def add_lines(self, lines: Sequence[bytes]) -> None:
        """Enter lines of `metrics.jsonl`."""
        self.lines += self.add_scalars(lines, self.series, self.damages_of_metrics)

    def add_scalars(self, lines: Sequence[bytes], series: dict[str, Thinned], damages: list[str]) -> int:
        """Enter scalars and evaluations; return the number of lines."""
        columns: ScalarColumns = {}
        for number, line in enumerate(lines, self.lines + 1):
            values = scalars_in(line.decode("utf-8", "replace"))
            if values is None:
                said = line[:60].decode("utf-8", "replace")
                text = f"{self.folder / METRICS_FILE} is damaged: line {number} needs a step and numbers, got {said!r}"
                damages.append(text)
                continue
            enter_scalars(columns, values)
            mean, spread = values.get(SCORE, nan), values.get(SPREAD, nan)
            if isfinite(mean) and isfinite(spread) and len(self.found) < MOST_SCORES:
                self.found[values["step"]] = mean, spread
        for name, (steps, numbers) in columns.items():
            if name not in series and (len(series) >= MOST_SERIES or len(name) > LONGEST_KEY):
                text = (
                    f"{METRICS_FILE} has more than {MOST_SERIES} scalars, or very long names: {name[:60]!r} is left out"
                )
                damages.append(text)
                continue
            series.setdefault(name, Thinned()).extend(steps, numbers)
        del damages[MOST_DAMAGES:]
        return len(lines)

    def add_rows(self, lines: Sequence[bytes]) -> None:
        """Enter lines of `episodes.csv`."""
        texts = [line.decode("utf-8", "replace") for line in lines]
        if self.header is None:
            self.header, texts = texts[0], texts[1:]
            self.rows = 1
        names = columns_in(self.header)
        if names is None:
            return
        path, damages = self.folder / EPISODES_FILE, self.damages_of_episodes
        rows = [
            row
            for number, text in enumerate(texts, self.rows + 1)
            if (row := read_row(path, number, text, lambda error: damages.append(str(error)), names))
        ]
        self.rows += len(texts)
        del damages[MOST_DAMAGES:]
        if not rows:
            return
        columns = dict(zip(names, np.array(rows).T, strict=True))
        columns.pop("stage", None)  # not shown
        steps, returns = columns.pop("step"), columns["return"]
        means = running_mean(np.concatenate([list(self.last_returns), returns]), EPISODES_OF_MEAN)[-len(returns) :]
        self.last_returns.extend(returns.tolist())
        for name, column in {**columns, "mean": means}.items():
            self.columns[name].extend(steps.tolist(), column.tolist())

    def damages(self, name: str) -> list[str]:
        """Return what can't be read of a log."""
        lines = self.damages_of_metrics if name == METRICS_FILE else self.damages_of_episodes
        return [self.refused[name]] if name in self.refused else lines

    # What a report asks for.

    def scalars(self, damaged: Damaged) -> Mapping[str, Logged]:
        """Return the scalars, of a long log that is not read yet those of a sample of its lines."""
        for text in self.damages(METRICS_FILE):
            damaged(RunError(text))
        shown = self.series if self.sample is None else self.sample
        if not shown:
            damaged(RunError(f"{self.folder / METRICS_FILE} has no complete line: nothing was logged yet"))
        if self.sample is not None:
            damaged(RunError(f"{METRICS_FILE} is long, and {self.fraction:.0%} of it is read: a sample of it is shown"))
        return {name: series.logged() for name, series in shown.items()}

    def scores(self, episodes: Any, damaged: Damaged) -> Scores:
        """Return the evaluations."""
        if len(self.found) >= MOST_SCORES:
            damaged(RunError(f"{METRICS_FILE} has more than {MOST_SCORES:,} evaluations: the others are left out"))
        return {step: with_interval(mean, spread, episodes) for step, (mean, spread) in sorted(self.found.items())}

    def episodes(self, damaged: Damaged) -> Mapping[str, Floats]:
        """Return the episodes; of very many, each column has the rows that show that column, and the last one."""
        header, needs = self.header, f"needs the columns {', '.join(EPISODE_COLUMNS)}"
        path = self.folder / EPISODES_FILE
        if header is None:
            damaged(RunError(f"{path} is empty or missing: {needs}"))
        elif columns_in(header) is None:
            damaged(RunError(f"{path} is damaged: {needs}, got {header[:60]!r}"))
        for text in self.damages(EPISODES_FILE):
            damaged(RunError(text))
        found = {name: self.columns[name].logged() for name in EPISODE_COLUMNS[1:]}
        return {"step": found["return"].steps, **{name: column.values for name, column in found.items()}}

    def training(self, run: ScoredRun) -> Curve:
        """Return the running mean of the returns."""
        means = self.columns["mean"].logged()
        return Curve(means.steps, means.values, means.values, means.values)

    def diagnosis(self, about: Mapping[str, Any], config: TrainConfig) -> Diagnosis:
        """Return the doctor's diagnosis, for a very long run from a sample of its numbers."""
        for text in [*self.damages(METRICS_FILE), *self.damages(EPISODES_FILE)]:
            raise RunError(text)
        chart = Chart(config)
        for name, series in (self.series if self.sample is None else self.sample).items():
            kept = series.even()
            chart.extend(name, kept.steps, kept.values)
        return diagnosed(completed(chart, self.even_episodes), about)

    def even_episodes(self) -> Mapping[str, Floats] | None:
        """Return the columns that the doctor reads, of episodes that were not chosen for their returns."""
        returns, numbers = self.columns["return"].even(), self.columns["episode"].even()
        return {"step": returns.steps, "return": returns.values, "episode": numbers.values}
