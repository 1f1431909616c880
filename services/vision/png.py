"""PNG files from pixel arrays with the standard library alone, and the enlarged, annotated picture that a person looks at.

The model never sees these: they exist so that what it sees can be checked by eye.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas import Pattern
from services.vision.glyphs import text_pixels
from services.vision.render import Pixels

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_COLOURS: Final = ((255, 196, 0), (0, 200, 255), (255, 110, 180), (120, 230, 90), (190, 150, 255), (255, 140, 60))
_BAR_WIDTH: Final = 3
_LINE: Final = 10
_TEXT_SCALE: Final = 2
_MARGIN: Final = 6
_GREY_DIMENSIONS: Final = 2
_CHANNELS: Final = 3


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG of 8-bit `pixels`, grey of the shape (height, width) or RGB of (height, width, 3); raise ValueError else."""
    grey = pixels.ndim == _GREY_DIMENSIONS
    if not grey and pixels.shape[2:] != (_CHANNELS,):
        raise ValueError(f"pixels have the shape {pixels.shape}; expected (height, width) or (height, width, 3)")
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    raw = np.concatenate([np.zeros((height, 1), dtype=np.uint8), rows], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if grey else 2, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(raw, 9)) + _chunk(b"IEND", b"")


def enlarge(image: Pixels, scale: int) -> NDArray[np.uint8]:
    """Return the image (height, width) as RGB, each pixel `scale` pixels wide and high."""
    grown = image.repeat(scale, axis=0).repeat(scale, axis=1)
    return np.repeat(grown[:, :, None], 3, axis=2)


def annotate(image: Pixels, patterns: Sequence[Pattern], *, scale: int, footer: str) -> NDArray[np.uint8]:
    """Return the enlarged image with a coloured bracket and a line of text under it for each pattern, then `footer`.

    `image` has three columns a bar; a bracket spans the bars that its pattern spans.
    """
    picture = enlarge(image, scale)
    width = picture.shape[1]
    line_height = _LINE * _TEXT_SCALE
    strip = np.full(((len(patterns) * 2 + 1) * line_height, width, 3), 24, dtype=np.uint8)
    for index, pattern in enumerate(patterns):
        colour = np.array(_COLOURS[index % len(_COLOURS)], dtype=np.uint8)
        left, right = pattern.first_bar * _BAR_WIDTH * scale, (pattern.last_bar + 1) * _BAR_WIDTH * scale
        for edge in (left, right - 1):
            column = picture[:, edge]
            picture[:, edge] = np.where(column > 0, column, colour // 2)
        top = index * 2 * line_height
        strip[top + 6 : top + 10, left:right] = colour
        strip[top + 6 : top + 16, left : left + 2] = colour
        strip[top + 6 : top + 16, right - 2 : right] = colour
        _write(strip, top + line_height, f"{pattern.label} {pattern.score:.2f}", colour)
    _write(strip, len(patterns) * 2 * line_height, footer, np.array((220, 220, 220), dtype=np.uint8))
    return np.concatenate([picture, strip])


def _write(canvas: NDArray[np.uint8], top: int, text: str, colour: NDArray[np.uint8]) -> None:
    """Write a line at double size, or at its own where it would not fit."""
    drawn = text_pixels(text)
    scale = _TEXT_SCALE if drawn.shape[1] * _TEXT_SCALE + _MARGIN <= canvas.shape[1] else 1
    drawn = drawn.repeat(scale, axis=0).repeat(scale, axis=1)
    room = canvas[top + 2 : top + 2 + drawn.shape[0], _MARGIN : _MARGIN + drawn.shape[1]]
    room[drawn[: room.shape[0], : room.shape[1]]] = colour


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
