"""A comparison as text: tables that fit 80 columns, and the sentences on them."""

import textwrap
from collections.abc import Iterator
from io import StringIO
from math import isfinite

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from nexus.comparing.comparison import Comparison, EnvComparison
from nexus.comparing.measures import MeasuredGroups
from nexus.comparing.resampling import Statistic
from nexus.core.figures import figures

__all__ = [
    "comparison_text",
    "interval_said",
    "needed_said",
    "short_comparison_text",
    "time_said",
    "value_said_signed",
]

COLUMNS_OF_TEXT = 80
INDENT_OF_NOTES = 2
NO_INTERVAL = "too few runs"


def comparison_text(comparison: Comparison) -> str:
    """Return the tables and sentences of a comparison."""
    out = StringIO()
    console = Console(file=out, width=COLUMNS_OF_TEXT, highlight=False, color_system=None, emoji=False)
    for place, env in enumerate(comparison.envs):
        if place:
            console.print()
        print_env(console, env)
    if comparison.aggregate is not None:
        console.print(Text(f"\nAll environments: {comparison.aggregate.about}\n"))
        print_measure(console, comparison.aggregate)
    if comparison.notes:
        console.print()
        print_sentences(console, comparison.notes)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def short_comparison_text(comparison: Comparison) -> str:
    """Return the table of the main score in each environment, and what can be concluded."""
    out = StringIO()
    console = Console(file=out, width=COLUMNS_OF_TEXT, highlight=False, color_system=None, emoji=False)
    for env in comparison.envs:
        console.print(Text(f"{env.env}: {env.measures[env.main].about}\n"))
        print_measure(console, env.measures[env.main])
        for said in (env.remarks, env.conclusions):
            if said:
                console.print()
                print_sentences(console, said)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def print_env(console: Console, env: EnvComparison) -> None:
    """Print the comparison in one environment."""
    main = env.measures[env.main]
    console.print(Text(env.env if env.protocol is None else f"{env.env}: {env.protocol}"))
    console.print(Text(f"Score: {main.about}\n"))
    print_measure(console, main)
    # At the end of runs of one length the score at the common step is the final one.
    others = [measure for measure in env.measures.values() if measure.groups != main.groups]
    if others:
        console.print(Text("\nOther scores\n"))
        print_others(console, others, env.baseline)
        print_sentences(console, [f"{measure.name}: {measure.about}" for measure in others])
    for said in (env.remarks, env.conclusions):
        if said:
            console.print()
            print_sentences(console, said)


def print_measure(console: Console, measure: MeasuredGroups) -> None:
    """Print the table of groups by one measure, and that of differences."""
    is_time = any(group.reached is not None for group in measure.groups.values())
    center = "median" if is_time else "IQM"
    table = new_table("group", "runs", center, "95 % interval", *(["reached"] if is_time else ["lowest", "highest"]))
    for label, group in measure.groups.items():
        rest = [str(group.reached)] if group.reached is not None else figures(min(group.scores), max(group.scores))
        value, interval = value_and_interval(group.center, is_time)
        table.add_row(Text(label), str(len(group.scores)), value, interval, *rest)
    console.print(table)
    if not measure.differences:
        return
    console.print(Text(f"\nAgainst {measure.baseline}\n"))
    names = ["P(better)"] if is_time else ["difference", "P(better)", "seeds"]
    table = new_table("group", *names)
    for label, found in measure.differences.items():
        better = with_interval_said(f"{found.better.value:.2f}", interval_said(found.better, 2))
        if found.difference is None:
            table.add_row(Text(label), better)
        else:
            difference = with_interval_said(*value_said_signed(found.difference))
            table.add_row(Text(label), difference, better, needed_said(found.needed))
    console.print(table)
    if not is_time and any(found.needed[0] is not None for found in measure.differences.values()):
        print_sentences(console, ["seeds: per group, to see such a difference in 50 % / 80 % of comparisons"])


def print_others(console: Console, measures: list[MeasuredGroups], baseline: str | None) -> None:
    """Print a line for each other measure and group."""
    compared = any(measure.differences for measure in measures)
    names = ["score", "group", "IQM or median", *([f"minus {baseline}"] if compared else [])]
    table = Table(*(Column(name, overflow="fold") for name in names), box=None, padding=(0, 1), pad_edge=False)
    for measure in measures:
        for label, group in measure.groups.items():
            is_time = group.reached is not None
            value, interval = value_and_interval(group.center, is_time)
            found = measure.differences.get(label)
            if found is None:
                last = ""
            elif found.difference is None:
                last = with_interval_said(f"P(sooner) {found.better.value:.2f}", interval_said(found.better, 2))
            else:
                last = with_interval_said(*value_said_signed(found.difference))
            reached = f", {group.reached} of {len(group.scores)}" if is_time else ""
            cells: list[str | Text] = [
                measure.name,
                Text(label),
                f"{with_interval_said(value, interval)}{reached}",
                last,
            ]
            table.add_row(*cells[: len(names)])
    console.print(table)


def new_table(first: str, *others: str) -> Table:
    """Return a table with a column of text that may be folded, and columns of numbers."""
    numbers = [Column(name, justify="right", no_wrap=True) for name in others]
    return Table(Column(first, overflow="fold"), *numbers, box=None, padding=(0, 1), pad_edge=False)


def print_sentences(console: Console, sentences: object) -> None:
    """Print sentences, each broken into lines."""
    for line in in_lines(sentences):
        console.print(Text(line))


def in_lines(sentences: object) -> Iterator[str]:
    """Yield the lines of sentences; paths are never broken."""
    assert isinstance(sentences, list | tuple)
    for sentence in sentences:
        yield from textwrap.wrap(
            str(sentence),
            COLUMNS_OF_TEXT,
            subsequent_indent=" " * INDENT_OF_NOTES,
            break_long_words=False,
            break_on_hyphens=False,
        )


def value_and_interval(statistic: Statistic, is_time: bool) -> tuple[str, str]:
    """Return a value and its interval as text."""
    if is_time:
        if statistic.low is None or statistic.high is None:
            return time_said(statistic.value), NO_INTERVAL
        return time_said(statistic.value), f"{time_said(statistic.low)} to {time_said(statistic.high)}"
    if statistic.low is None or statistic.high is None:
        return figures(statistic.value)[0], NO_INTERVAL
    value, low, high = figures(statistic.value, statistic.low, statistic.high)
    return value, f"{low} to {high}"


def interval_said(statistic: Statistic, decimals: int) -> str:
    """Return the interval of a probability."""
    if statistic.low is None or statistic.high is None:
        return NO_INTERVAL
    return f"{statistic.low:.{decimals}f} to {statistic.high:.{decimals}f}"


def with_interval_said(value: str, interval: str) -> str:
    """Return a value with its interval in brackets, if there is one."""
    return value if interval == NO_INTERVAL else f"{value} ({interval})"


def value_said_signed(statistic: Statistic) -> tuple[str, str]:
    """Return a difference with its sign, and its interval."""
    value, interval = value_and_interval(statistic, False)
    return (f"+{value}" if statistic.value > 0 else value), interval


def time_said(steps: float) -> str:
    """Return a number of steps; one that more than half of the runs did not reach is never."""
    return f"{steps:,.0f}" if isfinite(steps) else "never"


def needed_said(needed: tuple[int | None, int | None]) -> str:
    """Return how many runs are needed to see a difference in 50 % and in 80 % of comparisons."""
    half, most = needed
    return "–" if half is None else f"{half:,} / {'–' if most is None else f'{most:,}'}"
