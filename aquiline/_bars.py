"""Closed bars, checked as files of bars are: from a DataFrame, or those that ship with Aquiline."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, Self

import orjson
from narwhals.typing import EagerAllowed, IntoDataFrame

from aquiline._frames import NAME, NUMBER, TEXT, TIME, frame_of, moment, table_of
from schemas import Candle, Restatement, interval_ms
from services.backtest.backtest_plan import CandleData, demo_data
from services.backtest.feed import MODE
from services.backtest.request import NONE, RECORDED
from services.core.calendar import CalendarError
from services.core.clock import SystemClock
from services.feeds.file_instruments import instruments_for
from services.feeds.file_table import FileError, Row, Table
from services.feeds.files import candles_of
from services.feeds.headers import PRICES, Columns, find_columns
from services.feeds.number_text import is_empty
from services.feeds.read_options import ReadOptions, utc
from services.feeds.time_text import parse_times
from services.market.own_features import feature_values

_HOUR_MS: Final = 3_600_000
_OPTION: Final = re.compile(r"--([a-z]+(?:-[a-z]+)*)")


class Bars:
    """Closed bars of one or more symbols, checked once and used by every function of this package.

    `frame` is a pandas, polars or pyarrow DataFrame with one row a bar, oldest first. Its columns are found by the names that data
    providers use (docs/feeds.md): `open`, `high`, `low`, `close` are needed, and a time (`time`, `timestamp`, `date`, or a pandas
    index of times); `volume`, `symbol` and `interval` are read where they are there. Prices are in the instrument's currency, volume
    in units traded. Times are each bar's open (`stamp`): with a time zone, as dates for daily bars, or numbers since 1970 (seconds to
    nanoseconds). A bar that has not ended yet is left out.

    Raises ValueError, naming row (from 0), column and value, when a column is missing, a time has no zone, rows are not in order of time,
    a price is NaN, or anything else keeps the bars from being what they say.
    """

    def __init__(
        self,
        frame: IntoDataFrame,
        *,
        symbol: str | Mapping[str, str] | None = None,
        interval: str | None = None,
        features: Sequence[str] = (),
        calendar: str = "24x7",
        price_increment: str | None = None,
        currency: str = "USD",
        price_adjustment: Literal["none", "split", "split_dividend"] = "split",
        events: Sequence[Restatement] = (),
        time_zone: str | None = None,
        stamp: Literal["open", "close"] = "open",
        extended: bool = False,
    ) -> None:
        """Check `frame` and keep its bars.

        - `symbol`: the symbol with its venue, such as `BTC-USD.CBSE`, or a mapping of the frame's names to such symbols.
        - `interval`: `1m`, `15m`, `1h`, `1d`; not needed where a column has it or the rows show it.
        - `features`: columns that are features of your own, known at the end of their bar; NaN where one is not defined.
        - `calendar`: `24x7`, or an exchange calendar such as `XNYS`.
        - `price_increment`: the tick, such as `"0.01"`; the one that the prices are on when None.
        - `price_adjustment`: what the prices are adjusted for already; with `none`, `events` are the splits and dividends
          (`schemas.InstrumentEvent`, `schemas.Dividend`).
        - `time_zone`: the zone of times without one, such as `America/New_York`.
        - `stamp`: whether times are the open or the close of their bars.
        - `extended`: keep bars before and after the calendar's sessions.
        """
        table, library = table_of(frame)
        options = ReadOptions(
            run_mode=MODE,
            symbol=symbol if symbol is None or isinstance(symbol, str) else ",".join(f"{name}={known}" for name, known in symbol.items()),
            interval=interval,
            calendar=calendar,
            now_ms=SystemClock().now_ms(),
            time_zone=time_zone,
            stamp=stamp,
            extended=extended,
        )
        try:
            for columns in find_columns(table):
                _check_times(columns, zoned=time_zone is not None)
                _check_prices(columns)
            reading = candles_of(table, options)
            rows = ((candle, table.rows[at]) for candle, at in zip(reading.candles, reading.row_numbers, strict=True))
            added = _added(table, features, rows)
            candles = _ended(reading.candles)
            instruments = instruments_for(
                candles,
                run_mode=MODE,
                currency=currency,
                price_increment=price_increment,
                calendar=calendar,
                price_adjustment=price_adjustment,
            )
        except (FileError, CalendarError, ValueError) as error:
            raise ValueError(in_arguments(str(error))) from None
        left_out = (f"{count:,} rows left out: {why}" for why, count in sorted(reading.left_out.items()))
        content = orjson.dumps([[one.encode().decode() for one in (*candles, *instruments, *events)], [*added.items()]])
        events = [event.model_copy(update={"run_mode": MODE}) for event in events]
        self._take(CandleData(NAME, content, candles, instruments, events, added, (*left_out, *reading.notes)), library, NONE)

    @classmethod
    def _of(cls, data: CandleData, library: EagerAllowed, vision: str) -> Self:
        self = cls.__new__(cls)
        self._take(data, library, vision)
        return self

    def _take(self, data: CandleData, library: EagerAllowed, vision: str) -> None:
        self.data = data
        self.library: EagerAllowed = library
        self.vision = vision

    @property
    def symbols(self) -> list[str]:
        """Return the symbols, sorted."""
        return sorted(one.symbol for one in self.data.instruments)

    @property
    def intervals(self) -> list[str]:
        """Return the intervals of the bars, fastest first."""
        return sorted({one.interval for one in self.data.candles}, key=interval_ms)

    @property
    def events(self) -> list[Restatement]:
        """Return the splits and dividends."""
        return list(self.data.restatements)

    @property
    def notes(self) -> list[str]:
        """Return what was inferred from the frame, and which rows were left out for which reason."""
        return list(self.data.notes)

    @property
    def frame(self) -> Any:
        """Return the bars as a DataFrame of the library that they came in, one row a bar, by the time of their close."""
        candles = sorted(self.data.candles, key=lambda one: (one.ts_close_ms, one.symbol))
        return frame_of(bar_columns(candles), self.library)

    def __len__(self) -> int:
        """Return the number of bars."""
        return len(self.data.candles)

    def __repr__(self) -> str:
        candles = self.data.candles
        first, last = min(one.ts_open_ms for one in candles), max(one.ts_close_ms for one in candles)
        return f"<Bars: {len(self):,} of {', '.join(self.intervals)} of {', '.join(self.symbols)}, {utc(first)} to {utc(last)}>"


def sample(*, library: Literal["pandas", "polars", "pyarrow"] = "pandas") -> Bars:
    """Return the bars that ship with Aquiline: five stocks of New York, 12,154 daily bars of 2000 to 2013, with their splits.

    DataFrames made of them are of `library`. `services/feeds/data/README.md` has their source (public domain).
    """
    return Bars._of(demo_data(), library, RECORDED)  # noqa: SLF001 - the class's own second way in


def bars_of(bars: Bars | IntoDataFrame) -> Bars:
    """Return bars as they are, or those of a DataFrame that needs no options."""
    return bars if isinstance(bars, Bars) else Bars(bars)


def bar_columns(candles: Sequence[Candle]) -> dict[str, tuple[Any, list[Any]]]:
    """Return the columns of bars."""
    return {
        "symbol": (TEXT, [one.symbol for one in candles]),
        "interval": (TEXT, [one.interval for one in candles]),
        "time": (TIME, [moment(one.ts_open_ms) for one in candles]),
        "close_time": (TIME, [moment(one.ts_close_ms) for one in candles]),
        **{name: (NUMBER, [getattr(one, name) for one in candles]) for name in (*PRICES, "volume")},
    }


def in_arguments(text: str) -> str:
    """Return an error's text with a command's options as this package's arguments: `--price-increment` is `price_increment`."""
    text = text.replace(f"--data {NAME}", f"the {NAME}")
    return _OPTION.sub(lambda option: option[1].replace("-", "_"), text)


