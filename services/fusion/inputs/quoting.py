"""Quotes texts from topics in a prompt, so that they stay one line of data: they close no quotation, begin no line and name no token.

Tokens are safe by themselves where ids are sent (`services.core.tokenizer` never reads a special token out of text). Engines that are
sent text apply their own tokenizer, which would, so the characters that special tokens are spelt with are replaced.
"""

from __future__ import annotations

import unicodedata
from typing import Final

_REPLACED: Final = str.maketrans(
    {
        '"': "'",
        "`": "'",
        "<": "(",
        ">": ")",
        "[": "(",
        "]": ")",
        "{": "(",
        "}": ")",
        "|": "/",
        "\\": "/",
        "\N{LOWER ONE EIGHTH BLOCK}": " ",  # the space of SentencePiece
        "\N{LEFT DOUBLE QUOTATION MARK}": "'",
        "\N{RIGHT DOUBLE QUOTATION MARK}": "'",
        "\N{DOUBLE LOW-9 QUOTATION MARK}": "'",
        "\N{DOUBLE HIGH-REVERSED-9 QUOTATION MARK}": "'",
    }
)
_MARKS: Final = {mark: into for mark, into in _REPLACED.items() if mark != ord('"')}
MAX_LINE: Final = 640
"""Characters of a line; the longest note is quoted in fewer."""
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
"""Unicode's control, format, unassigned, private and surrogate characters, and its line and paragraph separators."""
_BLANK: Final = frozenset(
    map(
        chr,
        (
            0x034F,
            0x115F,
            0x1160,
            0x17B4,
            0x17B5,
            *range(0x180B, 0x1810),
            0x2800,
            0x3164,
            *range(0xFE00, 0xFE10),
            0xFFA0,
            *range(0xE0100, 0xE01F0),
        ),
    )
)
"""Marks, letters and symbols that show nothing: joiners, fillers, the empty Braille pattern, and variation selectors.

The 256 variation selectors can spell any hidden text, a byte each.
"""


def quoted(text: str, longest: int) -> str:
    """Return `text` in double quotes, of at most `longest` characters: one line of visible characters that spell no token and no quote."""
    return f'"{" ".join(_visible(text, longest).translate(_REPLACED).split())}"'


def one_line(text: str) -> str:
    """Return `text` as one line of at most `MAX_LINE` visible characters that spell no token; quotes that `quoted` made stay."""
    return " ".join(_visible(text, MAX_LINE).translate(_MARKS).split())


def _visible(text: str, longest: int) -> str:
    # Compatibility forms first: full-width brackets would otherwise become brackets afterwards. Some forms have 18 characters: 500 of
    # those cost milliseconds if they were not cut before they are looked at.
    plain = unicodedata.normalize("NFKC", text)[:longest]
    return "".join(" " if unicodedata.category(one) in _INVISIBLE or one in _BLANK or one.isspace() else one for one in plain)
