"""Pictures of environments that are grids."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Pixels", "grid_picture"]

Pixels: TypeAlias = NDArray[np.uint8]

CELL, LINE = 16, 1  # pixels: the side of a cell, and the lines between cells
LINE_GREY = 40


def grid_picture(
    rows: int, columns: int, marked: list[tuple[tuple[int, int], tuple[int, int, int]]], background: int = 0
) -> Pixels:
    """Return a picture `[rows * 16, columns * 16, 3]` of a grid.

    Args:
        rows: rows of the grid.
        columns: columns of the grid.
        marked: cells (row, column) with their colours; later ones cover earlier ones.
        background: grey of all other cells, 0 to 255.
    """
    cells = np.full((rows, columns, 3), background, np.uint8)
    for cell, colour in marked:
        cells[cell] = colour
    picture = cells.repeat(CELL, 0).repeat(CELL, 1)
    for axis in (0, 1):
        lines = np.arange(picture.shape[axis]) % CELL < LINE
        picture[(lines, slice(None)) if axis == 0 else (slice(None), lines)] = LINE_GREY
    return picture
