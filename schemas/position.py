"""Positions that are held, as whoever trades reports them, on a compacted topic keyed by symbol."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Message, Price, Symbol, TimeMs


class HeldPosition(Message):
    """The position in one symbol. A record without a value (a tombstone) says that there is none any more, as does a quantity of 0."""

    symbol: Symbol
    side: Literal["long", "short"] = Field(description="Whether the quantity is owned or owed.")
    quantity: Annotated[float, Field(ge=0, lt=1e15, allow_inf_nan=False, description="Units of the instrument, without a sign.")]
    average_price: Price = Field(description="The average price that it was opened at, on today's scale of the instrument.")
    ts_ms: TimeMs = Field(description="Since when the position is this one.")
