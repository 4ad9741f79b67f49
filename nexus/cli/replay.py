"""`nexus replay RUN`."""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from nexus.cli.extras import load
from nexus.cli.film import require_writable
from nexus.cli.here import look_here
from nexus.cli.parsing import parse
from nexus.core.errors import ConfigError, RunError
from nexus.core.types import Array, Ints

if TYPE_CHECKING:
    from nexus.cli.notes import Notes
    from nexus.inspection.row_origin import RowOrigin
    from nexus.inspection.rows import Condition, ReplayRows
    from nexus.inspection.transition import TransitionTerms

__all__ = ["run"]

WIDTH_OF_LINES, INDENT = 80, 17  # columns


@dataclass(frozen=True)
class ReplayCommand:
    """Look into the replay of a run's newest checkpoint: its transitions as a table, newest first, and histograms of
    their columns; or one transition taken apart, with the terms of its target and its TD error. Conditions choose
    which transitions count, such as --reward '>0' --age '<1000'.
    """

    run: Annotated[str, tyro.conf.Positional]
    """A run's folder."""
    rows: int = 20
    """Transitions to list, newest first; 0 for the histograms only."""
    row: int | None = None
    """Number of a transition to take apart, from the column row of the table."""
    frame: str | None = None
    """A .png file for what was to be seen at the start of that transition: its episode is played again if the run has
    kept it, else the image in its state."""
    reward: str | None = None
    """Only those whose stored reward is so, as in '>0' or '>=-1,<0'."""
    terminal: bool = False
    """Only those after which nothing is bootstrapped."""
    action: int | None = None
    """Only those with this action."""
    age: str | None = None
    """Only those so old, in transitions stored since, as in '<1000'."""
    priority: str | None = None
    """Only those with such a priority, as in '>1'; of prioritized replay."""
    export: str | None = None
    """An .npz or .parquet file to write the chosen transitions to."""

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise ConfigError(f"rows = {self.rows}: needs 0 or more")
        others = [name for name in ("reward", "action", "age", "priority", "export") if getattr(self, name) is not None]
        others += ["terminal"] if self.terminal else []
        if self.row is not None and others:
            raise ConfigError(f"row = {self.row}: takes one transition apart; leave out {', '.join(others)}")
        if self.frame is not None and self.row is None:
            raise ConfigError(f"frame = {self.frame!r}: needs --row, the transition to draw")

    @property
    def conditions(self) -> "list[Condition]":
        """What the chosen transitions fulfil, but for being terminal."""
        from nexus.inspection.rows import Condition, conditions_of

        texts = {name: getattr(self, name) for name in ("reward", "age", "priority")}
        found = [each for name, text in texts.items() if text is not None for each in conditions_of(name, text)]
        return found if self.action is None else [*found, Condition("action", "=", self.action)]


def run(arguments: list[str]) -> int:
    """Print the replay, or one of its transitions."""
    command = parse(ReplayCommand, arguments, "nexus replay")
    conditions = command.conditions
    look_here(None, command.run, None)
    from nexus.cli.notes import Notes
    from nexus.inspection.export import PARQUET, export_rows, require_archive
    from nexus.inspection.row_origin import origin_of_row
    from nexus.inspection.rows import rows_of_run
    from nexus.inspection.transition import terms_in_run

    archive = None if command.export is None else require_archive(command.export)
    if archive is not None and archive.suffix.lower() == PARQUET:
        load("pyarrow.parquet", "parquet")
    if command.frame is not None:
        require_writable(command.frame, "frame", ".png")
        load("PIL.Image", "video")
    notes = Notes()
    rows = rows_of_run(Path(command.run), notes)
    if command.row is not None:
        place = rows.place_of(command.row)
        try:
            origin = origin_of_row(rows, command.row)
        except RunError as error:
            notes.on_notice(f"where the transition is from is not known: {error}")
            origin = None
        for line in lines_of_terms(rows, place, terms_in_run(rows, place, notes), origin):
            print(line)
        if command.frame is not None:
            write_frame(command.frame, rows, command.row, origin, notes)
        return 0
    if command.action is not None and not 0 <= command.action < rows.saved.action_dim:
        raise ConfigError(f"action = {command.action}: needs 0 to {rows.saved.action_dim - 1}")
    places = rows.where(conditions, command.terminal)
    said = [*map(str, conditions), *(["terminal"] if command.terminal else [])]
    for line in lines_of_rows(rows, places, said, command.rows):
        print(line)
    if archive is not None:
        export_rows(rows, places, archive)
        print(f"\nExported {len(places):,} transitions to {archive}")
    return 0


