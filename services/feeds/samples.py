"""Five real stocks for demos and tests: 12,154 unadjusted daily bars, instruments, splits. `data/README.md` has the source.

The 1,422 prices that lie off the 0.01 tick (trades inside a cent) are rounded to it on loading.
"""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import Final

from schemas import Candle, Instrument, InstrumentEvent, RunMode

_DATA: Final = Path(__file__).parent / "data"
BARS_FILE: Final = _DATA / "stocks.csv.gz"
SPLITS_FILE: Final = _DATA / "stocks-splits.csv"
CALENDAR: Final = "XNYS"
"""The New York session; Nasdaq keeps the same one."""
SYMBOLS: Final = {"AAPL": "AAPL.XNAS", "FB": "FB.XNAS", "GOOG": "GOOG.XNAS", "IBM": "IBM.XNYS", "MSFT": "MSFT.XNAS"}
INTERVAL: Final = "1d"
PRICE_INCREMENT: Final = "0.01"
_DECIMALS: Final = 2


def load_stocks(run_mode: RunMode) -> dict[str, list[Candle]]:
    """Return each symbol's closed daily bars, oldest first, with `run_mode` on them; a bar's times are its session's."""
    stocks: dict[str, list[Candle]] = {symbol: [] for symbol in SYMBOLS.values()}
    with gzip.open(BARS_FILE, "rt", encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines)
        next(rows)
        for symbol, ts_open_ms, ts_close_ms, first, high, low, last, volume in rows:
            stocks[symbol].append(
                Candle(
                    schema_version=1,
                    run_mode=run_mode,
                    symbol=symbol,
                    interval=INTERVAL,
                    ts_open_ms=int(ts_open_ms),
                    ts_close_ms=int(ts_close_ms),
                    open=round(float(first), _DECIMALS),
                    high=round(float(high), _DECIMALS),
                    low=round(float(low), _DECIMALS),
                    close=round(float(last), _DECIMALS),
                    volume=float(volume),
                    closed=True,
                )
            )
    return stocks


def load_instruments(run_mode: RunMode) -> list[Instrument]:
    """Return the five instruments."""
    return [
        Instrument(
            schema_version=1,
            run_mode=run_mode,
            symbol=symbol,
            currency="USD",
            price_increment=PRICE_INCREMENT,
            calendar=CALENDAR,
            price_adjustment="none",
        )
        for symbol in SYMBOLS.values()
    ]


def load_splits(run_mode: RunMode) -> list[InstrumentEvent]:
    """Return the splits within the dates of the bars, each in force from its session's open."""
    return [
        InstrumentEvent(
            schema_version=1,
            run_mode=run_mode,
            symbol=row["symbol"],
            event="split",
            ratio=float(row["ratio"]),
            effective_ms=int(row["effective_ms"]),
        )
        for row in csv.DictReader(io.StringIO(SPLITS_FILE.read_text()))
    ]
