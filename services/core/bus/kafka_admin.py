"""The Kafka admin: describes, creates and truncates topics."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin import NewTopic as KafkaNewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code
from aiokafka.structs import TopicPartition as KafkaPartition

from services.core.bus.error_text import unknown_topic
from services.core.bus.kafka_errors import as_bus_error, bus_error
from services.core.bus.port import BusError, NewTopic, TopicInfo

_UP_TO_THE_END: Final = -1
_LOOK_S: Final = 0.05


class KafkaAdmin:
    """See `Admin` for what each method promises."""

    def __init__(self, inner: AIOKafkaAdminClient, request_timeout_ms: int) -> None:
        """Make an admin over `inner`, not started."""
        self._inner = inner
        self._timeout_s = request_timeout_ms / 1000

    async def start(self) -> None:
        """Connect; raise BusError when the broker cannot be reached."""
        try:
            with as_bus_error("starting the admin"):
                await self._inner.start()
        except BaseException:
            await self._inner.close()
            raise

    async def describe(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """Return each topic that exists."""
        with as_bus_error("describing topics"):
            known = {name: parts for name, parts in (await self._partitions()).items() if name in set(topics)}
            if not known:
                return {}
            answers = await self._inner.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(known)])
        config: dict[str, dict[str, str]] = {}
        for answer in answers:
            for code, _, _, name, entries in answer.resources:
                if code:
                    raise bus_error(f"describing topic {name!r}", for_code(code)())
                config[name] = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
        return {name: TopicInfo(name, len(known[name]), config[name]) for name in topics if name in known}

    async def create(self, topics: Sequence[NewTopic]) -> None:
        """Create those topics that do not exist yet and wait for their leaders."""
        wanted = [KafkaNewTopic(new.name, new.partitions, new.replication, topic_configs=dict(new.config)) for new in topics]
        if not wanted:
            return
        with as_bus_error("creating topics"):
            answer = await self._inner.create_topics(wanted)
        for name, code, *message in answer.topic_errors:
            kind = for_code(code)
            if code and kind is not TopicAlreadyExistsError:
                raise BusError(f"topic {name!r} cannot be created ({kind.__name__}): {' '.join(filter(None, message))}")
        names = {new.name for new in topics}
        with as_bus_error(f"waiting for the leaders of {', '.join(sorted(names))}"):
            async with asyncio.timeout(self._timeout_s):
                while not await self._all_led(names):  # noqa: ASYNC110 - Kafka has no event for it
                    await asyncio.sleep(_LOOK_S)

    async def truncate(self, topics: Sequence[str]) -> None:
        """Delete every record of these topics."""
        with as_bus_error(f"truncating {', '.join(topics)}"):
            known = await self._partitions()
            for name in topics:
                if name not in known:
                    raise BusError(unknown_topic(name))
            await self._inner.delete_records(
                {KafkaPartition(name, part["partition"]): RecordsToDelete(_UP_TO_THE_END) for name in topics for part in known[name]}
            )

    async def close(self) -> None:
        """Close."""
        await self._inner.close()

    async def _partitions(self) -> dict[str, list[dict[str, Any]]]:
        """Return every topic's partitions; asking for all never creates one."""
        return {topic["topic"]: topic["partitions"] for topic in await self._inner.describe_topics() if not topic["error_code"]}

    async def _all_led(self, names: set[str]) -> bool:
        known = await self._partitions()
        return all(name in known and all(part["leader"] >= 0 for part in known[name]) for name in names)
