"""An answer's prices: tenths of ATR from the last close become prices on the tick, none more generous than what was said."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from typing import Final, Literal

from schemas import Instrument
from services.fusion.decide.answer import AnswerError, Entry

_MAX_PRICE: Final = Decimal(10) ** 12
"""As in the contracts."""


@dataclass(frozen=True, slots=True)
class Prices:
    """An answer's prices on the tick, as decimal strings."""

    entry_type: Literal["market", "limit"]
    entry: str
    stop: str
    target: str


def prices(answer: Entry, close: float, atr: float, instrument: Instrument) -> Prices:
    """Return the prices that `answer` means.

    They are rounded so that none becomes more generous: entry towards the last close's worse side never passes what was said, the
    stop is rounded away from the entry and the target towards it. Raises AnswerError when they collapse, fall to zero or leave the
    range of prices.
    """
    last, unit = Decimal(repr(close)), Decimal(repr(atr)) / 10
    up, down = ROUND_CEILING, ROUND_FLOOR
    buy = answer.action == "buy"
    said = [last + offset * unit for offset in (answer.entry, answer.stop, answer.target)]
    if max(map(abs, said)) >= _MAX_PRICE:
        raise AnswerError("answer_invalid", f"prices leave the range below {_MAX_PRICE} (close {close}, atr {atr})")
    entry, stop, target = (_on_tick(price, instrument, down if buy else up) for price in said)
    side = 1 if buy else -1
    if min(entry, stop, target) <= 0 or not side * stop < side * entry < side * target:
        raise AnswerError(
            "answer_invalid",
            f"prices collapse on the tick {instrument.increment_at(last)}: entry {entry}, stop {stop}, target {target} "
            f"(close {close}, atr {atr})",
        )
    return Prices("market" if side * answer.entry >= 0 else "limit", f"{entry:f}", f"{stop:f}", f"{target:f}")


def on_tick(price: float, instrument: Instrument) -> str:
    """Return `price` on the instrument's nearest tick, as a decimal string."""
    return f"{_on_tick(Decimal(repr(price)), instrument, ROUND_HALF_EVEN):f}"


def _on_tick(price: Decimal, instrument: Instrument, rounding: str) -> Decimal:
    tick = instrument.increment_at(price)
    return ((price / tick).to_integral_value(rounding) * tick).quantize(tick)
