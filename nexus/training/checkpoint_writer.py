"""Writing checkpoints so that a crash at any moment leaves the last one whole. `docs/runs.md` describes the files.

A checkpoint costs what is new: the replay lies in chunks that are written once and that later checkpoints name again.
"""

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from nexus.core.errors import RunError
from nexus.core.state import Series, State
from nexus.training.checkpoint import (
    CHECKPOINTS,
    REPLAY,
    SERIES,
    STATE_ARRAYS,
    STATE_VALUES,
    Checkpoint,
    Chunk,
    read_checkpoint,
)
from nexus.training.files import LogMarks, Mark, make_folder_durable, remove, wants_disk, write_json, write_tensors
from nexus.training.run_folder import FORMAT, versions

__all__ = ["Checkpoints", "best_of"]

CHUNK_BYTES = 256 << 20  # a chunk is written and read whole: it can't take more, however much is new
CHUNK_NAME = re.compile(rf"(({'|'.join(SERIES)})-)?\d{{12}}-\d{{12}}\.safetensors", re.ASCII)
STEPS_NAME = re.compile(r"[1-9]\d{0,15}", re.ASCII)


class Checkpoints:
    """Writes the checkpoints of one run and removes those that are no longer kept.

    Args:
        run: the run's folder.
        keep: how many of the newest that came with their period stay. The newest of all stays as well, and of a run of
            format 2, whose checkpoints have scores, the best.
    """

    def __init__(self, run: Path, keep: int) -> None:
        self.run = run
        self.keep = keep
        self.chunks: tuple[Chunk, ...] = ()  # of the last checkpoint
        self.kept: dict[int, Checkpoint] = {}

    def present(self) -> list[int]:
        """Steps of the checkpoints that are there, whole or not, newest first."""
        folder = self.run / CHECKPOINTS
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted((int(name) for name in names if STEPS_NAME.fullmatch(name)), reverse=True)

    def go_on_from(self, checkpoint: Checkpoint | None) -> None:
        """Continue after a checkpoint, or anew: what came after it never happened."""
        self.chunks = () if checkpoint is None else checkpoint.chunks
        for steps in self.present():
            try:
                if checkpoint is not None and steps <= checkpoint.steps:
                    self.kept[steps] = read_checkpoint(self.run, steps)
            except RunError:
                pass  # damaged, and older than one that is whole
        self.tidy()

    def write(
        self, steps: int, state: State, replay: Sequence[Series], logs: LogMarks, about: Mapping[str, Any]
    ) -> None:
        """Save everything, durably; only then forget what is no longer kept.

        Args:
            steps: that the run has behind it.
            state: all but what the replay saves in chunks.
            replay: that, sealed.
            logs: how far the logs have come.
            about: `run`, what was trained, and `periodic`, as `Checkpoint` has it.

        Raises:
            RunError: the disk is full or can't be written to; the checkpoints before are whole.
        """
        try:
            self.chunks = self.written(steps, state, replay, logs, about)
        except RunError:
            self.tidy()  # what was written of it only takes room
            raise
        self.kept[steps] = read_checkpoint(self.run, steps)
        self.tidy()

    def written(
        self, steps: int, state: State, replay: Sequence[Series], logs: LogMarks, about: Mapping[str, Any]
    ) -> tuple[Chunk, ...]:
        """Write the files of a checkpoint and give its folder its name; return the chunks that it needs."""
        chunks = tuple(chunk for series in replay for chunk in self.write_new(series))
        folder = self.run / CHECKPOINTS / str(steps)
        draft = folder.with_name(f".{steps}.tmp")
        arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
        with wants_disk(folder):
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            mark = write_tensors(draft / STATE_ARRAYS, arrays)
            values = {name: value for name, value in state.items() if name not in arrays}
            write_json(
                draft / STATE_VALUES,
                {
                    "format": FORMAT,
                    "steps": steps,
                    **about,
                    "versions": versions(),
                    "values": values,
                    "arrays": asdict(mark),
                    "replay": [
                        {"series": c.series, "first": c.first, "last": c.last, **asdict(c.mark)} for c in chunks
                    ],
                    "logs": asdict(logs),
                },
            )
            draft.rename(folder)
            make_folder_durable(folder.parent)
        return chunks

    def write_new(self, series: Series) -> list[Chunk]:
        """Write the items that no chunk holds yet; return the chunks of all items that the replay still has."""
        chunks = [chunk for chunk in self.chunks if chunk.series == series.name and chunk.last > series.first]
        start = max(series.first, chunks[-1].last if chunks else 0)
        size = max(1, CHUNK_BYTES // series.most_bytes)
        for first in range(start, series.last, size):
            new = Chunk(series.name, first, min(first + size, series.last), Mark(0, ""))
            with wants_disk(self.run / REPLAY):
                (self.run / REPLAY).mkdir(exist_ok=True)
            mark = write_tensors(self.run / new.name, series.get(new.first, new.last))
            chunks.append(replace(new, mark=mark))
        return chunks

    def tidy(self) -> None:
        """Remove checkpoints that are not kept, chunks that none needs, and what a crash left half written."""
        periodic = sorted((steps for steps, c in self.kept.items() if c.periodic), reverse=True)
        wanted = {*periodic[: self.keep], max(self.kept, default=None), best_of(self.kept.values())}
        self.kept = {steps: c for steps, c in self.kept.items() if steps in wanted}
        needed = {chunk.name for checkpoint in self.kept.values() for chunk in checkpoint.chunks}
        for path in sorted((self.run / CHECKPOINTS).glob("*")):
            if not (STEPS_NAME.fullmatch(path.name) and int(path.name) in self.kept):
                forget(path)
        for path in (self.run / REPLAY).glob("*"):
            if CHUNK_NAME.match(path.name) and f"{REPLAY}/{path.name}" not in needed:  # half written ones too
                remove(path)


def best_of(checkpoints: Iterable[Checkpoint]) -> int | None:
    """Return the steps of the checkpoint with the highest score, of equal ones the newest; None if none has one."""
    scored = {c.steps: c.score for c in checkpoints if c.score is not None}
    return max(scored, key=lambda steps: (scored[steps], steps), default=None)


def forget(folder: Path) -> None:
    """Remove a checkpoint; half removed it must not look like one."""
    hidden = folder.with_name(f".{folder.name.strip('.')}.tmp")
    try:
        if folder != hidden:
            shutil.rmtree(hidden, ignore_errors=True)
            folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
    except OSError:
        pass  # it costs space and nothing else
