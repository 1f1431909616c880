"""Instruments for candles whose files say little of what they are of: the increment from the prices, the rest from the options."""

from __future__ import annotations

from collections.abc import Sequence

from schemas import Candle, Instrument, RunMode
from services.feeds.ticks import check_increment, infer_increment


def describe(
    candles: Sequence[Candle], *, run_mode: RunMode, currency: str, price_increment: str | None, calendar: str, price_adjustment: str
) -> list[Instrument]:
    """Return the instruments of the candles, by symbol; without `price_increment` each has the one that its prices are on.

    Raises ValueError when an option is not good, or its increment does not fit the prices; the text names the option.
    """
    by_symbol: dict[str, list[Candle]] = {}
    for candle in candles:
        by_symbol.setdefault(candle.symbol, []).append(candle)
    return [
        Instrument.model_validate(
            {
                "schema_version": 1,
                "run_mode": run_mode,
                "symbol": symbol,
                "currency": currency,
                "price_increment": _increment(symbol, by_symbol[symbol], price_increment),
                "calendar": calendar,
                "price_adjustment": price_adjustment,
            }
        )
        for symbol in sorted(by_symbol)
    ]


def increments(candles: Sequence[Candle]) -> dict[str, str]:
    """Return the increment that each symbol's prices are on, for people to see."""
    return {
        symbol: infer_increment([one for one in candles if one.symbol == symbol]).text for symbol in sorted({one.symbol for one in candles})
    }


def _increment(symbol: str, candles: Sequence[Candle], given: str | None) -> str:
    if given is None:
        return infer_increment(candles).text
    try:
        check_increment(candles, given)
    except ValueError as error:
        raise ValueError(f"--price-increment of {symbol}: {error}") from None
    return given
