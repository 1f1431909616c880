"""What only a real Kafka can show: frozen and killed brokers, long drains and take-overs, TLS with log-in."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from pydantic import SecretStr

from deploy.local import LocalKafka, LocalSecurity
from deploy.local.process import free_port
from services.core.bus import BusError, Consumer, Producer, TopicPartition
from services.core.bus.connect import connect
from services.core.bus.kafka_producer import KafkaProducer
from services.core.clock import SystemClock, VirtualClock
from services.core.global_tables import GlobalTables
from services.core.settings import BusSettings
from services.core.zombie_fence import FencedError, ZombieFence
from tests.integration.bus.support import PATIENCE_S, Listener, Site, poll_until, take
from tests.integration.bus.test_contract_groups import Draining, Slow

pytestmark = pytest.mark.integration


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LocalKafka]:
    """Return a Kafka to freeze and kill."""
    with LocalKafka(tmp_path / "kafka") as server:
        yield server
        server.thaw()


@pytest.fixture
async def fragile(broker: LocalKafka, unique: str) -> AsyncIterator[Site]:
    """Return a site on that Kafka."""
    settings = BusSettings(url=broker.url, session_timeout_ms=3_000, rebalance_timeout_ms=15_000, request_timeout_ms=2_000)
    bus = connect(settings, SystemClock())
    site = Site(bus, await bus.admin(), unique)
    yield site
    await site.close()


@pytest.fixture
async def hasty(kafka: LocalKafka, unique: str) -> AsyncIterator[Site]:
    """Return a site whose requests and sessions end after a second."""
    settings = BusSettings(url=kafka.url, session_timeout_ms=1_000, rebalance_timeout_ms=15_000, request_timeout_ms=1_000)
    bus = connect(settings, SystemClock())
    site = Site(bus, await bus.admin(), unique)
    yield site
    await site.close()


async def test_what_was_handed_over_before_a_pause_does_not_leave_after_it(hasty: Site) -> None:
    now_s = 0.0
    fence = ZombieFence(2.0, lambda: now_s)
    topic, fenced, other = await hasty.topic(), await hasty.producer(before_write=fence.check), await hasty.producer()
    fence.alive()
    await (await fenced.send(topic, key=b"k", value=b"before the pause"))
    held = await fenced.send(topic, key=b"k", value=b"handed over, and then the process is paused")
    now_s = 3.0
    with pytest.raises(BusError, match="was paused for 3"):
        await held
    await (await other.send(topic, key=b"k", value=b"of the next owner"))
    with pytest.raises(FencedError):
        await fenced.send(topic, key=b"k", value=b"after the pause")
    reader = await hasty.reader()
    await reader.read({TopicPartition(topic, 0): 0})
    assert [record.value for record in await take(reader, 2)] == [b"before the pause", b"of the next owner"]


async def test_a_batch_that_is_damaged_on_the_brokers_disk_costs_no_record_but_its_own(hasty: Site, kafka: LocalKafka) -> None:
    topic, producer = await hasty.topic(partitions=2), await hasty.producer()
    positions = [await (await producer.send(topic, key=b"%d" % number, value=b"-")) for number in range(40)]
    damaged = positions[-1]
    damage_last(kafka, topic, damaged.partition)
    reader = await hasty.reader()
    await reader.read({TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0})
    read: list[tuple[int, int]] = []
    errors: list[str] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(errors) < 3 or len(read) < 39:
            try:
                read += [(record.partition, record.offset) for record in await reader.poll(timeout_ms=500, max_records=7)]
            except BusError as error:
                errors.append(str(error))
    assert sorted(read) == sorted((one.partition, one.offset) for one in positions[:-1])
    assert all(f"{topic}[{damaged.partition}] at offset {damaged.offset} fails its checksum" in error for error in errors)


async def test_tables_with_a_batch_that_cannot_be_read_do_not_count_as_read_while_others_go_on(hasty: Site, kafka: LocalKafka) -> None:
    damaged, sound, producer = await hasty.topic("damaged"), await hasty.topic("sound"), await hasty.producer()
    await (await producer.send(damaged, key=b"k", value=b"first"))
    clock, folded = VirtualClock(1_000_000), set[bytes | None]()
    tables = GlobalTables(hasty.bus, clock, [damaged, sound], lambda record: folded.add(record.value), hasty.name("tables"))
    await tables.start()
    await (await producer.send(damaged, key=b"k", value=b"halt"))
    damage_last(kafka, damaged, 0)
    # The first reader may have fetched it before.
    await tables.close()
    tables._reader = await hasty.bus.reader(client_id=hasty.name("again"))
    await tables._reader.read({TopicPartition(damaged, 0): 1, TopicPartition(sound, 0): 0})
    following = asyncio.create_task(tables.follow())
    async with asyncio.timeout(PATIENCE_S):
        for value in (b"1", b"2", b"3", b"4"):
            await (await producer.send(sound, key=b"k", value=value))
            while value not in folded:
                clock.advance_to(clock.now_ms() + 50)
                await asyncio.sleep(0.01)
    following.cancel()
    await asyncio.wait([following])
    await tables.close()
    assert folded == {b"first", b"1", b"2", b"3", b"4"}
    assert tables.last_read_ms == 1_000_000


def damage_last(kafka: LocalKafka, topic: str, partition: int) -> None:
    """Change the last byte of a partition on the broker's disk."""
    segment = kafka.folder / "data" / f"{topic}-{partition}" / "00000000000000000000.log"
    stored = segment.read_bytes()
    segment.write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))


