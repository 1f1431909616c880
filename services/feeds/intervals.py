"""The interval of a file's bars, from a column, the command line or the layout, checked against the distance between rows.

Rows further apart than their interval are refused: such a bar would be treated as closed long before it was.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from schemas import interval_ms

_UNITS: Final = {
    "s": "s",
    "sec": "s",
    "second": "s",
    "m": "m",
    "t": "m",
    "min": "m",
    "minute": "m",
    "h": "h",
    "hr": "h",
    "hour": "h",
    "d": "d",
    "day": "d",
    "w": "w",
    "wk": "w",
    "week": "w",
}
_KNOWN: Final = (
    "1s",
    "5s",
    "10s",
    "15s",
    "30s",
    "1m",
    "2m",
    "3m",
    "5m",
    "10m",
    "15m",
    "30m",
    "1h",
    "2h",
    "4h",
    "6h",
    "8h",
    "12h",
    "1d",
    "1w",
)
_BY_MS: Final = {interval_ms(name): name for name in _KNOWN}
_FEWEST: Final = 3
_MONTH_DAYS: Final = (28, 31)
_DAY_MS: Final = 86_400_000


def normalized(text: str) -> str:
    """Return an interval as Aquiline writes it, `1m`, from `1Min`, `60` (minutes), `H1` or `D`; raise ValueError for anything else."""
    name = text.strip()
    if re.fullmatch(r"\d+(\.0)?", name):
        return _shortest(int(float(name)), "m")
    if (match := re.fullmatch(r"([MHDW])(\d{1,3})", name)) is not None:
        return _shortest(int(match[2]), match[1].lower())
    if name == "1M" or name.lower() in {"1mo", "1mon", "month", "monthly", "1month"}:
        raise ValueError(f"interval {text!r} is a month; the longest supported interval is 1w")
    if (match := re.fullmatch(r"(\d*)\s*([A-Za-z]+?)(s?)", name)) is not None and (unit := _UNITS.get(match[2].lower())) is not None:
        return _shortest(int(match[1] or 1), unit)
    if name.lower() in {"daily", "weekly", "hourly"}:
        return {"daily": "1d", "weekly": "1w", "hourly": "1h"}[name.lower()]
    interval_ms(name)
    return name


def _shortest(count: int, unit: str) -> str:
    interval_ms(f"{count}{unit}")
    return _BY_MS.get(interval_ms(f"{count}{unit}"), f"{count}{unit}")


def of_length(length_ms: int) -> str:
    """Return the interval of that length; raise ValueError when there is none."""
    if length_ms in _BY_MS:
        return _BY_MS[length_ms]
    if _MONTH_DAYS[0] * _DAY_MS <= length_ms <= _MONTH_DAYS[1] * _DAY_MS:
        raise ValueError("its bars are months; the longest supported interval is 1w")
    for unit in "dhms":
        count, rest = divmod(length_ms, interval_ms(f"1{unit}"))
        if count and not rest:
            return normalized(f"{count}{unit}")
    raise ValueError(f"its bars are {length_ms} ms long; whole seconds are expected")


def spacing(opens_ms: Sequence[int]) -> str | None:
    """Infer the interval from the distance between opens, None when it is unclear; raise ValueError for months."""
    gaps = Counter(after - before for before, after in pairwise(sorted(set(opens_ms))))
    if sum(gaps.values()) < _FEWEST - 1:
        return None
    if all(_MONTH_DAYS[0] * _DAY_MS <= gap <= _MONTH_DAYS[1] * _DAY_MS + _DAY_MS for gap in gaps):
        raise ValueError("the rows are a month apart; the longest supported interval is 1w")
    least = min(gaps)
    return _BY_MS.get(least) if gaps[least] == max(gaps.values()) else None


def check_spacing(opens_ms: Sequence[int], interval: str) -> None:
    """Raise ValueError when rows are regularly further apart than `interval`."""
    opens = sorted(set(opens_ms))
    gaps = [after - before for before, after in pairwise(opens)]
    if len(gaps) < _FEWEST - 1:
        return
    least, length = min(gaps), interval_ms(interval)
    if least <= length:
        return
    if least >= _MONTH_DAYS[0] * _DAY_MS:
        raise ValueError(f"the rows are a month or more apart, but the interval is {interval}; the longest supported interval is 1w")
    # Slots without trades leave irregular gaps. A longer interval leaves gaps that are multiples of it, but for nights and holidays.
    usual, count = Counter(gaps).most_common(1)[0]
    if count * 2 >= len(gaps) and all(gap % usual == 0 or gap >= _DAY_MS for gap in gaps):
        raise ValueError(f"the rows are {_BY_MS.get(usual) or f'{usual / 1000:g} s'} apart, but the interval is {interval}")
