"""A log as the data of a backtest: its inputs as they were published, from an exported log or from the topics.

A log that was written live is played at its append times. One that was written faster or later, such as recorded data, has no such
times: its closed bars, vision features, notes and positions are played at their event times. A forming bar, and a position's end, are
then played with the record before them, except for forming bars of the fastest interval, which are skipped: nothing says when their
values were known.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from schemas import (
    Instrument,
    MarketFeatures,
    Message,
    Restatement,
    RunMode,
    Topic,
    VisionFeatures,
    interval_ms,
    topic_name,
)
from services.backtest.feed import MODE, FeedRecord, Step
from services.core.bus import Record
from services.core.table_inputs import table_specs, topic_specs
from services.replay.log_source import ReferenceData

M = TypeVar("M", bound=Message)


class _Played(NamedTuple):
    at_ms: int
    rank: int
    """The topic's place in the order of an instant."""
    fed: FeedRecord
    history: bool
    closed: MarketFeatures | None


@dataclass
class LogFeed:
    """Records in memory."""

    name: str
    run_mode: RunMode
    """The run mode in which they were written."""
    reference: ReferenceData
    records: Sequence[Record]
    """Records of both inputs, those of one partition in order of offset."""
    fastest: str
    """The first of `fusion.intervals`."""
    since_ms: int | None = None
    """Records appended before this are history."""
    left_out: Counter[str] = field(default_factory=Counter)
    unit: str = "records"

    @property
    def fingerprint(self) -> str:
        """Return a hash of the records."""
        digest = hashlib.sha256()
        for record in self._all:
            digest.update(f"{record.topic}/{record.partition}/{record.offset}/{record.timestamp_ms}/".encode() + (record.value or b""))
        return digest.hexdigest()[:16]

    @property
    def instruments(self) -> list[Instrument]:
        """Return the latest version of every instrument."""
        latest = (told[-1].instrument for _, told in sorted(self.reference.instruments.items()))
        return [one.model_copy(update={"run_mode": MODE}) for one in latest if one is not None]

    @property
    def restatements(self) -> list[Restatement]:
        """Return every split and dividend, known from the start."""
        events = (one.restatement for _, of_symbol in sorted(self.reference.restatements.items()) for one in of_symbol)
        return [event.model_copy(update={"run_mode": MODE}) for event in events if event is not None]

    @property
    def has_charts(self) -> bool:
        """Return whether there are vision features among the records."""
        return any(record.topic == topic_name(Topic.VISION_FEATURES, self.run_mode) for record in self.records)

    @property
    def total(self) -> int:
        """Return the number of records."""
        return len(self._all)

    @property
    def _all(self) -> list[Record]:
        """Return the records of every input; those of tables only as long as there are others to come."""
        last_ms = max((record.timestamp_ms for record in self.records), default=0)
        tables = self.reference.tables.values()
        return [*(record for record in tables if record.timestamp_ms <= last_ms), *self.records]

    def steps(self) -> Iterator[Step]:
        """Yield the records of each instant."""
        self.left_out.clear()
        played = list(self._played())
        played.sort(key=itemgetter(0, 1))
        while played and played[-1].rank < len(table_specs()):
            played.pop()  # nothing is decided after it
        for at_ms, together in groupby(played, key=itemgetter(0)):
            of_instant = list(together)
            closed = [one.closed for one in of_instant if one.closed is not None]
            history = all(one.history for one in of_instant)
            yield Step(at_ms, [one.fed for one in of_instant], closed, len(of_instant), history)

    def _played(self) -> Iterator[_Played]:
        appended = self._written_live(topic_name(Topic.MARKET_FEATURES, self.run_mode))
        # Within an instant, a bar's decision rests on the notes of its instant, and vision features follow their bar.
        order, specs = (*table_specs(), Topic.MARKET_FEATURES, Topic.VISION_FEATURES), topic_specs()
        topics = {topic_name(topic, self.run_mode): (rank, topic) for rank, topic in enumerate(order)}
        last_ms: dict[tuple[str, int], int] = {}
        for record in self._all:
            place = (record.topic, record.partition)
            before_ms = last_ms.get(place, 0)
            rank, topic = topics[record.topic]
            decoded = _decoded(record, specs[topic].messages[0])
            at_ms = record.timestamp_ms if appended else self._event_ms(decoded, before_ms)
            if at_ms is None:
                self.left_out[f"forming bars of {self.fastest}, as nothing says when they were known"] += 1
                continue
            at_ms = last_ms[place] = max(at_ms, before_ms)
            value = record.value if decoded is None else decoded.model_copy(update={"run_mode": MODE}).encode()
            closed = decoded if isinstance(decoded, MarketFeatures) and decoded.closed else None
            history = self.since_ms is not None and record.timestamp_ms < self.since_ms
            yield _Played(at_ms, rank, FeedRecord(topic_name(topic, MODE), record.key or b"", value), history, closed)

    def _event_ms(self, decoded: Message | None, before_ms: int) -> int | None:
        match decoded:
            case VisionFeatures():
                return decoded.window_end_ms
            case MarketFeatures() if decoded.closed:
                return decoded.ts_close_ms
            case MarketFeatures() if decoded.interval == self.fastest:
                return None
            case _:
                return getattr(decoded, "ts_ms", before_ms)  # of a table's message; None is a position's end, or cannot be read

    def _written_live(self, market: str) -> bool:
        """Return whether most closed bars were appended less than one interval after their end."""
        closed = prompt = 0
        for record in self.records:
            bar = _decoded(record, MarketFeatures) if record.topic == market else None
            if bar is not None and bar.closed:
                closed += 1
                prompt += 0 <= record.timestamp_ms - bar.ts_close_ms < interval_ms(bar.interval)
        return 2 * prompt > closed


def _decoded(record: Record, model: type[M]) -> M | None:
    try:
        return model.decode(record.value or b"")
    except ValidationError:
        return None  # the worker dead-letters it, as it did then
