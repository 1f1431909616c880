"""The topics as a client outside of the containers reads them: librdkafka on the published port of loopback."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final
from uuid import UUID

from confluent_kafka import Consumer, TopicPartition

from schemas import AuditRecord, MarketFeatures, Outcome, RunMode, Signal, Topic, decode_signal_message, topic_name

BOOTSTRAP: Final = "127.0.0.1:9092"
_POLL_S: Final = 1.0
_BATCH: Final = 5_000
_DECISION_S: Final = 30.0


class Topics:
    """Reads whole topics of run mode `demo`."""

    def ends(self, topic: Topic) -> dict[int, int]:
        """Return the end offset of each partition."""
        consumer = self._consumer()
        try:
            return self._ends(consumer, topic_name(topic, RunMode.DEMO))
        finally:
            consumer.close()

    def count(self, topic: Topic) -> int:
        """Return how many records the topic has taken."""
        return sum(self.ends(topic).values())

    def read(self, topic: Topic) -> list[tuple[int, int, bytes]]:
        """Return partition, offset and value of each record that the topic holds by now, in the order of each partition."""
        name = topic_name(topic, RunMode.DEMO)
        consumer = self._consumer()
        try:
            missing = {number: end for number, end in self._ends(consumer, name).items() if end > 0}
            consumer.assign([TopicPartition(name, number, 0) for number in missing])
            records: list[tuple[int, int, bytes]] = []
            while missing:
                for message in consumer.consume(_BATCH, _POLL_S):
                    if message.error() is not None:
                        raise AssertionError(f"{name}: {message.error()}")
                    partition, offset = message.partition(), message.offset()
                    assert partition is not None
                    assert offset is not None
                    records.append((partition, offset, message.value() or b""))
                    if offset + 1 >= missing.get(partition, 0):
                        missing.pop(partition, None)
            return records
        finally:
            consumer.close()

    def signals(self) -> list[Signal]:
        """Return the signals, without cancels."""
        messages = [decode_signal_message(value) for _, _, value in self.read(Topic.STRATEGY_SIGNALS)]
        return [message for message in messages if isinstance(message, Signal)]

    def audits(self) -> list[AuditRecord]:
        """Return the outcomes of triggers."""
        return [AuditRecord.decode(value) for _, _, value in self.read(Topic.SIGNAL_AUDIT)]

    def broken_promises(self) -> list[str]:
        """Return a sentence for each trigger with two outcomes or none, and for each published outcome without its signal.

        Every closed daily bar between the first and the newest decided one of its symbol must be decided, whichever of its records made the
        trigger: after a restart the market service publishes again what it had not committed, and the second record is a duplicate. It is
        waited for, since a decision takes a moment.
        """
        bars = self._closed_bars()
        audits = self.audits()
        newest = {symbol: max(times) for symbol, times in _decided(audits).items()}
        end = time.monotonic() + _DECISION_S
        while missing := _undecided(bars, _decided(audits), newest):
            if time.monotonic() > end:
                break
            time.sleep(_POLL_S)
            audits = self.audits()
        broken = [f"the bar of {symbol} that closed at {close_ms} has no outcome" for symbol, close_ms in missing]
        outcomes: dict[UUID, set[object]] = defaultdict(set)
        for audit in audits:
            outcomes[audit.trigger_id].add((audit.outcome, audit.signal_id))
        broken += [f"trigger {trigger} has {len(ended)} outcomes" for trigger, ended in outcomes.items() if len(ended) > 1]
        # Read after the audit: a signal is acknowledged before its outcome is written.
        signals = {signal.signal_id for signal in self.signals()}
        published = {audit.signal_id for audit in audits if audit.outcome is Outcome.PUBLISHED}
        return [*broken, *(f"outcome published without its signal {one}" for one in published - signals)]

    def _closed_bars(self) -> list[tuple[str, int]]:
        """Return symbol and closing time of each closed daily bar."""
        bars = [MarketFeatures.decode(value) for _, _, value in self.read(Topic.MARKET_FEATURES)]
        return [(bar.symbol, bar.ts_close_ms) for bar in bars if bar.closed and bar.interval == "1d"]

    def _consumer(self) -> Consumer:
        return Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": "outside", "enable.auto.commit": False})

    def _ends(self, consumer: Consumer, name: str) -> dict[int, int]:
        partitions = consumer.list_topics(name, timeout=30).topics[name].partitions
        return {number: consumer.get_watermark_offsets(TopicPartition(name, number), timeout=30)[1] for number in partitions}


def _decided(audits: Iterable[AuditRecord]) -> dict[str, set[int]]:
    """Return the event times of decided triggers by symbol."""
    decided: dict[str, set[int]] = defaultdict(set)
    for audit in audits:
        decided[audit.symbol].add(audit.trigger.ts_event_ms)
    return decided


def _undecided(bars: Iterable[tuple[str, int]], decided: Mapping[str, set[int]], newest: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the bars after the first decided one and before the newest, of their symbol, that are not decided."""
    return [
        (symbol, close_ms)
        for symbol, close_ms in bars
        if symbol in newest and min(decided[symbol]) < close_ms < newest[symbol] and close_ms not in decided[symbol]
    ]
