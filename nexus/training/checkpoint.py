"""Reading a checkpoint, from which a run continues bit for bit. `docs/runs.md` describes the files."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nexus.core.errors import RunError
from nexus.core.state import Series, State, number_from, value_from
from nexus.core.types import Array
from nexus.training.files import (
    LogMarks,
    Mark,
    file_in,
    mark_of,
    read_json,
    read_tensors,
)
from nexus.training.run_folder import ACTIONS_FILE, EPISODES_FILE, METRICS_FILE, require_format

__all__ = [
    "CHECKPOINTS",
    "FRAMES",
    "REPLAY",
    "STATE_ARRAYS",
    "STATE_VALUES",
    "Checkpoint",
    "Chunk",
    "log_damage",
    "read_checkpoint",
]

CHECKPOINTS, REPLAY = "checkpoints", "replay"
STATE_VALUES, STATE_ARRAYS = "state.json", "state.safetensors"
ROWS, FRAMES = SERIES = "rows", "frames"  # the series a replay saves in chunks


@dataclass(frozen=True)
class Chunk:
    """A file with items number `first` to `last - 1` of a series: rows of the replay, or groups of its frames."""

    series: str
    first: int
    last: int
    mark: Mark

    @property
    def name(self) -> str:
        """Path in the run folder."""
        kind = "" if self.series == ROWS else f"{self.series}-"
        return f"{REPLAY}/{kind}{self.first:012d}-{self.last:012d}.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint's `state.json`."""

    run: Path
    steps: int
    score: float | None  # before format 3: mean return of the last evaluation, possibly of older weights
    values: State
    arrays: Mark
    chunks: tuple[Chunk, ...]
    logs: LogMarks
    versions: Mapping[str, Any]
    about: Mapping[str, Any]  # environment and settings, as in `run.json`; empty before format 3
    periodic: bool  # an uninterrupted run would have it too

    @property
    def arrays_name(self) -> str:
        """Path of its arrays in the run folder."""
        return f"{CHECKPOINTS}/{self.steps}/{STATE_ARRAYS}"

    def read_state(self, limit: int) -> State:
        """Return the whole state; `limit` is the largest valid size of its arrays in bytes.

        Raises:
            RunError: a file is missing or damaged.
        """
        arrays = read_tensors(file_in(self.run, self.arrays_name), limit, self.arrays)
        return {**self.values, **arrays}

    def read_chunk(self, chunk: Chunk, limit: int) -> dict[str, Array]:
        """Return the columns of a chunk; `limit` is their largest valid size in bytes.

        Raises:
            RunError: its file is missing or damaged.
        """
        return read_tensors(file_in(self.run, chunk.name), limit, chunk.mark)

    def restore_series(self, series: Series) -> None:
        """Restore one series of a replay whose counts are already restored.

        Raises:
            RunError: a chunk is missing or damaged, or the chunks do not fit the replay.
        """
        wanted = series.first
        for chunk in (chunk for chunk in self.chunks if chunk.series == series.name):
            count = chunk.last - chunk.first
            if count > series.most or not chunk.first <= wanted < chunk.last <= series.last:
                raise RunError(f"{chunk.name} does not continue the previous {series.name}")
            columns = self.read_chunk(chunk, limit=count * series.most_bytes)
            if any(values.ndim == 0 for values in columns.values()):
                raise RunError(f"{chunk.name} has a column that is a single number")
            try:
                series.put(chunk.first, chunk.last, wanted, columns)
            except RunError as error:
                raise RunError(f"{chunk.name} does not fit: {error}") from None
            wanted = chunk.last
        if wanted != series.last:
            raise RunError(f"the replay's {series.name} end at number {wanted} of {series.last}")

    def check(self) -> None:
        """Raise `RunError` unless every file it needs is undamaged; logs are not needed."""
        for name, mark in [(self.arrays_name, self.arrays), *((chunk.name, chunk.mark) for chunk in self.chunks)]:
            read_tensors(file_in(self.run, name), mark.bytes, mark)


def read_checkpoint(run: Path, steps: int) -> Checkpoint:
    """Read a checkpoint's `state.json`, but none of the files it names.

    Raises:
        RunError: it is missing, damaged or in a newer format.
    """
    name = f"{CHECKPOINTS}/{steps}/{STATE_VALUES}"
    path = file_in(run, name)
    about = read_json(path)
    require_format(about, path)
    if value_from(about, "steps", int) != steps:
        raise RunError(f"{path} says step {about['steps']}, its folder step {steps}")
    score = None if about.get("score") is None else number_from(about, "score")
    return Checkpoint(
        run,
        steps,
        score,
        value_from(about, "values", dict),
        mark_of(about.get("arrays"), STATE_ARRAYS),
        tuple(chunk_of(entry) for entry in value_from(about, "replay", list)),
        logs_of(value_from(about, "logs", dict)),
        value_from(about, "versions", dict),
        value_from({"run": {}, **about}, "run", dict),
        value_from({"periodic": True, **about}, "periodic", bool),
    )


def chunk_of(entry: Any) -> Chunk:
    """Read a chunk from JSON.

    Raises:
        RunError: it is not a chunk.
    """
    match entry:
        case {"first": int(first), "last": int(last)} if 0 <= first < last < 10**12:
            series = entry.get("series", ROWS)  # older runs have only rows
            if series in SERIES:
                return Chunk(series, first, last, mark_of(entry, REPLAY))
    raise RunError("the list of replay chunks can't be read")


def logs_of(entry: Mapping[str, Any]) -> LogMarks:
    """Read the marks of the log files from JSON.

    Raises:
        RunError: they can't be read.
    """
    match entry:
        case {"files": dict(files), "boards": dict(boards)} if files.keys() - {ACTIONS_FILE} == {
            METRICS_FILE,
            EPISODES_FILE,
        }:
            if all(isinstance(size, int) and size >= 0 for size in boards.values()):
                return LogMarks({name: mark_of(mark, name) for name, mark in files.items()}, boards)
    raise RunError("the records of the log files can't be read")


def log_damage(run: Path, logs: LogMarks) -> list[str]:
    """Return a line for each text log that no longer starts with its contents at the checkpoint."""
    return [text for name, mark in logs.files.items() if (text := damage_of(run, name, mark)) is not None]


def damage_of(run: Path, name: str, mark: Mark) -> str | None:
    """Return what is wrong with the beginning of a log, or None."""
    digest, left = hashlib.sha256(), mark.bytes
    try:
        path = file_in(run, name)
        with path.open("rb") as file:
            while left > 0 and (part := file.read(min(left, 1 << 20))):
                digest.update(part)
                left -= len(part)
    except RunError as error:
        return str(error)
    except OSError as error:
        return f"can't read {path}: {error.strerror or error}"
    if left:
        return f"{path} has lost {left:,} of {mark.bytes:,} bytes"
    if digest.hexdigest() != mark.sha256:
        return f"{path} was changed: its first {mark.bytes:,} bytes differ from their checksum"
    return None
