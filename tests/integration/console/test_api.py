"""The console's API on a real Kafka, beside a real worker, engine and scorer."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import orjson
import pytest
from pydantic import ValidationError

from deploy.local.process import free_port
from schemas import AuditRecord, Control, HaltState, Outcome, Topic
from services.core.bus.kafka import KafkaBus
from services.core.bus.topic_reader import TimeRange, read_within
from services.core.clock import SystemClock
from services.core.settings import BusSettings
from tests.integration.console.desk import SYMBOLS, TOKEN, Desk, client, eventually, get
from tests.integration.fusion.worker import Worker
from tests.unit.console.records import audit

pytestmark = pytest.mark.integration


async def _on_topic(desk: Desk, topic: Topic) -> list[bytes]:
    bus = KafkaBus(BusSettings(url=desk.kafka_url), SystemClock())
    reader = await bus.reader(client_id="tests")
    try:
        return [one.value or b"" async for one in read_within(bus, reader, f"demo.{topic.value}", TimeRange())]
    finally:
        await reader.close()
        await bus.close()


async def _published(desk: Desk) -> dict[str, Any]:
    """Return the newest decision with a signal."""
    rows = await get(desk, "/api/decisions?outcome=published&limit=2000")
    return next(row for row in rows if row["symbol"] in SYMBOLS)


async def test_the_sums_are_those_of_the_audit_topic_and_of_the_worker(desk: Desk) -> None:
    first: dict[UUID, AuditRecord] = {}
    for value in await _on_topic(desk, Topic.SIGNAL_AUDIT):
        with contextlib.suppress(ValidationError):  # other tests publish records that break the contract
            one = AuditRecord.decode(value)
            first.setdefault(one.trigger_id, one)

    async def equal() -> bool:
        totals = (await get(desk, "/api/state"))["now"]["totals"]
        return bool(totals["triggers"] >= len(first))

    await eventually(equal, "the console to have read the audit", desk)
    now = (await get(desk, "/api/state"))["now"]
    for outcome in Outcome:
        assert now["totals"]["outcomes"][outcome] >= sum(one.outcome is outcome for one in first.values())
    assert now["totals"]["triggers"] == sum(now["totals"]["outcomes"].values())

    async def worker_shown() -> bool:
        workers = (await get(desk, "/api/state"))["now"]["workers"]
        return bool(workers["reachable"] == 1 and workers["triggers"] > 0 and workers["records"]["folded"] > 0)

    await eventually(worker_shown, "the worker's metrics", desk)


async def test_a_decisions_prompt_is_rebuilt_with_the_hash_in_the_audit(desk: Desk) -> None:
    row = await _published(desk)
    detail = await get(desk, f"/api/decisions/{row['trigger_id']}")
    prompt = await get(desk, f"/api/decisions/{row['signal_id']}/prompt")
    assert detail["intact"]
    assert detail["signal"]["signal_id"] == row["signal_id"]
    assert prompt["matches"], prompt["problem"]
    assert prompt["rebuilt_hash"] == prompt["audit_hash"] == detail["audit"]["prompt_hash"]
    assert sum(one["tokens"] for one in prompt["sections"]) == prompt["prompt_tokens"] == detail["audit"]["prompt_tokens"]
    assert [one["kind"] for one in prompt["sections"]][:2] == ["rules", "instrument"]
    assert prompt["sections"][-1]["kind"] == "tail"
    assert row["symbol"] in prompt["sections"][1]["cached"] + prompt["sections"][1]["read"]
    # What is cached is a beginning: nothing is read before something that was cached.
    parts = [bool(text) for one in prompt["sections"] for text in (one["cached"], one["read"]) if text]
    kinds = [kind for one in prompt["sections"] for kind in ("cached", "read") if one[kind]]
    assert parts
    assert kinds == sorted(kinds)


async def test_a_symbol_shows_its_bars_its_signals_and_their_results(desk: Desk) -> None:
    view = await get(desk, f"/api/symbols/{SYMBOLS[0]}")
    assert view["interval"] == "1m"
    assert len(view["bars"]) >= 50
    assert [one["ts_close_ms"] for one in view["bars"]] == sorted(one["ts_close_ms"] for one in view["bars"])
    assert view["signals"]
    assert all(one["row"]["symbol"] == SYMBOLS[0] for one in view["signals"])
    assert view["vision"]["image_matches"] is False  # the feed's hash is made up


async def test_the_score_is_that_of_the_scorers_results(desk: Desk) -> None:
    (side,) = (await get(desk, "/api/score"))["sides"]
    assert side["run_mode"] == "demo"
    assert side["signals"] >= side["opened"] >= side["completed"] > 0
    assert "NO MODEL WAS ASKED" in side["banner"]
    assert side["chance"] or side["chance_missing"]


@asynccontextmanager
async def _stream(desk: Desk, last_event_id: str | None = None) -> AsyncIterator[AsyncIterator[tuple[str, str, Any]]]:
    """Yield the messages of an event stream as (id, event, data)."""
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    async with client(desk) as session, session.get("/api/events", headers=headers, timeout=aiohttp.ClientTimeout(None)) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")

        async def messages() -> AsyncIterator[tuple[str, str, Any]]:
            fields: dict[str, str] = {}
            async for line in answer.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                elif "data" in fields:
                    yield fields["id"], fields["event"], orjson.loads(fields["data"])
                    fields = {}

        yield messages()


async def _triggers(messages: AsyncIterator[tuple[str, str, Any]], wanted: set[str]) -> tuple[list[str], str]:
    """Return the trigger ids that arrive, until all that are wanted have, and the last event's id."""
    got: list[str] = []
    async with asyncio.timeout(60):
        async for event_id, kind, data in messages:
            assert kind != "resync"
            if kind == "frame":
                got += [value["trigger_id"] for what, value in data if what == "decision"]
            if wanted <= set(got):
                return got, event_id
    raise AssertionError("the stream ended")


