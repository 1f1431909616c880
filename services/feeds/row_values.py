"""Parses the cells of each row: symbol, interval, prices, volume, and the time as written.

Every error names the row, the file's own column name and the cell's text.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from services.feeds.file_table import FileError, Row, Table
from services.feeds.headers import PRICES
from services.feeds.intervals import normalized, of_length, spacing
from services.feeds.layouts import Layout
from services.feeds.number_text import decimal_mark, is_empty, number
from services.feeds.read_options import ReadOptions
from services.feeds.symbol_names import Symbols
from services.feeds.time_text import ParsedTime, is_time_of_day, parse_times, since_midnight, with_clock

_PRICE_LIMIT: Final = 1e12
_VOLUME_LIMIT: Final = 1e18
_REVISION_LIMIT: Final = 1_000_000
_TIME_LIMIT_MS: Final = 32_503_680_000_000
_ROUNDING: Final = 1e-6
"""Relative rounding error of 32-bit floats, with a margin."""
_ROUNDING_STEP: Final = 1e-4
"""One step of the last digit counts as rounding, up to one basis point: adjusted prices are rounded separately."""
_CLOCK_DIGITS: Final = 6
_ROWS_LOOKED_AT: Final = 100
_LAST_MS: Final = 999
ROUNDED: Final = "highs and lows were corrected for rounding"


_T = TypeVar("_T")


class OtherSymbolError(FileError):
    """No row is of a symbol that is asked for; `left_out` counts the rows."""

    def __init__(self, problem: str, left_out: Counter[str]) -> None:
        """Take what is wrong, and the counts."""
        super().__init__(problem)
        self.left_out = left_out


class RawBar(NamedTuple):
    """A parsed row, before its open and close are known."""

    row: Row
    cell: str
    """The time's text."""
    moment: ParsedTime
    symbol: str
    interval: str
    prices: tuple[float, float, float, float]
    volume: float
    revision: int
    end_ms: int | None
    """The end that the file states, exclusive, if it does."""
    begin_ms: int | None
    """The open, in Aquiline's own layout only."""


