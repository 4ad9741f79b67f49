"""The charts of a page as plain data: which numbers are drawn together, and how many points of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal, TypeAlias

import numpy as np

from nexus.core.figures import figures
from nexus.core.types import Floats
from nexus.reporting.downsampling import points_to_draw
from nexus.reporting.reading import EPISODES_OF_MEAN, RunContents

__all__ = [
    "POINTS_OF_COMPARISON",
    "POINTS_OF_MAIN",
    "POINTS_OF_OTHERS",
    "ChartOnPage",
    "Line",
    "Style",
    "charts_of",
    "most_points",
    "other_charts",
    "with_room",
]

Style: TypeAlias = Literal["line", "dashed", "light", "dots", "marked"]

MOST_POINTS = 1_000  # of a line: about as many as a screen has pixels
FEWEST_POINTS = 20  # of a line on a page of many runs
POINTS_OF_MAIN, POINTS_OF_OTHERS = 60_000, 20_000  # of all lines together: about 2 MB of text
POINTS_OF_COMPARISON = 10_000  # likewise; each is four numbers
MOST_LINES_OF_OTHERS = POINTS_OF_OTHERS // FEWEST_POINTS
LONGEST_NAME = 80  # characters of a scalar's name
LOGARITHMIC = 1_000.0  # the largest value divided by the smallest from which a chart starts with a logarithmic axis


@dataclass(frozen=True)
class Line:
    """One line of a chart over the steps of a run; all arrays are `[K]`, and nan is a gap.

    `count` and `missing` say how many points there were and how many were gaps, if not all of them are here.
    """

    run: int  # its place on the page
    label: str
    style: Style
    x: Floats
    y: Floats
    low: Floats | None = None  # of a 95 % interval
    high: Floats | None = None
    count: int | None = None
    missing: int | None = None

    @property
    def logged(self) -> int:
        """Number of points, whether or not all of them are here."""
        return len(self.y) if self.count is None else self.count

    @property
    def summary(self) -> tuple[str, ...]:
        """Last value, its step, lowest and highest value, as text; empty if all are gaps."""
        known = np.flatnonzero(np.isfinite(self.y))
        if not known.size:
            return ()
        last, lowest, highest = (
            figures(value)[0] for value in (self.y[known[-1]], np.nanmin(self.y), np.nanmax(self.y))
        )
        return last, f"{self.x[known[-1]]:,.0f}", lowest, highest

    @property
    def gaps(self) -> int:
        """Number of values that are not finite."""
        return int((~np.isfinite(self.y)).sum()) if self.missing is None else self.missing

    def to_mapping(self, most: int) -> dict[str, Any]:
        """Return plain values for JSON, of at most `most` points; None for gaps."""
        places = points_to_draw(self.y, most)
        places = places[np.argsort(self.x[places], kind="stable")]  # steps only fall in a log put together by hand
        interval = {} if self.low is None or self.high is None else {"low": self.low, "high": self.high}
        columns = {"x": self.x, "y": self.y, **interval}
        return {
            "run": self.run,
            "label": self.label,
            "style": self.style,
            "logged": self.logged,
            **{name: plain(column[places]) for name, column in columns.items()},
        }


@dataclass(frozen=True)
class ChartOnPage:
    """Lines that are drawn together, over the steps of runs or from `start` on over something else."""

    title: str
    about: str = ""
    lines: Sequence[Line] = field(default_factory=tuple)
    start: float = 0.0
    axis: str = "step"

    def to_mapping(self, most: int) -> dict[str, Any]:
        """Return plain values for JSON, with at most `most` points per line."""
        lines = [line.to_mapping(most) for line in self.lines]
        end = max((float(line.x.max()) for line in self.lines if line.x.size), default=1.0)
        if self.axis == "step":
            end = max(end, 1.0)
        axis = {"axis": self.axis, "start": self.start, "end": end}
        return {"title": self.title, **axis, "logarithmic": self.logarithmic, "lines": lines}

    @property
    def gaps(self) -> int:
        """Number of logged values that are not finite, of all lines."""
        return sum(line.gaps for line in self.lines)

    @property
    def logarithmic(self) -> bool:
        """True if its values are positive and of very different sizes."""
        values = np.concatenate([line.y[np.isfinite(line.y)] for line in self.lines])
        return bool(values.size and values.min() > 0 and values.max() / values.min() > LOGARITHMIC)

    @property
    def text(self) -> str:
        """What it shows, for those who can't see it."""
        last = [f"{line.label} {line.summary[0]} at step {line.summary[1]}" for line in self.lines if line.summary]
        return f"{self.title} over steps. Last values: {'; '.join(last)}" if last else f"{self.title}: no values"


@dataclass(frozen=True)
class KindOfChart:
    """What a chart shows of every run: names in `metrics.jsonl`, and how each is called and drawn."""

    title: str
    about: str
    scalars: Mapping[str, tuple[str, Style]]


