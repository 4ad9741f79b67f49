"""The lines that have been appended to a log since the last look."""

import os
from dataclasses import dataclass
from pathlib import Path

from nexus.core.errors import RunError
from nexus.training.files import file_in

__all__ = ["GrowingLog", "read_end", "read_spread"]

MARK = 1_024  # bytes before the place read up to, by which a log that was replaced is noticed
LONGEST_LINE = 1 << 20  # bytes; longer ones are skipped


@dataclass
class GrowingLog:
    """Reads a log in pieces, each line once; a log that was cut back or replaced is read again from its beginning.

    Args:
        folder: the run's folder.
        name: of the file there. It may be missing.
    """

    folder: Path
    name: str
    place: int = 0  # bytes read
    left: int = 0  # bytes not read yet, as of the last look
    skipping: bool = False  # within a line that is too long
    before: bytes = b""  # the last bytes read

    def lines(self, most: int) -> tuple[list[bytes], bool]:
        """Return the next whole lines, and whether they are the first ones again.

        Args:
            most: bytes to read, more than `LONGEST_LINE`.

        Raises:
            RunError: the file can't be read, or a link leads out of the folder.
        """
        try:
            path = file_in(self.folder, self.name)
        except RunError:
            again, self.place, self.left, self.before, self.skipping = self.place > 0, 0, 0, b"", False
            if os.path.lexists(self.folder / self.name):
                raise
            return [], again
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(0, self.place - len(self.before)))
                again = self.place > size or file.read(len(self.before)) != self.before
                if again:
                    self.place, self.before, self.skipping = 0, b"", False
                file.seek(self.place)
                block = file.read(min(most, size - self.place))
        except OSError as error:
            raise RunError(f"can't read {path}: {error.strerror or error}") from None
        lines = self.whole(block)
        self.left = size - self.place
        return lines, again

    def whole(self, block: bytes) -> list[bytes]:
        """Return the whole lines of the next bytes, and move on behind them."""
        end = block.rfind(b"\n") + 1
        if not end and len(block) > LONGEST_LINE:
            end, self.skipping, lines = len(block), True, []
        else:
            lines = block[:end].split(b"\n")[:-1]
            if lines and self.skipping:
                lines[0], self.skipping = b"(a line of more than a megabyte)", False
        self.place += end
        self.before = (self.before + block[:end])[-MARK:]
        return lines


def read_end(folder: Path, name: str, most: int) -> list[bytes]:
    """Return the last whole lines of a log that are within `most` bytes; none if it can't be read."""
    try:
        with file_in(folder, name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - most))
            lines = file.read(most).split(b"\n")[:-1]
    except (OSError, RunError):
        return []
    return lines if size <= most else lines[1:]


def read_spread(folder: Path, name: str, count: int) -> list[bytes]:
    """Return so many whole lines of a log, from places all over it; none if it can't be read."""
    found = []
    try:
        with file_in(folder, name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for number in range(count):
                file.seek(size * number // count)
                if number:
                    file.readline(LONGEST_LINE)
                line = file.readline(LONGEST_LINE)
                if line.endswith(b"\n"):
                    found.append(line[:-1])
    except (OSError, RunError):
        return []
    return found
