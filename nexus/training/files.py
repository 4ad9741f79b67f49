"""Files that carry their own checksum and are replaced atomically. No pickle: JSON and safetensors only.

The checksum of a file is the SHA-256 of its bytes with the 64 digits of its `"sha256": "..."` set to zero. In JSON
that is the last key, in safetensors the only metadata.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy

from nexus.core.errors import RunError, one_line
from nexus.core.types import Array

__all__ = [
    "LogMarks",
    "Mark",
    "file_in",
    "make_folder_durable",
    "mark_of",
    "read_json",
    "read_tensors",
    "remove",
    "wants_disk",
    "write_json",
    "write_tensors",
]

ZEROS = b"0" * 64
FULL = (errno.ENOSPC, errno.EDQUOT)
JSON_LIMIT = 64 << 20  # bytes; far more than nexus writes
HEADER_LIMIT = 1 << 20  # bytes of a safetensors header; likewise


@dataclass(frozen=True)
class Mark:
    """The size in bytes and the checksum of a file when it was written."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class LogMarks:
    """The state of the log files at a checkpoint: marks of the text files, and only sizes of TensorBoard's."""

    files: Mapping[str, Mark]
    boards: Mapping[str, int]


@contextmanager
def wants_disk(path: Path, needs: int | None = None) -> Iterator[None]:
    """Turn a system error into one line that names the file; for a full disk, with the bytes needed and free.

    Args:
        path: the file being written.
        needs: bytes needed, if known.
    """
    try:
        yield
    except (OSError, safetensors.SafetensorError) as error:
        what = getattr(error, "strerror", None) or one_line(error)
        full = getattr(error, "errno", None) in FULL
        raise RunError(f"can't write {path}: {what}{room(path, needs) if full else ''}") from None


def room(path: Path, needs: int | None) -> str:
    """Return text on the bytes that a file needs and the bytes free on its disk."""
    try:
        free = shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.exists())).free
    except OSError:
        return ""
    wanted = "" if needs is None else f"needs {needs:,} bytes, "
    return f": {wanted}{free:,} bytes are free; make room, then continue with nexus resume"


def write_json(path: Path, values: Mapping[str, Any]) -> Mark:
    """Write JSON with its checksum, durably and atomically.

    Raises:
        RunError: the disk is full or can't be written to.
    """
    whole = {**{key: value for key, value in values.items() if key != "sha256"}, "sha256": ZEROS.decode()}
    return write_sealed(path, (json.dumps(whole, indent=2) + "\n").encode(), at_end=True)


def write_tensors(path: Path, arrays: Mapping[str, Array]) -> Mark:
    """Write arrays as safetensors with their checksum, durably and atomically.

    Raises:
        RunError: the disk is full or can't be written to.
    """
    plain = {name: array if array.flags.c_contiguous else array.copy(order="C") for name, array in arrays.items()}
    return write_sealed(path, safetensors.numpy.save(plain, metadata={"sha256": ZEROS.decode()}), at_end=False)


def write_sealed(path: Path, content: bytes, *, at_end: bool) -> Mark:
    """Replace the zeros with the checksum, and an older file with this one."""
    digest = hashlib.sha256(content).hexdigest()
    place = content.rindex(ZEROS) if at_end else content.index(ZEROS)
    draft = path.with_name(path.name + ".tmp")
    with wants_disk(path, len(content)):
        draft.unlink(missing_ok=True)  # left by a crash, or a link to somewhere else
        try:
            with draft.open("xb") as file:
                file.write(content[:place])
                file.write(digest.encode())
                file.write(memoryview(content)[place + 64 :])
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError:
            remove(draft)  # a partial file would only fill the disk further
            raise
        make_folder_durable(path.parent)
    return Mark(len(content), digest)