def _ended(candles: Sequence[Candle]) -> list[Candle]:
    ended = [candle for candle in candles if candle.closed]
    if not ended:
        raise ValueError("no bar of the DataFrame has ended yet")
    return ended


def _check_times(columns: Columns, *, zoned: bool) -> None:
    """Raise ValueError for naive times within a day, and for rows that are not in order of time."""
    use = next((use for use in ("open_ms", "time", "date") if columns.has(use)), None)
    if use is None:
        return  # the reader names the columns that there are
    rows, name = columns.rows, columns.name(use)
    cells = [columns.cell(row, use) for row in rows]
    before: dict[tuple[Any, ...], tuple[int, int]] = {}
    for row, cell, said in zip(rows, cells, parse_times(cells), strict=True):
        if isinstance(said, str):
            raise ValueError(f"{NAME}, row {row.number}: {name} is {cell!s}, which {said}")  # noqa: TRY004 - the value is wrong
        naive = said.offset_ms is None
        if naive and not zoned and not (said.date_only or said.at_midnight):
            raise ValueError(
                f"{NAME}, row {row.number}: {name} is {cell!s}, which has no time zone; pass time_zone, such as 'UTC' or 'America/New_York'"
            )
        at_ms = said.wall_ms - (said.offset_ms or 0)
        series = tuple(columns.cell(row, one) for one in ("symbol", "interval", "revision"))
        held_ms, held = before.get(series, (-1, -1))
        # When clocks are set back, naive times repeat an hour.
        if at_ms <= held_ms - (_HOUR_MS if naive else 0) or at_ms == held_ms:
            raise ValueError(
                f"{NAME}, row {row.number}: {name} is {cell!s}, which is not after that of row {held} ({columns.cell(rows[held], use)!s}); "
                f"sort the rows by {name} and keep one row a bar"
            )
        before[series] = at_ms, row.number


def _check_prices(columns: Columns) -> None:
    """Raise ValueError for the first price that is missing. Of several tickers side by side, one may have no bar at all in a row."""
    for row in columns.rows:
        missing = [use for use in PRICES if is_empty(columns.cell(row, use))]
        if missing and not (columns.ticker is not None and len(missing) == len(PRICES)):
            raise ValueError(
                f"{NAME}, row {row.number}: {columns.name(missing[0])} is {columns.cell(row, missing[0])!s}; every bar needs all four "
                "prices, so drop rows without a trade"
            )


def _added(table: Table, names: Sequence[str], rows: Iterable[tuple[Candle, Row]]) -> dict[tuple[str, str, int], Mapping[str, float]]:
    """Return the user's own features of each bar; raise ValueError naming a column that is missing or no feature."""
    if not names:
        return {}
    columns = list(table.names or ())
    for name in names:
        if name not in columns:
            raise ValueError(f"features names {name!r}, which is no column; the columns are {', '.join(columns)}")
    places = [(name, columns.index(name)) for name in names]
    added: dict[tuple[str, str, int], Mapping[str, float]] = {}
    for candle, row in rows:
        values = {name: _number(row, name, place) for name, place in places if not is_empty(row.cells[place])}
        try:
            added[candle.symbol, candle.interval, candle.ts_close_ms] = feature_values(values)
        except ValueError as error:
            raise ValueError(f"features: {error}") from None
    return added


def _number(row: Row, name: str, place: int) -> float:
    value = row.cells[place]
    if not isinstance(value, int | float):
        raise ValueError(f"{NAME}, row {row.number}: {name} is {value!r}; a feature is a number, or NaN where it is not defined")  # noqa: TRY004
    return value