async def test_what_a_frozen_broker_did_not_take_in_time_fails_and_leaves_no_later(fragile: Site, broker: LocalKafka) -> None:
    topic = await fragile.topic()
    producer = await fragile.producer(delivery_timeout_ms=400)
    await (await producer.send(topic, key=b"k", value=b"before"))
    broker.freeze()
    on_the_wire = await producer.send(topic, key=b"k", value=b"on the wire")
    await _in_flight(producer)
    buffered = [await producer.send(topic, key=b"k", value=b"late") for _ in range(20)]
    with pytest.raises(BusError, match="within 400 ms"):
        await on_the_wire
    queued = [await producer.send(topic, key=b"k", value=b"late") for _ in range(20)]
    for acknowledgement in (*buffered, *queued):
        with pytest.raises(BusError, match=r"within 400 ms|cut off"):
            await acknowledgement
    broker.thaw()
    reader = await fragile.reader()
    after = await (await (await fragile.producer()).send(topic, key=b"k", value=b"after"))
    await reader.read({TopicPartition(topic, 0): 0})
    values = [record.value for record in await take(reader, after.offset + 1)]
    assert b"late" not in values
    assert values[0] == b"before"


async def _in_flight(producer: Producer) -> None:
    """Return once a request of `producer` is on its way."""
    assert isinstance(producer, KafkaProducer)
    async with asyncio.timeout(30):
        while producer._inner is None or not producer._inner._sender._in_flight:  # noqa: ASYNC110 - aiokafka has no event for it
            await asyncio.sleep(0)


async def test_what_was_about_to_leave_when_the_process_stood_still_does_not_leave_when_it_wakes_up(hasty: Site) -> None:
    topic = await hasty.topic()
    producer = await hasty.producer(delivery_timeout_ms=300)
    await (await producer.send(topic, key=b"k", value=b"before"))
    assert isinstance(producer, KafkaProducer)
    assert producer._inner is not None
    client = producer._inner.client
    ready, stood = client.ready, False

    async def stands_still(*args: Any, **named: Any) -> Any:
        nonlocal stood
        found = await ready(*args, **named)
        if not stood:
            stood = True
            time.sleep(0.5)  # noqa: ASYNC251 - the whole process stands still
        return found

    client.ready = stands_still
    acknowledgement = await producer.send(topic, key=b"k", value=b"stale")
    with pytest.raises(BusError, match="within 300 ms"):
        await acknowledgement
    after = await (await (await hasty.producer()).send(topic, key=b"k", value=b"after"))
    reader = await hasty.reader()
    await reader.read({TopicPartition(topic, 0): 0})
    assert [record.value for record in await take(reader, after.offset + 1)] == [b"before", b"after"]
    assert stood


