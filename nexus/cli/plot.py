"""`nexus plot RUN...`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from nexus.cli.extras import load
from nexus.cli.parsing import parse
from nexus.core.errors import ConfigError, RunError
from nexus.training.curves import COLUMN_OF, Axis, Run, mean_curve, read_runs, same_settings

__all__ = ["run"]

FORMATS = (".png", ".pdf", ".svg")
LABELS = {"steps": "steps (decisions)", "episodes": "episodes", "seconds": "wall-clock time (seconds)"}
# Okabe & Ito's colours, which colour-blind people can tell apart: https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":", "-.")  # after the last colour they start again with another line
GREY = "#555555"


@dataclass(frozen=True)
class PlotCommand:
    """Draw the learning curves of runs. Runs that differ in nothing but their seed become one curve: their
    mean, with a 95 % bootstrap interval.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Folders of runs of one environment."""
    out: str = "curves.png"
    """The picture to write: a .png, .pdf or .svg file."""
    window: int = 20
    """Episodes of the running mean."""
    x: Axis = "steps"
    """What to draw the returns against."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("name at least one run, as in: nexus plot runs/*")
        if self.window < 1:
            raise ConfigError(f"window = {self.window}: needs at least 1 episode")
        if Path(self.out).suffix.lower() not in FORMATS:
            raise ConfigError(f"out = {self.out!r}: needs a file name that ends in {', '.join(FORMATS)}")


def run(arguments: list[str]) -> int:
    """Draw and say where the picture is."""
    command = parse(PlotCommand, arguments, "nexus plot")
    load("matplotlib", "plot")
    runs = read_runs(command.runs)
    figure = draw(runs, command.x, command.window)
    try:
        figure.savefig(command.out, dpi=150)
    except OSError as error:
        raise RunError(f"can't write {command.out}: {error.strerror or error}") from None
    print(f"Learning curves of {len(runs)} run(s) of {runs[0].env}: {command.out}")
    return 0


def draw(runs: Sequence[Run], x: Axis, window: int) -> Any:
    """Return a matplotlib figure with a curve for each group of runs."""
    from matplotlib.figure import (
        Figure,
    )  # without pyplot: no window system is looked for, nothing global changes

    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    if len(runs) == 1:
        draw_episodes(axes, runs[0], x)
    for number, (name, group) in enumerate(same_settings(runs).items()):
        draw_group(axes, group, x, window, name, number)
    protocol = runs[0].trained.get("name")
    dress(axes, runs[0].env if protocol is None else f"{runs[0].env}, protocol {protocol}", x)
    axes.set_ylabel("episode return" if len(runs) == 1 else f"episode return, mean of {window} episodes")
    return figure


def draw_episodes(axes: Any, run: Run, x: Axis) -> None:
    """Draw each episode as a faint dot."""
    axes.plot(
        run.episodes[COLUMN_OF[x]],
        run.episodes["return"],
        ".",
        color=COLOURS[0],
        markersize=5,
        markeredgewidth=0,
        alpha=0.35,
        label="each episode",
    )


def draw_group(axes: Any, group: Sequence[Run], x: Axis, window: int, name: str, number: int) -> None:
    """Draw the mean of a group, with its interval if it has more than one run."""
    curve = mean_curve(group, x, window)
    colour = COLOURS[number % len(COLOURS)]
    line = LINES[number // len(COLOURS) % len(LINES)]
    axes.plot(curve.x, curve.mean, line, color=colour, linewidth=1.8, label=label(name, len(group), window))
    if len(group) > 1:
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)


def label(name: str, runs: int, window: int) -> str:
    """Return a group's line in the legend."""
    if runs == 1:
        return f"{name} (1 run)" if name else f"mean of {window} episodes"
    return f"{name or 'mean'} ({runs} runs, 95 % interval)"


def dress(axes: Any, env: str, x: Axis) -> None:
    """Give the picture its title, labels, grid and legend."""
    from matplotlib.ticker import EngFormatter

    axes.set_title(env, loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel(LABELS[x])
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)
    axes.margins(x=0.02)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=GREY, labelsize=9)
    axes.legend(frameon=False, fontsize=9)
