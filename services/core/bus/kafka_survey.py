"""What only Kafka's own admin tells: copies of partitions, brokers, and how far a group has committed. For `aquiline doctor`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient

from services.core.bus.kafka_client import Connection
from services.core.bus.kafka_errors import sentences
from services.core.bus.port import TopicPartition
from services.core.settings import BusSettings


@dataclass(frozen=True, slots=True)
class Survey:
    """`copies` are a topic's replicas, of the partition that has fewest; `in_sync` likewise; `committed` are offsets."""

    brokers: int
    copies: Mapping[str, int]
    in_sync: Mapping[str, int]
    committed: Mapping[TopicPartition, int]


async def survey(settings: BusSettings, group: str) -> Survey:
    """Ask the cluster; raise BusError when it cannot be reached or does not answer."""
    client = AIOKafkaAdminClient(
        **Connection.from_settings(settings).arguments, client_id="aquiline-doctor", request_timeout_ms=settings.request_timeout_ms
    )
    try:
        with sentences("asking the cluster"):
            await client.start()
            brokers = (await client.describe_cluster())["brokers"]
            topics = {topic["topic"]: topic["partitions"] for topic in await client.describe_topics() if not topic["error_code"]}
            offsets = await client.list_consumer_group_offsets(group)
    finally:
        await client.close()
    return Survey(
        brokers=len(brokers),
        copies={name: min(len(part["replicas"]) for part in parts) for name, parts in topics.items() if parts},
        in_sync={name: min(len(part["isr"]) for part in parts) for name, parts in topics.items() if parts},
        committed={TopicPartition(tp.topic, tp.partition): at.offset for tp, at in offsets.items() if at.offset >= 0},
    )
