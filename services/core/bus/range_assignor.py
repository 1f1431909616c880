"""Range assignment, as Kafka's RangeAssignor does it, for the in-process broker.

Each topic's partitions go to its sorted members in contiguous ranges, so that partition p of topics with equal counts reaches one
member.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from services.core.bus.port import TopicPartition


def assign_ranges(subscriptions: Mapping[str, AbstractSet[str]], partitions: Mapping[str, int]) -> dict[str, frozenset[TopicPartition]]:
    """Return each member's partitions.

    `subscriptions` maps a member's id to its topics, `partitions` a topic to its partition count. The first
    `partitions mod members` members get one more. Source: Kafka's RangeAssignor.
    """
    assigned: dict[str, set[TopicPartition]] = {member: set() for member in subscriptions}
    for topic in sorted(partitions):
        members = sorted(member for member, topics in subscriptions.items() if topic in topics)
        if not members:
            continue
        share, extra = divmod(partitions[topic], len(members))
        first = 0
        for index, member in enumerate(members):
            last = first + share + (1 if index < extra else 0)
            assigned[member].update(TopicPartition(topic, partition) for partition in range(first, last))
            first = last
    return {member: frozenset(held) for member, held in assigned.items()}
