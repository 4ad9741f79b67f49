"""`nexus plot RUN...`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Annotated, Any

import tyro

from nexus.cli.extras import load
from nexus.cli.parsing import parse
from nexus.core.errors import ConfigError, RunError
from nexus.training.curves import (
    COLUMN_OF,
    Axis,
    Curve,
    ScoredRun,
    different_seeds,
    grid_of,
    mean_of,
    points_of,
    read_runs,
    same_settings,
)

__all__ = ["run"]

FORMATS = (".png", ".pdf", ".svg")
LABELS = {"steps": "steps (decisions)", "episodes": "episodes", "seconds": "wall-clock time (seconds)"}
# Okabe & Ito's colour-blind safe palette: https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", ":", "-.")  # used in turn when the colours repeat
GREY = "#555555"
LIGHT = 0.4  # opacity of training returns, drawn behind the evaluations
PANEL, ROW = (7.2, 4.4), 0.2  # inches: size of a panel, and height of a legend row below it
KINDS_OF_LINES = 3  # in a legend
MOST_STACKED = 3  # panels in one column; more are arranged in two
BEHIND, FRONT, TOP = 2, 4, 5  # matplotlib's z-order
DIAMOND = {"marker": "D", "markersize": 6.5, "markeredgecolor": "white", "markeredgewidth": 0.8, "linestyle": "none"}


@dataclass(frozen=True)
class PlotCommand:
    """Draw the learning curves of runs: their evaluations, with the returns of training, which include
    exploration, behind them. Runs that differ only in their seed become one curve: their mean, with a 95 %
    bootstrap interval. Each environment gets a separate panel.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")] = ()
    """Folders of runs."""
    out: str = "curves.png"
    """The image to write: a .png, .pdf or .svg file."""
    window: int = 20
    """Training episodes of the running mean."""
    x: Axis = "steps"
    """What to draw the returns against."""
    same_env: bool = False
    """Treat functions with the same name as one environment, so that their runs can share a mean."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("name at least one run, as in: nexus plot runs/*")
        if self.window < 1:
            raise ConfigError(f"window = {self.window}: needs at least 1 episode")
        if Path(self.out).suffix.lower() not in FORMATS:
            raise ConfigError(f"out = {self.out!r}: needs a file name that ends in {', '.join(FORMATS)}")


def run(arguments: list[str]) -> int:
    """Draw the image and print its path."""
    command = parse(PlotCommand, arguments, "nexus plot")
    load("matplotlib", "plot")
    notes: list[str] = []
    runs, left_out = different_seeds(read_runs(command.runs, same_env=command.same_env, notice=notes.append))
    figure = draw(runs, command.x, command.window)
    try:
        figure.savefig(command.out, dpi=150)
    except OSError as error:
        raise RunError(f"can't write {command.out}: {error.strerror or error}") from None
    for line in [*notes, *left_out]:
        print(f"Note: {line}")
    print(f"Learning curves of {len(runs)} run(s) of {', '.join(by_env(runs))}: {command.out}")
    return 0


def by_env(runs: Sequence[ScoredRun]) -> dict[str, list[ScoredRun]]:
    """Group runs by their environments."""
    groups: dict[str, list[ScoredRun]] = {}
    for run in runs:
        groups.setdefault(run.env, []).append(run)
    return groups


def draw(runs: Sequence[ScoredRun], x: Axis, window: int) -> Any:
    """Return a matplotlib figure with a panel for each environment."""
    from matplotlib.figure import Figure  # without pyplot, which would look for a window system and change global state

    panels = by_env(runs)
    columns = 1 if len(panels) <= MOST_STACKED else 2
    rows = ceil(len(panels) / columns)
    longest = max(len(same_settings(group)) for group in panels.values())
    height = PANEL[1] if longest == 1 else PANEL[1] + ROW * (longest + KINDS_OF_LINES)
    figure = Figure(figsize=(PANEL[0] * columns, height * rows), layout="constrained")
    for number, (env, group) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, columns, number)
        draw_panel(axes, group, x, window)
        protocol = group[0].trained.get("name")
        dress(axes, env if protocol is None else f"{env}, protocol {protocol}", x)
    return figure


def draw_panel(axes: Any, runs: Sequence[ScoredRun], x: Axis, window: int) -> None:
    """Draw the runs of one environment, with one colour per kind of run, and the legend."""
    groups = same_settings(runs)
    handles: list[Any] = []
    for number, (name, group) in enumerate(groups.items()):
        look = {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": LINE_STYLES[number // len(COLOURS) % len(LINE_STYLES)],
        }
        draw_training(axes, group, x, window, look)
        draw_evaluations(axes, group, x, look)
        if len(groups) > 1:
            handles.append(sample(f"{name} ({run_count(group)})", linewidth=1.8, **look))
    if len(runs) == 1:
        draw_episodes(axes, runs[0], x)
    handles += key(groups, window)
    # Below the panel if its lines are long enough to hide the curves.
    place = {} if len(groups) == 1 else {"loc": "upper left", "bbox_to_anchor": (0, -0.13)}
    axes.legend(handles=handles, frameon=False, fontsize=9, **place)


def draw_training(axes: Any, group: Sequence[ScoredRun], x: Axis, window: int, look: dict[str, Any]) -> None:
    """Draw the returns of training: with their interval, or lightly in the background if there are evaluations."""
    behind = any(len(run.scores) > 1 for run in group)
    style = {**look, "linewidth": 1.2, "alpha": LIGHT} if behind else {**look, "linewidth": 1.8}
    curves = [run.training(x, window) for run in group if run.episodes["step"].size]
    for curve in means(curves, grid_of(curves) if curves else None):
        axes.plot(curve.x, curve.mean, zorder=BEHIND, **style)
        if len(curves) > 1 and not behind:
            axes.fill_between(curve.x, curve.low, curve.high, color=look["color"], alpha=0.18, linewidth=0)


def draw_evaluations(axes: Any, group: Sequence[ScoredRun], x: Axis, look: dict[str, Any]) -> None:
    """Draw the evaluations with their interval, and a diamond for the evaluation of a run's final weights."""
    curves = [run.evaluations(x) for run in group if run.scores]
    for curve in means(curves, points_of(curves) if curves else None):
        axes.plot(curve.x, curve.mean, marker="o", markersize=3, linewidth=1.8, zorder=FRONT, **look)
        axes.fill_between(curve.x, curve.low, curve.high, color=look["color"], alpha=0.18, linewidth=0, zorder=BEHIND)
    for curve in (run.evaluations(x) for run in group if run.finished):
        at, mean, low, high = (values[-1:] for values in (curve.x, curve.mean, curve.low, curve.high))
        bars = None if len(group) > 1 else (mean - low, high - mean)
        axes.errorbar(at, mean, bars, color=look["color"], capsize=2, zorder=TOP, **DIAMOND)


