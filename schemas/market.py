"""Bars of a market and the features computed from them."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from schemas.base import Finite, Interval, Message, Name, Price, Symbol, TimeMs, interval_ms

MAX_FEATURES = 64


class Candle(Message):
    """One bar, forming (`closed` false) or closed; a correction of a closed bar carries a higher `revision`."""

    symbol: Symbol
    interval: Interval
    ts_open_ms: TimeMs
    ts_close_ms: TimeMs = Field(description="The bar's scheduled end, exclusive; for a session's last bar, the session's close.")
    open: Price = Field(description="The first price of the bar.")
    high: Price = Field(description="The highest price of the bar.")
    low: Price = Field(description="The lowest price of the bar.")
    close: Price = Field(description="The last price of the bar, so far while it is forming.")
    volume: Annotated[float, Field(ge=0, lt=1e18, allow_inf_nan=False, description="Units traded in the bar.")]
    closed: bool = Field(description="False while the bar is forming, True once it is final.")
    revision: Annotated[int, Field(ge=0, le=1_000_000, description="0 at first; each correction of a closed bar has a higher one.")] = 0

    @model_validator(mode="after")
    def _sane(self) -> Self:
        bar = self.__dict__  # runs for every record, and reading a pydantic model's attributes takes twice as long
        low, high = bar["low"], bar["high"]
        if not (low <= bar["open"] <= high and low <= bar["close"] <= high):
            raise ValueError(f"low {low} and high {high} do not enclose open {self.open} and close {self.close}")
        span, longest = bar["ts_close_ms"] - bar["ts_open_ms"], interval_ms(bar["interval"])
        if not 0 < span <= longest:
            raise ValueError(f"ts_close_ms is {span} ms after ts_open_ms; a bar of {self.interval} spans 1 to {longest} ms")
        return self


class MarketFeatures(Candle):
    """A candle with what was computed from it and the bars before it."""

    features: Annotated[dict[Name, Finite], Field(max_length=MAX_FEATURES, description="Named numbers, at most 64.")]
