"""What is played, step by step in time: the features that the market service's own books make of candles, and charts beside them.

A bar is there at its end and not before: a step holds what becomes known at one instant, and nothing of what comes after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple, Protocol

from schemas import Candle, Instrument, InstrumentEvent, MarketFeatures, RunMode, Topic, VisionFeatures, topic_name
from services.core.folding.bar_fold import REFUSALS, Fold
from services.feeds.replay import in_event_time
from services.market.book import Book, Plan

MODE = RunMode.REPLAY


class FeedRecord(NamedTuple):
    """One record to be appended."""

    topic: str
    key: bytes
    value: bytes


class Step(NamedTuple):
    """What becomes known at one instant."""

    at_ms: int
    fed: list[FeedRecord]
    closed: list[MarketFeatures]
    """The closed bars among it, by which signals are judged."""
    size: int
    """How many of the feed's `total` this is."""
    history: bool
    """It lies before what is asked about."""


class Feed(Protocol):
    """Data to be played."""

    name: str
    unit: str
    """What `total` counts."""
    left_out: Counter[str]
    """What was not played, by reason."""

    @property
    def fingerprint(self) -> str:
        """Return a name for the data: the same one for the same bytes."""
        ...

    @property
    def instruments(self) -> Sequence[Instrument]:
        """Return what trades."""
        ...

    @property
    def splits(self) -> Sequence[InstrumentEvent]:
        """Return the splits."""
        ...

    @property
    def total(self) -> int:
        """Return how many bars or records there are."""
        ...

    def steps(self) -> Iterator[Step]:
        """Yield every step in order of time; each call begins anew."""
        ...


@dataclass
class CandleFeed:
    """Candles in memory, played at their ends."""

    name: str
    fingerprint: str
    instruments: Sequence[Instrument]
    splits: Sequence[InstrumentEvent]
    candles: Sequence[Candle]
    charts: Mapping[tuple[str, int], VisionFeatures]
    """By symbol and window end; each is there together with the bar that ends its window."""
    plan: Plan
    since_ms: int | None = None
    """Bars that end before this are history."""
    left_out: Counter[str] = field(default_factory=Counter)
    unit: str = "bars"

    def __post_init__(self) -> None:
        """Put the candles in order."""
        self.candles = in_event_time(self.candles)

    @property
    def total(self) -> int:
        """Return how many candles there are."""
        return len(self.candles)

    def steps(self) -> Iterator[Step]:
        """Yield the candles of each instant with what the market service makes of them."""
        self.left_out.clear()
        market, vision = topic_name(Topic.MARKET_FEATURES, MODE), topic_name(Topic.VISION_FEATURES, MODE)
        splits = {one.symbol: [split for split in self.splits if split.symbol == one.symbol] for one in self.instruments}
        books = {one.symbol: Book(one, splits[one.symbol], self.plan) for one in self.instruments}
        for at_ms, together in groupby(self.candles, key=lambda candle: candle.ts_close_ms):
            step = Step(at_ms, [], [], 0, history=self.since_ms is not None and at_ms < self.since_ms)
            charts: list[VisionFeatures] = []
            count = 0
            for candle in together:
                count += 1
                key = candle.symbol.encode()
                taken = books[candle.symbol].take(candle, count)
                self._count(taken.fold)
                for bar in taken.out:
                    step.fed.append(FeedRecord(market, key, bar.encode()))
                    if bar.closed:
                        step.closed.append(bar)
                if (chart := self.charts.get((candle.symbol, at_ms))) is not None and chart.interval == candle.interval:
                    charts.append(chart)
            step.fed.extend(FeedRecord(vision, chart.symbol.encode(), chart.encode()) for chart in charts)
            yield step._replace(size=count)

    def _count(self, fold: Fold | None) -> None:
        if fold is None:
            self.left_out["of an interval that is built from a faster one"] += 1
        elif fold in REFUSALS:
            self.left_out[REFUSALS[fold].value] += 1
        elif fold is Fold.DUPLICATE:
            self.left_out["duplicate"] += 1