KINDS = (
    KindOfChart(
        "Loss",
        "Of the last update before each point, on a batch. A rising loss alone is no fault.",
        {"train/loss": ("loss", "line")},
    ),
    KindOfChart(
        "Q-values",
        "Over the states of the last batch and all actions.",
        {"train/q_max": ("maximum", "line"), "train/q_mean": ("mean", "dashed")},
    ),
    KindOfChart(
        "Value of first states",
        "Q(s₀, a₀) by the weights of now, and the discounted return that followed: means over the last 8 episodes. "
        "What a truncated one would still have earned is the value of its last state. The prediction should approach "
        "the return.",
        {"doctor/predicted_start": ("predicted", "line"), "doctor/realised_start": ("realised", "dashed")},
    ),
    KindOfChart(
        "Exploration",
        "ε, the probability of a random action; or the temperature of Boltzmann exploration.",
        {"rollout/exploration_rate": ("ε", "line"), "rollout/temperature": ("temperature", "dashed")},
    ),
    KindOfChart("Learning rate", "Step size of the optimizer.", {"train/learning_rate": ("learning rate", "line")}),
    KindOfChart(
        "Steps per second", "Since the point before, with updates.", {"time/fps": ("steps per second", "line")}
    ),
)
SHOWN = {name for kind in KINDS for name in kind.scalars} | {"eval/mean_reward", "eval/std_reward"}


def charts_of(runs: Mapping[int, RunContents], alone: bool) -> list[ChartOnPage]:
    """Return the main charts of the runs of one environment.

    Args:
        runs: the runs, by their places on the page.
        alone: whether the page has no other run, so that lines need not name it.
    """
    found = [ChartOnPage("Return", about_returns(alone), returns_of(runs, alone))]
    found += [ChartOnPage(kind.title, kind.about, lines_of_kind(kind, runs, alone)) for kind in KINDS]
    return [chart for chart in found if chart.lines]


def other_charts(runs: Mapping[int, RunContents], alone: bool) -> list[ChartOnPage]:
    """Return a chart for each scalar that no main chart shows, by name; the arguments are those of `charts_of`."""
    names = sorted({name for run in runs.values() for name in run.scalars} - SHOWN)
    kinds = (KindOfChart(name[:LONGEST_NAME], "", {name: ("value", "line")}) for name in names)
    return [ChartOnPage(kind.title, kind.about, lines_of_kind(kind, runs, alone)) for kind in kinds]


def with_room(groups: Sequence[Sequence[ChartOnPage]]) -> list[list[ChartOnPage]]:
    """Return of several groups of other charts the first ones for whose lines a page has room."""
    kept: list[list[ChartOnPage]] = []
    room = MOST_LINES_OF_OTHERS
    for charts in groups:
        kept.append([])
        for chart in charts:
            room -= len(chart.lines)
            if room >= 0:
                kept[-1].append(chart)
    return kept


def about_returns(alone: bool) -> str:
    """Return what the chart of returns shows."""
    dots = " and a dot for each" if alone else ""
    training = f"training, with exploration, as the mean of {EPISODES_OF_MEAN} episodes{dots}"
    return f"Undiscounted and unclipped: evaluations with their 95 % interval, and {training}."


def returns_of(runs: Mapping[int, RunContents], alone: bool) -> list[Line]:
    """Return the lines of the chart of returns, from back to front."""
    training, evaluations = [], []
    for place, run in runs.items():
        episodes = run.scored.episodes
        if episodes["step"].size:
            if alone:
                training.append(Line(place, "episodes", "dots", episodes["step"], episodes["return"]))
            mean, label = run.training, label_of(run, f"mean of {EPISODES_OF_MEAN} episodes", alone)
            training.append(Line(place, label, "light", mean.x, mean.mean))
        if run.scored.scores:
            scores = run.scored.evaluations("steps")
            label = label_of(run, "evaluations", alone)
            evaluations.append(Line(place, label, "marked", scores.x, scores.mean, scores.low, scores.high))
    return [*training, *evaluations]


def lines_of_kind(kind: KindOfChart, runs: Mapping[int, RunContents], alone: bool) -> list[Line]:
    """Return the lines of a kind of chart, one for each of its scalars that a run has logged."""
    return [
        Line(
            place,
            run.name if len(kind.scalars) == 1 and not alone else label_of(run, label, alone),
            style,
            logged.steps,
            logged.values,
            count=logged.count,
            missing=logged.gaps,
        )
        for place, run in runs.items()
        for name, (label, style) in kind.scalars.items()
        if (logged := run.scalars.get(name)) is not None
    ]


def label_of(run: RunContents, label: str, alone: bool) -> str:
    """Return a line's name in a legend."""
    return label if alone else f"{run.name}: {label}"


def most_points(charts: Sequence[ChartOnPage], of_all: int) -> int:
    """Return how many points each line may have, so that all lines together have about `of_all`."""
    lines = sum(len(chart.lines) for chart in charts)
    return min(MOST_POINTS, max(FEWEST_POINTS, of_all // max(lines, 1)))


def plain(column: Floats) -> list[float | None]:
    """Return numbers for JSON: whole ones without a decimal point, None for a gap."""
    return [None if not isfinite(value) else int(value) if value == int(value) else value for value in column.tolist()]
