"""What Faust fetches from a real Kafka comes to the scorer, whatever stood still in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from faust.types import TP, TopicT

from schemas import Topic, topic_name
from services.core.bus import Position
from services.core.settings import Settings
from services.core.zombie_fence import ZombieFence
from services.scoring.faust_app import App, ChangelogTable, make_app, subscribe
from tests.integration.fusion.waiting import until
from tests.integration.scoring.desk import MODE, PARTITIONS, Desk

pytestmark = pytest.mark.integration

_ROUNDS = 30
_INPUTS = (Topic.STRATEGY_SIGNALS, Topic.MARKET_FEATURES)
_PLACES = {TP(topic_name(topic, MODE), number) for topic in _INPUTS for number in range(PARTITIONS)}


def _pause_partitions(app: App) -> Callable[[], None]:
    app.consumer.pause_partitions(_PLACES)
    return lambda: app.consumer.resume_partitions(_PLACES)


def _stop_flow(app: App) -> Callable[[], None]:
    app.consumer.stop_flow()
    return app.consumer.resume_flow


@pytest.mark.parametrize("stand_still", [_pause_partitions, _stop_flow])
async def test_records_that_were_fetched_while_nothing_was_to_be_handed_on_come_afterwards(
    desk: Desk, stand_still: Callable[[App], Callable[[], None]]
) -> None:
    async with _faust(desk) as (app, channel):
        published: set[tuple[str, int, int]] = set()
        for number in range(_ROUNDS):
            go_on = stand_still(app)
            for topic in _INPUTS:
                for position in [await desk.publish_raw(topic, f"{number}-{key}".encode(), b"x") for key in range(PARTITIONS)]:
                    published.add((position.topic, position.partition, position.offset))
            go_on()
        come: set[tuple[str, int, int]] = set()

        def all_came() -> bool:
            while not channel.queue.empty():
                message: Any = channel.queue.get_nowait().message
                come.add((message.topic, message.partition, message.offset))
            return come >= published

        await until(all_came, "all records", told=lambda: f"missing: {sorted(published - come)}")


async def test_a_commit_passes_nothing_that_came_while_faust_sought_to_the_commits(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _faust(desk) as (app, channel):
        consumer: Any = app.consumer
        place = await _publish(desk)
        (await channel.queue.get()).ack()
        await consumer.commit()
        sought, go_on = asyncio.Event(), asyncio.Event()
        seek = consumer.seek_to_committed

        async def slowly() -> Any:
            found = await seek()
            sought.set()
            await go_on.wait()
            return found

        monkeypatch.setattr(consumer, "seek_to_committed", slowly)
        seeking = asyncio.create_task(consumer.perform_seek())
        await sought.wait()
        first = [await _publish(desk) for _ in range(20)]
        await desk.count(Topic.STRATEGY_SIGNALS)
        go_on.set()
        await seeking
        last = await _publish(desk)
        events: dict[int, Any] = {}

        def all_came() -> bool:
            while not channel.queue.empty():
                event: Any = channel.queue.get_nowait()
                events.setdefault(event.message.offset, event)
            return events.keys() >= {place.offset + number for number in range(1, len(first) + 2)}

        await until(all_came, "all records", told=lambda: sorted(events))
        assert last.offset == place.offset + len(first) + 1
        for number in range(1, 4):
            events[place.offset + number].ack()
        await consumer.commit()
        assert consumer._committed_offset[TP(place.topic, place.partition)] == place.offset + 4


@asynccontextmanager
async def _faust(desk: Desk) -> AsyncIterator[tuple[App, TopicT]]:
    """Yield an application that reads every partition of both inputs, and the channel that they arrive on."""
    settings = Settings(**desk.values)
    app = make_app(settings)
    ChangelogTable(app, "judges", topic_name(Topic.SCORING_JUDGES, MODE), ZombieFence.of(settings.bus))
    channel = subscribe(app, settings)
    running = asyncio.create_task(app.start())
    try:
        await until(lambda: _reads_all(app), "the partitions of both inputs", told=lambda: running)
        yield app, channel
    finally:
        await app.stop()
        await running


async def _publish(desk: Desk) -> Position:
    return await desk.publish_raw(Topic.STRATEGY_SIGNALS, b"one symbol", b"x")


def _reads_all(app: App) -> bool:
    return bool(app.tables.actives_ready and not app.rebalancing and app.consumer.assignment() >= _PLACES)