class RowReader:
    """Parses the rows of one layout."""

    def __init__(self, table: Table, layout: Layout, options: ReadOptions) -> None:
        """Raise FileError when `options.symbol` is invalid."""
        self._table = table
        self._layout = layout
        self._columns = layout.columns
        self._options = options
        self._symbols = self._checked(Symbols.of, options.symbol)
        self._mark = "."
        self._price_columns = [layout.columns.uses[use] for use in PRICES]
        self.left_out: Counter[str] = Counter()
        self.notes = list(layout.notes)
        self.time_name = ""
        """The file's name of the time column or columns."""

    def read(self) -> list[RawBar]:
        """Return the bars in file order; raise FileError."""
        columns, table = self._columns, self._table
        rows = list(columns.rows)
        self._mark = decimal_mark((row.cells[column] for row in rows for column in self._price_columns), table.delimiter)
        if self._mark == ",":
            self.notes.append("numbers have decimal commas")
        cells, moments = self._own_moments(rows) if columns.has("open_ms", "close_ms") else self._moments(rows)
        kept: list[tuple[Row, str, ParsedTime, str]] = []
        other: FileError | None = None
        names: dict[str | None, str | FileError] = {}
        for row, cell, moment in zip(rows, cells, moments, strict=False):
            if all(is_empty(row.cells[column]) for column in self._price_columns):
                self.left_out["without prices"] += 1
                continue
            name = self._symbol_name(row)
            symbol = names[name] if name in names else names.setdefault(name, self._symbol(row, name))
            if isinstance(symbol, FileError):
                other = other or symbol
                self.left_out["of other symbols"] += 1
                continue
            kept.append((row, cell, moment, symbol))
        if not kept:
            if other is not None:
                raise OtherSymbolError(str(other), self.left_out)
            raise FileError(f"{table.path}: no row holds prices")
        interval = self._interval(kept)
        bars = [self._bar(row, cell, moment, symbol, interval) for row, cell, moment, symbol in kept]
        return [bar for bar in bars if bar is not None]

    def _bar(self, row: Row, cell: str, moment: ParsedTime, symbol: str, interval: str) -> RawBar | None:
        columns = self._columns
        prices = [self._number(row, use) * self._layout.scale for use in PRICES]
        if not any(prices):
            self.left_out["with prices of 0"] += 1
            return None
        if self._layout.scale != 1:
            prices = [round(price, 9) for price in prices]
        own = self._checked_in(row, "interval", normalized) if columns.has("interval") else interval
        begin_ms = end_ms = None
        if columns.has("open_ms", "close_ms"):
            begin_ms, end_ms = self._whole(row, "open_ms", _TIME_LIMIT_MS), self._whole(row, "close_ms", _TIME_LIMIT_MS)
        elif columns.has("close_time"):
            end_ms = self._close_time_ms(row)
        revision = self._whole(row, "revision", _REVISION_LIMIT) if not is_empty(columns.cell(row, "revision")) else 0
        return RawBar(row, cell, moment, symbol, own, self._enclosed(row, prices), self._volume(row), revision, end_ms, begin_ms)

    def _own_moments(self, rows: Sequence[Row]) -> tuple[list[str], list[ParsedTime]]:
        self.time_name = self._columns.name("open_ms")
        return [_shown(self._columns.cell(row, "open_ms")) for row in rows], [
            ParsedTime(self._whole(row, "open_ms", _TIME_LIMIT_MS), 0) for row in rows
        ]

    def _moments(self, rows: Sequence[Row]) -> tuple[list[str], list[ParsedTime]]:
        """Return the text and time of each row; text lines after the last bar are dropped."""
        self.time_name, cells = self._time_cells(rows)
        said = parse_times(cells)
        while len(said) > 1 and isinstance(said[-1], str) and not str(cells[len(said) - 1] or "")[:1].isdigit():
            said.pop()
            self.left_out["text after the last bar"] += 1
        moments = []
        for row, cell, moment in zip(rows, cells, said, strict=False):
            if isinstance(moment, str):
                raise self._table.error(row, f"{self.time_name} is {_shown(cell)}, which {moment}")
            moments.append(moment)
        return [_shown(cell) for cell in cells], moments

    def _time_cells(self, rows: Sequence[Row]) -> tuple[str, list[Any]]:
        columns, use = self._columns, "time" if self._columns.has("time") else "date"
        cells = [columns.cell(row, use) for row in rows]
        if self._layout.date is not None:
            return columns.name(use), since_midnight(self._layout.date, cells)
        clock = use == "time" and all(
            is_time_of_day(cell) or (str(cell).isdigit() and len(str(cell)) <= _CLOCK_DIGITS) for cell in cells[:_ROWS_LOOKED_AT]
        )
        if clock and columns.has("date"):
            dates = [_without_midnight(columns.cell(row, "date")) for row in rows]
            return f"{columns.name('date')} {columns.name('time')}", with_clock(dates, cells)
        if clock and is_time_of_day(cells[0]):
            raise FileError(f"{self._table.path}: {columns.name('time')} holds times of day, and no column is called date")
        return columns.name(use), cells

    def _symbol_name(self, row: Row) -> str | None:
        if self._columns.ticker is not None:
            return self._columns.ticker
        cell = self._columns.cell(row, "symbol")
        return None if is_empty(cell) else str(cell).strip()

    def _symbol(self, row: Row, name: str | None) -> str | FileError:
        """Return the symbol of a row, or the error to raise when no row has the requested symbol."""
        try:
            return self._symbols.symbol(name)
        except LookupError as error:
            return self._table.error(row, f"{self._symbol_column()} is {name!r}, and {error.args[0]}")
        except ValueError as error:
            if name is None:
                raise FileError(f"{self._table.path}: {error}") from None
            raise self._table.error(row, f"{self._symbol_column()} is {name!r}, {error}") from None

    def _symbol_column(self) -> str:
        return self._columns.name("symbol") if self._columns.has("symbol") else "the ticker in the header"

    def _interval(self, rows: Sequence[tuple[Row, str, ParsedTime, str]]) -> str:
        """Return the interval of rows without one: from the options, the layout, or the distance between rows."""
        said = None if self._options.interval is None else self._checked(normalized, self._options.interval)
        shown = self._layout.interval
        if self._columns.has("close_time"):
            span_ms = self._close_time_ms(rows[0][0]) - rows[0][2].instant_ms(dt.UTC)
            shown = self._checked(of_length, span_ms)
        if said is not None and shown is not None and said != shown:
            raise FileError(f"{self._table.path}: its bars are of {shown}, and --interval says {said}")
        if said or shown or self._columns.has("interval"):
            return said or shown or ""
        opens: dict[str, list[int]] = {}
        for _, _, moment, symbol in rows:
            opens.setdefault(symbol, []).append(moment.wall_ms - (moment.offset_ms or 0))
        each = {self._checked(spacing, one) for one in opens.values()}
        found = each.pop() if len(each) == 1 else None
        if found is None:
            raise FileError(f"{self._table.path}: no column has the interval, and the rows do not show it; set --interval, such as 1m")
        self.notes.append(f"interval {found} inferred from the distance between rows")
        return found

    def _close_time_ms(self, row: Row) -> int:
        """Return the exclusive end of a bar whose close time is inclusive."""
        cell = self._columns.cell(row, "close_time")
        (moment,) = parse_times([cell])
        if isinstance(moment, str):
            raise self._table.error(row, f"{self._columns.name('close_time')} is {_shown(cell)}, which {moment}")
        ms = moment.instant_ms(dt.UTC)
        return ms + 1 if ms % 1_000 == _LAST_MS else ms

    def _number(self, row: Row, use: str) -> float:
        cell = self._columns.cell(row, use)
        try:
            return number(cell, self._mark)
        except ValueError as error:
            raise self._table.error(row, f"{self._columns.name(use)} is {_shown(cell)}; {error}") from None

    def _whole(self, row: Row, use: str, limit: int) -> int:
        value = self._number(row, use)
        if not (0 <= value <= limit and value == int(value)):
            cell = _shown(self._columns.cell(row, use))
            raise self._table.error(row, f"{self._columns.name(use)} is {cell}; a whole number from 0 to {limit} is expected")
        return int(value)

    def _enclosed(self, row: Row, prices: Sequence[float]) -> tuple[float, float, float, float]:
        """Return the prices, with high and low corrected for rounding; raise FileError for larger errors."""
        for use, price in zip(PRICES, prices, strict=True):
            if not 0 < price < _PRICE_LIMIT:
                cell = _shown(self._columns.cell(row, use))
                raise self._table.error(row, f"{self._columns.name(use)} is {cell}; a price above 0 and below 1e12 is expected")
        first, high, low, last = prices
        top, bottom = max(prices), min(prices)
        if high < top or low > bottom:
            step = 10.0 ** -max(len(f"{price:.12f}".rstrip("0").partition(".")[2]) for price in prices)
            allowed = max(_ROUNDING * top, min(step * 1.0001, _ROUNDING_STEP * top))
            if top - high > allowed or low - bottom > allowed:
                names = [self._columns.name(use) for use in PRICES]
                said = ", ".join(f"{name} {_shown(self._columns.cell(row, use))}" for name, use in zip(names, PRICES, strict=True))
                raise self._table.error(row, f"{said}: {names[2]} and {names[1]} do not enclose {names[0]} and {names[3]}")
            if ROUNDED not in self.notes:
                self.notes.append(ROUNDED)
        return first, top, bottom, last

    def _volume(self, row: Row) -> float:
        cell = self._columns.cell(row, "volume")
        if is_empty(cell):
            return 0.0
        volume = self._number(row, "volume")
        if not 0 <= volume < _VOLUME_LIMIT:
            raise self._table.error(row, f"{self._columns.name('volume')} is {_shown(cell)}; a volume from 0 to 1e18 is expected")
        return volume

    def _checked(self, make: Callable[[Any], _T], value: Any) -> _T:
        try:
            return make(value)
        except ValueError as error:
            raise FileError(f"{self._table.path}: {error}") from None

    def _checked_in(self, row: Row, use: str, make: Callable[[str], _T]) -> _T:
        cell = self._columns.cell(row, use)
        try:
            return make(str(cell))
        except ValueError as error:
            raise self._table.error(row, f"{self._columns.name(use)} is {_shown(cell)}; {error}") from None


def _without_midnight(cell: Any) -> Any:
    return str(cell).removesuffix(" 00:00:00").removesuffix("T00:00:00")


def _shown(cell: Any) -> str:
    return repr(cell) if isinstance(cell, str) else repr(str(cell))
