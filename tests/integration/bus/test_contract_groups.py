"""What group members promise, over memory and over a real Kafka."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from services.core.bus import BusError, TopicPartition
from tests.integration.bus.support import Listener, Site, at, out_of_range, poll_until, take


async def test_a_group_goes_on_from_what_it_committed_with_its_metadata(site: Site) -> None:
    topic = await site.topic()
    await site.fill(topic, 6)
    one = TopicPartition(topic, 0)
    member = await site.member([topic], Listener(starts={one: 0}))
    await take(member, 4)
    assert {one: None} == await member.committed([one])
    await member.commit({one: at(4, '{"signals": 17}')})
    assert {one: at(4, '{"signals": 17}')} == await member.committed([one])
    await member.close()
    following = await site.member([topic])
    assert [record.value for record in await take(following, 2)] == [b"4", b"5"]


async def test_a_partition_with_neither_commit_nor_seek_is_not_read_until_it_is_sought(site: Site) -> None:
    topic = await site.topic(partitions=1)
    await site.fill(topic, 3)
    one = TopicPartition(topic, 0)
    listener = Listener()
    member = await site.member([topic], listener)
    assert await poll_until(lambda: listener.assigned == [frozenset([one])], member) == []
    assert await member.poll(timeout_ms=300) == []
    member.seek(one, 1)
    assert [record.value for record in await take(member, 2)] == [b"1", b"2"]


async def test_a_members_position_is_the_next_offset_and_passes_what_was_polled(site: Site) -> None:
    topic = await site.topic(partitions=1)
    await site.fill(topic, 5)
    one = TopicPartition(topic, 0)
    listener = Listener(starts={one: 2})
    member = await site.member([topic], listener)
    await poll_until(lambda: len(listener.assigned) == 1, member)
    await site.fill(topic, 1)
    await poll_until(lambda: member.position(one) == 6, member)


async def test_a_member_for_whom_no_partition_is_left_is_told_so(site: Site) -> None:
    topic = await site.topic(partitions=1)
    listeners = [Listener(), Listener()]
    members = [await site.member([topic], listener, client_id=f"member-{number}") for number, listener in enumerate(listeners)]
    await poll_until(lambda: sorted(len(listener.assigned[-1]) if listener.assigned else -1 for listener in listeners) == [0, 1], *members)


async def test_a_record_goes_to_the_partition_that_its_sender_names(site: Site) -> None:
    topic = await site.topic(partitions=4)
    producer = await site.producer()
    positions = [await (await producer.send(topic, key=b"k", value=b"v", partition=number)) for number in range(4)]
    assert [position.partition for position in positions] == [0, 1, 2, 3]


async def test_seeking_in_the_listener_wins_over_the_commit(site: Site) -> None:
    topic = await site.topic()
    await site.fill(topic, 5)
    one = TopicPartition(topic, 0)
    member = await site.member([topic], Listener(starts={one: 0}))
    await take(member, 5)
    await member.commit({one: at(5)})
    await member.close()
    following = await site.member([topic], Listener(starts={one: 2}))
    assert [record.value for record in await take(following, 3)] == [b"2", b"3", b"4"]


async def test_a_paused_partition_is_silent_until_resumed(site: Site) -> None:
    topics = [await site.topic("a"), await site.topic("b")]
    a, b = (TopicPartition(topic, 0) for topic in topics)
    listener = Listener(starts={a: 0, b: 0})
    member = await site.member(topics, listener)
    await poll_until(lambda: len(listener.assigned) == 1, member)
    member.pause([a])
    for topic in topics:
        await site.fill(topic, 2)
    assert {b} == {TopicPartition(record.topic, 0) for record in await take(member, 2)}
    assert await member.poll(timeout_ms=200) == []
    member.seek(a, 1)
    assert await member.poll(timeout_ms=200) == [], "seeking does not resume"
    member.resume([a])
    assert [(a.topic, 1)] == [(record.topic, record.offset) for record in await take(member, 1)]


async def test_members_share_by_range_and_take_over_from_one_that_leaves(site: Site) -> None:
    topics = [await site.topic("market", partitions=4), await site.topic("vision", partitions=4)]
    everything = frozenset(TopicPartition(topic, partition) for topic in topics for partition in range(4))
    first_told, second_told = Listener(), Listener()
    first = await site.member(topics, first_told, client_id="a")
    await poll_until(lambda: first_told.assigned == [everything], first)
    second = await site.member(topics, second_told, client_id="b")
    await poll_until(lambda: len(second.assignment()) == 4 and len(first.assignment()) == 4, first, second)
    assert first_told.revoked == [everything]
    for member in (first, second):
        held = {topic: {one.partition for one in member.assignment() if one.topic == topic} for topic in topics}
        assert held[topics[0]] == held[topics[1]], "partition p of both topics is at one member"
    assert first.assignment() | second.assignment() == everything
    left = first.assignment()
    await first.close()
    assert first_told.revoked == [everything, left]
    await poll_until(lambda: second.assignment() == everything and second_told.assigned[-1] == everything, second)


@dataclass
class Draining(Listener):
    """Holds `on_revoked` until told, then commits."""

    started: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Wait, then commit."""
        self.started.set()
        await self.go_on.wait()
        assert self.member is not None
        await self.member.commit({partition: at(0, "drained") for partition in partitions})
        await super().on_revoked(partitions)


