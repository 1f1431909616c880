"""Finds a table's header (one to three rows, after any comment lines, or none) and the column of each field."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from services.feeds.file_table import FileError, Row, Table

PRICES: Final = ("open", "high", "low", "close")

_INDEXES: Final = ("index", "index_level_0", "unnamed_0")
"""Names of an unnamed pandas index: it has the times, or row numbers when another column has the times."""
# Each field and the column names that providers use for it, most specific first; case, spaces and punctuation are ignored.
_NAMES: Final = {
    "open": ("open", "o", "opening", "open_price", "openprice", "eröffnung", "eroeffnung", "erster", "ouverture", "apertura", "otwarcie"),
    "high": ("high", "h", "max", "high_price", "highprice", "hoch", "haut", "alto", "najwyzszy", "najwyższy"),
    "low": ("low", "l", "min", "low_price", "lowprice", "tief", "bas", "bajo", "najnizszy", "najniższy"),
    "close": (
        "close",
        "c",
        "last",
        "close_last",
        "close_price",
        "closeprice",
        "latest",
        "schlusskurs",
        "schluss",
        "letzter",
        "clôture",
        "cierre",
        "zamkniecie",
        "zamknięcie",
        "price",
    ),
    "volume": ("volume", "vol", "v", "trade_volume", "base_volume", "volumen", "stuecke", "stücke", "wolumen", "shares_traded"),
    "tick_volume": ("tickvol", "tick_volume"),
    "symbol": ("symbol", "ticker", "s", "instrument", "pair"),
    "interval": ("interval", "per", "timeframe", "period", "resolution"),
    "revision": ("revision",),
    "rtype": ("rtype",),
    "open_ms": ("ts_open_ms",),
    "close_ms": ("ts_close_ms",),
    "close_time": ("close_time", "closetime"),
    "time": (
        "ts_event",
        "window_start",
        "open_time",
        "opentime",
        "start_time",
        "starttime",
        "timestamp",
        "datetime",
        "date_time",
        "unix",
        "unix_timestamp",
        "gmt_time",
        "utc_time",
        "utc",
        "gmt",
        "local_time",
        "time_utc",
        "time_eet",
        "t",
        "ts",
        "time",
        *_INDEXES,
    ),
    "date": ("date", "datum", "data", "fecha", "dtyyyymmdd", "trade_date", "day"),
}
_TEXT_ROWS: Final = 25
"""At most this many lines may precede the data: a URL, comments, header rows."""
_HEADER_PRICES: Final = 3
"""A row with this many of the four price names is the header, so that a missing fourth can be named in the error."""
_NUMBER: Final = re.compile(r"^[$€£¥+-]?[\d.,'\u00a0 ]*\d[\d.,]*([eE][+-]?\d+)?[KMB%]?$")


@dataclass(frozen=True, slots=True)
class Columns:
    """The column of each field, and the data rows."""

    table: Table
    names: Sequence[str]
    """As the file writes them; `column 1` and so on without a header."""
    header: bool
    uses: dict[str, int]
    """Column index by field: `open`, `high`, `low`, `close`, `volume`, `time`, `date`, `symbol` and so on."""
    rows: Sequence[Row]
    ticker: str | None = None
    """The symbol that a header row names."""

    def has(self, *uses: str) -> bool:
        """Return whether the table has all these fields."""
        return all(use in self.uses for use in uses)

    def cell(self, row: Row, use: str) -> Any:
        """Return a row's cell, None without such a column."""
        column = self.uses.get(use)
        return None if column is None else row.cells[column]

    def name(self, use: str) -> str:
        """Return the column's name as the file writes it."""
        column = self.uses[use]
        return self.names[column] if self.header else f"column {column + 1} ({use})"


def canonical(name: str) -> str:
    """Return a column's name without case, spaces, punctuation and a number before it: `<CLOSE>` and `4. close` are `close`."""
    return re.sub(r"^\d+_(?=[a-z])", "", re.sub(r"[\W_]+", "_", name.casefold()).strip("_"))


def find_columns(table: Table) -> list[Columns]:
    """Return the columns; one entry per symbol when a header row names several. Raises FileError for a bad header.

    Without a header the fields stay empty: `services.feeds.layouts` recognises the shape of the rows.
    """
    if table.names is not None:
        return _from_names(table, [str(name) for name in table.names])
    if (numbered := _without_numbered_header(table)) is not None:
        return [numbered]
    texts = [row for row in table.rows[:_TEXT_ROWS] if not _is_data(row)]
    leading = 0
    while leading < len(table.rows) and leading < _TEXT_ROWS and table.rows[leading] in texts:
        leading += 1
    header = next((row for row in table.rows[:leading] if _price_names(row.cells) >= _HEADER_PRICES), None)
    if header is None:
        if leading == 0:
            return [_without_header(table)]
        header = max(table.rows[:leading], key=lambda row: len(row.cells))
    # Files that were joined repeat the header.
    data = _checked_rows(table, [row for row in table.rows[leading:] if row.cells != header.cells], len(header.cells))
    if not data:
        if _price_names(header.cells) >= _HEADER_PRICES:
            raise FileError(f"{table.path}: the file holds no rows after its header")
        if not any(_NUMBER.match(cell) for cell in header.cells):
            _uses(table, header.cells, range(len(header.cells)))
        raise FileError(f"{table.path}: no row holds a time and four prices; the first is {', '.join(table.rows[0].cells)[:80]!r}")
    names = list(header.cells)
    width = [row for row in table.rows[:leading] if row is not header and len(row.cells) == len(names)]
    tickers = next((row for row in width if not _price_names(row.cells) and _names_tickers(row.cells)), None)
    index = next((row.cells[0] for row in width if row is not tickers and row.cells[0] and not any(row.cells[1:])), None)
    if tickers is not None or index is not None:
        # pandas writes the names of its column levels (`Price`, `Ticker`) in the first cell, and the index's own in a row by itself.
        names[0] = index or (names[0] if canonical(names[0]) in {*_NAMES["time"], *_NAMES["date"]} else "Date")
    return _by_ticker(table, names, None if tickers is None else list(tickers.cells), data)


