"""The small table of a run in progress: a bar, the returns as a sparkline, and what the doctor says."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from rich.text import Text

from nexus.cli.standing import Standing, clock
from nexus.core.figures import figures

__all__ = ["fitting", "live_lines", "over_steps", "plain_line", "sparkline"]

LABEL_WIDTH = 9  # characters, with the space behind it
BAR, SHORTEST_BAR = 24, 4  # characters
SPARKLINE, SHORTEST_SPARKLINE = 40, 8
MOST_FINDINGS = 3
LEVELS, PLAIN_LEVELS = "▁▂▃▄▅▆▇█", ".:-=+*#@"  # the second where an encoding lacks the first
SEVERITY_STYLES = {"critical": "bold red", "warning": "yellow", "note": "dim"}


def live_lines(standing: Standing, width: int, ascii_only: bool = False, evaluating: str | None = None) -> list[Text]:
    """Return the table, one line each, none wider than `width`.

    Args:
        standing: how the run stands.
        width: columns of the terminal.
        ascii_only: whether its encoding has only ASCII.
        evaluating: how far an evaluation is, if one is in progress.
    """
    lines = [bar_line(standing, width, ascii_only), return_line(standing, width, ascii_only)]
    if standing.predicted is not None and standing.realised is not None:
        predicted, realised = figures(standing.predicted, standing.realised)
        said = [f"{predicted} predicted, {realised} realised", "(discounted, from first states)"]
        lines.append(row("Q(s₀)", fitting(said, width - LABEL_WIDTH, " ")))
    lines.append(row("learning", fitting(learning(standing), width - LABEL_WIDTH)))
    if evaluating is not None:
        lines.append(Text(evaluating))
    findings = standing.findings
    for symptom in findings[:MOST_FINDINGS]:
        lines.append(row(symptom.severity, f"{symptom.check}: {symptom.text}", SEVERITY_STYLES[symptom.severity]))
    if len(findings) > MOST_FINDINGS:
        more = len(findings) - MOST_FINDINGS
        lines.append(row("", f"{more} more finding{'s' if more > 1 else ''}"))
    for line in lines:
        line.no_wrap = True
        line.truncate(max(width, 1), overflow="ellipsis")
    return lines


def row(label: str, text: str, style: str = "bold") -> Text:
    """Return a line with its label."""
    return Text.assemble((f"{label:<{LABEL_WIDTH}}", style), text.replace("\n", " "))


def bar_line(standing: Standing, width: int, ascii_only: bool) -> Text:
    """Return the bar with steps, time left and speed."""
    count = f"{standing.steps:,}/{standing.total:,}"
    parts = [count, clock(standing.seconds_left), f"{standing.per_second:,.0f} steps/s"]
    said = fitting(parts, width - LABEL_WIDTH - SHORTEST_BAR - 1) or count
    length = max(min(BAR, width - LABEL_WIDTH - len(said) - 1), 0)
    done = length * standing.steps // max(standing.total, 1)
    # Two kinds of lines and not only two colours: some terminals and people see none.
    full, rest = "#-" if ascii_only else "━─"
    bar = (full * done, "green"), (rest * (length - done), "dim"), " " if length else ""
    return Text.assemble((f"{'training':<{LABEL_WIDTH}}", "bold"), *bar, said)


def return_line(standing: Standing, width: int, ascii_only: bool) -> Text:
    """Return the returns so far as a sparkline, with the mean of the last ones and the scale."""
    if standing.mean_return is None:
        return row("return", "-")
    last, levels = said_of_return(standing), PLAIN_LEVELS if ascii_only else LEVELS
    if len(standing.returns) < 2:
        return row("return", last)
    lowest, highest = min(standing.returns), max(standing.returns)
    at_lowest, at_highest = figures(lowest, highest)
    parts = [last, f"({levels[0]} {at_lowest}  {levels[-1]} {at_highest})"]
    said = fitting(parts, width - LABEL_WIDTH - SHORTEST_SPARKLINE - 1) or last
    room = min(SPARKLINE, width - LABEL_WIDTH - len(said) - 1)
    if room < SHORTEST_SPARKLINE:
        return row("return", last)
    drawn = sparkline(over_steps(standing.return_steps, standing.returns, room), lowest, highest, levels)
    return row("return", f"{drawn} {said}")


def over_steps(steps: Sequence[int], values: Sequence[float], columns: int) -> list[float]:
    """Return means over equally many steps each, from step 0 to the last one; both arguments are `[K]`, K > 0.

    A column in which no episode ended gets the value of the next one: that of the episodes under way.
    """
    edges = [steps[-1] * column / columns for column in range(columns + 1)]
    places = np.searchsorted(steps, edges, side="right")
    return [float(np.mean(values[first:end])) if end > first else values[first] for first, end in pairwise(places)]


def sparkline(values: Sequence[float], lowest: float, highest: float, levels: str = LEVELS) -> str:
    """Return numbers as a row of characters, one for each level from `lowest` to `highest`.

    If these are equal, all numbers are drawn in the middle.
    """
    reach = highest - lowest
    places = [(value - lowest) / reach if reach > 0 else 0.5 for value in values]
    return "".join(levels[min(int(place * len(levels)), len(levels) - 1)] for place in places)


def said_of_return(standing: Standing) -> str:
    """Return the mean return of the last episodes, and its age if none has ended for a while."""
    if standing.mean_return is None:
        return "-"
    said = figures(standing.mean_return)[0]
    return said if standing.age is None else f"{said} ({standing.age:,} steps ago)"


def learning(standing: Standing) -> list[str]:
    """Return what the run learns with, most important first."""
    parts = [standing.explores]
    if standing.loss is not None:
        parts.append(f"loss {figures(standing.loss, least=3)[0]}")
    if standing.q_mean is not None:
        parts.append(f"Q {figures(standing.q_mean)[0]}")
    return parts


def plain_line(standing: Standing) -> str:
    """Return one line about the run, for a file or a pipe.

    The doctor's findings are named in it only: their text was a line of its own when they appeared.
    """
    parts = [
        f"step {standing.steps:>9,} of {standing.total:,}",
        f"return {said_of_return(standing)}",
        f"{standing.per_second:,.0f} steps/s",
        f"{clock(standing.seconds_left)} left",
        *learning(standing),
    ]
    if standing.predicted is not None and standing.realised is not None:
        predicted, realised = figures(standing.predicted, standing.realised)
        parts.append(f"Q(s₀) {predicted} (realised {realised})")
    alarms = [symptom.check for symptom in standing.findings if symptom.alarms]
    if alarms:
        more = len(alarms) - MOST_FINDINGS
        parts.append(f"doctor: {', '.join(alarms[:MOST_FINDINGS])}{f' and {more} more' if more > 0 else ''}")
    return "  ".join(parts)


def fitting(parts: Sequence[str], width: int, between: str = "  ") -> str:
    """Return as many of the first parts as fit."""
    said = ""
    for part in parts:
        longer = f"{said}{between}{part}" if said else part
        if len(longer) > width:
            break
        said = longer
    return said
