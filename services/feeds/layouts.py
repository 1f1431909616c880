"""The layouts of files, recognised by the names of their columns or, without a header, by the shape of their rows.

A layout says what its columns mean beyond their names: prices that are scaled, a close time that is part of the bar, a time zone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from services.feeds.headers import PRICES, Columns, canonical
from services.feeds.tables import FileError

_MS_DIGITS: Final = 13
_DAY_MS: Final = 86_400_000
_DATABENTO_RTYPES: Final = {"32": "1s", "33": "1m", "34": "1h", "35": "1d"}
_INTEGER: Final = re.compile(r"\d+(\.0+)?")


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file's columns mean."""

    name: str
    """As its users call it."""
    columns: Columns
    scale: float = 1.0
    """What a price in the file is multiplied by."""
    zone: str | None = None
    """The time zone of times that name none, where the layout fixes it."""
    date: str | None = None
    """The date of all rows, for files that hold times of day and have the date in their names."""
    interval: str | None = None
    notes: Sequence[str] = field(default_factory=tuple)


def recognise(columns: Columns) -> Layout:
    """Return the layout of a table's columns; raise FileError when it has no header and no known shape."""
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
    return columns.ticker is not None or "adj_close" in names


def _is_tradingview(_: Sequence[str], columns: Columns) -> bool:
    wanted = ("time", "open", "high", "low", "close")
    return tuple(columns.names[: len(wanted)]) == wanted and (len(columns.names) == len(wanted) or columns.names[len(wanted)] == "Volume")


def _is_pandas(_: Sequence[str], columns: Columns) -> bool:
    return columns.names[0] in {"", "Unnamed: 0"} or "__index_level_0__" in columns.names


# The first that fits is taken: the more telling ones stand first.
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
    ("pandas", _is_pandas),
)


def _refined(layout: Layout, names: Sequence[str]) -> Layout:
    columns, notes = layout.columns, list(layout.notes)
    if "adj_close" in names and canonical(columns.names[columns.uses["close"]]) != "adj_close":
        notes.append("adjusted closes are not used: the prices are those of the columns open to close")
    if layout.name == "Databento":
        layout = replace(layout, scale=_fixed_point(columns), interval=_DATABENTO_RTYPES.get(_first(columns, "rtype")))
        if layout.scale != 1:
            notes.append("prices are in units of 0.000000001")
    if layout.name == "Dukascopy":
        zone = re.fullmatch(r"time_([a-z]{3,4})", canonical(columns.name("time"))) if "time" in columns.uses else None
        layout = replace(layout, zone=zone[1].upper() if zone else "UTC" if "gmt_time" in names else None)
    if "volume" not in columns.uses and "tick_volume" in columns.uses or layout.name == "MetaTrader 5":
        columns, said = _with_tick_volume(columns)
        layout = replace(layout, columns=columns)
        notes += said
    return replace(layout, notes=tuple(notes))


def _with_tick_volume(columns: Columns) -> tuple[Columns, list[str]]:
    """Return the columns with the counts of price changes as volume, where no traded volume is there."""
    traded = columns.uses.get("volume")
    if "tick_volume" not in columns.uses or (traded is not None and any(str(row.cells[traded]) not in {"0", ""} for row in columns.rows)):
        return columns, []
    uses = {**columns.uses, "volume": columns.uses["tick_volume"]}
    return replace(columns, uses=uses), ["volume is the number of price changes: the file has no traded volume"]


def _fixed_point(columns: Columns) -> float:
    """Return 1e-9 where prices are integers in units of a billionth, which no price in whole numbers is as large as."""
    cells = [str(columns.cell(row, use)) for row in columns.rows for use in PRICES]
    return 1e-9 if all(cell.lstrip("-").isdigit() for cell in cells) and min(map(int, cells)) >= 1_000_000 else 1.0


def _by_shape(columns: Columns) -> Layout:
    """Return the layout of a file without a header."""
    first, width, path = list(columns.rows[0].cells), len(columns.names), columns.table.path
    for name, matches, uses in _SHAPES:
        if matches(first, width):
            placed = replace(columns, uses=dict(uses))
            layout = Layout(name, placed, notes=("the file has no header",))
            if name == "HistData":
                return replace(layout, zone="Etc/GMT+5", notes=(*layout.notes, "times are New York's winter time all year"))
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
            raise FileError(f"{path}: its times are milliseconds since midnight, so the name must begin with the date, such as 20240102_trade.csv")
        layout = replace(layout, date=match[1])
    return replace(layout, notes=tuple(notes))


def _shape(*uses: str) -> Sequence[tuple[str, int]]:
    return [(use, column) for column, use in enumerate(uses) if use]


def _epoch(cell: Any, *digits: int) -> bool:
    return str(cell).isdigit() and len(str(cell)) in digits


_OHLCV: Final = ("open", "high", "low", "close", "volume")
_SHAPES: Final[Sequence[tuple[str, Callable[[Sequence[str], int], bool], Sequence[tuple[str, int]]]]] = (
    (
        "Binance klines",
        lambda first, width: width in {11, 12} and _epoch(first[0], 13, 16) and _epoch(first[6], 13, 16),
        _shape("time", *_OHLCV, "close_time"),
    ),
    (
        "MetaTrader 4",
        lambda first, width: width == 7 and bool(re.fullmatch(r"\d{4}\.\d{2}\.\d{2}", first[0])) and ":" in first[1],
        _shape("date", "time", *_OHLCV),
    ),
    ("HistData", lambda first, width: width == 6 and bool(re.fullmatch(r"\d{8} \d{6}", first[0])), _shape("time", *_OHLCV)),
    ("LEAN", lambda first, width: width == 6 and bool(re.fullmatch(r"\d{8} \d{2}:\d{2}", first[0])), _shape("time", *_OHLCV)),
    ("LEAN", lambda first, width: width == 6 and first[0].isdigit() and int(first[0]) < _DAY_MS, _shape("time", *_OHLCV)),
    ("Kraken", lambda first, width: width == 7 and _epoch(first[0], 10), _shape("time", *_OHLCV)),
    ("Kraken", lambda first, width: width == 8 and _epoch(first[0], 10), _shape("time", "open", "high", "low", "close", "", "volume")),
    ("ccxt", lambda first, width: width == 6 and _epoch(first[0], _MS_DIGITS), _shape("time", *_OHLCV)),
    ("rows without a header", lambda first, width: width == 6 and _dated(first[0]), _shape("time", *_OHLCV)),
    ("rows without a header", lambda first, width: width == 5 and _dated(first[0]), _shape("time", *_OHLCV[:4])),
    (
        "rows without a header",
        lambda first, width: width == 7 and _dated(first[0]) and ":" in first[1],
        _shape("date", "time", *_OHLCV),
    ),
)


def _dated(cell: str) -> bool:
    return bool(re.match(r"\d{4}[-/.]?\d{2}[-/.]?\d{2}([T ].*)?$", cell)) or _epoch(cell, 10, 13, 16, 19)
