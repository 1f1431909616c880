"""The files of `tests/cases/layouts`, one for each layout that is read, and the table of them in `docs/feeds.md`.

`python -m tests.cases.layouts` writes the table anew; a test holds that it is up to date.
"""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

from schemas import RunMode
from services.feeds.files import Reading, ReadOptions, read_candles
from services.feeds.price_increment import infer_increment
from services.feeds.read_options import utc

FOLDER: Final = Path(__file__).parent / "layouts"
PAGE: Final = Path(__file__).parents[2] / "docs" / "feeds.md"
BEGIN: Final = "<!-- the table below is written by: python -m tests.cases.layouts -->"
END: Final = "<!-- end of the table -->"
NOW_MS: Final = int(dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp() * 1_000)


class LayoutFile(NamedTuple):
    """A file, what it is read with, and what must come out."""

    file: str
    layout: str
    bars: int
    first: str
    """The open of the first bar."""
    last: str
    """The close of the last bar."""
    options: dict[str, Any]


_STOCK: Final = {"symbol": "AAPL.XNAS", "calendar": "XNYS"}
_DAILY: Final = {**_STOCK, "interval": "1d"}
_BTC: Final = {"symbol": "BTC-USDT.BINA"}
_EUR: Final = {"symbol": "EUR-USD.FX"}
_DAYS: Final = (4, "2024-01-02T14:30Z", "2024-01-05T21:00Z")
_MINUTES: Final = (4, "2024-01-01T00:00Z", "2024-01-01T00:04Z")
_HOURS: Final = (4, "2024-01-02T00:00Z", "2024-01-02T04:00Z")
_OPENING: Final = (4, "2024-01-02T14:30Z", "2024-01-02T14:34Z")

FILES: Final = (
    LayoutFile("yahoo.csv", "Yahoo", *_DAYS, _DAILY),
    LayoutFile("yahoo-two-row-header.csv", "Yahoo", *_DAYS, _DAILY),
    LayoutFile("yahoo-intraday.csv", "Yahoo", 7, "2024-07-01T13:30Z", "2024-07-01T20:00Z", _STOCK),
    LayoutFile("alpaca.csv", "Alpaca", 4, "2024-07-01T13:30Z", "2024-07-01T13:34Z", _STOCK),
    LayoutFile("alpaca.csv", "Alpaca", 10, "2024-07-01T13:24Z", "2024-07-01T13:34Z", {**_STOCK, "extended": True}),
    LayoutFile("alpaca-daily.csv", "Alpaca", *_DAYS, _DAILY),
    LayoutFile("binance-header.csv", "Binance klines", *_MINUTES, _BTC),
    LayoutFile("binance.csv", "Binance klines", *_MINUTES, _BTC),
    LayoutFile("binance-microseconds.csv", "Binance klines", 4, "2024-12-31T23:58Z", "2025-01-01T00:02Z", _BTC),
    LayoutFile("ccxt.csv", "ccxt", *_MINUTES, _BTC),
    LayoutFile("ccxt-rows.csv", "ccxt", *_MINUTES, _BTC),
    LayoutFile("kraken.csv", "Kraken", 4, "2024-01-01T00:00Z", "2024-01-01T04:00Z", {"symbol": "BTC-USD.KRAK"}),
    LayoutFile("polygon.csv", "Polygon", *_DAYS, _DAILY),
    LayoutFile("polygon-flat.csv.gz", "Polygon flat file", 4, "2024-07-01T13:30Z", "2024-07-01T13:34Z", _STOCK),
    LayoutFile("databento.csv", "Databento", 4, "2024-01-01T23:00Z", "2024-01-01T23:04Z", {"symbol": "ESH4=ESH24.XCME"}),
    LayoutFile("dukascopy.csv", "Dukascopy", *_HOURS, _EUR),
    LayoutFile("metatrader4.csv", "MetaTrader 4", *_HOURS, _EUR),
    LayoutFile("metatrader5.csv", "MetaTrader 5", 4, "2024-01-01T22:00Z", "2024-01-02T02:00Z", {**_EUR, "time_zone": "Europe/Athens"}),
    LayoutFile("tradingview.csv", "TradingView", 4, "2024-01-01T00:00Z", "2024-01-01T01:00Z", _BTC),
    LayoutFile("stooq.csv", "Yahoo or Stooq", *_DAYS, _DAILY),
    LayoutFile("stooq-bulk.txt", "Stooq", *_DAYS, _STOCK),
    LayoutFile("lean-daily.csv", "LEAN", *_DAYS, _DAILY),
    LayoutFile("20240102_trade.csv", "LEAN", *_OPENING, _STOCK),
    LayoutFile("ibkr.csv", "IBKR", *_OPENING, _STOCK),
    LayoutFile("pandas.csv", "pandas", *_DAYS, _DAILY),
    LayoutFile("pandas.parquet", "pandas", *_DAYS, _DAILY),
    LayoutFile("pandas-zone.parquet", "Parquet", *_DAYS, _DAILY),
    LayoutFile("pandas-dates.parquet", "Parquet", *_DAYS, _DAILY),
    LayoutFile("nasdaq.csv", "Nasdaq", *_DAYS, _DAILY),
    LayoutFile("cryptodatadownload.csv", "CryptoDataDownload", 4, "2024-01-01T00:00Z", "2024-01-01T04:00Z", _BTC),
    LayoutFile("histdata.csv", "HistData", 4, "2024-01-02T22:00Z", "2024-01-02T22:04Z", _EUR),
    LayoutFile("european.csv", "columns by name", *_DAYS, _DAILY),
)


def options(given: dict[str, Any]) -> ReadOptions:
    """Return reading options, those of the command where nothing is given."""
    usual: dict[str, Any] = {"symbol": None, "interval": None, "calendar": "24x7"}
    return ReadOptions(run_mode=RunMode.REPLAY, now_ms=NOW_MS, **{**usual, **given})


def read(file: LayoutFile) -> Reading:
    """Read a file as its entry says."""
    return read_candles(FOLDER / file.file, options(file.options))


def table() -> str:
    """Return the table of layouts, as Markdown."""
    lines = [
        "| layout | file | options | rows | bars | first bar opens | last bar closes | tick | said |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for file in FILES:
        got = read(file)
        first, last = got.candles[0], got.candles[-1]
        said = [*(f"{count} rows left out: {why}" for why, count in sorted(got.left_out.items())), *got.notes]
        asked = " ".join(f"`--{key.replace('_', '-')}{'' if value is True else f' {value}'}`" for key, value in file.options.items())
        cells = [got.layout, f"`{file.file}`", asked, str(got.rows), f"{len(got.candles)} of {first.interval}"]
        cells += [utc(first.ts_open_ms), utc(last.ts_close_ms), infer_increment(got.candles).text, "; ".join(said)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page() -> str:
    """Return the page with the table as the reader gives it now."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)
