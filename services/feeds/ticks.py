"""The price increment that prices are on, as the prices themselves show it.

A tick that is too coarse makes different prices print alike; one that is too fine costs tokens and says nothing.
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
"""This share of the prices lies on the increment: trades inside a cent put 3 % of the demo's stocks beside it."""
_SINGLE: Final = 1.2e-7
"""What is lost by a price that was once a 32-bit float: 187.149994 is 187.15."""
_DOUBLE: Final = 1e-12
_MOST_DIGITS: Final = 12
_MANY: Final = 100
"""From so many different prices on, what all of them are multiples of is no chance."""
_SIGNIFICANT: Final = 6
_STEPS_A_BAR: Final = 20

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Increment:
    """An increment, and whether the prices lie on it or merely are told apart by it, as adjusted prices lie on none."""

    text: str
    exact: bool


def infer_increment(candles: Sequence[Candle]) -> Increment:
    """Return the increment of the candles' prices, at most 0.01 for prices of 1 and more while few prices are known."""
    prices = _prices(candles)
    distinct = np.unique(prices)
    digits = _digits(distinct)
    if digits is None:
        return Increment(_power(_telling_digits(candles, distinct)), exact=False)
    if len(distinct) < _MANY:
        return Increment(_power(max(digits, 2) if float(np.median(distinct)) >= 1 else digits), exact=True)
    common = int(np.gcd.reduce(np.rint(distinct * 10.0**digits).astype(np.int64)))
    # Exchanges' ticks are made of twos and fives: 0.25, 0.05, 1/32. Any other common factor is chance.
    step = common if _others(common) == 1 else 1
    return Increment(_plain(Decimal(step).scaleb(-digits)), exact=True)


def check_increment(candles: Sequence[Candle], increment: str) -> None:
    """Raise ValueError, naming the increment that would fit, when `increment` does not fit the candles' prices."""
    try:
        step = float(Decimal(increment))
    except InvalidOperation:
        raise ValueError(f"{increment!r} is no decimal number such as 0.01") from None
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
    example = f"{float(prices[off][0]):.12g}"
    raise ValueError(
        f"{increment} does not fit: {int(off.sum())} of {len(prices)} prices lie between its steps, such as {example}; use {known.text}"
    )


def _prices(candles: Sequence[Candle]) -> Float64:
    return np.array([[one.open, one.high, one.low, one.close] for one in candles], dtype=np.float64).ravel()


def _digits(prices: Float64) -> int | None:
    """Return how many decimals nearly all prices have, None when they have no end."""
    # First as 32-bit floats print; that says nothing past a million steps, where the loss itself is as long as a step.
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
    """Return the decimals that tell prices without a tick apart."""
    significant = _SIGNIFICANT - 1 - math.floor(math.log10(float(np.median(prices))))
    span = _usual_range(candles) / _STEPS_A_BAR
    return min(_MOST_DIGITS, max(0, significant, math.ceil(-math.log10(span)) if span > 0 else 0))


def _usual_range(candles: Sequence[Candle]) -> float:
    return float(np.median([one.high - one.low for one in candles]))


def _power(digits: int) -> str:
    return _plain(Decimal(1).scaleb(-digits))


def _plain(value: Decimal) -> str:
    return f"{value.normalize():f}"
