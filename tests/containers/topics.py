"""The topics as a client outside of the containers reads them: librdkafka on the published port of loopback."""

from __future__ import annotations

from collections import defaultdict
from typing import Final, TypeVar
from uuid import UUID

from confluent_kafka import Consumer, TopicPartition

from schemas import AuditRecord, MarketFeatures, Message, Outcome, RunMode, Signal, Topic, decode_signal_message, topic_name

BOOTSTRAP: Final = "127.0.0.1:9092"
_POLL_S: Final = 1.0
_BATCH: Final = 5_000

Decoded = TypeVar("Decoded", bound=Message)


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
        """Return a sentence for each trigger with two outcomes or none, and for each signal and published outcome that lack each other."""
        # Read in this order: a signal is acknowledged before its outcome is written, and a bar before both.
        audits, signals, bars = self.audits(), self.signals(), self.read(Topic.MARKET_FEATURES)
        outcomes: dict[UUID, set[object]] = defaultdict(set)
        for audit in audits:
            outcomes[audit.trigger_id].add((audit.outcome, audit.signal_id))
        broken = [f"trigger {trigger} has {len(ended)} outcomes" for trigger, ended in outcomes.items() if len(ended) > 1]
        published = {audit.signal_id for audit in audits if audit.outcome is Outcome.PUBLISHED}
        broken += [f"outcome published without its signal {one}" for one in published - {signal.signal_id for signal in signals}]
        decided = defaultdict(set)
        for audit in audits:
            if audit.trigger.topic == topic_name(Topic.MARKET_FEATURES, RunMode.DEMO):
                decided[audit.trigger.partition].add(audit.trigger.offset)
        for partition, offset, value in bars:
            begun = decided[partition]
            if begun and min(begun) < offset < max(begun) and offset not in begun:
                bar = MarketFeatures.decode(value)
                if bar.closed and bar.interval == "1d":
                    broken.append(f"the bar of {bar.symbol} at {partition}/{offset} has no outcome")
        return broken

    def _consumer(self) -> Consumer:
        return Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": "outside", "enable.auto.commit": False})

    def _ends(self, consumer: Consumer, name: str) -> dict[int, int]:
        partitions = consumer.list_topics(name, timeout=30).topics[name].partitions
        return {number: consumer.get_watermark_offsets(TopicPartition(name, number), timeout=30)[1] for number in partitions}
