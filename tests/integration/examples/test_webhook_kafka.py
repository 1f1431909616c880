"""The example webhook on a real Kafka and a real HTTP receiver that fails at first."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from aiohttp import ClientSession, web
from signal_inbox import SignalInbox, follow
from webhook import post

from schemas import Message
from services.core.bus import NewTopic
from services.core.bus.kafka import KafkaBus
from services.core.clock import SystemClock
from services.core.settings import BusSettings
from tests.unit.examples.test_signal_inbox import cancel, signal

pytestmark = pytest.mark.integration


async def receiver(answers: list[int]) -> tuple[web.AppRunner, str, list[tuple[str, dict[str, Any]]]]:
    """Start a server that answers with these statuses, the last one from then on; return it, its address and what it was sent."""
    taken: list[tuple[str, dict[str, Any]]] = []

    async def take(request: web.Request) -> web.Response:
        taken.append((request.headers["Idempotency-Key"], await request.json()))
        return web.Response(status=answers.pop(0) if len(answers) > 1 else answers[0])

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, site.name, taken


async def test_a_signal_and_its_withdrawal_reach_the_webhook_once_each(kafka_bus_settings: BusSettings, unique: str) -> None:
    now_ms = time.time_ns() // 1_000_000
    first = signal(1, valid_until_ms=now_ms + 60_000)
    messages: list[Message] = [first, first, signal(2, valid_until_ms=now_ms - 1), cancel(1)]
    bus = KafkaBus(kafka_bus_settings, SystemClock())
    admin = await bus.admin()
    await admin.create([NewTopic(unique, 1, {})])
    await admin.close()
    producer = await bus.producer(client_id=unique)
    for message in messages:
        await (await producer.send(unique, key=b"X", value=message.encode()))
    runner, url, taken = await receiver([503, 200])
    posted = []
    async with ClientSession() as http, asyncio.timeout(60):
        steps = follow(kafka_bus_settings.url.removeprefix("kafka://"), unique, f"{unique}-webhook", SignalInbox())
        async for step in steps:
            posted.append(await post(http, url, step))
            if len(posted) == 2:
                break
        await steps.aclose()
    await runner.cleanup()
    await producer.close()
    await bus.close()
    assert posted == [True, True]
    assert [(key, body["kind"]) for key, body in taken] == [
        (f"{first.signal_id}/act", "act"),
        (f"{first.signal_id}/act", "act"),
        (f"{first.signal_id}/withdraw", "withdraw"),
    ]