def make_folder_durable(folder: Path) -> None:
    """Wait until a folder's entries are on disk; do nothing on systems that can't do that."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def file_in(folder: Path, name: str) -> Path:
    """Return the path of a regular file in a folder.

    Raises:
        RunError: there is no such file, or its name or a link leads out of the folder.
    """
    path = folder / name
    try:
        within = path.resolve().is_relative_to(folder.resolve())
        regular = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a zero byte, circular links
        raise RunError(f"{name[:80]!r} is not a file in {folder}: {one_line(error)}") from None
    if not within:
        raise RunError(f"{path} leads out of its run folder: it is not read")
    if not regular:
        raise RunError(f"{path} is missing")
    return path


def read_sealed(path: Path, limit: int, *, at_end: bool, mark: Mark | None, must_carry: bool) -> bytes:
    """Return a file's bytes after verifying them.

    Args:
        path: the file.
        limit: largest valid size in bytes; larger files are not read.
        at_end: whether the checksum is at the end of the file or at its beginning.
        mark: another file's record of this one.
        must_carry: whether a file without a checksum is refused.

    Raises:
        RunError: it can't be read, is too large, or does not match its checksum.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise RunError(f"{path} has {size:,} bytes: at most {limit:,} are plausible")
            content = file.read(size + 1)  # bounded, in case it grows
    except OSError as error:
        raise RunError(f"can't read {path}: {error.strerror or error}") from None
    if mark is not None and len(content) != mark.bytes:
        raise RunError(f"{path} has {len(content):,} bytes: {mark.bytes:,} were written")
    place = seal_place(content, at_end)
    if place is None:
        if must_carry:
            raise RunError(f"{path} carries no checksum: it is damaged, or not written by nexus")
        return content
    digest = hashlib.sha256(content[:place])
    digest.update(ZEROS)
    digest.update(memoryview(content)[place + 64 :])
    if digest.hexdigest().encode() != content[place : place + 64]:
        raise RunError(f"{path} is damaged: it differs from its checksum")
    if mark is not None and digest.hexdigest() != mark.sha256:
        raise RunError(f"{path} is not the file that was written there: its checksum differs")
    return content


def seal_place(content: bytes, at_end: bool) -> int | None:
    """Return the position of the 64 digits of a file's checksum, or None if it has none."""
    key, area = b'"sha256"', content if at_end else content[: HEADER_LIMIT + 8]
    found = area.rfind(key) if at_end else area.find(key)
    quote = area.find(b'"', found + len(key)) if found >= 0 else -1
    if quote < 0 or area[found + len(key) : quote].strip() != b":" or area[quote + 65 : quote + 66] != b'"':
        return None
    return quote + 1


def read_json(path: Path, mark: Mark | None = None, *, must_carry: bool = True) -> dict[str, Any]:
    """Return the values of an undamaged JSON file.

    Raises:
        RunError: it is missing, damaged, too large or not a JSON object.
    """
    content = read_sealed(path, JSON_LIMIT, at_end=True, mark=mark, must_carry=must_carry)
    try:
        values = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunError(f"can't read {path}: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise RunError(f"{path} holds a {type(values).__name__}: needs an object")
    return values


def read_tensors(path: Path, limit: int, mark: Mark | None = None, *, must_carry: bool = True) -> dict[str, Array]:
    """Return the arrays of an undamaged safetensors file.

    Args:
        path: the file.
        limit: largest valid size of its arrays in bytes.
        mark: another file's record of this one.
        must_carry: whether a file without a checksum is refused.

    Raises:
        RunError: it is missing, damaged, too large or not safetensors.
    """
    content = read_sealed(path, limit + HEADER_LIMIT, at_end=False, mark=mark, must_carry=must_carry)
    try:
        arrays: dict[str, Array] = safetensors.numpy.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise RunError(f"can't read {path}: {one_line(error)}") from None
    if any(array.dtype.kind not in "biuf" for array in arrays.values()):
        raise RunError(f"can't read {path}: it holds more than plain numbers")
    return arrays


def mark_of(values: Any, name: str) -> Mark:
    """Read a mark from JSON.

    Raises:
        RunError: it is not a mark.
    """
    match values:
        case {"bytes": int(size), "sha256": str(digest)} if size >= 0:
            return Mark(size, digest)
    raise RunError(f"the record of {name[:80]!r} can't be read")


def remove(path: Path) -> None:
    """Remove a file or a link if it exists; ignore failures."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