def lines_of_rows(rows: "ReplayRows", places: Ints, conditions: list[str], most: int) -> Iterator[str]:
    """Yield a title, the newest of the chosen rows, and histograms of all chosen ones."""
    from nexus.inspection.histograms import action_lines, histogram_lines

    saved = rows.saved
    of = f"{len(places):,} of {len(rows.numbers):,}" if conditions else f"{len(rows.numbers):,}"
    with_these = f" ({', '.join(conditions)})" if conditions else ""
    yield f"Replay of step {saved.steps:,}: {of} transitions{with_these}"
    if not len(places):
        return
    if most:
        yield ""
        yield from lines_of_table(rows, places[::-1][:most])
    chosen = {name: values[places] for name, values in rows.columns.items()}
    for title in ("reward", "age", "priority"):
        if title in chosen:
            yield ""
            yield from histogram_lines(title, chosen[title])
    yield ""
    yield from action_lines(chosen["action"], chosen["reward"], saved.action_dim)


def lines_of_table(rows: "ReplayRows", places: Ints) -> Iterator[str]:
    """Yield a line for each of these rows."""
    from nexus.inspection.telling import state_text

    names = [name for name in ("row", "age", "action", "reward", "discount", "priority") if name in rows.columns]
    states = rows.batch_at(places)["states"].numpy()
    cells = [
        [f"{value:.4g}" if values.dtype.kind == "f" else str(value) for value in values[places].tolist()]
        for values in (rows.columns[name] for name in names)
    ]
    widths = [max(len(name), *map(len, column)) for name, column in zip(names, cells, strict=True)]
    yield "  ".join([*(f"{name:>{width}}" for name, width in zip(names, widths, strict=True)), "state"])
    for line, state in zip(zip(*cells, strict=True), states, strict=True):
        shown = "  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))
        yield f"{shown}  {state_text(state, WIDTH_OF_LINES - len(shown) - 2, rows.are_packed)}"


def write_frame(path: str, rows: "ReplayRows", number: int, origin: "RowOrigin | None", notes: "Notes") -> None:
    """Draw a transition into a file.

    Raises:
        ConfigError: its episode can't be played again or rendered, and its state is no image.
        EnvError: the environment isn't reproducible.
    """
    from nexus.api import env_of_run
    from nexus.inspection.row_origin import frame_of_row, image_in, renders_images

    why = "its episode is not kept"
    frame: Array | None = None
    if origin is not None:
        spec = env_of_run(rows.run, listener=notes)
        if renders_images(spec):
            frame = frame_of_row(rows, number, origin, spec)
        why = "its environment renders no images"
    if frame is None:
        import numpy as np

        frame = image_in(rows.batch_at(np.array([rows.place_of(number)]))["states"][0].numpy(), rows)
    if frame is None:
        raise ConfigError(f"frame = {path!r}: row {number} can't be drawn: {why}, and its state is not an image")
    load("PIL.Image", "video").fromarray(frame).save(path)
    print(f"\nFrame: {path}")


def origin_text(origin: "RowOrigin") -> str:
    """Return which episode and step a transition is from."""
    which = "an episode that had not ended" if origin.episode is None else f"training episode {origin.episode}"
    return f"From {which}, after {origin.step} steps of it; sub-environment {origin.env}"


def lines_of_terms(
    rows: "ReplayRows", place: int, terms: "TransitionTerms", origin: "RowOrigin | None" = None
) -> Iterator[str]:
    """Yield one transition, the values at both of its states, and its target term by term."""
    from nexus.inspection.telling import transition_in_words

    row, age = (rows.columns[name][place] for name in ("row", "age"))
    yield f"Transition {row:,} of the run, {age:,} transitions old at step {rows.saved.steps:,}; weights of that step"
    if origin is not None:
        yield origin_text(origin)
    for title, text in transition_in_words(rows, place, terms, WIDTH_OF_LINES - INDENT):
        yield from titled(title, text)


def titled(title: str, text: str) -> Iterator[str]:
    """Yield a text next to its title, in lines that fit; without a title an empty line."""
    for number, line in enumerate(textwrap.wrap(text, WIDTH_OF_LINES - INDENT) or [""]):
        yield f"{'' if number else title:<{INDENT}}{line}".rstrip()
