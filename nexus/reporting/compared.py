"""The comparison on a page of several runs: what `nexus compare` says and draws, as plain text and charts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nexus.comparing.comparison import EnvComparison, GroupCurve, comparison_of
from nexus.comparing.tables import interval_said, needed_said, value_and_interval, value_said_signed
from nexus.core.figures import figures
from nexus.reporting.charts import ChartOnPage, Line, Style
from nexus.training.curves import ScoredRun, different_seeds

__all__ = ["ComparedOnPage", "comparison_on_page"]

LEVELS_IN_TABLE = 9
COMPARED_LABELS = 60  # characters of a group's name in a legend


@dataclass(frozen=True)
class RowOfGroup:
    """A row of a table: the place of the group among those of its environment, its name, and the cells after that."""

    place: int
    label: str
    cells: Sequence[str]


@dataclass(frozen=True)
class ComparedOnPage:
    """What a page says of the groups of one environment; `levels` and `shares` are those of the performance profile."""

    env: str
    about: str
    baseline: str | None
    groups: Sequence[RowOfGroup]
    differences: Sequence[RowOfGroup]
    conclusions: Sequence[str]
    remarks: Sequence[str]
    charts: Sequence[ChartOnPage]
    levels: Sequence[str]
    shares: Mapping[str, Sequence[str]]


def comparison_on_page(runs: Sequence[ScoredRun]) -> tuple[list[ComparedOnPage], Sequence[str]]:
    """Return what a page says of each environment that has at least two runs with a score, and of all of them."""
    kept, skipped = different_seeds(runs)
    evaluated = [run.env for run in kept if run.scores]
    compared = [run for run in kept if evaluated.count(run.env) > 1]
    if not compared:
        return [], ()
    comparison = comparison_of(compared)
    return [part_of(env) for env in comparison.envs], [*skipped, *comparison.notes]


def part_of(env: EnvComparison) -> ComparedOnPage:
    """Return what a page says of one environment."""
    main, places = env.measures[env.main], {label: place for place, label in enumerate(env.groups)}
    levels = next(iter(env.profiles.values())).x
    shown = np.linspace(0, len(levels) - 1, LEVELS_IN_TABLE).round().astype(int)
    return ComparedOnPage(
        env.env,
        main.about if env.protocol is None else f"{main.about}; {env.protocol}",
        env.baseline,
        [
            RowOfGroup(
                places[label],
                label,
                [
                    str(len(group.scores)),
                    *value_and_interval(group.center, False),
                    *figures(min(group.scores), max(group.scores)),
                ],
            )
            for label, group in main.groups.items()
        ],
        [
            RowOfGroup(
                places[label],
                label,
                [
                    *value_said_signed(found.difference),
                    f"{found.better.value:.2f}",
                    interval_said(found.better, 2),
                    needed_said(found.needed),
                ],
            )
            for label, found in main.differences.items()
            if found.difference is not None
        ],
        env.conclusions,
        env.remarks,
        [
            ChartOnPage(
                "Evaluations of groups",
                f"IQM over runs, up to step {env.step:,.0f}, with 95 % intervals.",
                lines_of_groups(env.curves, places, "marked"),
            ),
            ChartOnPage(
                "Performance profile",
                "Share of runs with a score above the one on the axis, with 95 % intervals.",
                lines_of_groups(env.profiles, places, "line"),
                start=float(levels[0]),
                axis="score",
            ),
        ],
        figures(*levels[shown].tolist()),
        {label: [f"{share:.2f}" for share in curve.y[shown]] for label, curve in env.profiles.items()},
    )


def lines_of_groups(curves: Mapping[str, GroupCurve], places: Mapping[str, int], style: Style) -> list[Line]:
    """Return a line for each group."""
    return [
        Line(
            places[label],
            label[:COMPARED_LABELS],
            style,
            curve.x,
            curve.y,
            curve.low,
            curve.high,
        )
        for label, curve in curves.items()
    ]
