"""A feed that uses librdkafka, as most languages' Kafka clients do: its default partitioner hashes keys with CRC32, not murmur2."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from confluent_kafka import KafkaError, Message, Producer

from services.core.bus import BusError, Headers, Position

_POLL_S = 0.01


class LibrdkafkaProducer:
    """Sends what a test publishes; it has the methods of the bus's producer that a site uses."""

    def __init__(self, bus_url: str) -> None:
        """Connect to the broker of `bus_url`, with every setting that matters at its default."""
        self._inner = Producer({"bootstrap.servers": bus_url.removeprefix("kafka://"), "log_level": 0})
        self._polling = asyncio.create_task(self._poll(), name="librdkafka")

    async def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> Awaitable[Position]:
        """Hand a record over; its partition is librdkafka's choice."""
        del timestamp_ms, partition
        acknowledged: asyncio.Future[Position] = asyncio.get_running_loop().create_future()

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                acknowledged.set_exception(BusError(str(error)))
                return
            where = message.topic(), message.partition(), message.offset()
            assert where[0] is not None and where[1] is not None and where[2] is not None  # noqa: PT018 - a delivered message has them
            acknowledged.set_result(Position(where[0], where[1], where[2], message.timestamp()[1]))

        told: Sequence[tuple[str, bytes]] = list(headers)
        self._inner.produce(topic, value=value, key=key, headers=list(told), on_delivery=delivered)
        return acknowledged

    async def flush(self) -> None:
        """Return once everything is delivered."""
        await asyncio.to_thread(self._inner.flush)

    async def close(self) -> None:
        """Flush and end."""
        await self.flush()
        self._polling.cancel()

    async def _poll(self) -> None:
        while True:
            self._inner.poll(0)
            await asyncio.sleep(_POLL_S)
