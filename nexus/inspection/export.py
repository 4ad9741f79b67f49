"""Writing rows of a replay as a NumPy archive, a few at a time: states can be larger than the memory."""

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from nexus.core.errors import ConfigError, RunError
from nexus.core.types import Array, Ints
from nexus.inspection.rows import ReplayRows
from nexus.inspection.saved_replay import AT_ONCE
from nexus.training.files import remove

__all__ = ["export_rows", "require_archive"]

STATE_COLUMNS = ("states", "next_states")  # a storage of frames has only their numbers in its columns


def require_archive(path: str) -> Path:
    """Return the path of an archive that can be written.

    Raises:
        ConfigError: its name does not end in `.npz`, or its folder is missing.
    """
    archive = Path(path)
    if archive.suffix.lower() != ".npz":
        raise ConfigError(f"export = {path!r}: needs a file name that ends in .npz")
    if not archive.parent.is_dir():
        raise ConfigError(f"export = {path!r}: there is no folder {str(archive.parent)!r}; make it first")
    return archive


def export_rows(rows: ReplayRows, places: Ints, path: Path) -> None:
    """Write the transitions at places `[M]` of the columns to an archive that `numpy.load` reads.

    Its arrays, `[M, ...]` each, are `row` (the number of the transition in the run), `age`, `priority` if there are
    any, and the columns of the replay: `states`, `actions`, `rewards`, `discounts`, `next_states`, masks, extras.

    Raises:
        RunError: the file can't be written.
    """
    stored, at = rows.saved.replay.storage.columns, rows.numbers[places] % rows.saved.replay.capacity
    own = {name: rows.columns[name][places] for name in ("row", "age", "priority") if name in rows.columns}
    small = {**own, **{name: values[at] for name, values in stored.items() if name not in STATE_COLUMNS}}
    one = rows.batch_at(np.zeros(1, np.int64))
    draft = path.with_name(f"{path.name}.tmp")
    try:
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, values in small.items():
                write_array(archive, name, values, len(places), [values])
            for name in STATE_COLUMNS:
                write_array(archive, name, one[name].numpy(), len(places), pieces_of(rows, places, name))
        draft.replace(path)
    except OSError as error:
        remove(draft)
        raise RunError(f"can't write {path}: {error.strerror or error}") from None


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
