"""By what factors a split or a dividend restates the bars before it, so that they compare with the bars after it. Pure.

A split changes the unit: prices are divided and volumes multiplied by its ratio. A dividend leaves the price: earlier prices are divided
by `close / (close - amount)`, `close` the last one before the ex-date, so that returns count it. A jump of the price that no event
explains is suspected to be a split.
Source: the adjusted close of CRSP and of most data vendors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas import Dividend, Instrument, InstrumentEvent, Restatement

MAX_SPLIT_SCALE: Final = 1e15
"""What all splits of a symbol together may make of one unit, or of the inverse: beyond it prices would end as 0 or infinite."""
LEAST_PRICE: Final = 1e-13
"""A dividend that would leave the last price before it below this, in the instrument's currency, restates nothing."""


class Factors(NamedTuple):
    """Earlier prices are divided by `price`, and earlier volumes multiplied by `volume`."""

    price: float
    volume: float


def restates(event: Restatement, instrument: Instrument) -> bool:
    """Return whether candles of `instrument` are restated for `event`: they are not adjusted for it yet, and returns count it."""
    if isinstance(event, Dividend):
        return instrument.returns == "total" and instrument.price_adjustment != "split_dividend"
    return instrument.price_adjustment == "none"


def restating(events: Iterable[Restatement], instruments: Mapping[str, Instrument]) -> list[Restatement]:
    """Return the `events` that candles are restated for. Of symbols that `instruments` lacks, these are the splits."""
    return [
        event
        for event in events
        if (restates(event, known) if (known := instruments.get(event.symbol)) is not None else isinstance(event, InstrumentEvent))
    ]


def factors(event: Restatement, close: float | None, price_since: float = 1.0) -> Factors:
    """Return the factors for bars before `event`, the last of which closed at `close`; None when there are none.

    `price_since` is by what that close was divided already for later events. A dividend of all but `LEAST_PRICE` of the close, or of more,
    restates nothing.
    """
    if not isinstance(event, Dividend):
        return Factors(event.ratio, event.ratio)
    amount = event.amount / price_since
    return Factors(close / (close - amount) if close is not None and close - amount >= LEAST_PRICE else 1.0, 1.0)


def jumps(closes: NDArray[np.float64], limit: float) -> NDArray[np.intp]:
    """Return the indices of the `closes`, restated for all known events, that are suspected to follow an unpublished split.

    They are more than `limit` times the close before them, or less than the inverse. Workers block, charts are not drawn and positions
    get no return over such a jump.
    """
    ratios = closes[1:] / closes[:-1]
    return np.flatnonzero((ratios > limit) | (ratios < 1 / limit)) + 1
