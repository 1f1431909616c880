"""The facts of a prompt, read out of its text as a model would: by their names, or in mode `flash` by the order that the rules name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_FACT: Final = re.compile(r"\b([a-z][a-z0-9_]*)=(-?\d+(?:\.\d+)?)")
_UNNAMED: Final = re.compile(r"^Facts (.+)$", re.MULTILINE)
_ORDER: Final = re.compile(r"after Facts, without names and in this order, (.+?), where -- is unknown")
_COLUMNS: Final = re.compile(r"A bar is one row: time, (.+?)\. ")
_DISTANCES: Final = re.compile(r"then (.+?) as (?:a distance|distances) from the close")
_ROW: Final = re.compile(r"^\d{4,6} .+$", re.MULTILINE)


def facts_of(tail: str, rules: Callable[[], str]) -> dict[str, float]:
    """Return the facts in `tail`, a prompt's end, by name; `rules` returns its beginning, which explains a tail without names."""
    unnamed = _UNNAMED.findall(tail)
    order = _ORDER.search(said := rules()) if unnamed else None
    if order is None:
        return {name: float(number) for name, number in _FACT.findall(tail)}
    texts = dict(zip(order[1].split(", "), unnamed[-1].split(), strict=False)) | _of_the_last_row(said, tail)
    return {name: value for name, text in texts.items() if (value := _number(text)) is not None}


def _of_the_last_row(rules: str, tail: str) -> dict[str, str]:
    """Return the texts of the close and the RSI in the row before the open bars."""
    columns, rows = _COLUMNS.search(rules), _ROW.findall(tail.rpartition("\nNow ")[0])
    if columns is None or not rows:
        return {}
    names = _DISTANCES.sub(lambda found: found[1].replace(" and ", ", "), columns[1]).split(", ")
    return {name.lower(): text for name, text in zip(names, rows[-1].split()[1:], strict=False) if name in {"close", "RSI"}}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
