"""The rows that bars show in a prompt: fixed width, few tokens, no more digits than a decision needs.

A row is made once and kept with its bar (`Bars.rendered`) until the bar changes: most of a prompt is rows shown before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import Final, NamedTuple

from schemas import MarketFeatures, interval_ms
from services.core.calendar import SessionCalendar
from services.fusion.prompt import wording
from services.fusion.state.book import Book
from services.fusion.state.epochs import SlowBars
from services.fusion.state.local_time import day_number, local
from services.strategy.catalogue import BarColumn, Unit
from services.strategy.model import FeatureColumn

_DAY_MS: Final = 86_400_000
_MINUTE_MS: Final = 60_000
_MAX_UNITS: Final = 9_999
_FINE_BELOW_BP: Final = ((2.0, 2), (20.0, 1))
"""Below which median range how many digits follow the point: a range has two digits then, and four still hold ten times as much."""
HUGE: Final = 1e12
"""Features may be any number; one of 300 digits would cost as much as ten bars."""
_EARLY_MINUTES: Final = 30
_WEEK: Final = 7


def digits_for(range_bp: float | None) -> int:
    """Return with how many digits after the point bars of this median range show basis points: 0, 1 or 2."""
    if range_bp:
        for below_bp, digits in _FINE_BELOW_BP:
            if range_bp < below_bp:
                return digits
    return 0


class Rows:
    """The rows of one interval of a book, with `digits` after the point of basis points."""

    def __init__(self, book: Book, interval: str, digits: int) -> None:
        """Take over the rows made before in the same way, and forget others."""
        self._book = book
        self._interval = interval
        self._digits = digits
        self._bars = book.bars[interval]
        if self._bars.rendered_as != digits:
            self._bars.rendered_as = digits
            self._bars.rendered[:] = [None] * len(self._bars)

    def row(self, at: int) -> str:
        """Return the row of the closed bar `at`, after a row that begins its day or follows a break in trading where it does."""
        bars = self._bars
        text = bars.rendered[at]
        if text is None:
            last = _last_instant(bars.ts_close[at], self._interval)
            text = bars.rendered[at] = (
                self._divider(at)
                + bar_row(
                    self._book.strategy.columns,
                    clock_label(last, self._interval, self._book.calendar.zone, self._book.day_zero_ms),
                    Shown(
                        bars.open[at],
                        bars.high[at],
                        bars.low[at],
                        bars.close[at],
                        bars.volume[at],
                        {name: column[at] for name, column in bars.columns.items()},
                    ),
                    decimals=self._book.decimals,
                    digits=self._digits,
                )
                + (wording.until(early) if (early := self._closed_early(last)) else "")
                + "\n"
            )
        return text

    def before(self, end: int, count: int) -> list[str]:
        """Return the last `count` rows, gap rows included, of the bars before index `end`, oldest first."""
        bars = self._bars
        first = max(0, end - count)
        if not any(bars.gap[max(1, first) : end]):
            # As it mostly is: every slot has its bar, and every bar was shown before.
            shown = [text for text in bars.rendered[first:end] if text is not None]
            if len(shown) == end - first:
                return shown
        rows: list[str] = []
        index = end - 1
        while index >= 0 and len(rows) < count:
            rows.append(self.row(index))
            if index:  # the gap before the first bar held is unknown to a book built from there
                rows.extend([wording.GAP_ROW] * min(bars.gap[index], count - len(rows)))
            index -= 1
        rows.reverse()
        return rows

    def at(self, index: int) -> list[str]:
        """Return the gap rows before the closed bar `index`, and its own."""
        gaps = self._bars.gap[index] if index else 0
        return [*[wording.GAP_ROW] * gaps, self.row(index)]

    def frozen(self, frozen: SlowBars, count: int) -> list[str]:
        """Return the last `count` rows of the interval as it was frozen."""
        return self.before(self._bars.first_after(frozen.last_close_ms), count)

    def open_bar(self, bar: MarketFeatures) -> str:
        """Return the row of a bar that is still open."""
        label = clock_label(
            _last_instant(bar.ts_close_ms, self._interval), self._interval, self._book.calendar.zone, self._book.day_zero_ms
        )
        shown = Shown(bar.open, bar.high, bar.low, bar.close, bar.volume, bar.features)
        row = bar_row(self._book.strategy.columns, label, shown, decimals=self._book.decimals, digits=self._digits)
        return f"{self._interval} {wording.PARTIAL}{row}\n"

    def _divider(self, at: int) -> str:
        """Return what stands between the bar before and this one; nothing before the first bar held, as others may hold the one before."""
        if not at:
            return ""
        bars, zone = self._bars, self._book.calendar.zone
        day, day_before = (local(bars.ts_open[index], zone).date() for index in (at, at - 1))
        if interval_ms(self._interval) >= _DAY_MS:
            return wording.year_row(day) if day.year != day_before.year and self._book.day_zero_ms is None else ""
        if day != day_before:
            number = day_number(day, zone, self._book.day_zero_ms)
            return wording.day_row(day) if number is None else wording.undated_day_row(number)
        return wording.BREAK_ROW if bars.ts_open[at] > bars.ts_close[at - 1] and not bars.gap[at] else ""

    def _closed_early(self, last_ms: int) -> str | None:
        calendar = self._book.calendar
        if self._interval != "1d" or calendar.always_open:
            return None
        return _early_close(calendar.name, local(last_ms, calendar.zone).date())


class Shown(NamedTuple):
    """The values of a bar that its row may show."""

    open: float
    high: float
    low: float
    close: float
    volume: float
    features: Mapping[str, float]


def bar_row(columns: Sequence[BarColumn | FeatureColumn], label: str, bar: Shown, *, decimals: int, digits: int) -> str:
    """Return a bar's row: its time's `label`, then the strategy's columns. `decimals` are those of the tick."""
    texts = [label]
    for column in columns:
        match column:
            case "close":
                texts.append(f"{bar.close:9.{decimals}f}")
            case "open" | "high" | "low":
                texts.append(f"{offset(getattr(bar, column), bar.close, digits):+05d}")
            case "volume":
                texts.append(compact(bar.volume))
            case "rsi":
                rsi = bar.features.get("rsi", math.nan)
                texts.append(f"{min(99, round(rsi)):02d}" if rsi >= 0 else "--")
            case FeatureColumn():
                texts.append(feature_text(bar.features.get(column.feature, math.nan), column.unit, column.digits, decimals))
    return " ".join(texts)