async def test_a_stream_that_was_lost_goes_on_where_it_was(desk: Desk) -> None:
    first, missed, last = (audit(number, Outcome.STALE) for number in (9_001, 9_002, 9_003))
    async with _stream(desk) as messages:
        await desk.publish(Topic.SIGNAL_AUDIT, [("x", first)])
        _, event_id = await _triggers(messages, {str(first.trigger_id)})
    await desk.publish(Topic.SIGNAL_AUDIT, [("x", missed)])
    async with _stream(desk, event_id) as messages:
        await desk.publish(Topic.SIGNAL_AUDIT, [("x", last)])
        got, _ = await _triggers(messages, {str(missed.trigger_id), str(last.trigger_id)})
    assert [one for one in got if one in {str(first.trigger_id), str(missed.trigger_id), str(last.trigger_id)}] == [
        str(missed.trigger_id),
        str(last.trigger_id),
    ]


async def test_a_stream_from_a_console_that_is_gone_is_told_to_read_the_state_again(desk: Desk) -> None:
    async with _stream(desk, "0badcafe-12") as messages, asyncio.timeout(60):
        _, kind, _ = await anext(messages)
    assert kind == "resync"


async def test_a_client_that_reads_nothing_slows_no_other(desk: Desk) -> None:
    stuck = socket.create_connection(("127.0.0.1", desk.port))
    try:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        stuck.sendall(f"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1:{desk.port}\r\n\r\n".encode())
        assert stuck.recv(12) == b"HTTP/1.1 200"
        made = [audit(10_000 + number, Outcome.STALE, detail="z" * 1_500) for number in range(2_000)]
        async with _stream(desk) as messages:
            await desk.publish(Topic.SIGNAL_AUDIT, [("x", one) for one in made])
            await _triggers(messages, {str(one.trigger_id) for one in made})
    finally:
        stuck.close()


async def _controls(desk: Desk) -> list[Control]:
    return [Control.decode(one) for one in await _on_topic(desk, Topic.CONTROL)]


