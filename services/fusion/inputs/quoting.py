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


def quoted(text: str, longest: int) -> str:
    """Return `text` in double quotes, of at most `longest` characters: one line of visible characters that spell no token and no quote."""
    return f'"{" ".join(_visible(text).translate(_REPLACED).split())[:longest]}"'


def one_line(text: str) -> str:
    """Return `text` as one line of at most `MAX_LINE` visible characters that spell no token; quotes that `quoted` made stay."""
    return " ".join(_visible(text).translate(_MARKS).split())[:MAX_LINE]


def _visible(text: str) -> str:
    # Compatibility forms first: full-width brackets would otherwise become brackets afterwards.
    plain = unicodedata.normalize("NFKC", text)
    return "".join(" " if unicodedata.category(one) in _INVISIBLE or one.isspace() else one for one in plain)
