"""What trades: instruments (a compacted topic keyed by symbol) and the corporate events that change their prices or names."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, TypeAdapter, model_validator

from schemas.base import DECIMAL_PATTERN, Message, Part, Symbol, TimeMs

MAX_TICK_STEPS = 64

AssetClass = Literal["equity", "fund", "index", "fx", "crypto", "future", "option", "bond", "commodity", "cfd"]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3,5}$")]


def _above_zero(value: str) -> str:
    if Decimal(value) <= 0:
        raise ValueError(f"{value} must be above 0")
    return value


PositiveDecimal = Annotated[str, Field(pattern=r"^[0-9]{1,15}(\.[0-9]{1,12})?$"), AfterValidator(_above_zero)]
BasisPoints = Annotated[float, Field(ge=0, lt=10_000, allow_inf_nan=False)]


class TickStep(Part):
    """The tick from a price on, up to the next step."""

    from_price: PositiveDecimal = Field(description="The price from which on this tick applies, as a decimal string.")
    increment: PositiveDecimal = Field(description="The tick there, as a decimal string.")


class Instrument(Message):
    """One instrument: what a tick, a session, a price and a trade mean for it."""

    symbol: Symbol
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3,5}$", description="The currency that prices are in.")]
    price_increment: Annotated[str, Field(pattern=DECIMAL_PATTERN, description="The tick: the smallest price step, as a decimal string.")]
    calendar: Annotated[
        str,
        Field(
            pattern=r"^(24x7|[A-Z0-9_./-]{2,16}|24/5|24/7)$",
            description="`24x7`, `FX`, or an exchange calendar's name (an ISO 10383 code such as `XNYS`).",
        ),
    ]
    price_adjustment: Literal["none", "split", "split_dividend"] = Field(
        description="What the candles' prices are already adjusted for; with `none`, splits rescale the book."
    )
    asset_class: AssetClass | None = Field(default=None, description="What kind of instrument it is.")
    returns: Literal["price", "total"] = Field(
        default="price",
        description="What returns count: with `total`, dividends restate the bars before their ex-date and are paid to positions.",
    )
    sparse: bool = Field(
        default=False,
        description="True when slots without a trade are normal: missing bars then count as gaps only when many follow one another.",
    )
    tick_table: Annotated[list[TickStep], Field(max_length=MAX_TICK_STEPS)] | None = Field(
        default=None,
        description="Ticks that depend on the price, in rising order of `from_price`; below the first step `price_increment` applies.",
    )
    multiplier: Annotated[float, Field(gt=0, lt=1e9, allow_inf_nan=False)] = Field(
        default=1.0, description="What one unit gains, in the settlement currency, when its price rises by 1: 50.0 for an E-mini S&P 500."
    )
    lot_size: PositiveDecimal | None = Field(default=None, description="The step of order quantities, as a decimal string.")
    min_notional: PositiveDecimal | None = Field(
        default=None, description="The least value of an order, in the currency that prices are in, as a decimal string."
    )
    settlement_currency: Currency | None = Field(
        default=None, description="The currency that profit and loss are paid in; absent when it is `currency`."
    )
    expiry_ms: TimeMs | None = Field(default=None, description="When it stops trading; absent when it does not expire.")
    fee_bps: BasisPoints | None = Field(
        default=None, description="The fee of each side of a trade, in basis points; absent for the setting `scoring.cost_bps`."
    )
    fee_per_unit: Annotated[float, Field(ge=0, lt=1e9, allow_inf_nan=False)] | None = Field(
        default=None, description="A fee of each side for each unit (share, contract), in the settlement currency, on top of `fee_bps`."
    )
    slippage_bps: BasisPoints | None = Field(
        default=None,
        description="The slippage of each fill that is not at a limit, in basis points; absent for the setting `scoring.slippage_bps`.",
    )

    @model_validator(mode="after")
    def _rising_steps(self) -> Self:
        for before, after in pairwise(self.tick_table or ()):
            if Decimal(after.from_price) <= Decimal(before.from_price):
                raise ValueError(
                    f"tick_table has from_price {after.from_price} after {before.from_price}; its steps must be in rising order of from_price"
                )
        return self

    def increment_at(self, price: Decimal) -> Decimal:
        """Return the tick at `price`."""
        increment = self.price_increment
        for step in self.tick_table or ():
            if price < Decimal(step.from_price):
                break
            increment = step.increment
        return Decimal(increment)

    @property
    def price_decimals(self) -> int:
        """Return how many decimal places a price on any tick of this instrument needs."""
        increments = (self.price_increment, *(step.increment for step in self.tick_table or ()))
        return max(len(increment.partition(".")[2]) for increment in increments)


class InstrumentEvent(Message):
    """A corporate event: a split of `ratio` new units for each old one, in force for bars that open at `effective_ms` or later."""

    symbol: Symbol
    event: Literal["split"] = Field(description="What happened.")
    ratio: Annotated[
        float,
        Field(gt=0, le=10_000, allow_inf_nan=False, description="New units for each old one: 2.0 for a 2:1 split."),
    ]
    effective_ms: TimeMs


class Dividend(Message):
    """A cash dividend: who holds the instrument into `effective_ms` is paid `amount` for each unit, and whoever is short pays it."""

    symbol: Symbol
    event: Literal["dividend"] = Field(description="Tells it from other events.")
    amount: Annotated[
        float, Field(gt=0, lt=1e12, allow_inf_nan=False, description="Paid for each unit of that session, in the instrument's currency.")
    ]
    effective_ms: TimeMs = Field(
        description="The ex-date: the open of its session. Bars that open then or later trade without the dividend."
    )


class SymbolChange(Message):
    """The instrument trades as `new_symbol` from `effective_ms` on; its bars under `symbol` end there."""

    symbol: Symbol
    event: Literal["symbol_change"] = Field(description="Tells it from other events.")
    new_symbol: Symbol = Field(description="The symbol that takes its place.")
    effective_ms: TimeMs = Field(description="When the new symbol's first session opens.")


Restatement = InstrumentEvent | Dividend
"""An event after which the bars before it may have to be restated to be comparable with those after it."""
CorporateEvent = Restatement | SymbolChange
_corporate_event: TypeAdapter[CorporateEvent] = TypeAdapter(Annotated[CorporateEvent, Field(discriminator="event")])


def decode_corporate_event(value: bytes) -> CorporateEvent:
    """Return the split, dividend or change of symbol in `value`; raise pydantic.ValidationError when it is none of them."""
    return _corporate_event.validate_json(value)
