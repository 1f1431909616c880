"""A market of fifty symbols that runs as fast as the worker decides, and sums over its topics that keep no record."""

from __future__ import annotations

from collections import Counter
from typing import Final
from uuid import UUID

from schemas import AuditRecord, Outcome, Signal, Topic, decode_signal_message, topic_name
from services.core.bus import Record
from tests.integration.fusion.feed import bar, window
from tests.integration.fusion.logs import Logs
from tests.integration.fusion.site import PARTITIONS, Site

SYMBOLS: Final = tuple(f"SOAK{number}-USD.CBSE" for number in range(50))
HISTORY_BARS: Final = 260
"""So many closed bars fill every book: what grows afterwards is not what a start fills."""
_VISION_EVERY: Final = 3


class SoakLogs(Logs):
    """Counts what is on the topics instead of keeping it: a day of fifty symbols is a gigabyte of records."""

    def __init__(self, site: Site) -> None:
        super().__init__(site.bus, site.run_mode, PARTITIONS)
        self._signal_audit = topic_name(Topic.SIGNAL_AUDIT, site.run_mode)
        self._strategy_signals = topic_name(Topic.STRATEGY_SIGNALS, site.run_mode)
        self._dead = topic_name(Topic.DEAD_LETTERS, site.run_mode)
        self.outcome_of: dict[UUID, str] = {}
        self.by_reason: Counter[str] = Counter()
        self.published: set[UUID] = set()
        self.unacknowledged: set[UUID] = set()
        """Triggers whose signal the broker did not acknowledge in time: it may be on the topic or not."""
        self.trigger_of: dict[UUID, UUID] = {}
        """By signal id."""
        self.repeated = 0
        self.dead = 0

    def _take(self, record: Record) -> None:
        if record.topic == self._signal_audit:
            audit = AuditRecord.decode(record.value or b"")
            if (
                self.outcome_of.setdefault(audit.trigger_id, audit.outcome.value) != audit.outcome.value
                or audit.trigger_id in self.published
            ):
                self.repeated += 1
            self.by_reason[audit.reason or audit.outcome.value] += 1
            if audit.outcome is Outcome.PUBLISHED and audit.signal_id is not None:
                self.published.add(audit.signal_id)
            elif audit.reason == "publish_unacknowledged":
                self.unacknowledged.add(audit.trigger_id)
        elif record.topic == self._strategy_signals:
            message = decode_signal_message(record.value or b"")
            if isinstance(message, Signal):
                self.trigger_of[message.signal_id] = message.trigger_id
        elif record.topic == self._dead:
            self.dead += 1


class SoakSite(Site):
    """A site with that market."""

    async def open_market(self) -> None:
        """Publish instruments and history."""
        # The cache of prompt blocks is full within the first hour, so that what grows later is no cache.
        self.values["redis"]["local_bytes"] = 500_000
        # Time-outs as in production: nothing is killed here that must be noticed soon.
        self.values["bus"] = {"url": self.values["bus"]["url"]}
        self.values["engine"] = {"urls": self.values["engine"]["urls"]}
        self.sums = SoakLogs(self)
        self.logs = self.sums
        await self.open(symbols=SYMBOLS, history=HISTORY_BARS)
        self.minutes = 0
        self.records = 0

    async def minute(self) -> None:
        """Publish the next minute of every symbol, and return once each of its bars has its outcome: none is conflated."""
        numbers = {symbol: self.numbers.take(symbol) for symbol in SYMBOLS}
        await self.publish(Topic.MARKET_FEATURES, [bar(symbol, number, self.run_mode) for symbol, number in numbers.items()])
        seen = [symbol for at, symbol in enumerate(SYMBOLS) if (at + self.minutes) % _VISION_EVERY == 0]
        await self.publish(Topic.VISION_FEATURES, [window(symbol, numbers[symbol], self.run_mode) for symbol in seen])
        self.minutes += 1
        self.records += len(SYMBOLS) + len(seen)
        bars = self.minutes * len(SYMBOLS)
        await self.sums.until(lambda: len(self.sums.outcome_of) >= bars, f"outcomes of minute {self.minutes}", told=self.tails)
