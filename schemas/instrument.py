"""What trades: instruments (a compacted topic keyed by symbol) and the events that change their prices' scale."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import DECIMAL_PATTERN, Message, Symbol, TimeMs


class Instrument(Message):
    """One instrument: what a tick, a session and a price mean for it."""

    symbol: Symbol
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3,5}$", description="The currency that prices are in.")]
    price_increment: Annotated[str, Field(pattern=DECIMAL_PATTERN, description="The tick: the smallest price step, as a decimal string.")]
    calendar: Annotated[
        str,
        Field(
            pattern=r"^(24x7|[A-Z0-9_./-]{2,16}|24/5|24/7)$",
            description="`24x7`, or an exchange calendar's name (an ISO 10383 code such as `XNYS`).",
        ),
    ]
    price_adjustment: Literal["none", "split", "split_dividend"] = Field(
        description="What the candles' prices are already adjusted for; with `none`, splits rescale the book."
    )


class InstrumentEvent(Message):
    """A corporate event: a split of `ratio` new units for each old one, in force for bars that open at `effective_ms` or later."""

    symbol: Symbol
    event: Literal["split"] = Field(description="What happened.")
    ratio: Annotated[
        float,
        Field(gt=0, le=10_000, allow_inf_nan=False, description="New units for each old one: 2.0 for a 2:1 split."),
    ]
    effective_ms: TimeMs
