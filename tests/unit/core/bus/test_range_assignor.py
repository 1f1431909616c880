"""Range assignment gives every partition to one subscriber, evenly, and the same partition of every topic to the same one."""

from __future__ import annotations

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from hypothesis import given
from hypothesis import strategies as st

from services.core.bus import TopicPartition
from services.core.bus.range_assignor import assign_ranges

TOPICS = ("market", "vision")
members = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.sets(st.sampled_from(TOPICS), min_size=1), max_size=6)
counts = st.fixed_dictionaries({topic: st.integers(1, 12) for topic in TOPICS})


class _Cluster(ClusterMetadata):  # type: ignore[misc] # aiokafka has no types
    def __init__(self, partitions: dict[str, int]) -> None:
        super().__init__()
        self._counts = partitions

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(self._counts[topic]))


@given(members, counts)
def test_it_is_what_aiokafka_assigns(subscriptions: dict[str, set[str]], partitions: dict[str, int]) -> None:
    metadata = {member: RangePartitionAssignor.metadata(sorted(topics)) for member, topics in subscriptions.items()}
    theirs = RangePartitionAssignor.assign(_Cluster(partitions), metadata)
    expected = {
        member: frozenset(TopicPartition(topic, partition) for topic, held in assignment.assignment for partition in held)
        for member, assignment in theirs.items()
    }
    assert expected == assign_ranges(subscriptions, partitions)


@given(st.sets(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=6), st.integers(1, 24))
def test_equal_topics_reach_one_member_partition_by_partition(names: set[str], count: int) -> None:
    assigned = assign_ranges({name: set(TOPICS) for name in names}, dict.fromkeys(TOPICS, count))
    held = [partition for partitions in assigned.values() for partition in partitions]
    assert len(held) == len(set(held)) == 2 * count
    for partitions in assigned.values():
        market, vision = ({one.partition for one in partitions if one.topic == topic} for topic in TOPICS)
        assert market == vision
        assert len(market) in {count // len(names), count // len(names) + 1}
