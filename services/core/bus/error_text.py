"""Error texts that the Kafka bus and the in-process bus share."""

from __future__ import annotations

from collections.abc import Sequence

from services.core.bus.port import TopicPartition


def unknown_topic(name: str) -> str:
    """Say that a topic does not exist."""
    return f"topic {name!r} does not exist and is not made on the fly; create it first (`aquiline topics create`)"


def unknown_partition(partition: TopicPartition, count: int) -> str:
    """Say that a topic of `count` partitions lacks one."""
    return f"topic {partition.topic!r} has partitions 0 to {count - 1}, and no {partition.partition}"


def not_read(client_id: str, partition: TopicPartition) -> str:
    """Say that a reader does not read a partition."""
    return f"reader {client_id!r} does not read {partition.topic}[{partition.partition}]; call `read` first"


def not_held(client_id: str, group: str, verb: str, partitions: Sequence[TopicPartition]) -> str:
    """Say that a member acts on partitions that it does not hold."""
    names = ", ".join(f"{topic}[{partition}]" for topic, partition in partitions)
    return (
        f"member {client_id!r} of group {group!r} cannot {verb} {names}: it does not hold them (any more); "
        "another member goes on from the last commit, so drop this work"
    )


def too_large(topic: str, size: int, limit: int) -> str:
    """Say that a record of `size` bytes is more than its topic takes."""
    return (
        f"a record of {size} bytes is too large for topic {topic!r}, which takes {limit}; "
        "make it smaller, or raise the topic's max.message.bytes"
    )


def closed(what: str, client_id: str) -> str:
    """Say that a client was closed before."""
    return f"{what} {client_id!r} is closed; make another one"
