"""What every Kafka client is made with: addresses, TLS, log-in, and the look-up of topics that never creates one."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.client import AIOKafkaClient

from services.core.bus.error_text import unknown_partition, unknown_topic
from services.core.bus.kafka_errors import as_bus_error
from services.core.bus.port import BusError, TopicPartition
from services.core.settings import BusSettings

ISOLATION_LEVEL: Final = "read_committed"
"""A feed that aborts a transaction has taken its records back; aiokafka's default returns them all the same."""


@dataclass(frozen=True)
class Connection:
    """How to reach the broker; made once from the settings."""

    settings: BusSettings
    address: str
    arguments: Mapping[str, Any]

    @classmethod
    def from_settings(cls, settings: BusSettings) -> Connection:
        """Read certificates; raise BusError when they cannot be used or the log-in is incomplete."""
        arguments: dict[str, Any] = {
            "bootstrap_servers": settings.url.removeprefix("kafka://").split(","),
            "security_protocol": settings.security.upper(),
        }
        if settings.security in {"ssl", "sasl_ssl"}:
            arguments["ssl_context"] = _ssl_context(settings)
        if settings.security in {"sasl_plaintext", "sasl_ssl"}:
            if settings.username is None or settings.password is None:
                raise BusError(f"bus.security {settings.security!r} needs bus.username and bus.password")
            arguments |= {
                "sasl_mechanism": settings.sasl_mechanism,
                "sasl_plain_username": settings.username,
                "sasl_plain_password": settings.password.get_secret_value(),
            }
        return cls(settings, settings.url, arguments)


def _ssl_context(settings: BusSettings) -> ssl.SSLContext:
    if (settings.cert_file is None) != (settings.key_file is None):
        raise BusError("bus.cert_file and bus.key_file go together: set both for mutual TLS, or neither")
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.cert_file is not None:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(file) for file in (settings.ca_file, settings.cert_file, settings.key_file) if file)
        raise BusError(f"a certificate or key cannot be read ({error}); look at {files}") from error
    return context


class TopicLookup:
    """Knows partition counts, and asks the broker for all topics when one is unknown: asking for one by name may create it."""

    def __init__(self, client: AIOKafkaClient) -> None:
        """Use `client`, which must be started before the first look-up."""
        self._client = client
        self._partitions: dict[str, int] = {}

    async def partitions(self, topic: str) -> int:
        """Return how many partitions `topic` has; raise BusError when it does not exist."""
        if topic not in self._partitions:
            with as_bus_error(f"looking up topic {topic!r}"):
                cluster = await self._client.fetch_all_metadata()
            self._partitions = {name: len(cluster.partitions_for_topic(name) or ()) for name in cluster.topics()}
            if topic not in self._partitions:
                raise BusError(unknown_topic(topic))
        return self._partitions[topic]

    async def check(self, partition: TopicPartition) -> None:
        """Raise BusError when there is no such partition: aiokafka would wait for it until its request times out."""
        count = await self.partitions(partition.topic)
        if not 0 <= partition.partition < count:
            raise BusError(unknown_partition(partition, count))
