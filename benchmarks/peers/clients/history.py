"""Fills the windows of a worker that keeps them in memory: it reads the log up to what its group has committed."""

from __future__ import annotations

import json
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from desk import BOOTSTRAP, GROUP, MARKET, PARTITIONS, Window


async def fill(windows: Mapping[str, Window]) -> None:
    """Take every closed bar before the group's commits; the benchmark commits the start of what is live before the first start."""
    reader = AIOKafkaConsumer(bootstrap_servers=BOOTSTRAP, group_id=GROUP, enable_auto_commit=False)
    await reader.start()
    try:
        partitions = [TopicPartition(MARKET, number) for number in range(PARTITIONS)]
        committed = {partition: await reader.committed(partition) or 0 for partition in partitions}
        reader.assign(partitions)
        await reader.seek_to_beginning()
        while any([await reader.position(partition) < end for partition, end in committed.items()]):
            for partition, records in (await reader.getmany(timeout_ms=200)).items():
                for record in records:
                    bar = json.loads(record.value)
                    if record.offset < committed[partition] and bar["closed"]:
                        windows[bar["symbol"]].take(bar)
    finally:
        await reader.stop()
