"""The lines that bars show in a prompt: fixed width, few tokens, no more digits than a decision needs.

A line is made once and kept with its bar (`Bars.rendered`) until the bar changes: most of a prompt is lines shown before.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final

from schemas import MarketFeatures
from services.fusion.prompt.wording import GAP_LINE, PARTIAL
from services.fusion.state.bars import Bars
from services.fusion.state.book import SlowBars

_DAY_MS: Final = 86_400_000
_MAX_BP: Final = 9_999


def line(bars: Bars, index: int, decimals: int) -> str:
    """Return the line of the closed bar `index`; prices have `decimals` places."""
    text = bars.rendered[index]
    if text is None:
        text = bars.rendered[index] = bar_line(
            bars.ts_close[index],
            bars.ts_close[index] - bars.ts_open[index],
            bars.open[index],
            bars.high[index],
            bars.low[index],
            bars.close[index],
            bars.volume[index],
            bars.rsi[index],
            decimals,
        )
    return text


def lines_before(bars: Bars, end: int, count: int, decimals: int) -> list[str]:
    """Return the last `count` lines, gap lines included, of the bars before index `end`, oldest first."""
    first = max(0, end - count)
    if not any(bars.gap[max(1, first) : end]):
        # As it mostly is: every slot has its bar, and every bar was shown before.
        shown = [text for text in bars.rendered[first:end] if text is not None]
        if len(shown) == end - first:
            return shown
    lines: list[str] = []
    index = end - 1
    while index >= 0 and len(lines) < count:
        lines.append(line(bars, index, decimals))
        if index:  # the gap before the first bar held is unknown to a book built from there
            lines.extend([GAP_LINE] * min(bars.gap[index], count - len(lines)))
        index -= 1
    lines.reverse()
    return lines


def lines_from(bars: Bars, start: int, decimals: int) -> list[str]:
    """Return the lines, gap lines included, of the bars from index `start` on."""
    lines: list[str] = []
    for index in range(start, len(bars)):
        if index:
            lines.extend([GAP_LINE] * bars.gap[index])
        lines.append(line(bars, index, decimals))
    return lines


def slow_lines(bars: Bars, frozen: SlowBars, count: int, decimals: int) -> list[str]:
    """Return the last `count` lines of a slower interval as it was frozen, the bar that was open then marked partial."""
    lines = lines_before(bars, bars.first_after(frozen.last_close_ms), count, decimals)
    if frozen.forming is not None:
        lines.append(forming_line(frozen.forming, decimals))
    return lines


def forming_line(bar: MarketFeatures, decimals: int) -> str:
    """Return the line of a bar that is still open."""
    return PARTIAL + bar_line(
        bar.ts_close_ms,
        bar.ts_close_ms - bar.ts_open_ms,
        bar.open,
        bar.high,
        bar.low,
        bar.close,
        bar.volume,
        bar.features.get("rsi", -1.0),
        decimals,
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
