"""The daily series that the chart network is trained and evaluated on: stocks from the caller, and two indices from `arch`."""

from __future__ import annotations

import datetime as dt
import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from schemas import Candle, InstrumentEvent
from services.core.calendar import SessionCalendar
from services.vision.dataset import Parts, PriceSplit, Series, build_samples, split_by_time
from services.vision.model_card import SeriesFacts
from services.vision.render import ChartSpec

VALIDATION_FROM: Final = dt.date(2010, 1, 1)
TEST_FROM: Final = dt.date(2012, 1, 1)
"""The demo plays 2012 and 2013: what it shows is out of sample."""
_CALENDAR: Final = "XNYS"
"""The indices' sessions."""
_INDICES: Final = {"NASDAQ": "arch.data.nasdaq", "SP500": "arch.data.sp500"}
_STOCKS_SOURCE: Final = "`bokeh-sampledata`, public domain"
_INDICES_SOURCE: Final = "`arch`, NCSA licence"


class MissingDataError(Exception):
    """A series is not installed; the text says what to install."""


def training_parts(stocks: Mapping[str, Sequence[Candle]], splits: Iterable[InstrumentEvent]) -> tuple[Parts, list[SeriesFacts]]:
    """Return the windows of stocks and indices in three parts, and a description of each series; raise MissingDataError."""
    shares, indices = stock_series(stocks, splits), index_series()
    samples = build_samples([*shares, *indices], ChartSpec())
    parts = split_by_time(samples, validation_from_ms=_midnight_ms(VALIDATION_FROM), test_from_ms=_midnight_ms(TEST_FROM))
    facts = [_facts(one, _STOCKS_SOURCE) for one in shares] + [_facts(one, _INDICES_SOURCE) for one in indices]
    return parts, facts


def stock_series(stocks: Mapping[str, Sequence[Candle]], splits: Iterable[InstrumentEvent]) -> list[Series]:
    """Return the daily bars of each symbol, oldest first, with its splits."""
    by_symbol: dict[str, list[PriceSplit]] = {}
    for event in splits:
        by_symbol.setdefault(event.symbol, []).append(PriceSplit(event.effective_ms, event.ratio))
    return [_series(symbol, candles, by_symbol.get(symbol, [])) for symbol, candles in stocks.items()]


def index_series() -> list[Series]:
    """Return both indices, read from the installed package `arch`; raise MissingDataError when it is not there."""
    calendar = SessionCalendar.of(_CALENDAR)
    found = []
    for symbol, module in _INDICES.items():
        try:
            frame = importlib.import_module(module).load()
        except ModuleNotFoundError as error:
            raise MissingDataError(
                f"the index series {symbol} comes from the package arch, which is not installed ({error}); "
                "install it with: pip install 'aquiline[vision-train]'"
            ) from error
        closes = []
        for day in frame.index:
            session = calendar.session_on(day.date())
            if session is None:
                raise MissingDataError(f"{symbol} has a bar on {day.date()}, when {_CALENDAR} had no session; use another arch version")
            closes.append(session[1])
        bars = frame[["Open", "High", "Low", "Close", "Volume"]].to_numpy(dtype=np.float64)
        found.append(Series(symbol, np.array(closes, dtype=np.int64), bars))
    return found


def _series(symbol: str, candles: Sequence[Candle], splits: Sequence[PriceSplit]) -> Series:
    bars = np.array([[bar.open, bar.high, bar.low, bar.close, bar.volume] for bar in candles], dtype=np.float64)
    return Series(symbol, np.array([bar.ts_close_ms for bar in candles], dtype=np.int64), bars, tuple(splits))


def _facts(series: Series, source: str) -> SeriesFacts:
    return SeriesFacts(
        symbol=series.symbol,
        bars=len(series.bars),
        first_ms=int(series.ts_close_ms[0]),
        last_ms=int(series.ts_close_ms[-1]),
        splits=len(series.splits),
        source=source,
    )


def _midnight_ms(day: dt.date) -> int:
    return int(dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC).timestamp() * 1000)
