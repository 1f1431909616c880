"""Parses numbers such as `1,234.56`, `12,34,567.80`, `1.234,56`, `1 234,56` and `$1.5M`. The decimal mark is decided once per file."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, Final

_UNDEFINED: Final = str(2**63 - 1)
"""What Databento writes for a price that there is none of."""
EMPTY: Final = frozenset({"", "-", "--", "nan", "null", "none", "n/a", "na", "#n/a", "<na>"})
_PLAIN: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_SPACES: Final = re.compile(r"[\s\u00a0\u202f'\u2019_]")
_SIGNS: Final = "$€£¥₹"
_LARGE: Final = {"K": 1e3, "M": 1e6, "B": 1e9}
_GROUPS: Final = {
    ".": re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d{1,2}(,\d{2})*,\d{3})(\.\d*)?"),  # 1,234,567 and, in India, 12,34,567
    ",": re.compile(r"[+-]?\d{1,3}(\.\d{3})+(,\d*)?"),
}


def is_empty(cell: Any) -> bool:
    """Return whether a cell is empty or a placeholder such as `nan`."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return True
    if isinstance(cell, int):
        return str(cell) == _UNDEFINED
    return isinstance(cell, str) and (cell.casefold() in EMPTY or cell == _UNDEFINED)


def decimal_mark(cells: Iterable[Any], delimiter: str) -> str:
    """Return the decimal mark, `.` or `,`, that a file's prices use.

    `1,234` is ambiguous: with `,` as the delimiter it is above a thousand, with any other delimiter below two.
    """
    comma = point = False
    for cell in cells:
        if not isinstance(cell, str) or "," not in cell:
            # One point may be a decimal or a thousands mark; several are thousands marks.
            comma = comma or (isinstance(cell, str) and cell.count(".") > 1)
            continue
        text = _SPACES.sub("", cell)
        if "." in text:
            comma, point = comma or text.rfind(",") > text.rfind("."), point or text.rfind(".") > text.rfind(",")
        elif text.count(",") > 1:
            point = True
        elif not re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", text) or delimiter != ",":
            comma = True
    return "," if comma and not point else "."


def number(cell: Any, mark: str) -> float:
    """Return the number in a cell; raise ValueError with what was expected."""
    if isinstance(cell, str) and (mark == "," or not _PLAIN.fullmatch(cell)):
        text = _SPACES.sub("", cell).strip(_SIGNS)
        factor = 1.0
        if text and text[-1].upper() in _LARGE:
            factor, text = _LARGE[text[-1].upper()], text[:-1]
        if _GROUPS[mark].fullmatch(text):
            text = text.replace("." if mark == "," else ",", "")
        if mark == ",":
            text = text.replace(",", ".") if "." not in text or not _PLAIN.fullmatch(text) else text
        if not _PLAIN.fullmatch(text):
            raise ValueError("a number is expected")
        value = float(text) * factor
    else:
        try:
            value = float(cell)
        except (TypeError, ValueError):
            raise ValueError("a number is expected") from None
    if not math.isfinite(value):
        raise ValueError("a finite number is expected")
    return value