def _from_names(table: Table, names: list[str]) -> list[Columns]:
    """Return the columns of a table with names; pandas writes a two-level name as `('Close', 'AAPL')`."""
    pairs = [re.fullmatch(r"\('(.*?)', '(.*?)'\)", name) for name in names]
    if not any(pairs):
        return _by_ticker(table, names, None, table.rows)
    first = [pair[1] if pair else name for name, pair in zip(names, pairs, strict=True)]
    second = [pair[2] if pair else "" for pair in pairs]
    if not _price_names(first):
        first, second = [b or a for a, b in zip(first, second, strict=True)], [a if b else "" for a, b in zip(first, second, strict=True)]
    return _by_ticker(table, first, second, table.rows)


def _by_ticker(table: Table, names: list[str], tickers: list[str] | None, rows: Sequence[Row]) -> list[Columns]:
    named = list(dict.fromkeys(one for one, name in zip(tickers or (), names, strict=False) if one and canonical(name) in _NAMES["close"]))
    if not named or tickers is None:
        return [Columns(table, names, header=True, uses=_uses(table, names, range(len(names))), rows=rows)]
    shared = [column for column, name in enumerate(names) if canonical(name) not in _PRICE_LIKE or not tickers[column]]
    parts = []
    for ticker in named:
        own = [column for column in range(len(names)) if tickers[column] == ticker and column not in shared]
        parts.append(Columns(table, names, header=True, uses=_uses(table, names, [*shared, *own]), rows=rows, ticker=ticker))
    return parts


_PRICE_LIKE: Final = {name for use in (*PRICES, "volume") for name in _NAMES[use]} | {"adj_close"}


def _uses(table: Table, names: Sequence[str], columns: Sequence[int]) -> dict[str, int]:
    """Return the column of each field; raise FileError for duplicate names and missing prices."""
    by_name: dict[str, list[int]] = {}
    for column in columns:
        by_name.setdefault(canonical(names[column]) or ("index" if column == 0 else ""), []).append(column)
    uses: dict[str, int] = {}
    for use, known in _NAMES.items():
        for name in known:
            if name not in by_name:
                continue
            if len(by_name[name]) > 1:
                written = " and ".join(f"{names[column]!r} (column {column + 1})" for column in by_name[name])
                raise FileError(f"{table.path}: the header names {written}: it is unclear which has the {use}; remove or rename one")
            uses.setdefault(use, by_name[name][0])
    # CryptoDataDownload writes `Volume BTC` before `Volume USDT`: the first is the base currency's.
    volumes = [held[0] for name, held in by_name.items() if name.startswith("volume_")]
    if "volume" not in uses and volumes:
        uses["volume"] = min(volumes)
    if "date" in uses and (canonical(names[uses.get("time", 0)]) or "index") in _INDEXES:
        uses.pop("time", None)
    missing = [use for use in PRICES if use not in uses]
    if missing:
        raise FileError(f"{table.path}: there is no column for {', '.join(missing)}; the columns are {', '.join(names)}")
    if not {"time", "date", "open_ms"} & uses.keys():
        raise FileError(
            f"{table.path}: there is no column for the time; the columns are {', '.join(names)}; "
            "name the one with each bar's open time, timestamp, datetime or date"
        )
    return uses


def _without_numbered_header(table: Table) -> Columns | None:
    """Return the rows below a header of numbers, without the index that begins them: pandas writes both for rows without names."""
    first = list(table.rows[0].cells)
    indexed = first[:1] == [""]
    if len(table.rows) < 2 or first[indexed:] != [str(number) for number in range(len(first) - indexed)]:  # noqa: PLR2004 - header, row
        return None
    rows = [Row(row.number, row.cells[indexed:]) for row in table.rows[1:]]
    return _without_header(replace(table, rows=rows))


def _without_header(table: Table) -> Columns:
    width = len(table.rows[0].cells)
    rows = _checked_rows(table, table.rows, width)
    return Columns(table, [f"column {number}" for number in range(1, width + 1)], header=False, uses={}, rows=rows)


def _checked_rows(table: Table, rows: Sequence[Row], width: int) -> list[Row]:
    """Return the rows, which must have the header's width; text lines after the last data row are left out."""
    kept = list(rows)
    while kept and len(kept[-1].cells) != width and not _is_data(kept[-1]):
        kept.pop()
    for row in kept:
        if len(row.cells) != width:
            raise table.error(row, f"{len(row.cells)} values, where the first row has {width} columns; is the file cut off here?")
    return kept


def _is_data(row: Row) -> bool:
    """Return whether a row is data: it has at least four numbers, or a date and only missing values."""
    return sum(1 for cell in row.cells if _NUMBER.match(cell)) >= len(PRICES) or (
        len(row.cells) > len(PRICES)
        and sum(1 for cell in row.cells[1:] if cell.casefold() in {"", "nan", "null"}) >= len(PRICES)
        and bool(re.match(r"^\d", row.cells[0]))
    )


def _price_names(cells: Sequence[str]) -> int:
    names = {canonical(cell) for cell in cells}
    return sum(1 for use in PRICES if names & set(_NAMES[use]))


def _names_tickers(cells: Sequence[str]) -> bool:
    return all(cells[1:]) and not any(_NUMBER.match(cell) for cell in cells[1:])
