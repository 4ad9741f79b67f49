"""The picture of a comparison: curves with bands, differences with intervals, and performance profiles."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nexus.comparing.comparison import Comparison, EnvComparison, GroupCurve
from nexus.comparing.measures import MeasuredGroups
from nexus.core.errors import RunError

__all__ = ["figure_of", "save_comparison"]

WIDTH_OF_ROW, ROW_HEIGHT = 15.0, 4.2  # inches
LEGEND_ROW = 0.22  # inches of each line of the legend
# Okabe & Ito's colour-blind safe palette: https://jfly.uni-koeln.de/color/
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")  # in turn when the colours repeat
GRID_COLOUR, TEXT_COLOUR = "#dddddd", "#555555"


def save_comparison(comparison: Comparison, path: Path, dots_per_inch: int = 150) -> None:
    """Draw a comparison into a .png, .pdf or .svg file.

    Raises:
        RunError: the file can't be written.
    """
    try:
        figure_of(comparison).savefig(path, dpi=dots_per_inch)
    except OSError as error:
        raise RunError(f"can't write {path}: {error.strerror or error}") from None


def figure_of(comparison: Comparison) -> Any:
    """Return a matplotlib figure with a row of three panels for each environment."""
    from matplotlib.figure import Figure  # without pyplot, which would look for a window system
    from matplotlib.lines import Line2D

    labels = list(dict.fromkeys(label for env in comparison.envs for label in env.groups))
    looks = {label: look_of_group(place) for place, label in enumerate(labels)}
    rows = len(comparison.envs)
    figure = Figure(figsize=(WIDTH_OF_ROW, ROW_HEIGHT * rows + LEGEND_ROW * (len(labels) + 1)), layout="constrained")
    for row, env in enumerate(comparison.envs):
        curves, differences, profiles = (figure.add_subplot(rows, 3, 3 * row + place) for place in (1, 2, 3))
        draw_bands(curves, env.curves, looks)
        furnished(curves, env.env, "steps (decisions)", "evaluation: IQM over runs")
        draw_differences(differences, env, looks)
        draw_bands(profiles, env.profiles, looks)
        furnished(profiles, "Performance profile", f"score τ ({env.main})", "share of runs above τ")
        profiles.set_ylim(-0.03, 1.03)
    handles = [Line2D([], [], label=plain_text(label), linewidth=1.8, **look) for label, look in looks.items()]
    figure.legend(handles=handles, loc="outside lower left", frameon=False, fontsize=9, title="95 % intervals")
    return figure


def look_of_group(place: int) -> dict[str, Any]:
    """Return colour and line style of a group."""
    return {"color": PALETTE[place % len(PALETTE)], "linestyle": DASHES[place // len(PALETTE) % len(DASHES)]}


def draw_bands(axes: Any, bands: Mapping[str, GroupCurve], looks: Mapping[str, dict[str, Any]]) -> None:
    """Draw a line for each group, with its interval as a band; a single point as a marker."""
    for label, band in bands.items():
        look = looks[label]
        axes.plot(band.x, band.y, linewidth=1.8, marker="o" if len(band.x) == 1 else "", **look)
        if band.low is not None:
            axes.fill_between(band.x, band.low, band.high, color=look["color"], alpha=0.18, linewidth=0)


def draw_differences(axes: Any, env: EnvComparison, looks: Mapping[str, dict[str, Any]]) -> None:
    """Draw each difference from the baseline as a point with its interval, or each group's score if there is none."""
    measure = env.measures[env.main]
    points = differences_in(measure) or {label: group.center for label, group in measure.groups.items()}
    is_difference = bool(measure.differences)
    for place, (label, found) in enumerate(points.items()):
        colour = looks[label]["color"]
        axes.plot([found.value], [-place], "o", color=colour)
        if found.low is not None:
            axes.plot([found.low, found.high], [-place, -place], color=colour, linewidth=2)
    if is_difference:
        axes.axvline(0.5 if env.main == "threshold" else 0, color=TEXT_COLOUR, linestyle="--", linewidth=1)
    axes.set_ylim(-len(points) + 0.4, 0.6)
    axes.set_yticks([])
    title = f"Against {env.baseline}" if is_difference else "Score"
    furnished(
        axes,
        shortened_title(title),
        "P(sooner)" if env.main == "threshold" else f"difference of IQMs ({env.main})" if is_difference else env.main,
        "",
    )


def differences_in(measure: MeasuredGroups) -> dict[str, Any]:
    """Return the differences from the baseline by label; of times the probability to be sooner."""
    return {
        label: found.better if found.difference is None else found.difference
        for label, found in measure.differences.items()
    }


def furnished(axes: Any, title: str, x: str, y: str) -> None:
    """Give a panel its title, labels and grid."""
    axes.set_title(plain_text(title), loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.margins(x=0.03)
    axes.grid(color=GRID_COLOUR, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(TEXT_COLOUR)
    axes.tick_params(colors=TEXT_COLOUR, labelsize=9)


def shortened_title(text: str) -> str:
    """Return a title that fits above a panel."""
    return text if len(text) <= 44 else f"{text[:41]}..."


def plain_text(text: str) -> str:
    """Escape text for matplotlib, which would read text between two dollar signs as a formula."""
    return text.replace("$", r"\$")
