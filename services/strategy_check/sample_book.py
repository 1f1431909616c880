"""A made-up book to show a strategy's prompt of: smooth prices, the market service's features, and those of the strategy's own."""

from __future__ import annotations

import math
from typing import Final

from schemas import Candle, Detector, Image, Instrument, MarketFeatures, Pattern, Skill, VisionFeatures, interval_ms
from services.core.calendar import ALWAYS_OPEN, SessionCalendar
from services.core.settings import Settings
from services.fusion.state.book import Book
from services.market.book import Book as MarketBook
from services.market.indicators import WARM_UP_BARS
from services.market.own_features import FeatureFunction

SYMBOL: Final = "SAMPLE-USD.MADE"
_NEAR_MS: Final = 1_763_424_000_000
"""2025-11-18T00:00Z."""
_TICK: Final = 0.01
_PERIODS: Final = ((7.3, 0.0011), (31.7, 0.0037), (173.0, 0.0091))
"""Swings of the price: bars of the fastest interval, and share of the price."""


def sample_book(settings: Settings, interval: str, own: FeatureFunction | None, *, slots_into_epoch: int) -> Book:
    """Return a book with full windows whose last bar of `interval` is that many slots into its epoch; `own` are the user's features."""
    fusion = settings.fusion
    instrument = Instrument(
        schema_version=1,
        run_mode=settings.run_mode,
        symbol=SYMBOL,
        currency="USD",
        price_increment=str(_TICK),
        calendar=ALWAYS_OPEN,
        price_adjustment="none",
    )
    book = Book(instrument, fusion, SessionCalendar.of(ALWAYS_OPEN))
    boundaries, length_ms = book.epochs.boundaries(interval), interval_ms(interval)
    end_ms = boundaries.start_ms(boundaries.index(_NEAR_MS)) + slots_into_epoch * length_ms
    producer = MarketBook(instrument, [], {}, own)
    candles: list[Candle] = []
    for name, bars in book.bars.items():
        span_ms = interval_ms(name)
        last = end_ms // span_ms
        candles += [_candle(settings, name, length_ms, slot) for slot in range(max(0, last - bars.keep - WARM_UP_BARS), last + 1)]
    for offset, candle in enumerate(sorted(candles, key=lambda one: (one.ts_close_ms, interval_ms(one.interval)))):
        if candle.ts_open_ms >= end_ms or (not candle.closed and candle.interval == interval):
            continue
        for made in producer.take(candle.model_copy(update={"closed": candle.ts_close_ms <= end_ms}), offset).out:
            book.fold_market(MarketFeatures.model_validate(made))
    book.fold_vision(_vision(settings, interval, end_ms))
    return book


def _candle(settings: Settings, interval: str, unit_ms: int, slot: int) -> Candle:
    span_ms = interval_ms(interval)
    first, last = _price(slot * span_ms / unit_ms), _price((slot + 1) * span_ms / unit_ms)
    reach = (abs(last - first) + 0.0004 * last) * (1.2 + math.sin(slot))
    return Candle(
        schema_version=1,
        run_mode=settings.run_mode,
        symbol=SYMBOL,
        interval=interval,
        ts_open_ms=slot * span_ms,
        ts_close_ms=(slot + 1) * span_ms,
        open=first,
        high=_on_tick(max(first, last) + reach / 2),
        low=_on_tick(min(first, last) - reach / 2),
        close=last,
        volume=float(round(1_000 * (2 + math.sin(slot * 1.7)) * span_ms / unit_ms)),
        closed=True,
    )


def _price(bars: float) -> float:
    return _on_tick(187.0 * (1 + sum(share * math.sin(2 * math.pi * bars / period) for period, share in _PERIODS)))


def _on_tick(price: float) -> float:
    return round(round(price / _TICK) * _TICK, 2)


def _vision(settings: Settings, interval: str, end_ms: int) -> VisionFeatures:
    return VisionFeatures(
        schema_version=1,
        run_mode=settings.run_mode,
        symbol=SYMBOL,
        interval=interval,
        window_end_ms=end_ms,
        window_bars=20,
        image=Image(spec="jkx-20/1", width=60, height=64, hash="0" * 16),
        detector=Detector(name="chart-cnn", version="1", horizon_bars=5, skill=Skill(auc=0.56, auc_low=0.53, auc_high=0.59)),
        p_up=0.56,
        patterns=[Pattern(label="double_bottom", score=0.8, first_bar=3, last_bar=12)],
    )
