"""What only Kafka's own admin tells: copies of partitions, brokers, and how far a group has committed. For `aquiline doctor`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError
from aiokafka.structs import OffsetAndMetadata
from aiokafka.structs import TopicPartition as KafkaPartition

from services.core.bus.kafka_client import Connection
from services.core.bus.kafka_errors import sentences
from services.core.bus.port import TopicPartition
from services.core.settings import BusSettings

_AGAIN_S: Final = 0.1


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
            offsets = await _offsets(client, group, settings.request_timeout_ms)
    finally:
        await client.close()
    return Survey(
        brokers=len(brokers),
        copies={name: min(len(part["replicas"]) for part in parts) for name, parts in topics.items() if parts},
        in_sync={name: min(len(part["isr"]) for part in parts) for name, parts in topics.items() if parts},
        committed={TopicPartition(tp.topic, tp.partition): at.offset for tp, at in offsets.items() if at.offset >= 0},
    )


async def _offsets(client: AIOKafkaAdminClient, group: str, timeout_ms: int) -> Mapping[KafkaPartition, OffsetAndMetadata]:
    """Ask until the group has a coordinator that has read its commits: a fresh broker makes their topic at the first question."""
    async with asyncio.timeout(timeout_ms / 1000):
        while True:
            try:
                await _refuse_while_loading(client, group)
                found: Mapping[KafkaPartition, OffsetAndMetadata] = await client.list_consumer_group_offsets(group)
            except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError, GroupLoadInProgressError):
                await asyncio.sleep(_AGAIN_S)
            else:
                return found


async def _refuse_while_loading(client: AIOKafkaAdminClient, group: str) -> None:
    """Raise GroupLoadInProgressError: asked for all commits meanwhile, aiokafka returns none and leaves the answer's error unread."""
    for response in await client.describe_consumer_groups([group]):
        if any(described[0] == GroupLoadInProgressError.errno for described in response.groups):
            raise GroupLoadInProgressError
