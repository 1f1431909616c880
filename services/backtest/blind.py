"""Hides what a language model may have read about: symbols are renamed, prices and volumes rescaled, and dates become numbers of days.

The candles are changed before the worker sees them, and dates by a setting of the prompt, so that prompts stay a function of the log.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from schemas import Candle, Dividend, Instrument, Restatement
from services.backtest.feed import CandleFeed, Feed
from services.core.settings import Settings

FIRST_CLOSE: Final = 100.0
_FIRST_VOLUME: Final = 1_000_000.0
_COARSEST_DECIMALS: Final = 2


@dataclass(frozen=True, slots=True)
class Disguise:
    """A symbol's other name, and what its prices and volumes are multiplied by, so that the first close is 100.

    All of it follows from the first bar: a factor that depended on later ones would tell of them.
    """

    name: str
    price_factor: float
    volume_factor: float
    decimals: int

    def price(self, price: float) -> float:
        """Return a price in disguise."""
        return round(price * self.price_factor, self.decimals)

    def candle(self, bar: Candle) -> Candle:
        """Return a bar in disguise."""
        prices = {name: self.price(getattr(bar, name)) for name in ("open", "high", "low", "close")}
        return bar.model_copy(update={"symbol": self.name, "volume": float(round(bar.volume * self.volume_factor)), **prices})

    def instrument(self, instrument: Instrument) -> Instrument:
        """Return the instrument in disguise, with a tick of like size."""
        changes: dict[str, object] = {
            "symbol": self.name,
            "price_increment": f"{10.0**-self.decimals:.{self.decimals}f}",
            "tick_table": None,
        }
        if instrument.fee_per_unit is not None:
            changes["fee_per_unit"] = instrument.fee_per_unit * self.price_factor
        return instrument.model_copy(update=changes)

    def restatement(self, event: Restatement) -> Restatement:
        """Return a split or dividend in disguise."""
        if isinstance(event, Dividend):
            return event.model_copy(update={"symbol": self.name, "amount": event.amount * self.price_factor})
        return event.model_copy(update={"symbol": self.name})


def disguises_of(candles: Iterable[Candle], instruments: Sequence[Instrument]) -> dict[str, Disguise]:
    """Return each symbol's disguise; `candles` are in order of time, and hold a bar of each instrument."""
    first: dict[str, Candle] = {}
    volume: dict[str, float] = {}
    for bar in candles:
        first.setdefault(bar.symbol, bar)
        if bar.volume:
            volume.setdefault(bar.symbol, bar.volume)
    disguises = {}
    for number, one in enumerate(instruments, 1):
        factor = FIRST_CLOSE / first[one.symbol].close
        tick = float(one.price_increment) * factor
        disguises[one.symbol] = Disguise(
            name=f"ASSET{number}.BLIND",
            price_factor=factor,
            volume_factor=_FIRST_VOLUME / volume.get(one.symbol, _FIRST_VOLUME),
            decimals=max(_COARSEST_DECIMALS, -math.floor(math.log10(tick) + 1e-9)),
        )
    return disguises


def blind(feed: CandleFeed) -> CandleFeed:
    """Return the feed with every symbol in disguise."""
    instruments = traded(feed)
    disguises = disguises_of(feed.candles, instruments)
    return replace(
        feed,
        name=f"{feed.name}, blind",
        instruments=[disguises[one.symbol].instrument(one) for one in instruments],
        restatements=[disguises[one.symbol].restatement(one) for one in feed.restatements if one.symbol in disguises],
        candles=[disguises[bar.symbol].candle(bar) for bar in feed.candles],
        charts={
            (disguises[symbol].name, end_ms): chart.model_copy(update={"symbol": disguises[symbol].name})
            for (symbol, end_ms), chart in feed.charts.items()
            if symbol in disguises
        },
        added={
            (disguises[symbol].name, interval, close_ms): values
            for (symbol, interval, close_ms), values in feed.added.items()
            if symbol in disguises
        },
        left_out=Counter(),
    )


def traded(feed: Feed) -> list[Instrument]:
    """Return the instruments of candles that have a bar, in the same order for a feed and its blind one."""
    symbols = {bar.symbol for bar in feed.candles} if isinstance(feed, CandleFeed) else set()
    return [one for one in feed.instruments if one.symbol in symbols]


def undated(settings: Settings, candles: Sequence[Candle]) -> Settings:
    """Return the settings with which prompts count days from that of the first bar."""
    day_zero_ms = min(bar.ts_open_ms for bar in candles)
    return settings.model_copy(update={"fusion": settings.fusion.model_copy(update={"day_zero_ms": day_zero_ms})})
