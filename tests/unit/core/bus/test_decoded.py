"""Records in Confluent's wire format arrive as JSON; what cannot be decoded arrives as it came, with the reason."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import suppress
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas import MarketFeatures, Outcome, Topic
from services.core.bus import Bus, BusError, DecodedRecord, NewTopic, Record, TopicPartition, schema_registry
from services.core.bus.decoded import DecodedBus, RecordDecoders
from services.core.bus.memory import MemoryBus
from services.core.bus.wire_format import WireFormatError, WriterSchema, schema_id_of, to_json
from services.core.clock import VirtualClock
from services.core.topic_settings import TopicSettings
from tests.unit.core.bus.registry import BARS, NOTES, Registry, avro, header, json_schema
from tests.unit.fusion.build import MARKET, START, SYMBOL, bar
from tests.unit.fusion.desk import HOLD, NOW, Desk, ScriptedEngine
from tests.unit.fusion.inputs.build import note

PRICES = st.floats(0.01, 1e9)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    found = Registry()
    found.add(7, BARS)
    found.add(8, NOTES, schemaType="AVRO")
    found.add(9, {"type": "object"}, schemaType="JSON")
    async with found.serving():
        yield found


def settings(registry: Registry, **decoders: str) -> TopicSettings:
    kinds = {name.replace("_", "-"): kind for name, kind in decoders.items()}
    return TopicSettings.model_validate({"decoders": kinds, "registry_url": registry.url})


def decoded_bus(inner: Bus, topics: TopicSettings) -> DecodedBus:
    return DecodedBus(inner, topics, RecordDecoders(topics))


@given(
    close=PRICES,
    volume=st.floats(0, 1e12),
    revision=st.integers(0, 1000),
    features=st.dictionaries(st.from_regex(r"\A[a-z]{1,8}\Z"), st.floats(allow_nan=False, allow_infinity=False), max_size=5),
)
def test_a_bar_in_avro_is_the_bar_in_json(close: float, volume: float, revision: int, features: dict[str, float]) -> None:
    prices = dict.fromkeys(("open", "high", "low", "close"), close)
    made = bar(0).model_copy(update={**prices, "volume": volume, "revision": revision, "features": features})
    schema = WriterSchema.of(7, {"schema": orjson.dumps(BARS).decode()})
    value = avro(BARS, 7, made)
    assert schema_id_of(value) == 7
    assert MarketFeatures.decode(to_json(value, schema, "avro")) == made


def test_null_is_left_out_and_logical_types_have_their_form() -> None:
    fields = [
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "gone", "type": ["null", {"type": "record", "name": "Part", "fields": [{"name": "x", "type": "int"}]}]},
    ]
    avro_schema = {"type": "record", "name": "R", "fields": fields}
    at = dt.datetime(2024, 7, 1, tzinfo=dt.UTC)
    value = avro(avro_schema, 1, {"at": at, "price": Decimal("12.30"), "gone": None})
    schema = WriterSchema.of(1, {"schema": orjson.dumps(avro_schema).decode()})
    assert orjson.loads(to_json(value, schema, "avro")) == {"at": START, "price": "12.30"}


@given(st.binary(max_size=80))
def test_bytes_of_whatever_kind_are_decoded_or_refused_in_a_sentence(value: bytes) -> None:
    schema = WriterSchema.of(7, {"schema": orjson.dumps(BARS).decode()})
    for one in (value, header(7) + value):
        with suppress(WireFormatError):
            schema_id_of(one)
            assert isinstance(orjson.loads(to_json(one, schema, "avro")), dict)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (bar(0).encode(), "does not begin with a zero byte"),
        (b"\0\0", "does not begin with a zero byte"),
        (avro(BARS, 999, bar(0)), "has no schema 999"),
        (avro(BARS, 7, bar(0))[:-1], "is not as schema 7 has it"),
        (avro(BARS, 7, bar(0)) + b"x", "goes on after"),
        (json_schema(9, bar(0)), "is read as 'json_schema', and topics.decoders has 'avro'"),
        (header(10), "refers to other schemas"),
        (header(11), "is of type 'PROTOBUF'"),
        (header(12), "is no Avro schema"),
    ],
)
async def test_a_record_that_cannot_be_decoded_is_dead_lettered_as_it_came_with_the_reason(
    registry: Registry, value: bytes, said: str
) -> None:
    registry.add(10, BARS, references=[{"name": "Part", "subject": "part", "version": 1}])
    registry.add(11, {}, schemaType="PROTOBUF")
    registry.answers[12] = {"schema": '{"type": "record"'}
    desk = await Desk.open(ScriptedEngine([HOLD]), min_bars=1)
    raw = desk.bus
    desk.bus = decoded_bus(raw, settings(registry, market_features="avro"))  # type: ignore[assignment]
    async with desk.running():
        await desk.send_raw(Topic.MARKET_FEATURES, SYMBOL.encode(), value)
        await desk.send_raw(Topic.MARKET_FEATURES, SYMBOL.encode(), avro(BARS, 7, bar(1)))
        assert (await desk.concluded(1))[0].outcome is Outcome.PUBLISHED
        await desk.until(lambda: desk.worker._rooms.partitions.watermarks.unfinished == 0)
    [put] = await desk.dead_letters()
    assert (put.letter.reason.value, put.value) == ("malformed", value)
    assert said in put.letter.detail


async def test_a_message_that_breaks_its_contract_is_dead_lettered_in_its_own_bytes(registry: Registry) -> None:
    desk = await Desk.open(ScriptedEngine([HOLD]), min_bars=1)
    desk.bus = decoded_bus(desk.bus, settings(registry, market_features="avro"))  # type: ignore[assignment]
    value = avro(BARS, 7, bar(0).model_copy(update={"high": 1.0}))
    async with desk.running():
        await desk.send_raw(Topic.MARKET_FEATURES, SYMBOL.encode(), value)
        await desk.until(lambda: desk.worker.accounts.records.total() == 1)
    [put] = await desk.dead_letters()
    assert (put.letter.reason.value, put.value) == ("invalid", value)


async def test_bars_in_avro_and_notes_in_json_schema_are_decided_on(registry: Registry) -> None:
    desk = await Desk.open(ScriptedEngine([HOLD]), min_bars=1)
    desk.bus = decoded_bus(desk.bus, settings(registry, market_features="avro", notes="json_schema"))  # type: ignore[assignment]
    await desk.send_raw(Topic.NOTES, SYMBOL.encode(), json_schema(9, note(ts_ms=NOW)))
    async with desk.running():
        for slot in range(3):
            await desk.send_raw(Topic.MARKET_FEATURES, SYMBOL.encode(), avro(BARS, 7, bar(slot)))
        audits = await desk.concluded(3)
    assert {"notes"} == {name for one in audits if one.as_of is not None for name in one.as_of.tables or {}}
    assert sorted(registry.asked) == ["/schemas/ids/7", "/schemas/ids/9"], "each schema is fetched once"


async def test_records_wait_for_a_registry_that_is_down(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_registry, "_GIVE_UP_S", 0.0)
    raw = MemoryBus(VirtualClock(START))
    bus = decoded_bus(raw, settings(registry, market_features="avro"))
    await (await bus.admin()).create([NewTopic(MARKET, 1, {})])
    producer, reader = await bus.producer(client_id="test"), await bus.reader(client_id="test")
    for slot in range(2):
        await producer.send(MARKET, key=SYMBOL.encode(), value=avro(BARS, 7, bar(slot)))
    partition = TopicPartition(MARKET, 0)
    await reader.read({partition: 0})
    registry.down = True
    for _ in range(2):
        with pytest.raises(BusError, match="answered 503"):
            await reader.poll(timeout_ms=100)
        assert reader.position(partition) == 0
    registry.down = False
    found = await reader.poll(timeout_ms=100)
    assert [MarketFeatures.decode(one.value or b"") for one in found] == [bar(0), bar(1)]
    assert reader.position(partition) == 2


async def test_two_tasks_that_poll_one_reader_share_its_records_and_no_position_passes_what_is_not_decoded(registry: Registry) -> None:
    bus = decoded_bus(MemoryBus(VirtualClock(START)), settings(registry, market_features="avro"))
    await (await bus.admin()).create([NewTopic(MARKET, 1, {})])
    producer, reader = await bus.producer(client_id="test"), await bus.reader(client_id="test")
    partition = TopicPartition(MARKET, 0)
    await reader.read({partition: 0})
    for slot in range(6):
        await producer.send(MARKET, key=SYMBOL.encode(), value=avro(BARS, 7, bar(slot)))
    taken: list[int] = []

    async def take() -> None:
        while reader.position(partition) < 6:
            taken.extend(record.offset for record in await reader.poll(timeout_ms=50, max_records=2))
        assert taken == list(range(6)), "a position at the end says that all was returned"

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(take())
        tasks.create_task(take())


async def test_a_schema_that_the_registry_lacks_is_not_asked_for_with_every_record(registry: Registry) -> None:
    decoders = RecordDecoders(settings(registry, market_features="avro"))
    one = (await _records(avro(BARS, 999, bar(0))))[0]
    found = await decoders.decoded([one] * 20)
    assert {record.problem for record in found if isinstance(record, DecodedRecord)} == {
        f"the schema registry at {registry.url} has no schema 999"
    }
    assert len(registry.asked) == 1


async def test_the_registry_is_logged_in_to(registry: Registry) -> None:
    registry.authorization = f"Basic {base64.b64encode(b'desk:secret').decode()}"
    login = {"registry_username": "desk", "registry_password": "secret"}
    given = {"decoders": {"market-features": "avro"}, "registry_url": registry.url, **login}
    [record] = await RecordDecoders(TopicSettings.model_validate(given)).decoded(await _records(avro(BARS, 7, bar(0))))
    assert isinstance(record, DecodedRecord)
    assert record.problem is None


async def _records(value: bytes) -> list[Record]:
    bus = MemoryBus(VirtualClock(START))
    await (await bus.admin()).create([NewTopic(MARKET, 1, {})])
    await (await (await bus.producer(client_id="test")).send(MARKET, key=SYMBOL.encode(), value=value))
    reader = await bus.reader(client_id="test")
    await reader.read({TopicPartition(MARKET, 0): 0})
    return await reader.poll(timeout_ms=100)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"decoders": {"notes": "avro"}}, "name the registry in topics.registry_url"),
        ({"decoders": {"strategy-signals": "avro"}}, "Input should be"),
        ({"decoders": {"notes": "protobuf"}, "registry_url": "http://r"}, "Input should be 'json', 'json_schema' or 'avro'"),
        ({"registry_url": "http://user:secret@r"}, "String should match pattern"),
    ],
)
def test_decoders_that_cannot_work_are_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TopicSettings.model_validate(given)