async def test_halt_and_resume_take_the_token_and_reach_the_worker(desk: Desk) -> None:
    command = {"state": "HALTED", "reason": "a test of the console", "actor": "Ada", "confirmed": True}
    before = len(await _controls(desk))
    async with client(desk) as session:
        async with session.post("/api/control", json=command) as answer:
            assert answer.status == 403  # no origin
        async with session.post("/api/control", json=command, headers={"Origin": desk.url}) as answer:
            assert answer.status == 401
        async with session.post("/api/session", json={"token": "wrong"}, headers={"Origin": desk.url}) as answer:
            assert answer.status == 401
        async with session.post("/api/session", json={"token": TOKEN}, headers={"Origin": desk.url}) as answer:
            assert answer.status == 204
            cookie = answer.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=strict" in cookie
            assert TOKEN not in cookie
    async with client(desk, token=True) as session:
        for wrong in ({**command, "confirmed": False}, {**command, "reason": "  "}, {**command, "symbol": "<b>"}, {"state": "HALTED"}):
            async with session.post("/api/control", json=wrong) as answer:
                assert answer.status == 422
        assert len(await _controls(desk)) == before
        async with session.post("/api/control", json=command) as answer:
            assert answer.status == 200
    said = (await _controls(desk))[before:]
    assert [(one.scope, one.state, one.reason, one.actor) for one in said] == [
        ("global", HaltState.HALTED, "a test of the console", "Ada (console)")
    ]

    async def halted() -> bool:
        return bool((await get(desk, "/api/halt"))["everything"] == "a test of the console")

    await eventually(halted, "the console to see the halt", desk)
    await desk.feed()

    async def blocked() -> bool:
        return any(row["reason"] == "halted" for row in await get(desk, "/api/decisions?outcome=blocked"))

    await eventually(blocked, "a decision that the halt blocked", desk)
    row = next(one for one in await get(desk, "/api/decisions?outcome=blocked") if one["reason"] == "halted")
    detail = await get(desk, f"/api/decisions/{row['trigger_id']}")
    assert "halted" in detail["explanation"]
    async with client(desk, token=True) as session:
        async with session.get(f"/api/decisions/{row['trigger_id']}/prompt") as answer:
            assert answer.status == 404
        async with session.post("/api/control", json={**command, "state": "ACTIVE"}) as answer:
            assert answer.status == 200

    async def active() -> bool:
        return (await get(desk, "/api/halt"))["everything"] is None

    await eventually(active, "the console to see the end of the halt", desk)


async def test_the_api_describes_itself_and_every_answer_forbids_what_is_foreign(desk: Desk) -> None:
    document = await get(desk, "/api/openapi.json")
    assert {"/api/state", "/api/events", "/api/decisions/{wanted}/prompt", "/api/control", "/api/score"} <= set(document["paths"])
    async with client(desk) as session:
        for path in ("/", "/score", f"/symbol/{SYMBOLS[0]}", "/static/js/main.js", "/api/state", "/api/decisions/none", "/nothing"):
            async with session.get(path) as answer:
                assert answer.headers["Content-Security-Policy"].startswith("default-src 'self';")
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
        async with session.get("/api/state", headers={"Host": "rebound.example"}) as answer:
            assert answer.status == 421
            assert "Content-Security-Policy" in answer.headers
        async with session.get("/static/../api.py") as answer:
            assert answer.status == 404


def test_vendored_libraries_are_the_published_ones() -> None:
    folder = Path("services/console/static/vendor")
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.rglob("*.mjs"))}
    assert digests == {
        "lightweight-charts.mjs": orjson.loads((folder / "versions.json").read_bytes())["lightweight-charts"]["sha256"],
        "uPlot.mjs": orjson.loads((folder / "versions.json").read_bytes())["uplot"]["sha256"],
    }


async def test_without_a_broker_the_console_says_so_and_goes_on(desk: Desk, tmp_path: Path) -> None:
    values = {**desk.values, "bus": {**desk.values["bus"], "url": "kafka://127.0.0.1:9", "request_timeout_ms": 1_000}}
    port = free_port()
    alone = Worker(tmp_path, "alone", {**values, "console": {"port": port, "worker_urls": []}}, service="console").start()
    try:

        async def listening() -> bool:
            assert alone.running, alone.tail()
            with contextlib.suppress(aiohttp.ClientError):
                async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/livez") as answer:
                    return answer.status == 200
            return False

        async def shown() -> bool:
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/api/state") as answer:
                feed = (await answer.json())["now"]["feed"]
            return not feed["connected"] and "not answered yet" not in feed["problem"]

        await eventually(listening, "the console to listen", desk)
        await eventually(shown, "the console to say that the broker is gone", desk)
        alone.terminate()
        assert await alone.ended() == 0
    finally:
        alone.kill()
