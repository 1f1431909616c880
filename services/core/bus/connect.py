"""Chooses the bus by its URL."""

from __future__ import annotations

from services.core.bus.kafka import KafkaBus
from services.core.bus.memory import MemoryBus
from services.core.bus.port import Bus
from services.core.bus.renamed import RenamedBus
from services.core.clock import Clock
from services.core.settings import BusSettings
from services.core.topic_settings import TopicSettings


def connect(settings: BusSettings, clock: Clock, topics: TopicSettings | None = None) -> Bus:
    """Return the bus at `settings.url`, its topics as `topics` has them; raise BusError when certificates or log-in cannot be used.

    `memory://` makes a new, empty bus each time: services in one process that share topics are handed the same object.
    """
    bus: Bus = MemoryBus(clock) if settings.url == "memory://" else KafkaBus(settings, clock)
    if topics is not None and topics.decoders:
        from services.core.bus.decoded import DecodedBus, RecordDecoders  # noqa: PLC0415 - brings fastavro, which few need

        return DecodedBus(bus, topics, RecordDecoders(topics))
    return RenamedBus(bus, topics) if topics is not None and topics.names else bus
