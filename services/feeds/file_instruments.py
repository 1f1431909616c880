"""Instruments for candles from files: the price increment comes from the prices, everything else from the options."""

from __future__ import annotations

from collections.abc import Sequence

from schemas import Candle, Instrument, RunMode
from services.feeds.price_increment import check_increment, infer_increment


def instruments_for(
    candles: Sequence[Candle], *, run_mode: RunMode, currency: str, price_increment: str | None, calendar: str, price_adjustment: str
) -> list[Instrument]:
    """Return one instrument per symbol; without `price_increment`, each gets the increment inferred from its prices.

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
    """Return the inferred price increment of each symbol."""
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
