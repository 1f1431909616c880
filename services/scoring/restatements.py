"""Splits and dividends of one symbol, and bars on the scale of the prices that were in force at an earlier moment. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from schemas import Dividend, Restatement
from services.scoring.paper_position import Bar


class Restatements:
    """The splits and dividends that a symbol's prices have to be restated for, by the time from which they are in force."""

    def __init__(self, events: Iterable[Restatement] = ()) -> None:
        """Take `events`; a second one of the same kind and time changes nothing."""
        self.splits: list[tuple[int, float]] = []
        self.dividends: list[tuple[int, float]] = []
        for event in events:
            self.add(event)

    def add(self, event: Restatement) -> bool:
        """Take one more; return whether it was not known yet."""
        known, value = (self.dividends, event.amount) if isinstance(event, Dividend) else (self.splits, event.ratio)
        if any(effective_ms == event.effective_ms for effective_ms, _ in known):
            return False
        known.append((event.effective_ms, value))
        known.sort()
        return True

    def add_split(self, effective_ms: int, ratio: float) -> None:
        """Take a split that nobody published; one at a time that has a split already multiplies it."""
        known = dict(self.splits)
        known[effective_ms] = known.get(effective_ms, 1.0) * ratio
        self.splits = sorted(known.items())

    def scaled(self, bar: Bar, stands_ms: int) -> Bar:
        """Return `bar` on the scale of prices that stand since `stands_ms`; dividends since then are added to its prices."""
        if not (self.splits or self.dividends):
            return bar
        ratio, paid = self._since(stands_ms, bar.ts_open_ms)
        if ratio == 1.0 and not paid:
            return bar
        opened, high, low, close = (price * ratio + paid for price in (bar.open, bar.high, bar.low, bar.close))
        return bar._replace(open=opened, high=high, low=low, close=close)

    def scaled_price(self, price: float, at_ms: int, stands_ms: int) -> float:
        """Return a price of `at_ms` on the scale of prices that stand since `stands_ms`."""
        ratio, paid = self._since(stands_ms, at_ms)
        return price * ratio + paid

    def _since(self, stands_ms: int, until_ms: int) -> tuple[float, float]:
        # A bar that spans a split is on the old scale as a whole, and what is decided after it on the new one.
        ratio = self._ratio(stands_ms, until_ms)
        paid = sum(amount * self._ratio(stands_ms, at_ms) for at_ms, amount in self.dividends if stands_ms <= at_ms <= until_ms)
        return ratio, paid

    def _ratio(self, after_ms: int, until_ms: int) -> float:
        """Return the product of the ratios of the splits that took effect from `after_ms` to `until_ms`."""
        return math.prod(ratio for effective_ms, ratio in self.splits if after_ms <= effective_ms <= until_ms)
