"""The data of a backtest, step by step in time: features that the market service's own books make of candles, and vision features.

A bar becomes known at its end: a step holds what becomes known at one instant, and nothing from later.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple, Protocol

from schemas import Candle, Instrument, MarketFeatures, Note, Restatement, RunMode, Topic, VisionFeatures, topic_name
from services.core.folding.bar_fold import REFUSALS, Fold
from services.feeds.paced_publishing import in_event_time
from services.market.book import Book, Plan
from services.market.own_features import FeatureFunction

MODE = RunMode.REPLAY


class FeedRecord(NamedTuple):
    """One record to append."""

    topic: str
    key: bytes
    value: bytes | None


class Step(NamedTuple):
    """What becomes known at one instant."""

    at_ms: int
    fed: list[FeedRecord]
    closed: list[MarketFeatures]
    """The closed bars among the records, which signals are judged by."""
    size: int
    """How many of the feed's `total` this is."""
    history: bool
    """Whether the step is before the time from which decisions are made."""


class Feed(Protocol):
    """Data to play."""

    name: str
    unit: str
    """What `total` counts."""
    left_out: Counter[str]
    """Counts of what is not played, by reason."""

    @property
    def fingerprint(self) -> str:
        """Return a hash of the data."""
        ...

    @property
    def instruments(self) -> Sequence[Instrument]:
        """Return the instruments."""
        ...

    @property
    def restatements(self) -> Sequence[Restatement]:
        """Return the splits and dividends."""
        ...

    @property
    def total(self) -> int:
        """Return the number of bars or records."""
        ...

    def steps(self) -> Iterator[Step]:
        """Yield every step in order of time; each call starts at the beginning."""
        ...


@dataclass
class CandleFeed:
    """Candles in memory, each played at its end."""

    name: str
    fingerprint: str
    instruments: Sequence[Instrument]
    restatements: Sequence[Restatement]
    candles: Sequence[Candle]
    charts: Mapping[tuple[str, int], VisionFeatures]
    """Vision features by symbol and window end; each is played with the bar that ends its window."""
    plan: Plan
    since_ms: int | None = None
    """Bars that end before this are history."""
    own: FeatureFunction | None = None
    """Computes features of the user's own."""
    added: Mapping[tuple[str, str, int], Mapping[str, float]] = field(default_factory=dict)
    """Features of the user's own by symbol, interval and close of their bar."""
    notes: Sequence[Note] = ()
    """In order of time; each is played when it was written, those from before the first bar with it."""
    left_out: Counter[str] = field(default_factory=Counter)
    unit: str = "bars"

    def __post_init__(self) -> None:
        """Sort the candles by event time."""
        self.candles = in_event_time(self.candles)

    @property
    def total(self) -> int:
        """Return the number of candles."""
        return len(self.candles)

    def steps(self) -> Iterator[Step]:
        """Yield the features of each instant's candles, as the market service makes them, and the notes."""
        ahead, first = deque(self.notes), True
        for step in self._bar_steps():
            while not first and ahead and ahead[0].ts_ms < step.at_ms:
                at_ms = ahead[0].ts_ms
                yield Step(at_ms, _taken(ahead, at_ms), [], 0, history=self._is_history(at_ms))
            first = False
            yield step._replace(fed=[*_taken(ahead, step.at_ms), *step.fed])

    def _is_history(self, at_ms: int) -> bool:
        return self.since_ms is not None and at_ms < self.since_ms

    def _bar_steps(self) -> Iterator[Step]:
        self.left_out.clear()
        market, vision = topic_name(Topic.MARKET_FEATURES, MODE), topic_name(Topic.VISION_FEATURES, MODE)
        events = {one.symbol: [event for event in self.restatements if event.symbol == one.symbol] for one in self.instruments}
        books = {one.symbol: Book(one, events[one.symbol], self.plan, self.own) for one in self.instruments}
        for at_ms, together in groupby(self.candles, key=lambda candle: candle.ts_close_ms):
            step = Step(at_ms, [], [], 0, history=self._is_history(at_ms))
            charts: list[VisionFeatures] = []
            count = 0
            for candle in together:
                count += 1
                key = candle.symbol.encode()
                taken = books[candle.symbol].take(candle, count)
                self._count(taken.fold)
                for computed in taken.out:
                    bar = self._with_added(computed)
                    step.fed.append(FeedRecord(market, key, bar.encode()))
                    if bar.closed:
                        step.closed.append(bar)
                if (chart := self.charts.get((candle.symbol, at_ms))) is not None and chart.interval == candle.interval:
                    charts.append(chart)
            step.fed.extend(FeedRecord(vision, chart.symbol.encode(), chart.encode()) for chart in charts)
            yield step._replace(size=count)

    def _with_added(self, bar: MarketFeatures) -> MarketFeatures:
        added = self.added.get((bar.symbol, bar.interval, bar.ts_close_ms))
        return bar if not added else bar.model_copy(update={"features": {**bar.features, **added}})

    def _count(self, fold: Fold | None) -> None:
        if fold is None:
            self.left_out["of an interval that is built from a faster one"] += 1
        elif fold in REFUSALS:
            self.left_out[REFUSALS[fold].value] += 1
        elif fold is Fold.DUPLICATE:
            self.left_out["duplicate"] += 1


def _taken(notes: deque[Note], until_ms: int) -> list[FeedRecord]:
    """Remove the notes that were written up to an instant, and return their records."""
    taken = []
    while notes and notes[0].ts_ms <= until_ms:
        note = notes.popleft()
        taken.append(FeedRecord(topic_name(Topic.NOTES, MODE), note.symbol.encode(), note.encode()))
    return taken
