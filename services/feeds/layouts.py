"""Recognises the layout of a file by its column names or, without a header, by the shape of its rows.

A layout adds what column names do not say, such as a price scale, a time zone or an interval.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from services.feeds.file_table import FileError
from services.feeds.headers import PRICES, Columns, canonical

_DAY_MS: Final = 86_400_000
_LEAST_FIXED_POINT: Final = 1_000_000
"""Fixed-point prices are at least this large (0.001 in units of 1e-9); plain integer prices are smaller."""
_DATABENTO_RTYPES: Final = {"32": "1s", "33": "1m", "34": "1h", "35": "1d"}
_UTC_NAMES: Final = {"gmt_time", "utc_time", "time_utc", "utc", "gmt"}
_INTEGER: Final = re.compile(r"\d+(\.0+)?")


@dataclass(frozen=True, slots=True)
class Layout:
    """A recognised layout and what it implies."""

    name: str
    """The name shown to users."""
    columns: Columns
    scale: float = 1.0
    """The factor that prices are multiplied by."""
    zone: str | None = None
    """The time zone of naive times, where the layout fixes it."""
    date: str | None = None
    """The date of all rows, when the file has only times of day and its name has the date."""
    interval: str | None = None
    notes: Sequence[str] = field(default_factory=tuple)


def recognise(columns: Columns) -> Layout:
    """Return the layout; raise FileError when there is no header and the shape is unknown."""
    if not columns.header:
        return _by_shape(columns)
    names = [canonical(name) for name in columns.names]
    for name, signature in _SIGNATURES:
        if signature(names, columns):
            return _refined(Layout(name, columns), names)
    return _refined(Layout("columns by name", columns), names)


def _has(*wanted: str) -> Callable[[Sequence[str], Columns], bool]:
    return lambda names, _: set(wanted) <= set(names)


def _written(*wanted: str) -> Callable[[Sequence[str], Columns], bool]:
    return lambda _, columns: set(wanted) <= set(columns.names)


def _first(columns: Columns, use: str) -> str:
    return str(columns.cell(columns.rows[0], use))


def _is_polygon(names: Sequence[str], columns: Columns) -> bool:
    return {"o", "h", "l", "c", "t"} <= set(names) and _first(columns, "time").isdigit()


def _is_yahoo(names: Sequence[str], columns: Columns) -> bool:
    return columns.ticker is not None or "adj_close" in names or list(columns.names[:2]) == ["Datetime", "Open"]


def _is_tradingview(_: Sequence[str], columns: Columns) -> bool:
    wanted = ("time", "open", "high", "low", "close")
    return tuple(columns.names[: len(wanted)]) == wanted and (len(columns.names) == len(wanted) or columns.names[len(wanted)] == "Volume")


def _is_ccxt(_: Sequence[str], columns: Columns) -> bool:
    return list(columns.names[:6]) == ["timestamp", *_OHLCV[1:]] and _epoch(_first(columns, "time"), 13)


def _is_pandas(_: Sequence[str], columns: Columns) -> bool:
    return columns.names[0] in {"", "Unnamed: 0"} or "__index_level_0__" in columns.names


# The first match wins, so more specific layouts come first.
_SIGNATURES: Final[Sequence[tuple[str, Callable[[Sequence[str], Columns], bool]]]] = (
    ("Aquiline candles", _has("ts_open_ms", "ts_close_ms")),
    ("Databento", _has("ts_event")),
    ("Polygon flat file", _has("window_start")),
    ("Binance klines", _has("open_time", "close_time")),
    ("Alpaca", _has("trade_count", "vwap")),
    ("Polygon", _is_polygon),
    ("Alpaca", _has("t", "o", "h", "l", "c")),
    ("Dukascopy", _has("gmt_time")),
    ("Dukascopy", _has("local_time")),
    ("Dukascopy", _written("UTC", "Open", "High", "Low", "Close")),
    ("Dukascopy", lambda names, _: any(re.fullmatch(r"time_[a-z]{3,4}", name) for name in names)),
    ("Stooq", _written("<TICKER>", "<PER>", "<DATE>")),
    ("MetaTrader 5", _written("<DATE>", "<OPEN>", "<TICKVOL>")),
    ("MetaTrader 4", _written("<DATE>", "<OPEN>")),
    ("IBKR", lambda names, _: {"average", "barcount"} <= set(names) or {"wap", "count"} <= set(names)),
    ("CryptoDataDownload", _has("unix", "date", "symbol")),
    ("Nasdaq", _has("close_last")),
    ("Kraken", _has("time", "vwap", "count")),
    ("Yahoo", _is_yahoo),
    ("TradingView", _is_tradingview),
    ("ccxt", _is_ccxt),
    ("pandas", _is_pandas),
    ("Yahoo or Stooq", lambda _, columns: list(columns.names) == ["Date", "Open", "High", "Low", "Close", "Volume"]),
    ("Parquet", lambda _, columns: columns.table.names is not None),
)


def _refined(layout: Layout, names: Sequence[str]) -> Layout:
    columns, notes = layout.columns, list(layout.notes)
    if "adj_close" in names and canonical(columns.names[columns.uses["close"]]) != "adj_close":
        notes.append("adjusted closes are ignored; prices come from the open, high, low and close columns")
    if layout.name == "Databento":
        layout = replace(layout, scale=_fixed_point(columns), interval=_DATABENTO_RTYPES.get(_first(columns, "rtype")))
        if layout.scale != 1:
            notes.append("prices are in units of 0.000000001")
    if layout.name == "Dukascopy":
        zone = re.fullmatch(r"time_([a-z]{3,4})", canonical(columns.name("time"))) if "time" in columns.uses else None
        layout = replace(layout, zone=zone[1].upper() if zone else None)
    if "time" in columns.uses and canonical(columns.name("time")) in _UTC_NAMES:
        layout = replace(layout, zone="UTC")
    if layout.name == "IBKR" and re.fullmatch(r"\d{8}-\d{2}:\d{2}:\d{2}", _first(columns, "time" if "time" in columns.uses else "date")):
        layout = replace(layout, zone="UTC")  # its form of times in UTC
    columns, said = _with_tick_volume(columns)
    return replace(layout, columns=columns, notes=(*notes, *said))


def _with_tick_volume(columns: Columns) -> tuple[Columns, list[str]]:
    """Return the columns with tick volume as volume when the file has no traded volume."""
    traded = columns.uses.get("volume")
    if "tick_volume" not in columns.uses or (traded is not None and any(str(row.cells[traded]) not in {"0", ""} for row in columns.rows)):
        return columns, []
    uses = {**columns.uses, "volume": columns.uses["tick_volume"]}
    return replace(columns, uses=uses), ["volume is tick volume: the file has no traded volume"]


def _fixed_point(columns: Columns) -> float:
    """Return 1e-9 when prices are fixed-point integers, Databento's default, else 1."""
    cells = [str(columns.cell(row, use)) for row in columns.rows for use in PRICES]
    return 1e-9 if all(cell.isdigit() for cell in cells) and min(map(int, cells)) >= _LEAST_FIXED_POINT else 1.0


