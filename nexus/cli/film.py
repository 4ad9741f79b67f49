"""Frames of an environment, and the video that they are written to."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nexus.cli.extras import load
from nexus.core.errors import ConfigError, RunError, one_line
from nexus.core.types import Array

__all__ = ["frame_of", "grid", "labelled", "require_writable", "together", "video_writer"]

LEAST_HEIGHT = 240  # pixels of a labelled frame
LEAST_TEXT, FRAME_MARGIN = 16, 4  # pixels of a label's letters, and around them
FRAME_PER_TEXT = 20  # a higher frame has larger letters, since it may be shown smaller


def frame_of(env: Any) -> Array:
    """Return the image of the current state, `[H, W, 3]` with even sides, as video players require."""
    try:
        frame = np.asarray(env.render())
    except Exception as error:
        raise ConfigError(f"the environment can't be rendered: {one_line(error)}") from error
    if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8:
        raise ConfigError(f"the environment renders {frame.dtype}{list(frame.shape)}: needs uint8[height, width, 3]")
    height, width, _ = frame.shape
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def labelled(frame: Array, lines: Sequence[str]) -> Array:
    """Return a frame `[H, W, 3]` enlarged to a readable size, with lines of text in a bar above it.

    Each pixel becomes a square of whole pixels, so that nothing is blurred.
    """
    scale = math.ceil(LEAST_HEIGHT / min(LEAST_HEIGHT, *frame.shape[:2]))
    enlarged = frame.repeat(scale, axis=0).repeat(scale, axis=1)
    size = max(LEAST_TEXT, len(enlarged) // FRAME_PER_TEXT)
    font = load("PIL.ImageFont", "video").load_default(size)
    height = (size + FRAME_MARGIN) * len(lines) + FRAME_MARGIN
    bar = load("PIL.Image", "video").new("RGB", (enlarged.shape[1], height + height % 2))
    draw = load("PIL.ImageDraw", "video").Draw(bar)
    for place, line in enumerate(lines):
        draw.text(
            (2 * FRAME_MARGIN, FRAME_MARGIN + place * (size + FRAME_MARGIN)), line, fill="white", font=font, anchor="lt"
        )
    return np.concatenate([np.asarray(bar), enlarged])


def together(films: Sequence[Iterator[Array]]) -> Iterator[list[Array]]:
    """Yield the frames of several films that run at the same time; one that has ended keeps its last frame."""
    shown = [next(film) for film in films]
    yield list(shown)
    while True:
        moved = [next(film, None) for film in films]
        if all(frame is None for frame in moved):
            return
        shown = [old if new is None else new for old, new in zip(shown, moved, strict=True)]
        yield list(shown)


def grid(frames: Sequence[Array]) -> Array:
    """Return frames `[H, W, 3]` in rows of a square grid, whose free places stay black."""
    columns = math.ceil(math.sqrt(len(frames)))
    free = [np.zeros_like(frames[0])] * (-len(frames) % columns)
    tiles = [*frames, *free]
    rows = [np.concatenate(tiles[place : place + columns], 1) for place in range(0, len(tiles), columns)]
    return np.concatenate(rows)


@contextmanager
def video_writer(path: str, frames_per_second: float) -> Iterator[Callable[[Array], None]]:
    """Open an mp4 file; yields a function that adds a frame to it."""
    imageio = load("imageio.v2", "video")
    try:
        # The default block size of 16 would stretch every frame to a multiple of it.
        with imageio.get_writer(path, format="FFMPEG", mode="I", fps=frames_per_second, macro_block_size=1) as writer:
            yield writer.append_data
    except OSError as error:
        raise RunError(f"can't write {path}: {one_line(error)}") from error


def require_writable(path: str, option: str = "video", suffix: str = ".mp4") -> None:
    """Raise an error before playing if a file of this kind can't be written there."""
    file = Path(path)
    if file.suffix.lower() != suffix:
        raise ConfigError(f"{option} = {path!r}: needs a file name that ends in {suffix}")
    if not file.parent.is_dir():
        raise ConfigError(f"{option} = {path!r}: there is no folder {str(file.parent)!r}; make it first")
    existed = file.exists()
    try:
        file.open("ab").close()
    except OSError as error:
        raise RunError(f"can't write {path}: {error.strerror or error}") from None
    if not existed:
        file.unlink()
