"""Writing checkpoints so that a crash at any moment leaves the last one intact. `docs/runs.md` describes the files.

A checkpoint costs only what is new: the replay is in chunks, written once and shared by later checkpoints.
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

CHUNK_BYTES = 256 << 20  # limit of a chunk, which is written and read whole
CHUNK_NAME = re.compile(rf"(({'|'.join(SERIES)})-)?\d{{12}}-\d{{12}}\.safetensors", re.ASCII)
STEPS_NAME = re.compile(r"0|[1-9]\d{0,15}", re.ASCII)  # 0 if a run starts with the weights of another one


class Checkpoints:
    """Writes the checkpoints of one run and removes those that are no longer kept.

    Args:
        run: the run's folder.
        keep: number of newest periodic checkpoints to keep. The newest one is also kept, and in a run of
            format 2, whose checkpoints have scores, the best.
    """

    def __init__(self, run: Path, keep: int) -> None:
        self.run = run
        self.keep = keep
        self.chunks: tuple[Chunk, ...] = ()  # chunks of the last checkpoint
        self.kept: dict[int, Checkpoint] = {}

    def present(self) -> list[int]:
        """Steps of the existing checkpoints, damaged or not, newest first."""
        folder = self.run / CHECKPOINTS
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted((int(name) for name in names if STEPS_NAME.fullmatch(name)), reverse=True)

    def go_on_from(self, checkpoint: Checkpoint | None) -> None:
        """Continue from a checkpoint, or from the start: discard everything after it."""
        self.chunks = () if checkpoint is None else checkpoint.chunks
        for steps in self.present():
            try:
                if checkpoint is not None and steps <= checkpoint.steps:
                    self.kept[steps] = read_checkpoint(self.run, steps)
            except RunError:
                pass  # damaged, and older than an undamaged one
        self.tidy()

    def write(
        self, steps: int, state: State, replay: Sequence[Series], logs: LogMarks, about: Mapping[str, Any]
    ) -> None:
        """Save everything durably, and only then remove what is no longer kept.

        Args:
            steps: steps of the run so far.
            state: everything except what the replay saves in chunks.
            replay: the sealed replay.
            logs: marks of the log files.
            about: `run`, the environment and settings, and `periodic`, as in `Checkpoint`.

        Raises:
            RunError: the disk is full or can't be written to; earlier checkpoints stay intact.
        """
        try:
            self.chunks = self.written(steps, state, replay, logs, about)
        except RunError:
            self.tidy()  # the partial checkpoint only takes up space
            raise
        self.kept[steps] = read_checkpoint(self.run, steps)
        self.tidy()

    def written(
        self, steps: int, state: State, replay: Sequence[Series], logs: LogMarks, about: Mapping[str, Any]
    ) -> tuple[Chunk, ...]:
        """Write the files of a checkpoint, rename its folder into place, and return the chunks it needs."""
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
        """Write the items that are in no chunk yet; return the chunks of all items still in the replay."""
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
        """Remove checkpoints that are not kept, chunks no longer needed, and files a crash left half written."""
        periodic = sorted((steps for steps, c in self.kept.items() if c.periodic), reverse=True)
        wanted = {*periodic[: self.keep], max(self.kept, default=None), best_of(self.kept.values())}
        self.kept = {steps: c for steps, c in self.kept.items() if steps in wanted}
        needed = {chunk.name for checkpoint in self.kept.values() for chunk in checkpoint.chunks}
        for path in sorted((self.run / CHECKPOINTS).glob("*")):
            if not (STEPS_NAME.fullmatch(path.name) and int(path.name) in self.kept):
                forget(path)
        for path in (self.run / REPLAY).glob("*"):
            if CHUNK_NAME.match(path.name) and f"{REPLAY}/{path.name}" not in needed:  # including half-written ones
                remove(path)


def best_of(checkpoints: Iterable[Checkpoint]) -> int | None:
    """Return the steps of the checkpoint with the highest score, the newest in a tie; None without scores."""
    scored = {c.steps: c.score for c in checkpoints if c.score is not None}
    return max(scored, key=lambda steps: (scored[steps], steps), default=None)


def forget(folder: Path) -> None:
    """Remove a checkpoint, so that a partial removal does not look like a checkpoint."""
    hidden = folder.with_name(f".{folder.name.strip('.')}.tmp")
    try:
        if folder != hidden:
            shutil.rmtree(hidden, ignore_errors=True)
            folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
    except OSError:
        pass  # it only takes up space
