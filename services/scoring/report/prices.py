"""Bars as arrays, adjusted for splits: positions are marked with their closes, and the baselines trade on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from schemas import InstrumentEvent, interval_ms
from services.scoring.report.model import ReportBar
from services.scoring.report.statistics import Floats, Times


@dataclass(frozen=True, slots=True)
class Closes:
    """One symbol's closes of one interval, in order, one a time."""

    at_ms: Times
    price: Floats

    def __len__(self) -> int:
        return len(self.at_ms)

    def between(self, start_ms: int, end_ms: int) -> Closes:
        """Return those from `start_ms` to `end_ms`, both included."""
        first, last = np.searchsorted(self.at_ms, [start_ms, end_ms + 1])
        return Closes(self.at_ms[first:last], self.price[first:last])


@dataclass(frozen=True, slots=True)
class Bars:
    """One symbol's bars of one interval, in order, adjusted for splits."""

    opened_ms: Times
    closed_ms: Times
    open: Floats
    high: Floats
    low: Floats
    close: Floats


class Prices:
    """Closes by symbol and interval, and each symbol's split factors."""

    def __init__(self, bars: Mapping[str, Sequence[ReportBar]], splits: Iterable[InstrumentEvent]) -> None:
        """Sort `bars`; of several with one end the last is kept, and those before a split are divided by its ratio."""
        self._splits: dict[str, dict[int, float]] = defaultdict(dict)
        for split in splits:
            self._splits[split.symbol][split.effective_ms] = split.ratio  # the event again replaces itself
        self._closes: dict[tuple[str, str], Closes] = {}
        self._bars: dict[tuple[str, str], Bars] = {}
        for symbol, of_symbol in bars.items():
            by_interval: dict[str, dict[int, ReportBar]] = defaultdict(dict)
            for bar in of_symbol:
                by_interval[bar.interval][bar.ts_close_ms] = bar
            for interval, by_end in by_interval.items():
                in_order = [bar for _, bar in sorted(by_end.items())]
                at_ms = np.array([bar.ts_close_ms for bar in in_order], dtype=np.int64)
                opened_ms = np.array([bar.ts_open_ms for bar in in_order], dtype=np.int64)
                traded = np.array([(bar.open, bar.high, bar.low, bar.close) for bar in in_order], dtype=np.float64)
                adjusted = traded.T / self.factor(symbol, at_ms)
                self._bars[symbol, interval] = Bars(opened_ms, at_ms, *adjusted)
                self._closes[symbol, interval] = Closes(at_ms, adjusted[3])

    def factor(self, symbol: str, at_ms: Times) -> Floats:
        """Return what prices at these times are divided by: the product of the ratios of all later splits.

        A bar that ends at the split's instant was traded before it.
        """
        factor = np.ones(len(at_ms))
        for effective_ms, ratio in self._splits.get(symbol, {}).items():
            factor[at_ms <= effective_ms] *= ratio
        return factor

    def adjusted(self, symbol: str, price: Floats, close: Floats) -> Floats:
        """Return traded prices (n,) on the scale of the closes: of all that the symbol's splits allow, the nearest to `close` (n,).

        An outcome's prices are on its signal's scale, also after a split, and an outcome does not say when its signal was made.
        """
        ratios = [ratio for _, ratio in sorted(self._splits.get(symbol, {}).items(), reverse=True)]
        if not ratios:
            return price
        scaled = price[:, None] / np.cumprod([1.0, *ratios])[None, :]
        nearest = np.abs(np.log(scaled / close[:, None])).argmin(axis=1)
        on_scale: Floats = scaled[np.arange(len(price)), nearest]
        return on_scale

    def bars(self, symbol: str, interval: str) -> Bars | None:
        """Return the bars of that interval, None when there are none."""
        return self._bars.get((symbol, interval))

    def finest(self, symbol: str) -> Closes | None:
        """Return the closes of the symbol's shortest interval, None when there are none."""
        intervals = [interval for name, interval in self._closes if name == symbol]
        return self._closes[symbol, min(intervals, key=interval_ms)] if intervals else None

    def symbols(self) -> list[str]:
        """Return the symbols that have closes, sorted."""
        return sorted({symbol for symbol, _ in self._closes})

    def span(self) -> tuple[int, int] | None:
        """Return the first and the last close's time, None when there are none."""
        if not self._closes:
            return None
        return (
            min(int(closes.at_ms[0]) for closes in self._closes.values()),
            max(int(closes.at_ms[-1]) for closes in self._closes.values()),
        )