def _by_shape(columns: Columns) -> Layout:
    """Return the layout of a file without a header."""
    first, width, path = [str(cell) for cell in columns.rows[0].cells], len(columns.names), columns.table.path
    for name, uses, matches in _SHAPES:
        if width == len(uses) and matches(first):
            timed = replace(columns, uses={use: column for column, use in enumerate(uses) if use})
            layout = Layout(name, timed, notes=("the file has no header",))
            if name == "HistData":
                return replace(layout, zone="Etc/GMT+5", notes=(*layout.notes, "times are EST all year (UTC-5)"))
            return _lean(layout, path) if name == "LEAN" else layout
    raise FileError(
        f"{path}: the file has no header, and its {width} columns, {', '.join(map(str, first[:7]))}, are of no layout that is known; "
        "write a first line such as time,open,high,low,close,volume"
    )


def _lean(layout: Layout, path: Path) -> Layout:
    columns, notes = layout.columns, list(layout.notes)
    cells = [str(columns.cell(row, use)) for row in columns.rows for use in PRICES]
    if "crypto" not in path.parts and all(_INTEGER.fullmatch(cell) for cell in cells):
        layout = replace(layout, scale=1e-4)
        notes.append("prices are in units of 0.0001")
    if str(columns.cell(columns.rows[0], "time")).isdigit():
        match = re.match(r"(\d{8})_", path.name)
        if match is None:
            raise FileError(f"{path}: its times are milliseconds since midnight; its name must begin with the date: 20240102_trade.csv")
        layout = replace(layout, date=match[1])
    return replace(layout, notes=tuple(notes))


def _epoch(cell: str, *digits: int) -> bool:
    return cell.isdigit() and len(cell) in digits


def _is_binance(first: Sequence[str]) -> bool:
    return _epoch(first[0], 13, 16) and _epoch(first[6], 13, 16)


def _is_dated(first: Sequence[str]) -> bool:
    date = r"(\d{4}[-/.]?\d{2}[-/.]?\d{2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4})([T ].*)?"
    return bool(re.fullmatch(date, first[0])) or _epoch(first[0], 10, 13, 16, 19)


_OHLCV: Final = ("time", "open", "high", "low", "close", "volume")
_SPLIT: Final = ("date", "time", "open", "high", "low", "close", "volume")
# The field of each column (empty: ignored) and a test of the first row.
_SHAPES: Final[Sequence[tuple[str, Sequence[str], Callable[[Sequence[str]], bool]]]] = (
    ("Binance klines", (*_OHLCV, "close_time", *[""] * 5), _is_binance),
    ("Binance klines", (*_OHLCV, "close_time", *[""] * 4), _is_binance),
    ("MetaTrader 4", _SPLIT, lambda first: bool(re.fullmatch(r"\d{4}\.\d{2}\.\d{2}", first[0])) and ":" in first[1]),
    ("HistData", _OHLCV, lambda first: bool(re.fullmatch(r"\d{8} \d{6}", first[0]))),
    ("LEAN", _OHLCV, lambda first: bool(re.fullmatch(r"\d{8} \d{2}:\d{2}", first[0]))),
    ("LEAN", _OHLCV, lambda first: first[0].isdigit() and int(first[0]) < _DAY_MS and int(first[0]) % 1_000 == 0),
    ("Kraken", (*_OHLCV, ""), lambda first: _epoch(first[0], 10)),
    ("Kraken", (*_OHLCV[:5], "", "volume", ""), lambda first: _epoch(first[0], 10)),
    ("ccxt", _OHLCV, lambda first: _epoch(first[0], 13)),
    ("rows without a header", _OHLCV, _is_dated),
    ("rows without a header", _OHLCV[:5], _is_dated),
    ("rows without a header", _SPLIT, lambda first: _is_dated(first) and ":" in first[1]),
)
