"""Writing rows of a replay to a file, a few at a time: states can be larger than the memory."""

import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.lib import format as npy

from nexus.core.errors import ConfigError, RunError
from nexus.core.types import Array, Ints
from nexus.inspection.rows import ReplayRows
from nexus.inspection.saved_replay import AT_ONCE
from nexus.training.files import remove

__all__ = ["PARQUET", "export_rows", "require_archive"]

STATE_COLUMNS = ("states", "next_states")  # a storage of frames has only their numbers in its columns
PARQUET = ".parquet"
GROUP_BYTES = 64 << 20  # of states in a row group of a Parquet file


@dataclass(frozen=True)
class Exported:
    """The transitions to write.

    Args:
        rows: the replay.
        places: `[M]`, which ones, as places of the columns.
        small: `[M, ...]` each, all columns but the states.
        one: one transition as a batch.
    """

    rows: ReplayRows
    places: Ints
    small: Mapping[str, Array]
    one: Mapping[str, Array]


Writer: TypeAlias = Callable[[Exported, Path], None]


def require_archive(path: str) -> Path:
    """Return the path of a file that can be written.

    Raises:
        ConfigError: its name does not end in `.npz` or `.parquet`, or its folder is missing.
    """
    archive = Path(path)
    if archive.suffix.lower() not in WRITERS:
        raise ConfigError(f"export = {path!r}: needs a file name that ends in {' or '.join(WRITERS)}")
    if not archive.parent.is_dir():
        raise ConfigError(f"export = {path!r}: there is no folder {str(archive.parent)!r}; make it first")
    return archive


def export_rows(rows: ReplayRows, places: Ints, path: Path) -> None:
    """Write the transitions at places `[M]` of the columns: as an archive that `numpy.load` reads, or as Parquet.

    The arrays, `[M, ...]` each, are `row` (the number of the transition in the run), `age`, `priority` if there are
    any, and the columns of the replay: `states`, `actions`, `rewards`, `discounts`, `next_states`, masks, extras. In
    Parquet arrays of several dimensions are nested lists of fixed sizes.

    Args:
        rows: the replay.
        places: which of its transitions.
        path: of the file; how it ends decides on its format.

    Raises:
        RunError: the file can't be written.
    """
    stored, at = rows.saved.replay.storage.columns, rows.numbers[places] % rows.saved.replay.capacity
    own = {name: rows.columns[name][places] for name in ("row", "age", "priority") if name in rows.columns}
    small = {**own, **{name: values[at] for name, values in stored.items() if name not in STATE_COLUMNS}}
    batch = rows.batch_at(np.zeros(1, np.int64))
    one = {name: batch[name].numpy() for name in STATE_COLUMNS}
    draft = path.with_name(f"{path.name}.tmp")
    try:
        WRITERS[path.suffix.lower()](Exported(rows, places, small, one), draft)
        draft.replace(path)
    except OSError as error:
        remove(draft)
        raise RunError(f"can't write {path}: {error.strerror or error}") from None


def write_archive(exported: Exported, path: Path) -> None:
    """Write an archive of NumPy arrays."""
    count = len(exported.places)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in exported.small.items():
            write_array(archive, name, values, count, [values])
        for name, like in exported.one.items():
            write_array(archive, name, like, count, pieces_of(exported.rows, exported.places, name))


def write_parquet(exported: Exported, path: Path) -> None:
    """Write a Parquet file, some transitions at a time."""
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    row_bytes = sum(like.nbytes for like in exported.one.values())
    size = max(AT_ONCE, GROUP_BYTES // max(row_bytes, 1))
    writer = None
    try:
        for first in range(0, max(len(exported.places), 1), size):  # of no transitions an empty group, with the columns
            chosen = exported.places[first : first + size]
            columns = {name: values[first : first + size] for name, values in exported.small.items()}
            for name, like in exported.one.items():
                pieces = list(pieces_of(exported.rows, chosen, name))
                columns[name] = np.concatenate(pieces) if pieces else like[:0]
            table = arrow.table({name: nested_lists(arrow, values) for name, values in columns.items()})
            writer = parquet.ParquetWriter(path, table.schema) if writer is None else writer
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def nested_lists(arrow: Any, values: Array) -> Any:
    """Return an array `[M, ...]` as an Arrow array of `M` numbers, or of nested lists of fixed sizes."""
    lists = arrow.array(np.ascontiguousarray(values).reshape(-1))
    for size in reversed(values.shape[1:]):
        lists = arrow.FixedSizeListArray.from_arrays(lists, int(size))
    return lists


WRITERS: Mapping[str, Writer] = {".npz": write_archive, PARQUET: write_parquet}


def pieces_of(rows: ReplayRows, places: Ints, name: str) -> Iterator[Array]:
    """Yield the states or next states at places `[M]`, some rows at a time."""
    for first in range(0, len(places), AT_ONCE):
        yield rows.batch_at(places[first : first + AT_ONCE])[name].numpy()


def write_array(archive: zipfile.ZipFile, name: str, like: Array, count: int, pieces: Iterable[Array]) -> None:
    """Write an array of `count` items like those of another one to an archive, in NumPy's own format."""
    header = {"descr": npy.dtype_to_descr(like.dtype), "fortran_order": False, "shape": (count, *like.shape[1:])}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        npy.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece).tobytes())
