"""What a page shows of a replay: histograms, and some transitions taken apart by the run's own loss."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nexus.api import seen_by_run
from nexus.core.errors import EnvError, NexusError, one_line
from nexus.core.importable import names_in
from nexus.core.installation import nexus_command
from nexus.core.types import Array, Floats, Ints
from nexus.envs.factory import EnvSpec
from nexus.inspection.histograms import binned
from nexus.inspection.row_origin import frame_of_row, origin_of_row, renders_images
from nexus.inspection.rows import ReplayRows
from nexus.inspection.saved_replay import saved_replay, saved_size
from nexus.inspection.telling import transition_in_words
from nexus.inspection.transition import learner_in_run, terms_of
from nexus.inspection.words import Unknown
from nexus.models.rl.dqn.learner import Learner
from nexus.reporting.film import Collected
from nexus.reporting.pictures import data_url, picture_of, png_of, shrunk
from nexus.training.config import TrainConfig

__all__ = ["ActionRow", "Histogram", "PickedRow", "ReplayPanel", "panel_of_run"]

LARGEST_READ = 256 << 20  # bytes of a replay's files; a larger one is not read for a page
PICKED = 10  # transitions of each kind
ACTIONS_SHOWN = 20
PICTURES_BYTES = 500_000  # of all pictures
ROOM_FOR_STATE = 160  # characters of a state
LONGEST_DRAWING = 20.0  # seconds for playing kept episodes again
LONGEST_TERM = 400  # characters of a text
SHOWN_COLUMNS = ("row", "age", "action", "reward", "discount", "priority")
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Histogram:
    """How often values are in each bin.

    Args:
        title: what is counted.
        labels: `[N]`, the bins.
        counts: `[N]`.
        counted: what the counts are of.
    """

    title: str
    labels: Sequence[str]
    counts: Sequence[int]
    counted: str = "rows"

    @property
    def bars(self) -> list[tuple[str, int, float]]:
        """Label, count, and the count as a percentage of the largest one."""
        most = max(self.counts)
        return [(label, count, 100 * count / most) for label, count in zip(self.labels, self.counts, strict=True)]


@dataclass(frozen=True)
class ActionRow:
    """How often an action was taken, its mean reward, and how often it got the rewards of each bin."""

    action: int
    count: int
    mean: str
    by_reward: Sequence[int]


@dataclass(frozen=True)
class PickedRow:
    """One transition.

    Args:
        number: of the transition in the run.
        cells: its columns as text.
        picked: why it is here.
        terms: what the loss makes of it, as titles and texts; empty if that is not known.
        pictures: its two states as URLs, or what the environment rendered at the first; empty if there are none.
    """

    number: int
    cells: Sequence[str]
    picked: Sequence[str]
    terms: Sequence[tuple[str, str]]
    pictures: Sequence[str]


@dataclass(frozen=True)
class ReplayPanel:
    """A replay on a page.

    Args:
        about: what it is, as a sentence.
        remarks: what is not shown, and why.
        histograms: of its columns.
        reward_labels: `[N]`, the bins of the rewards.
        actions: the most common ones.
        columns: names of the cells of a row.
        rows: the transitions picked, newest first.
    """

    about: str
    remarks: Sequence[str]
    histograms: Sequence[Histogram]
    reward_labels: Sequence[str]
    actions: Sequence[ActionRow]
    columns: Sequence[str]
    rows: Sequence[PickedRow]


def panel_of_run(
    run: Path,
    about: Mapping[str, Any],
    config: TrainConfig | None,
    episodes: Mapping[str, Floats],
    *,
    most_bytes: int = LARGEST_READ,
    imports: bool = True,
    plays: bool = False,
) -> ReplayPanel | Unknown:
    """Read the replay of a run's newest checkpoint; or say why that can't be.

    Args:
        run: the run's folder.
        about: the contents of its `run.json`.
        config: its settings; None if they can't be read.
        episodes: the columns of its `episodes.csv`.
        most_bytes: a larger replay is not read.
        imports: whether the user's own modules may be imported, to take transitions apart with them.
        plays: whether kept episodes may be played again in the environment, to draw transitions of them.
    """
    if config is None:
        return Unknown("no replay is shown, since the settings can't be read")
    try:
        size = saved_size(run)
        if size is not None and size[1] > most_bytes:
            return Unknown(
                f"the replay of step {size[0]:,} has {size[1] / MEGABYTE:,.0f} MB, and a page reads at most "
                f"{most_bytes / MEGABYTE:,.0f} MB; in the terminal: {nexus_command('replay', run)}"
            )
        rows = ReplayRows(run, about, config, saved_replay(run, about, config))
        by_id = plays and config.keep_episodes and about.get("env_is_id")
        return Reader(rows, imports, seen_by_run(run, about).spec if by_id else None).panel(episodes)
    except NexusError as error:
        return Unknown(one_line(error))


class Reader:
    """Makes a panel of the rows of a replay.

    Args:
        rows: the replay.
        imports: as in `panel_of_run`.
        spec: the environment in which kept episodes may be played again, if they may.
    """

    def __init__(self, rows: ReplayRows, imports: bool, spec: EnvSpec | None = None) -> None:
        self.rows, self.imports, self.spec = rows, imports, spec
        self.until = time.monotonic() + LONGEST_DRAWING
        self.remarks: list[str] = []
        self.left = PICTURES_BYTES

    def panel(self, episodes: Mapping[str, Floats]) -> ReplayPanel:
        """Return the panel, given the columns of `episodes.csv`."""
        rows, columns = self.rows, self.rows.columns
        labels, places = binned(columns["reward"])
        histograms = [
            histogram_of(title, columns[name])
            for title, name in (("stored reward", "reward"), ("age", "age"), ("priority", "priority"))
            if name in columns
        ]
        first = rows.saved.steps - len(rows.numbers)
        lengths = episodes["length"][(episodes["step"] > first) & (episodes["step"] <= rows.saved.steps)]
        if len(lengths):
            histograms.append(replace(histogram_of("episode length", lengths.astype(np.int64)), counted="episodes"))
        picked = self.picked()
        return ReplayPanel(
            f"At step {rows.saved.steps:,} the replay held {len(rows.numbers):,} transitions and had room for "
            f"{rows.saved.replay.capacity:,}. {self.said_of_draws}",
            self.remarks,
            histograms,
            labels,
            self.by_action(places, len(labels)),
            [name for name in SHOWN_COLUMNS if name in columns],
            [self.picked_row(place, why) for place, why in sorted(picked.items(), reverse=True)],
        )

    @property
    def said_of_draws(self) -> str:
        """A sentence on what is drawn."""
        if self.rows.priorities is not None:
            return "Transitions are drawn by their priority."
        return "All transitions are equally likely to be drawn."

    def by_action(self, bins: Ints, count: int) -> list[ActionRow]:
        """Return the most common actions, given the bin of each reward `[K]` and the number of bins."""
        actions, rewards = self.rows.columns["action"], self.rows.columns["reward"]
        often = np.bincount(actions, minlength=self.rows.saved.action_dim)
        shown = np.sort(np.argsort(-often, kind="stable")[:ACTIONS_SHOWN])
        if len(shown) < len(often):
            self.remarks.append(f"Of {len(often):,} actions the {len(shown)} most common are shown.")
        return [
            ActionRow(
                action,
                int(often[action]),
                f"{rewards[actions == action].mean(dtype=np.float64):.4g}" if often[action] else "–",
                np.bincount(bins[actions == action], minlength=count).tolist(),
            )
            for action in shown.tolist()
        ]

    def picked(self) -> dict[int, list[str]]:
        """Return places in the columns with the reasons for which they are shown."""
        columns, found = self.rows.columns, dict[int, list[str]]()

        def pick(why: str, places: Array) -> None:
            for place in places.tolist():
                found.setdefault(place, []).append(why)

        if self.rows.priorities is not None:
            by_priority = np.argsort(-columns["priority"], kind="stable")
            pick("most likely to be drawn", by_priority[:PICKED])
            pick("least likely", by_priority[PICKED:][-PICKED:])
        if self.rows.config.gamma:
            pick("terminal", np.flatnonzero(columns["discount"] == 0)[-PICKED:])
        pick("latest", np.arange(len(self.rows.numbers))[-PICKED:])
        return found

    @cached_property
    def learner(self) -> Learner | None:
        """The learner of the checkpoint; None, with a remark, if it can't be had."""
        own = {setting for setting in names_in(self.rows.about.get("config")) if setting != "wrappers"}
        if own and not self.imports:
            self.remarks.append(
                f"Transitions are not taken apart here, since that would import {', '.join(sorted(own))} of the user's "
                "own; a report does so."
            )
            return None
        try:
            notes = Collected()
            learner = learner_in_run(self.rows, notes)
            self.remarks.extend(notes.notices)
            return learner
        except NexusError as error:
            self.remarks.append(f"Transitions can't be taken apart: {one_line(error)}")
            return None

    def picked_row(self, place: int, why: Sequence[str]) -> PickedRow:
        """Return a transition with its terms and pictures."""
        columns = {name: values[place] for name, values in self.rows.columns.items()}
        cells = [
            f"{value:.4g}" if value.dtype.kind == "f" else f"{value:,}"
            for name, value in columns.items()
            if name in SHOWN_COLUMNS
        ]
        return PickedRow(int(columns["row"]), cells, why, self.terms(place), self.pictures(place))

    def terms(self, place: int) -> list[tuple[str, str]]:
        """Return what the loss makes of a transition, in words."""
        if self.learner is None:
            return []
        terms = terms_of(self.learner, self.rows.batch_at(np.array([place])))
        words = transition_in_words(self.rows, place, terms, ROOM_FOR_STATE)
        return [(title, shortened_to(text, LONGEST_TERM)) for title, text in words if title]

    def pictures(self, place: int) -> list[str]:
        """Return the two states of a transition as URLs, while there is room."""
        batch, config = self.rows.batch_at(np.array([place])), self.rows.config
        images = [
            picture_of(batch[name][0].numpy(), config.frame_stack > 1, config.channels)
            for name in ("states", "next_states")
        ]
        if not any(image is not None for image in images):
            images = [self.rendered(int(self.rows.numbers[place]))]
        urls = [data_url(png_of(shrunk(image))) for image in images if image is not None]
        self.left -= sum(map(len, urls))
        if self.left < 0 and urls:
            said = "There is no room for the pictures of all of these transitions."
            self.remarks.extend([said] if said not in self.remarks else [])
            return []
        return urls

    @cached_property
    def renders(self) -> bool:
        """Whether the environment renders images; asked once, since it has to be made for that."""
        return self.spec is not None and renders_images(self.spec)

    def rendered(self, number: int) -> Array | None:
        """Return what the environment renders at a transition of a kept episode; None, with a remark, if it can't."""
        if self.spec is None or not self.rows.config.keep_episodes:
            return None
        try:
            if time.monotonic() > self.until:
                raise EnvError("playing the episodes of all of these transitions again would take too long")
            origin = origin_of_row(self.rows, number)
            if origin is None or not self.renders:
                return None
            return np.asarray(frame_of_row(self.rows, number, origin, self.spec))
        except Exception as error:  # the environment's code can raise anything
            self.spec = None
            self.remarks.append(f"The other transitions are not drawn: {one_line(error)}.")
            return None


def histogram_of(title: str, values: Array) -> Histogram:
    """Return the histogram of values `[K]`, at least one of them."""
    labels, places = binned(values)
    return Histogram(title, labels, np.bincount(places, minlength=len(labels)).tolist())


def shortened_to(text: str, most: int) -> str:
    """Return a text of at most so many characters, and an ellipsis."""
    return text if len(text) <= most else f"{text[:most]}..."
