"""What only the in-process broker can show: virtual time, crashed members, fenced instances."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.bus import BusError, Committed, NewTopic, TopicPartition
from services.core.bus.connect import connect
from services.core.bus.memory import MemoryBus
from services.core.bus.memory_group import MemoryConsumer
from services.core.bus.memory_log import PartitionLog
from services.core.clock import SystemClock, VirtualClock
from services.core.settings import BusSettings
from tests.integration.bus.support import Listener, at, poll_until, take

ONE = TopicPartition("topic", 0)


async def _bus(clock: VirtualClock | None = None, partitions: int = 1) -> MemoryBus:
    bus = MemoryBus(clock or VirtualClock())
    await (await bus.admin()).create([NewTopic("topic", partitions, {})])
    return bus


async def _member(bus: MemoryBus, listener: Listener, instance_id: str | None = None) -> MemoryConsumer:
    member = await bus.consumer(group="g", client_id="c", instance_id=instance_id)
    listener.member = member
    await member.start(["topic"], listener)
    return member


async def test_append_time_is_the_virtual_clocks() -> None:
    clock = VirtualClock(1_000)
    producer = await (await _bus(clock)).producer(client_id="p")
    first = await (await producer.send("topic", key=b"k", value=b"", timestamp_ms=5))
    clock.advance_to(2_500)
    second = await (await producer.send("topic", key=b"k", value=b""))
    assert [first.timestamp_ms, second.timestamp_ms] == [1_000, 2_500]


async def test_a_poll_wakes_when_a_record_is_appended() -> None:
    bus = await _bus()
    reader = await bus.reader(client_id="r")
    await reader.read({ONE: 0})
    polling = asyncio.create_task(reader.poll(timeout_ms=60_000))
    await asyncio.sleep(0)
    producer = await bus.producer(client_id="p")
    await producer.send("topic", key=b"k", value=b"v")
    assert [record.value for record in await polling] == [b"v"]


async def test_polling_a_full_log_lets_other_tasks_run() -> None:
    bus = await _bus()
    producer = await bus.producer(client_id="p")
    for _ in range(10):
        await producer.send("topic", key=b"k", value=b"")
    reader = await bus.reader(client_id="r")
    await reader.read({ONE: 0})
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for _ in range(10):
        await reader.poll(timeout_ms=0, max_records=1)
    task.cancel()
    assert turns >= 5


async def test_partitions_take_turns_so_that_none_starves() -> None:
    bus = await _bus(partitions=3)
    producer = await bus.producer(client_id="p")
    for number in range(90):
        await producer.send("topic", key=str(number).encode(), value=b"")
    reader = await bus.reader(client_id="r")
    await reader.read({TopicPartition("topic", partition): 0 for partition in range(3)})
    served = [(await reader.poll(timeout_ms=0, max_records=5))[0].partition for _ in range(3)]
    assert sorted(served) == [0, 1, 2]


async def test_a_crashed_member_is_not_told_and_its_partitions_move() -> None:
    bus = await _bus(partitions=2)
    crashing, surviving = Listener(), Listener()
    first = await _member(bus, crashing)
    await poll_until(lambda: len(crashing.assigned) == 1, first)
    await first.commit({ONE: at(0)})
    first.crash()
    with pytest.raises(BusError, match="crashed"):
        await first.poll(timeout_ms=0)
    with pytest.raises(BusError, match="does not hold"):
        await first.commit({ONE: at(1)})
    second = await _member(bus, surviving)
    await poll_until(lambda: len(surviving.assigned) == 1, second)
    assert (len(second.assignment()), crashing.revoked) == (2, [])
    assert await second.committed([ONE]) == {ONE: Committed(0, "")}


async def test_a_second_member_with_the_same_instance_id_fences_the_first() -> None:
    bus = await _bus()
    told = Listener()
    first = await _member(bus, Listener(), instance_id="pod-0")
    second = await _member(bus, told, instance_id="pod-0")
    await poll_until(lambda: len(told.assigned) == 1, second)
    with pytest.raises(BusError, match="took over its instance id"):
        await first.poll(timeout_ms=0)


async def test_closed_clients_say_so_and_the_bus_waits_for_what_is_under_way() -> None:
    bus = await _bus()
    told = Listener()
    member = await _member(bus, told)
    await bus.close()
    assert told.assigned == [frozenset([ONE])]
    await member.close()
    await member.close()
    with pytest.raises(BusError, match="closed"):
        await member.poll(timeout_ms=0)
    reader = await bus.reader(client_id="r")
    await reader.close()
    with pytest.raises(BusError, match="closed"):
        await reader.poll(timeout_ms=0)


async def test_each_memory_url_is_a_bus_of_its_own() -> None:
    settings = BusSettings(url="memory://")
    first, second = connect(settings, SystemClock()), connect(settings, SystemClock())
    await (await first.admin()).create([NewTopic("topic", 1, {})])
    assert await (await second.admin()).describe(["topic"]) == {}
    assert first.address == "memory://"


async def test_a_topic_needs_a_partition() -> None:
    admin = await (await _bus()).admin()
    with pytest.raises(BusError, match="cannot have 0 partitions"):
        await admin.create([NewTopic("empty", 0, {})])


async def test_two_members_read_every_record_once() -> None:
    bus = await _bus(partitions=4)
    producer = await bus.producer(client_id="p")
    for number in range(100):
        await producer.send("topic", key=str(number).encode(), value=str(number).encode())
    starts = {TopicPartition("topic", partition): 0 for partition in range(4)}
    members = [await _member(bus, Listener(starts=starts)) for _ in range(2)]
    await bus.close()
    records = []
    reader = await bus.reader(client_id="r")
    for member in members:
        held = await reader.end_offsets(sorted(member.assignment()))
        records += await take(member, sum(held.values()))
    assert sorted(int(record.value or b"") for record in records) == list(range(100))


@given(times=st.lists(st.integers(0, 50), max_size=30), asked=st.integers(0, 60), gone=st.booleans())
def test_the_offset_for_a_time_is_the_first_record_of_at_least_that_time(times: list[int], asked: int, gone: bool) -> None:  # noqa: FBT001
    log = PartitionLog("topic", 0)
    if gone:
        log.append(None, None, (), 100)
        log.truncate()
    for time_ms in times:
        log.append(b"k", b"", (), time_ms)
    expected = next((log.start + index for index, time_ms in enumerate(times) if time_ms >= asked), None)
    assert expected == log.offset_for_time(asked)
