"""A pixel font of capitals, digits and a few signs, three columns by five rows, for the labels on rendered charts.

It spares the command `aquiline vision render` an imaging library for a handful of letters.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_ROWS, _COLUMNS = 5, 3
_GLYPHS: Final[dict[str, str]] = {  # five octal digits a glyph, one a row, the highest bit on the left
    "A": "25755", "B": "65656", "C": "34443", "D": "65556", "E": "74647", "F": "74644", "G": "34553", "H": "55755",
    "I": "72227", "J": "11152", "K": "55655", "L": "44447", "M": "57755", "N": "65555", "O": "25552", "P": "65644",
    "Q": "25561", "R": "65655", "S": "34216", "T": "72222", "U": "55557", "V": "55522", "W": "55775", "X": "55255",
    "Y": "55222", "Z": "71247", "0": "75557", "1": "26227", "2": "71747", "3": "71317", "4": "55711", "5": "74717",
    "6": "74757", "7": "71244", "8": "75757", "9": "75717", ".": "00002", "-": "00700", "_": "00007", ":": "02020",
    "=": "07070", "+": "02720", "/": "11244", " ": "00000",
}  # fmt: skip


def text_pixels(text: str) -> NDArray[np.bool_]:
    """Return the text drawn on one line, shape (5, 4 a character), lower case as capitals, unknown signs as blanks."""
    drawn = np.zeros((_ROWS, (_COLUMNS + 1) * len(text)), dtype=np.bool_)
    for position, sign in enumerate(text.upper()):
        for row, octal in enumerate(_GLYPHS.get(sign, _GLYPHS[" "])):
            for column in range(_COLUMNS):
                drawn[row, position * (_COLUMNS + 1) + column] = int(octal, 8) >> (_COLUMNS - 1 - column) & 1
    return drawn
