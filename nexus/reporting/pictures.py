"""Images on a page: states and rendered frames as small PNG files.

A PNG of 8 bits needs a header, zlib and two checksums, so it is written here. A page is then the same on every machine,
and pixels of 84 by 84 frames stay as they are.
"""

import base64
import struct
import zlib
from math import ceil

import numpy as np

from nexus.core.types import Array
from nexus.models.torsos import Channels, image_form

__all__ = ["data_url", "picture_of", "png_of", "shrunk"]

WIDEST_PICTURE, HIGHEST_PICTURE = 320, 240  # pixels
GREY_PNG, COLOUR_PNG = 0, 2  # of PNG
IMAGE_DIMS = (3, 4)  # of a state that is an image, or a stack of images


def picture_of(state: Array, stacked: bool, channels: Channels = "auto") -> Array | None:
    """Return a state as an image `[H, W]` or `[H, W, 3]`, uint8; None if it is no image.

    Of a stack it is the newest image. Three channels are red, green and blue; of any other number the brightest counts.

    Args:
        state: `[*obs]`.
        stacked: whether its first axis counts observations.
        channels: where its channels are, as in the settings.
    """
    if state.ndim not in IMAGE_DIMS or state.dtype.kind not in "biuf":
        return None
    image = state[-1] if stacked or state.ndim == max(IMAGE_DIMS) else state
    if image.ndim == 2:
        return in_shades(image)
    if image_form(state.shape, channels).channels == "first":
        image = np.moveaxis(image, 0, -1)
    return in_shades(image if image.shape[-1] == 3 else image.max(-1))


def in_shades(image: Array) -> Array:
    """Return an image as uint8; numbers up to 1 are fractions of white."""
    finite = np.nan_to_num(image.astype(np.float32))
    scale = 255.0 if finite.max(initial=0.0) <= 1 else 1.0
    brought: Array = np.clip(finite * scale, 0, 255).round().astype(np.uint8)
    return brought


def shrunk(image: Array) -> Array:
    """Return an image `[H, W]` or `[H, W, 3]` of at most 320 by 240 pixels, each the mean of a square of old ones."""
    height, width = image.shape[:2]
    side = max(1, ceil(width / WIDEST_PICTURE), ceil(height / HIGHEST_PICTURE))
    if side == 1:
        return image
    more = ((0, -height % side), (0, -width % side), *[(0, 0)] * (image.ndim - 2))
    whole = np.pad(image, more, mode="edge")
    rows, columns = whole.shape[0] // side, whole.shape[1] // side
    squares = whole.reshape(rows, side, columns, side, *whole.shape[2:])
    means: Array = squares.mean((1, 3)).round().astype(np.uint8)
    return means


def png_of(image: Array) -> bytes:
    """Return an image `[H, W]` or `[H, W, 3]`, uint8, as a PNG file."""
    height, width = image.shape[:2]
    lines = np.zeros((height, 1 + image.size // height), np.uint8)  # each begins with its filter: 0, none
    lines[:, 1:] = image.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, GREY_PNG if image.ndim == 2 else COLOUR_PNG, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def data_url(png: bytes) -> str:
    """Return a PNG file as a URL that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