def means(curves: Sequence[Curve], x: Any) -> list[Curve]:
    """Return the mean of several curves at some points, or all of them if they share none."""
    return [mean_of(curves, x)] if len(curves) > 1 and len(x) else list(curves)


def draw_episodes(axes: Any, run: ScoredRun, x: Axis) -> None:
    """Draw each training episode as a faint dot."""
    dots = run.episodes[COLUMN_OF[x]], run.episodes["return"]
    axes.plot(*dots, ".", color=COLOURS[0], markersize=4, markeredgewidth=0, alpha=0.25, zorder=1)


def key(groups: Mapping[str, Sequence[ScoredRun]], window: int) -> list[Any]:
    """Return the part of the legend that explains the kinds of lines."""
    runs = [run for group in groups.values() for run in group]
    alone = len(runs) == 1
    colour = COLOURS[0] if len(groups) == 1 else GREY
    of_runs = f" ({run_count(runs)})" if len(groups) == 1 and not alone else ""
    handles = []
    if any(len(run.scores) > 1 for run in runs):
        said = "evaluations, 95 % interval" if alone else f"evaluations{of_runs}"
        handles.append(sample(said, color=colour, marker="o", markersize=3, linewidth=1.8))
    if any(run.episodes["step"].size for run in runs):
        look = {"linewidth": 1.2, "alpha": LIGHT} if handles else {"linewidth": 1.8}
        said = f"training, with exploration: mean of {window} episodes{'' if handles else of_runs}"
        handles.append(sample(said, color=colour, **look))
        if alone:
            dot = {"marker": ".", "linestyle": "none", "markeredgewidth": 0, "alpha": LIGHT}
            handles.append(sample("each training episode", color=colour, **dot))
    if any(run.finished for run in runs):
        said = f"evaluation of the final weights{'' if alone else ' of each run'}"
        handles.append(sample(said, color=colour, **DIAMOND))
    return handles


def sample(label: str, **look: Any) -> Any:
    """Return a line for the legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=escape_dollars(label), **look)


def escape_dollars(text: str) -> str:
    """Escape text for matplotlib, which would read text between two dollar signs as a formula."""
    return text.replace("$", r"\$")


def run_count(runs: Sequence[ScoredRun]) -> str:
    """Return text on the number of runs behind a curve."""
    return "1 run" if len(runs) == 1 else f"{len(runs)} runs, 95 % interval"


def dress(axes: Any, env: str, x: Axis) -> None:
    """Give a panel its title, labels and grid."""
    from matplotlib.ticker import EngFormatter

    axes.set_title(escape_dollars(env), loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel(LABELS[x])
    axes.set_ylabel("episode return")
    if x != "seconds":  # 500m would be read as minutes
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)
    axes.margins(x=0.02)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=GREY, labelsize=9)
