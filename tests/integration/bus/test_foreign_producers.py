"""Records of producers that are not ours: compressed by librdkafka with each codec, and written in transactions that are aborted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from confluent_kafka import Producer as ConfluentProducer

from deploy.local import LocalKafka
from schemas import Instrument, RunMode, Topic, topic_name
from schemas.examples import EXAMPLES
from services.core.bus import Reader, Record, TopicPartition
from services.core.bus.connect import connect
from services.core.clock import SystemClock
from services.core.instruments import Instruments
from services.core.settings import BusSettings
from services.core.topic_admin import ensure_topics
from tests.integration.bus.support import PATIENCE_S, Site, poll_until, take

pytestmark = pytest.mark.integration


@pytest.fixture
async def kafka_site(kafka_bus_settings: BusSettings, unique: str) -> AsyncIterator[Site]:
    """Return a site on a real Kafka."""
    bus = connect(kafka_bus_settings, SystemClock())
    site = Site(bus, await bus.admin(), unique)
    yield site
    await site.close()


def confluent(site: Site, **config: Any) -> ConfluentProducer:
    """Return a producer of librdkafka."""
    return ConfluentProducer({"bootstrap.servers": site.bus.address.removeprefix("kafka://"), **config})


class Transactional:
    """A producer of librdkafka that writes transactions, off the event loop."""

    def __init__(self, site: Site) -> None:
        self._producer = confluent(site, **{"transactional.id": site.name("transactions")})
        self._producer.init_transactions(PATIENCE_S)

    def write(self, topic: str, values: list[bytes], *, commit: bool, key: bytes = b"k") -> None:
        """Write one transaction and end it; the records are on the broker before it is aborted."""
        self._producer.begin_transaction()
        for value in values:
            self._producer.produce(topic, key=key, value=value)
        self._producer.flush(PATIENCE_S)
        if commit:
            self._producer.commit_transaction(PATIENCE_S)
        else:
            self._producer.abort_transaction(PATIENCE_S)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_batches_of_every_codec_are_read_as_they_were_written(kafka_site: Site, codec: str) -> None:
    topic = await kafka_site.topic()
    values = [f"{number}-{'x' * 200}".encode() for number in range(300)]
    producer = confluent(kafka_site, **{"compression.type": codec, "linger.ms": 50})
    for value in values:
        producer.produce(topic, key=b"k", value=value)
    await asyncio.to_thread(producer.flush, PATIENCE_S)
    reader = await kafka_site.reader()
    await reader.read({TopicPartition(topic, 0): 0})
    assert [record.value for record in await take(reader, len(values))] == values
    member = await kafka_site.member([topic])
    await poll_until(lambda: bool(member.assignment()), member)
    member.seek(TopicPartition(topic, 0), 0)
    assert [record.value for record in await take(member, len(values))] == values


async def test_what_an_aborted_transaction_wrote_is_returned_to_nobody_and_positions_pass_it(kafka_site: Site) -> None:
    topic = await kafka_site.topic()
    transactions = await asyncio.to_thread(Transactional, kafka_site)
    for values, commit in (([b"a", b"b"], True), ([b"never"] * 3, False), ([b"c"], True), ([b"never"] * 3, False)):
        await asyncio.to_thread(transactions.write, topic, values, commit=commit)
    tp = TopicPartition(topic, 0)
    reader = await kafka_site.reader()
    end = (await reader.end_offsets([tp]))[tp]
    assert end == 2 + 3 + 1 + 3 + 4, "each transaction ends with a marker"
    await reader.read({tp: 0})
    assert [record.value for record in await _read_to(reader, tp, end)] == [b"a", b"b", b"c"]
    member = await kafka_site.member([topic])
    await poll_until(lambda: bool(member.assignment()), member)
    member.seek(tp, 0)
    records = await poll_until(lambda: member.position(tp) == end, member)
    assert [record.value for record in records] == [b"a", b"b", b"c"]


async def test_records_of_a_transaction_that_is_open_are_not_returned_yet(kafka_site: Site) -> None:
    topic = await kafka_site.topic()
    producer = confluent(kafka_site, **{"transactional.id": kafka_site.name("open")})
    await asyncio.to_thread(producer.init_transactions, PATIENCE_S)
    producer.begin_transaction()
    producer.produce(topic, key=b"k", value=b"later")
    await asyncio.to_thread(producer.flush, PATIENCE_S)
    tp = TopicPartition(topic, 0)
    reader = await kafka_site.reader()
    assert (await reader.end_offsets([tp]))[tp] == 0
    await reader.read({tp: 0})
    assert await reader.poll(timeout_ms=300) == []
    await asyncio.to_thread(producer.commit_transaction, PATIENCE_S)
    assert [record.value for record in await take(reader, 1)] == [b"later"]


async def test_tables_leave_out_an_instrument_of_an_aborted_transaction(kafka: LocalKafka, kafka_site: Site) -> None:
    del kafka
    mode = RunMode.DEMO
    await ensure_topics(kafka_site.admin, mode, 1)
    example = EXAMPLES[Instrument].model_dump() | {"run_mode": mode}
    kept, dropped = (Instrument.model_validate(example | {"symbol": f"{name}.XTST"}) for name in ("KEPT", "DROPPED"))
    transactions = await asyncio.to_thread(Transactional, kafka_site)
    for instrument, commit in ((kept, True), (dropped, False)):
        await asyncio.to_thread(
            transactions.write,
            topic_name(Topic.INSTRUMENTS, mode),
            [instrument.encode()],
            commit=commit,
            key=instrument.symbol.encode(),
        )
    instruments = Instruments(kafka_site.bus, SystemClock(), mode, kafka_site.name("instruments"))
    await instruments.start()
    try:
        assert instruments.get(kept.symbol) is not None
        assert instruments.get(dropped.symbol) is None
    finally:
        await instruments.close()


async def _read_to(reader: Reader, tp: TopicPartition, end: int) -> list[Record]:
    records: list[Record] = []
    async with asyncio.timeout(PATIENCE_S):
        while reader.position(tp) < end:
            records += await reader.poll(timeout_ms=200)
    return records