async def test_an_inner_producer_that_never_takes_a_record_does_not_hold_up_what_comes_after(hasty: Site) -> None:
    topic = await hasty.topic()
    producer = await hasty.producer(delivery_timeout_ms=30_000)
    assert isinstance(producer, KafkaProducer)
    inner = producer._inner
    assert inner is not None
    send, asked = inner.send, 0

    async def never_the_first_time(*args: Any, **named: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 1:
            await asyncio.Event().wait()
        return await send(*args, **named)

    inner.send = never_the_first_time
    first, second = [await producer.send(topic, key=b"k", value=value) for value in (b"first", b"second")]
    assert [(await first).offset, (await second).offset] == [0, 1]
    assert asked == 3


async def test_a_producer_goes_on_after_records_were_given_up(fragile: Site, broker: LocalKafka) -> None:
    topic = await fragile.topic()
    producer = await fragile.producer(delivery_timeout_ms=1_000)
    await (await producer.send(topic, key=b"k", value=b"before"))
    broker.freeze()
    with pytest.raises(BusError, match="within 1000 ms"):
        await (await producer.send(topic, key=b"k", value=b"given up"))
    broker.thaw()
    async with asyncio.timeout(30):
        for number in itertools.count():
            try:
                place = await (await producer.send(topic, key=b"k", value=str(number).encode()))
            except BusError:
                continue
            break
    assert place.offset >= 1


async def test_order_holds_and_nothing_is_lost_or_doubled_when_the_broker_is_killed(fragile: Site, broker: LocalKafka) -> None:
    topic = await fragile.topic()
    producer = await fragile.producer(delivery_timeout_ms=60_000)
    member = await fragile.member([topic], Listener(starts={TopicPartition(topic, 0): 0}))
    sent = [await producer.send(topic, key=b"k", value=str(number).encode()) for number in range(500)]
    await take(member, 100)
    await asyncio.to_thread(broker.kill)
    sent += [await producer.send(topic, key=b"k", value=str(number).encode()) for number in range(500, 1_000)]
    await asyncio.to_thread(broker.start)
    offsets = [(await acknowledgement).offset for acknowledgement in sent]
    assert list(range(1_000)) == offsets
    rest = await take(member, 900)
    assert [str(number).encode() for number in range(100, 1_000)] == [record.value for record in rest]


async def test_a_drain_longer_than_a_request_may_take_is_waited_for(hasty: Site) -> None:
    topic = await hasty.topic(partitions=2)
    draining, told = Draining(), Listener()
    first = await hasty.member([topic], draining, client_id="a")
    await poll_until(lambda: len(draining.assigned) == 1, first)
    second = await hasty.member([topic], told, client_id="b")
    await poll_until(draining.started.is_set, first, second)
    await _poll_for(3.0, first, second)
    assert told.assigned == []
    draining.go_on.set()
    await poll_until(lambda: len(second.assignment()) == 1 and len(first.assignment()) == 1, first, second)
    assert len(draining.revoked) == 1


async def test_a_take_over_longer_than_the_session_keeps_the_membership(hasty: Site) -> None:
    topic = await hasty.topic()
    await hasty.fill(topic, 3)
    one = TopicPartition(topic, 0)
    slow = Slow(starts={one: 0})
    member = await hasty.member([topic], slow)
    await poll_until(lambda: member.assignment() == {one}, member)
    await _poll_for(3.0, member)
    assert (slow.cancelled, slow.revoked) == (0, [])
    slow.go_on.set()
    assert [record.offset for record in await take(member, 3)] == [0, 1, 2]


async def _poll_for(seconds: float, *members: Consumer) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    await poll_until(lambda: loop.time() > until, *members)


async def test_a_readers_position_passes_offsets_that_carry_no_record(hasty: Site, kafka: LocalKafka) -> None:
    topic = await hasty.topic()
    transactional = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=hasty.name("transaction"))
    async with transactional, transactional.transaction():
        await transactional.send(topic, value=b"1", key=b"k")
        await transactional.send(topic, value=b"2", key=b"k")
    one = TopicPartition(topic, 0)
    reader = await hasty.reader()
    end = (await reader.end_offsets([one]))[one]
    assert end == 3, "two records and the transaction's marker"
    await reader.read({one: 0})
    records = []
    async with asyncio.timeout(30):
        while reader.position(one) < end:
            records += await reader.poll(timeout_ms=100)
    assert [record.value for record in records] == [b"1", b"2"]


async def test_tls_with_log_in_works_and_neither_can_be_left_out(tmp_path: Path, unique: str) -> None:
    security = LocalSecurity(tmp_path / "security")
    with LocalKafka(tmp_path / "kafka", security=security) as server:
        settings = BusSettings(
            url=server.url,
            security="sasl_ssl",
            ca_file=security.ca_file,
            cert_file=security.cert_file,
            key_file=security.key_file,
            username=security.username,
            password=SecretStr(security.password),
            request_timeout_ms=5_000,
        )
        bus = connect(settings, SystemClock())
        site = Site(bus, await bus.admin(), unique)
        topic = await site.topic()
        [place] = await site.fill(topic, 1)
        assert place.offset == 0
        assert security.password not in bus.address
        await site.close()
        for change in (
            {"password": SecretStr("wrong")},
            {"cert_file": None, "key_file": None},
            {"ca_file": None},
            {"security": "plaintext"},
        ):
            with pytest.raises(BusError, match="cannot be reached"):
                await connect(settings.model_copy(update={**change, "request_timeout_ms": 2_000}), SystemClock()).admin()


def test_certificates_and_log_in_are_checked_before_anything_connects(tmp_path: Path) -> None:
    settings = BusSettings(url="kafka://127.0.0.1:1", security="ssl", ca_file=tmp_path / "absent.pem")
    with pytest.raises(BusError, match=r"absent\.pem"):
        connect(settings, SystemClock())
    with pytest.raises(BusError, match="go together"):
        connect(settings.model_copy(update={"ca_file": None, "cert_file": tmp_path}), SystemClock())
    with pytest.raises(BusError, match=r"needs bus\.username"):
        connect(settings.model_copy(update={"security": "sasl_plaintext"}), SystemClock())


async def test_a_broker_that_is_not_there_is_told_in_a_sentence() -> None:
    bus = connect(BusSettings(url=f"kafka://127.0.0.1:{free_port()}"), SystemClock())
    with pytest.raises(BusError, match="cannot be reached"):
        await bus.admin()
    with pytest.raises(BusError, match="cannot be reached"):
        await bus.reader(client_id="r")
    with pytest.raises(BusError, match="cannot be reached"):
        await bus.producer(client_id="p")
    member = await bus.consumer(group="g", client_id="c")
    with pytest.raises(BusError, match="cannot be reached"):
        await member.start(["t"], Listener())
