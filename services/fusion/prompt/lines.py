"""The line that a bar shows in a prompt: fixed width, few tokens, no more digits than a decision needs."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final

_DAY_MS: Final = 86_400_000
_MAX_BP: Final = 9_999

GAP_LINE: Final = "-- no bar\n"

LEGEND: Final = (
    "A bar is one line: time, close, then open, high and low in basis points from the close, volume (mantissa and power of ten), "
    "RSI. Time is MMDD for bars of a day or more, else HHMM, in UTC, of the bar's end. '-- no bar' is a slot without trade.\n"
)


def bar_line(  # noqa: PLR0917 - the columns of a bar, in their order
    ts_close_ms: int,
    length_ms: int,
    open_: float,
    high: float,
    low: float,
    close: float,
    volume: float,
    rsi: float,
    decimals: int,
) -> str:
    """Return a bar's line, ending in a newline. `rsi` below 0 stands for none; `decimals` are those of the tick."""
    return (
        f"{clock_label(ts_close_ms, length_ms)} {close:9.{decimals}f}"
        f" {basis_points(open_, close):+05d} {basis_points(high, close):+05d} {basis_points(low, close):+05d}"
        f" {compact(volume)} {'--' if rsi < 0 else f'{min(99, round(rsi)):02d}'}\n"
    )


def clock_label(ts_ms: int, length_ms: int) -> str:
    """Return `MMDD` for bars of more than four hours, else `HHMM`, of the last instant before `ts_ms` in UTC."""
    at = datetime.fromtimestamp((ts_ms - 1) / 1000 if length_ms >= _DAY_MS else ts_ms / 1000, UTC)
    return f"{at:%m%d}" if length_ms > _DAY_MS // 6 else f"{at:%H%M}"


def basis_points(price: float, close: float) -> int:
    """Return `price` in basis points from `close`, clipped to four digits."""
    # Clipped before it is rounded: a quotient of two lawful prices may be infinite.
    return round(max(-_MAX_BP, min(_MAX_BP, (price / close - 1) * 10_000)))


def compact(value: float) -> str:
    """Return a count with two digits and a power of ten: 12,345,678 is `12e6`, 0 is `00e0`."""
    if value <= 0:
        return "00e0"
    power = max(0, math.floor(math.log10(value)) - 1)
    mantissa = round(value / 10**power)
    if mantissa >= 100:  # noqa: PLR2004 - two digits, rounded up to a third
        mantissa, power = 10, power + 1
    return f"{mantissa:02d}e{power}"
