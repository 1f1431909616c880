"""Notes, positions and topics by the user's own names, on a real Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from deploy.local import LocalKafka, LocalRedis
from schemas import Blackout, HeldPosition, Note, Outcome, RunMode, Topic
from services.core.bus.kafka import KafkaBus
from services.core.bus.renamed import RenamedBus
from services.core.clock import SystemClock
from services.core.settings import BusSettings
from services.core.topic_settings import TopicSettings
from tests.integration.fusion import command
from tests.integration.fusion.engines import PacedSimulator
from tests.integration.fusion.feed import SYMBOLS, bar
from tests.integration.fusion.logs import Logs
from tests.integration.fusion.site import PARTITIONS, Site
from tests.unit.core.bus.registry import BARS, Registry, avro

pytestmark = pytest.mark.integration

NAMES: Final = {topic: f"desk.{topic.value}-of-ours" for topic in Topic}


@pytest.fixture
async def renamed(fusion_kafka: LocalKafka, redis_server: LocalRedis, simulator: PacedSimulator, tmp_path: Path) -> AsyncIterator[Site]:
    """Return a site whose topics all have other names on the broker."""
    site = Site(tmp_path, fusion_kafka.url, redis_server.url, simulator.url)
    site.values["topics"] = {"names": {topic.value: name for topic, name in NAMES.items()}}
    site.bus = RenamedBus(site.bus, TopicSettings(names=NAMES))  # type: ignore[assignment]
    site.logs = Logs(site.bus, site.run_mode, PARTITIONS)
    await site.open()
    yield site
    await site.close()


def _note(text: str, symbol: str, blackout: tuple[int, int] | None = None) -> Note:
    span = None if blackout is None else Blackout(from_ms=blackout[0], until_ms=blackout[1])
    now_ms = SystemClock().now_ms()
    return Note(schema_version=1, run_mode=RunMode.DEMO, symbol=symbol, source="desk", ts_ms=now_ms, text=text, blackout=span)


def _position(symbol: str) -> HeldPosition:
    return HeldPosition(
        schema_version=1,
        run_mode=RunMode.DEMO,
        symbol=symbol,
        side="long",
        quantity=10.0,
        average_price=100.0,
        ts_ms=SystemClock().now_ms(),
    )


async def test_a_worker_on_topics_by_other_names_decides_with_notes_and_positions_and_its_prompts_verify(renamed: Site) -> None:
    site, held, dark = renamed, SYMBOLS[0], SYMBOLS[1]
    now_ms = SystemClock().now_ms()
    await site.publish(Topic.NOTES, [_note("to all", "*"), _note("results", dark, (now_ms - 1_000, now_ms + 3_600_000))])
    await site.publish(Topic.POSITIONS, [_position(held)])
    worker = await site.worker().start().ready()
    made = await site.feed()
    await site.logs.until(lambda: len(site.logs.ended) >= len(made), "an outcome for every bar", told=site.tails)

    rests = {one.symbol: one.as_of.tables for one in site.logs.ended.values() if one.as_of is not None}
    named = {symbol: sorted(tables or {}) for symbol, tables in rests.items()}
    assert named == {symbol: ["notes", "positions"] if symbol == held else ["notes"] for symbol in SYMBOLS}
    reasons = {(one.outcome, one.reason) for one in site.logs.ended.values() if one.symbol == dark}
    assert reasons == {(Outcome.BLOCKED, "blackout")}
    assert await worker.metric("aquiline_table_records_total", topic="notes", result="folded") == 2

    async def no_lag() -> bool:
        return await worker.metric("aquiline_lag_records", topic="market-features", partition="0") == 0

    await site.eventually(no_lag, "no lag on the metrics page")
    worker.terminate()
    assert await worker.ended() == 0

    # On the broker all of it is under the other names.
    raw = KafkaBus(BusSettings(url=site.values["bus"]["url"]), SystemClock())
    admin = await raw.admin()
    try:
        found = await admin.describe([f"demo.{name}" for name in NAMES.values()])
    finally:
        await admin.close()
        await raw.close()
    assert sorted(found) == sorted(f"demo.{name}" for name in NAMES.values())

    code, said = await command.aquiline("topics", "describe", "--config", str(site.config()))
    assert code == 0, said
    assert "demo.desk.notes-of-ours" in said.replace("\n", "")
    code, said = await command.aquiline("replay", "--verify", "topic", "--config", str(site.config()))
    assert code == 0, said
    assert "every hash matches" in " ".join(said.split())


async def test_a_worker_decides_on_bars_in_avro_and_dead_letters_what_is_none(
    fusion_kafka: LocalKafka, redis_server: LocalRedis, simulator: PacedSimulator, tmp_path: Path
) -> None:
    registry = Registry()
    registry.add(7, BARS)
    site = Site(tmp_path, fusion_kafka.url, redis_server.url, simulator.url)
    async with registry.serving():
        site.values["topics"] = {"decoders": {"market-features": "avro"}, "registry_url": registry.url}
        await site.open(history=0)
        try:
            worker = await site.worker(fusion={"min_bars": 1, "start_from": "earliest"}).start().ready()
            values = [avro(BARS, 7, bar(symbol, site.numbers.take(symbol))) for symbol in SYMBOLS]
            for symbol, value in zip(SYMBOLS, values, strict=True):
                await site.publish_raw(Topic.MARKET_FEATURES, symbol.encode(), value)
            await site.publish_raw(Topic.MARKET_FEATURES, SYMBOLS[0].encode(), values[0][:-3])
            await site.logs.until(lambda: len(site.logs.ended) >= len(SYMBOLS), "an outcome for every bar", told=site.tails)
            await site.logs.until(lambda: len(site.logs.dead_letters) == 1, "the dead letter", told=site.tails)
            assert site.logs.dead_letters[0][0].value == values[0][:-3]
            assert {one.symbol for one in site.logs.ended.values()} == set(SYMBOLS)
            assert await worker.metric("aquiline_records_total", outcome="folded") == len(SYMBOLS)
            assert await worker.metric("aquiline_records_total", outcome="dead_lettered") == 1
            worker.terminate()
            assert await worker.ended() == 0
        finally:
            await site.close()
