"""What only Kafka's own admin tells: replicas of partitions, brokers, and how far a group has committed. For `aquiline doctor`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NoError, NotCoordinatorForGroupError, for_code
from aiokafka.structs import OffsetAndMetadata
from aiokafka.structs import TopicPartition as KafkaPartition

from services.core.bus.kafka_client import Connection
from services.core.bus.kafka_errors import as_bus_error
from services.core.bus.port import TopicPartition
from services.core.settings import BusSettings

_AGAIN_S: Final = 0.1
_UNKNOWN_GROUP: Final = 69
"""GROUP_ID_NOT_FOUND: a group that nobody has joined or committed for yet."""


@dataclass(frozen=True, slots=True)
class ClusterState:
    """`replicas` are a topic's replicas, of the partition that has fewest; `in_sync` likewise; `committed` are offsets."""

    brokers: int
    replicas: Mapping[str, int]
    in_sync: Mapping[str, int]
    committed: Mapping[TopicPartition, int]

    def renamed(self, name_of: Callable[[str], str]) -> ClusterState:
        """Return the same with the topics' names as `name_of` gives them."""
        return ClusterState(
            self.brokers,
            {name_of(name): count for name, count in self.replicas.items()},
            {name_of(name): count for name, count in self.in_sync.items()},
            {TopicPartition(name_of(tp.topic), tp.partition): offset for tp, offset in self.committed.items()},
        )


async def read_cluster_state(settings: BusSettings, group: str) -> ClusterState:
    """Ask the cluster; raise BusError when it cannot be reached or does not answer."""
    client = AIOKafkaAdminClient(
        **Connection.from_settings(settings).arguments, client_id="aquiline-doctor", request_timeout_ms=settings.request_timeout_ms
    )
    try:
        with as_bus_error("asking the cluster"):
            await client.start()
            brokers = (await client.describe_cluster())["brokers"]
            topics = {topic["topic"]: topic["partitions"] for topic in await client.describe_topics() if not topic["error_code"]}
            offsets = await _offsets(client, group, settings.request_timeout_ms)
    finally:
        await client.close()
    return ClusterState(
        brokers=len(brokers),
        replicas={name: min(len(part["replicas"]) for part in parts) for name, parts in topics.items() if parts},
        in_sync={name: min(len(part["isr"]) for part in parts) for name, parts in topics.items() if parts},
        committed={TopicPartition(tp.topic, tp.partition): at.offset for tp, at in offsets.items() if at.offset >= 0},
    )


async def _offsets(client: AIOKafkaAdminClient, group: str, timeout_ms: int) -> Mapping[KafkaPartition, OffsetAndMetadata]:
    """Ask until the group has a coordinator that has read its commits: a fresh broker makes their topic at the first question."""
    async with asyncio.timeout(timeout_ms / 1000):
        while True:
            try:
                await _raise_for_group(client, group)
                found: Mapping[KafkaPartition, OffsetAndMetadata] = await client.list_consumer_group_offsets(group)
            except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError, GroupLoadInProgressError):
                await asyncio.sleep(_AGAIN_S)
            else:
                return found


async def _raise_for_group(client: AIOKafkaAdminClient, group: str) -> None:
    """Raise what keeps the group's commits from being told, such as that the broker still reads them.

    Asked for all commits, aiokafka leaves the answer's error unread and returns none.
    """
    for response in await client.describe_consumer_groups([group]):
        for code in [described[0] for described in response.groups]:
            if code not in {NoError.errno, _UNKNOWN_GROUP}:
                raise for_code(code)