def feature_text(value: float, unit: Unit, digits: int, decimals: int) -> str:
    """Return a feature of the user's in its `unit` with `digits` after the point, prices with those of the tick at least."""
    if math.isnan(value):
        return "--"
    if unit == "return":
        value *= 10_000
    if abs(value) >= HUGE:
        return f"{value:.3e}"
    match unit:
        case "price" | "distance":
            return f"{value:.{max(digits, decimals)}f}"
        case "return":
            return f"{value:+.{digits}f}"
        case "number":
            return f"{value:.{digits}f}"


def shows_dates(interval: str) -> bool:
    """Return whether rows of this interval have a date as their time."""
    return interval_ms(interval) >= _DAY_MS


def clock_label(ts_ms: int, interval: str, zone: str, day_zero_ms: int | None = None) -> str:
    """Return `MMDD` for bars of a day or more, or the day's number where dates are hidden; else `HHMM` or, below a minute, `HHMMSS`."""
    at, length = local(ts_ms, zone), interval_ms(interval)
    if shows_dates(interval):
        number = day_number(at.date(), zone, day_zero_ms)
        return f"{at:%m%d}" if number is None else f"{number:04d}"
    return f"{at:%H%M}" if length >= _MINUTE_MS else f"{at:%H%M%S}"


def offset(price: float, close: float, digits: int) -> int:
    """Return `price` in basis points from `close` with `digits` after the point, as a whole number, clipped to four digits."""
    # Clipped before it is rounded: a quotient of two lawful prices may be infinite.
    return round(max(-_MAX_UNITS, min(_MAX_UNITS, (price / close - 1) * 10.0 ** (4 + digits))))


def compact(value: float) -> str:
    """Return a count with two digits and a power of ten: 12,345,678 is `12e6`, 0.37 is `37e-2`, 0 is `00e0`."""
    if value <= 0:
        return "00e0"
    power = math.floor(math.log10(value)) - 1
    # In two steps: 10 to the power of a denormal's exponent has no inverse.
    mantissa = round(value * 10.0 ** (-power // 2) * 10.0 ** (-power - -power // 2))
    if mantissa >= 100:  # noqa: PLR2004 - two digits, rounded up to a third
        mantissa, power = 10, power + 1
    return f"{mantissa:02d}e{power}"


def _last_instant(ts_close_ms: int, interval: str) -> int:
    """Return the time that labels a bar: its end, for bars of a day or more the last instant of its last day."""
    return ts_close_ms - 1 if interval_ms(interval) >= _DAY_MS else ts_close_ms


@lru_cache(maxsize=4096)
def _early_close(calendar_name: str, day: date) -> str | None:
    """Return when the session of `day` closed, when that was earlier than in the week around it; None when it was not."""
    calendar = SessionCalendar.of(calendar_name)
    minutes: list[int] = []
    own: datetime | None = None
    for ordinal in range(day.toordinal() - _WEEK, day.toordinal() + _WEEK + 1):
        session = calendar.session_on(date.fromordinal(ordinal))
        if session is None:
            continue
        close = local(session[1], calendar.zone)
        minutes.append(close.hour * 60 + close.minute)
        if ordinal == day.toordinal():
            own = close
    if own is None or own.hour * 60 + own.minute > max(minutes) - _EARLY_MINUTES:
        return None
    return f"{own:%H:%M}"
