"""Chart images enlarged for a person, with or without the patterns that were detected in them.

The model never sees these pictures: they let a person check what the model sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from schemas import Pattern
from services.vision.render import BAR_WIDTH, Pixels

_COLOURS: Final = ("#ffc400", "#00c8ff", "#ff6eb4", "#78e65a", "#be96ff", "#ff8c3c")
_BACKGROUND: Final = "#181818"
_TEXT: Final = "#dcdcdc"
_TEXT_SIZE: Final = 12
_LINE_HEIGHT: Final = 18
_MARGIN: Final = 6
_BRACKET_HEIGHT: Final = 10
_BRACKET_WIDTH: Final = 3


def enlarge(image: Pixels, scale: int) -> Image.Image:
    """Return the image (height, width) as an RGB picture, each pixel `scale` pixels wide and high."""
    grey = Image.fromarray(image)
    return grey.resize((grey.width * scale, grey.height * scale), Image.Resampling.NEAREST).convert("RGB")


def annotate(image: Pixels, patterns: Sequence[Pattern], *, scale: int, footer: str) -> Image.Image:
    """Return the enlarged image above a coloured bracket and a label for each pattern, and `footer` as the last line.

    A bracket spans the bars that its pattern spans. The chart's own pixels stay as they are.
    """
    chart = enlarge(image, scale)
    picture = Image.new("RGB", (chart.width, chart.height + (2 * len(patterns) + 1) * _LINE_HEIGHT), _BACKGROUND)
    picture.paste(chart, (0, 0))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(_TEXT_SIZE)
    top = chart.height
    for index, pattern in enumerate(patterns):
        colour = _COLOURS[index % len(_COLOURS)]
        left, right = pattern.first_bar * BAR_WIDTH * scale, (pattern.last_bar + 1) * BAR_WIDTH * scale - 1
        bracket = [(left, top + _BRACKET_HEIGHT + 4), (left, top + 4), (right, top + 4), (right, top + _BRACKET_HEIGHT + 4)]
        draw.line(bracket, colour, _BRACKET_WIDTH)
        draw.text((_MARGIN, top + _LINE_HEIGHT), f"{pattern.label} {pattern.score:.2f}", colour, font)
        top += 2 * _LINE_HEIGHT
    draw.text((_MARGIN, top), footer, _TEXT, font)
    return picture
