"""`kafka://`: the bus over aiokafka 0.14. Each client's file says which of aiokafka's traps it steps around, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from services.core.bus.kafka_admin import KafkaAdmin
from services.core.bus.kafka_client import ISOLATION_LEVEL, Connection
from services.core.bus.kafka_consumer import KafkaConsumer, PausedRangeAssignor
from services.core.bus.kafka_producer import KafkaProducer, null_serializer
from services.core.bus.kafka_reader import KafkaReader
from services.core.clock import Clock
from services.core.settings import BusSettings

MAX_REQUEST_BYTES: Final = 2_097_152
"""The largest record that the producer takes: a dead letter holds a record as large as Kafka's default lets be, and headers."""
_FETCH_WAIT_MS: Final = 100
"""How long the broker holds an empty fetch; it answers at once when a record arrives."""


class KafkaBus:
    """One Kafka cluster, reached as the settings say."""

    def __init__(self, settings: BusSettings, clock: Clock) -> None:
        """Read certificates and check the log-in; raise BusError when they cannot be used. Nothing connects yet."""
        self._settings = settings
        self._clock = clock
        self._connection = Connection.from_settings(settings)

    @property
    def address(self) -> str:
        """Return `kafka://host:port[,...]`."""
        return self._connection.address

    async def producer(
        self, *, client_id: str, delivery_timeout_ms: int = 30_000, before_write: Callable[[], None] = lambda: None
    ) -> KafkaProducer:
        """Return a started, idempotent producer (acks=all)."""
        request_timeout_ms = min(self._settings.request_timeout_ms, delivery_timeout_ms)

        def make() -> AIOKafkaProducer:
            return AIOKafkaProducer(
                **self._connection.arguments,
                client_id=client_id,
                acks="all",
                enable_idempotence=True,
                request_timeout_ms=request_timeout_ms,
                max_request_size=MAX_REQUEST_BYTES,
                max_batch_size=65_536,
                value_serializer=null_serializer,
            )

        producer = KafkaProducer(make, self._clock, client_id, delivery_timeout_ms, before_write)
        await producer.start()
        return producer

    async def consumer(self, *, group: str, client_id: str, instance_id: str | None = None) -> KafkaConsumer:
        """Return a member of `group`, not yet started; with `instance_id` its membership is static."""
        settings = self._settings

        def make(assignor: PausedRangeAssignor) -> AIOKafkaConsumer:
            return AIOKafkaConsumer(
                **self._connection.arguments,
                client_id=client_id,
                group_id=group,
                group_instance_id=instance_id,
                partition_assignment_strategy=[assignor],
                enable_auto_commit=False,
                auto_offset_reset="none",
                session_timeout_ms=settings.session_timeout_ms,
                heartbeat_interval_ms=max(1, min(3_000, settings.session_timeout_ms // 4)),
                rebalance_timeout_ms=settings.rebalance_timeout_ms,
                request_timeout_ms=settings.request_timeout_ms,
                fetch_max_wait_ms=_FETCH_WAIT_MS,
                isolation_level=ISOLATION_LEVEL,
            )

        return KafkaConsumer(make, group, client_id, settings.request_timeout_ms)

    async def reader(self, *, client_id: str) -> KafkaReader:
        """Return a started reader."""
        inner = AIOKafkaConsumer(
            **self._connection.arguments,
            client_id=client_id,
            auto_offset_reset="none",
            enable_auto_commit=False,
            request_timeout_ms=self._settings.request_timeout_ms,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            isolation_level=ISOLATION_LEVEL,
        )
        reader = KafkaReader(inner, client_id)
        await reader.start()
        return reader

    async def admin(self) -> KafkaAdmin:
        """Return a started admin."""
        inner = AIOKafkaAdminClient(
            **self._connection.arguments, client_id="aquiline-admin", request_timeout_ms=self._settings.request_timeout_ms
        )
        admin = KafkaAdmin(inner, self._settings.request_timeout_ms)
        await admin.start()
        return admin

    async def close(self) -> None:
        """Do nothing: a Kafka bus holds no connection of its own."""
