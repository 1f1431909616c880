"""An input of one's own: the funding rates of perpetual swaps, of which prompts show a line. Its topic is `funding`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from schemas import Message, RunMode, Symbol
from services.fusion.inputs.moment import Moment
from services.fusion.inputs.table_input import CountTokens, LatestBySymbol


class FundingRate(Message):
    """What longs pay shorts at the next funding, as a fraction of the position; negative where shorts pay longs."""

    symbol: Symbol
    rate: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
    next_ms: Annotated[int, Field(ge=0, description="When it is paid, in milliseconds since 1970.")]
    ts_ms: Annotated[int, Field(ge=0, description="When the exchange gave it, in milliseconds since 1970.")]


class Funding(LatestBySymbol[FundingRate]):
    """The funding rate of each symbol."""

    message = FundingRate
    heading: ClassVar[str | None] = ""  # its lines hold numbers alone

    @classmethod
    def samples(cls, moment: Moment) -> Sequence[FundingRate]:
        """Return a rate for `aquiline strategy show` and `check`."""
        symbol, at_ms = moment.instrument.symbol, moment.last_close_ms
        return [
            FundingRate(schema_version=1, run_mode=RunMode.DEMO, symbol=symbol, rate=0.0001, next_ms=at_ms + 4 * 3_600_000, ts_ms=at_ms)
        ]

    def lines(self, moment: Moment, tokens: CountTokens) -> Sequence[str]:
        """Return the line of a funding that is still to come."""
        del tokens
        latest = self.latest.get(moment.instrument.symbol)
        if latest is None or latest.next_ms <= moment.last_close_ms:
            return []
        payer, payee = ("longs", "shorts") if latest.rate >= 0 else ("shorts", "longs")
        return [f"Funding at {moment.when(latest.next_ms)}: {payer} pay {payee} {100 * abs(latest.rate):.4f} %."]