async def test_nobody_takes_over_before_the_former_member_has_drained_and_committed(site: Site) -> None:
    topic = await site.topic(partitions=2)
    draining = Draining()
    first = await site.member([topic], draining, client_id="a")
    await poll_until(lambda: len(draining.assigned) == 1, first)
    listener = Listener()
    second = await site.member([topic], listener, client_id="b")
    await poll_until(draining.started.is_set, first, second)
    assert listener.assigned == []
    draining.go_on.set()
    await poll_until(lambda: len(second.assignment()) == 1 and len(listener.assigned) > 0, first, second)
    [mine] = second.assignment()
    assert {mine: at(0, "drained")} == await second.committed([mine])


async def test_committing_what_somebody_else_holds_is_refused(site: Site) -> None:
    topic = await site.topic(partitions=2)
    first_told = Listener()
    first = await site.member([topic], first_told, client_id="a")
    await poll_until(lambda: len(first_told.assigned) == 1, first)
    second = await site.member([topic], client_id="b")
    await poll_until(lambda: len(second.assignment()) == 1 and len(first.assignment()) == 1, first, second)
    [theirs] = second.assignment()
    with pytest.raises(BusError, match="does not hold"):
        await first.commit({theirs: at(1)})
    with pytest.raises(BusError, match="does not hold"):
        first.seek(theirs, 0)
    with pytest.raises(BusError, match="does not hold"):
        first.pause([theirs])
    with pytest.raises(BusError, match="does not hold"):
        first.resume([theirs])
    assert {theirs: None} == await second.committed([theirs])


async def test_a_commit_that_points_before_what_the_log_holds_is_out_of_range(site: Site) -> None:
    topic = await site.topic()
    await site.fill(topic, 8)
    one = TopicPartition(topic, 0)
    member = await site.member([topic], Listener(starts={one: 0}))
    await take(member, 3)
    await member.commit({one: at(3)})
    await member.close()
    await site.admin.truncate([topic])
    following = await site.member([topic])
    assert {one: 5} == (await out_of_range(following)).missing


@dataclass
class Slow(Listener):
    """Takes over until told to end; notes when that is cut short."""

    cancelled: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Wait, then note it."""
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        await super().on_assigned(partitions)


async def test_no_record_comes_before_the_take_over_is_done(site: Site) -> None:
    topic = await site.topic()
    await site.fill(topic, 2)
    one = TopicPartition(topic, 0)
    slow = Slow(starts={one: 0})
    member = await site.member([topic], slow)
    assert await poll_until(lambda: member.assignment() == {one}, member) == []
    assert await member.poll(timeout_ms=300) == []
    slow.go_on.set()
    assert [record.value for record in await take(member, 2)] == [b"0", b"1"]


async def test_a_rebalance_cuts_a_take_over_short(site: Site) -> None:
    topic = await site.topic(partitions=2)
    slow = Slow()
    first = await site.member([topic], slow, client_id="a")
    await poll_until(lambda: len(first.assignment()) == 2, first)
    second = await site.member([topic], client_id="b")
    await poll_until(lambda: len(second.assignment()) == 1 and len(first.assignment()) == 1, first, second)
    assert slow.cancelled == 1
    slow.go_on.set()
    await poll_until(lambda: len(slow.assigned) == 1, first, second)
    assert slow.assigned == [first.assignment()]


@dataclass
class Failing(Listener):
    """Fails to take over."""

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Fail."""
        raise RuntimeError(f"cannot rebuild {sorted(partitions)}")


async def test_what_the_listener_raises_the_next_poll_raises(site: Site) -> None:
    topic = await site.topic()
    member = await site.member([topic], Failing())
    with pytest.raises(RuntimeError, match="cannot rebuild"):
        await poll_until(lambda: False, member)


async def test_a_static_member_that_comes_back_holds_its_partitions_again(site: Site) -> None:
    topic = await site.topic(partitions=2)
    told = Listener()
    first = await site.member([topic], told, instance_id=site.name("pod-0"))
    await poll_until(lambda: len(told.assigned) == 1, first)
    await first.close()
    again_told = Listener()
    again = await site.member([topic], again_told, instance_id=site.name("pod-0"))
    await poll_until(lambda: len(again_told.assigned) == 1, again)
    assert len(again.assignment()) == 2
