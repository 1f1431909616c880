"""Bars as arrays, restated for splits and dividends: positions are marked with their closes, and the baselines trade on them.

A price jump that no split explains is taken as a split of that ratio. Nobody knows what a position made over it: the judge gives it no
return, and baselines that count it as a gain or loss would be no comparison.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from schemas import InstrumentEvent, Restatement, interval_ms
from services.core.restatement import factors, jumps
from services.scoring.report.report_input import ReportBar
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
    """One symbol's bars of one interval, in order, on the scale of the last one."""

    opened_ms: Times
    closed_ms: Times
    open: Floats
    high: Floats
    low: Floats
    close: Floats


class Prices:
    """Closes by symbol and interval, and what each symbol's prices are restated by."""

    def __init__(self, bars: Mapping[str, Sequence[ReportBar]], restatements: Iterable[Restatement], max_jump: float = math.inf) -> None:
        """Sort `bars`, and restate those before each split or dividend; of several bars with one end the last is kept.

        A close that is more than `max_jump` times the one before it, or less than the inverse, is suspected to follow a split.
        """
        self.suspected: dict[str, list[int]] = {}
        """By symbol: when the splits took effect that nobody published."""
        self._splits: dict[str, dict[int, float]] = defaultdict(dict)
        self._dividends: dict[str, dict[int, float]] = defaultdict(dict)
        self._closes: dict[tuple[str, str], Closes] = {}
        self._bars: dict[tuple[str, str], Bars] = {}
        events: dict[str, list[Restatement]] = defaultdict(list)
        for event in restatements:
            events[event.symbol].append(event)
        for symbol, of_symbol in bars.items():
            by_interval: dict[str, dict[int, ReportBar]] = defaultdict(dict)
            for bar in of_symbol:
                by_interval[bar.interval][bar.ts_close_ms] = bar
            traded = {interval: _in_order(by_interval[interval]) for interval in sorted(by_interval, key=interval_ms)}
            if traded:
                self._learn(symbol, events[symbol], next(iter(traded.values())), max_jump)
            for interval, raw in traded.items():
                restated = self._restated(symbol, raw)
                self._bars[symbol, interval] = restated
                self._closes[symbol, interval] = Closes(restated.closed_ms, restated.close)

    def _learn(self, symbol: str, events: Sequence[Restatement], raw: Bars, max_jump: float) -> None:
        """Note by what the symbol's prices are restated; `raw` are its bars of the finest interval."""
        splits, dividends = self._splits[symbol], self._dividends[symbol]
        splits |= {event.effective_ms: event.ratio for event in events if isinstance(event, InstrumentEvent)}
        for event in events:
            before = int(np.searchsorted(raw.closed_ms, event.effective_ms, side="right"))
            if not isinstance(event, InstrumentEvent) and before:
                # A dividend is paid for the units of its session: a split on the same day comes first.
                close = float(raw.close[before - 1]) / splits.get(event.effective_ms, 1.0)
                dividends[event.effective_ms] = factors(event, close).price
        restated = self._restated(symbol, raw)
        for at in jumps(restated.close, max_jump).tolist():
            close, opened = float(restated.close[at - 1]), float(restated.open[at])
            at_open = len(jumps(np.array([close, opened]), max_jump)) > 0
            effective_ms = int(raw.opened_ms[at] if at_open else raw.closed_ms[at] - 1)
            splits[effective_ms] = splits.get(effective_ms, 1.0) * close / (opened if at_open else float(restated.close[at]))
            self.suspected.setdefault(symbol, []).append(effective_ms)

    def _restated(self, symbol: str, raw: Bars) -> Bars:
        factor = self.factor(symbol, raw.closed_ms)
        prices = [of / factor for of in (raw.open, raw.high, raw.low, raw.close)]
        for effective_ms in self.suspected.get(symbol, ()):
            # Of a bar with prices on both scales only the close can be used.
            torn = (raw.opened_ms < effective_ms) & (effective_ms < raw.closed_ms)
            for of in prices[:3]:
                of[torn] = prices[3][torn]
        return Bars(raw.opened_ms, raw.closed_ms, *prices)

    def factor(self, symbol: str, at_ms: Times) -> Floats:
        """Return what prices at these times are divided by: the product of the factors of all later splits and dividends.

        A bar that ends at an event's instant was traded before it.
        """
        return _product(self._splits.get(symbol, {}), at_ms) * _product(self._dividends.get(symbol, {}), at_ms)

    def adjusted(self, symbol: str, price: Floats, close: Floats, at_ms: Times) -> Floats:
        """Return prices (n,) traded at these times on the scale of the closes: of all that splits allow, the nearest to `close` (n,).

        An outcome's prices are on its signal's scale, also after a split, and an outcome does not say when its signal was made.
        """
        price = price / _product(self._dividends.get(symbol, {}), at_ms)
        ratios = [ratio for _, ratio in sorted(self._splits.get(symbol, {}).items(), reverse=True)]
        if not ratios:
            return price
        scaled = price[:, None] / np.cumprod([1.0, *ratios])[None, :]
        nearest = np.abs(np.log(scaled / close[:, None])).argmin(axis=1)
        on_scale: Floats = scaled[np.arange(len(price)), nearest]
        return on_scale

    def suspected_ratios(self, symbol: str) -> dict[int, float]:
        """Return the ratios of the symbol's suspected splits by when they took effect."""
        return {effective_ms: self._splits[symbol][effective_ms] for effective_ms in self.suspected.get(symbol, ())}

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


def _in_order(by_end: Mapping[int, ReportBar]) -> Bars:
    in_order = [bar for _, bar in sorted(by_end.items())]
    times = np.array([(bar.ts_open_ms, bar.ts_close_ms) for bar in in_order], dtype=np.int64)
    prices = np.array([(bar.open, bar.high, bar.low, bar.close) for bar in in_order], dtype=np.float64)
    return Bars(*times.T, *prices.T)


def _product(factor_at: Mapping[int, float], at_ms: Times) -> Floats:
    product = np.ones(len(at_ms))
    for effective_ms, factor in factor_at.items():
        product[at_ms <= effective_ms] *= factor
    return product
