"""Infers the price increment (tick) from prices, and checks a given one against them.

A tick that is too coarse makes different prices print alike; one that is too fine wastes prompt tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

import numpy as np
import numpy.typing as npt

from schemas import Candle

_SHARE: Final = 0.95
"""Share of prices that must be multiples of the increment. 3 % of the demo's prices are not on 0.01 (sub-penny trades)."""
_SINGLE: Final = 1.2e-7
"""Relative error of a price that was a 32-bit float: 187.149994 is 187.15."""
_DOUBLE: Final = 1e-12
_MOST_DIGITS: Final = 12
_MANY: Final = 100
"""With this many different prices, a common factor is not a coincidence."""
_SIGNIFICANT: Final = 6
_STEPS_A_BAR: Final = 20

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Increment:
    """An increment. `exact` is false when the prices have none, as adjusted prices, and this one merely tells them apart."""

    text: str
    exact: bool


def infer_increment(candles: Sequence[Candle]) -> Increment:
    """Infer the increment; with few different prices of 1 or more it is at most 0.01."""
    prices = _prices(candles)
    distinct = np.unique(prices)
    digits = _digits(distinct)
    if digits is None:
        return Increment(_power(_telling_digits(candles, distinct)), exact=False)
    if len(distinct) < _MANY:
        return Increment(_power(max(digits, 2) if float(np.median(distinct)) >= 1 else digits), exact=True)
    common = int(np.gcd.reduce(np.rint(distinct * 10.0**digits).astype(np.int64)))
    # Ticks have only the prime factors 2 and 5: 0.25, 0.05, 1/32. Any other common factor is a coincidence.
    step = common if _others(common) == 1 else 1
    return Increment(_plain(Decimal(step).scaleb(-digits)), exact=True)


def check_increment(candles: Sequence[Candle], increment: str) -> None:
    """Raise ValueError, naming the increment that would fit, when `increment` does not fit the candles' prices."""
    try:
        step = float(Decimal(increment))
    except InvalidOperation:
        raise ValueError(f"{increment!r} is not a decimal number such as 0.01") from None
    if not (math.isfinite(step) and step > 0):
        raise ValueError(f"{increment!r} is not above 0")
    prices = _prices(candles)
    multiples = prices / step
    lost = np.minimum(np.maximum(1e-9, _SINGLE * multiples), 0.05)
    off = np.abs(multiples - np.rint(multiples)) > lost
    if float(np.mean(off)) <= 1 - _SHARE:
        return
    known = infer_increment(candles)
    if not known.exact and step <= _usual_range(candles) / _STEPS_A_BAR:
        return
    example = f"{Decimal(f'{float(prices[off][0]):.12g}'):f}"
    raise ValueError(
        f"{increment} does not fit: {int(off.sum())} of {len(prices)} prices are not multiples of it, such as {example}; use {known.text}"
    )


def _prices(candles: Sequence[Candle]) -> Float64:
    return np.array([[one.open, one.high, one.low, one.close] for one in candles], dtype=np.float64).ravel()


def _digits(prices: Float64) -> int | None:
    """Return the number of decimals of nearly all prices, None when they have no common number."""
    # First with the tolerance of 32-bit floats, which says nothing above a million steps, where it is as long as a step.
    for lost, most in ((_SINGLE / 2, 1e6), (_DOUBLE, 1e10)):
        for digits in range(_MOST_DIGITS + 1):
            steps = prices * 10.0**digits
            if float(steps.max()) > most:
                break
            if float(np.mean(np.abs(steps - np.rint(steps)) <= np.maximum(lost * steps, 1e-9))) >= _SHARE:
                return digits
    return None


def _others(value: int) -> int:
    for factor in (2, 5):
        while value > 1 and value % factor == 0:
            value //= factor
    return value


def _telling_digits(candles: Sequence[Candle], prices: Float64) -> int:
    """Return how many decimals tell prices without a tick apart."""
    significant = _SIGNIFICANT - 1 - math.floor(math.log10(float(np.median(prices))))
    span = _usual_range(candles) / _STEPS_A_BAR
    return min(_MOST_DIGITS, max(0, significant, math.ceil(-math.log10(span)) if span > 0 else 0))


def _usual_range(candles: Sequence[Candle]) -> float:
    return float(np.median([one.high - one.low for one in candles]))


def _power(digits: int) -> str:
    return _plain(Decimal(1).scaleb(-digits))


def _plain(value: Decimal) -> str:
    return f"{value.normalize():f}"
