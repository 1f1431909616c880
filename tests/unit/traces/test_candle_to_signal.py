"""Traces on the in-process bus, to a real OTLP receiver."""

from __future__ import annotations

import logging

import orjson
import pytest
import structlog

from schemas import Control, HaltState, RunMode, Topic
from services.core import logs
from services.core.bus import Bus
from services.core.bus.memory import MemoryBus
from services.core.clock import SystemClock
from services.core.settings import LogSettings, TracesSettings
from services.inference.engine import EngineError
from tests.collector import collecting
from tests.unit.core.folding.desk import until
from tests.unit.fusion.desk import ScriptedEngine
from tests.unit.traces.spec import GIVEN_SPAN, GIVEN_TRACE, TraceSpec
from tests.unit.traces.way import HISTORY, Way


@pytest.fixture
def bus() -> Bus:
    return MemoryBus(SystemClock())


@pytest.fixture
def run_mode() -> RunMode:
    return RunMode.DEMO


class TestOnMemory(TraceSpec):
    """All that is promised."""


async def test_a_candle_without_a_trace_starts_one_in_which_both_producers_meet(bus: Bus) -> None:
    async with collecting() as collector:
        way = Way(bus, TracesSettings(enabled=True, endpoint=collector.url), RunMode.DEMO, "group")
        async with way.running():
            await way.candle(HISTORY)
            await way.decided()
        trigger = collector.only("aquiline-fusion", "trigger")
        (market,) = [span for span in collector.of("aquiline-market", "market") if span.trace_id == trigger.trace_id]
        (vision,) = [span for span in collector.of("aquiline-vision", "vision") if span.trace_id == trigger.trace_id]
        assert (market.parent_id, vision.parent_id, trigger.parent_id) == ("", market.span_id, market.span_id)
        assert len({span.trace_id for span in collector.of("aquiline-market", "market")}) == HISTORY + 1


@pytest.mark.parametrize("flags", ["00", "01"])
async def test_whoever_sends_the_candle_decides_whether_it_is_sampled(bus: Bus, flags: str) -> None:
    async with collecting() as collector:
        way = Way(bus, TracesSettings(enabled=True, endpoint=collector.url, sample_ratio=1.0 - int(flags)), RunMode.DEMO, "group")
        async with way.running():
            await way.candle(HISTORY, [("traceparent", f"00-{GIVEN_TRACE}-{GIVEN_SPAN}-{flags}".encode())])
            await way.decided()
        assert {span.service for span in collector.spans if span.trace_id == GIVEN_TRACE} == (
            {"aquiline-market", "aquiline-vision", "aquiline-fusion"} if flags == "01" else set()
        )
        (record,) = await way.read(Topic.STRATEGY_SIGNALS)
        assert dict(record.headers)["traceparent"].startswith(f"00-{GIVEN_TRACE}-".encode())
        assert dict(record.headers)["traceparent"].endswith(flags.encode())


async def test_a_trigger_that_failed_or_was_stopped_ends_where_it_ended(bus: Bus) -> None:
    async with collecting() as collector:
        way = Way(bus, TracesSettings(enabled=True, endpoint=collector.url), RunMode.DEMO, "group")
        way.engine = ScriptedEngine([EngineError("engine_broke", "no more")])
        async with way.running():
            await way.candle(HISTORY)
            await way.decided()
            halt = Control(schema_version=1, run_mode=RunMode.DEMO, scope="global", state=HaltState.HALTED, reason="x", actor="me", ts_ms=1)
            await way.publish_raw(Topic.CONTROL, b"global", halt.encode())
            await until(lambda: way.worker._rooms.control.halted("any") is not None)
            await way.candle(HISTORY + 1)
            await way.decided(2)
        failed, stopped = sorted(collector.of("aquiline-fusion", "trigger"), key=lambda span: span.start_ms)
        assert sorted(collector.children(failed)) == ["engine", "fold", "prompt", "wait"]
        assert failed.error == collector.children(failed)["engine"].error == "engine_broke: no more"
        assert sorted(collector.children(stopped)) == ["fold", "wait"]
        assert (stopped.attributes["aquiline.outcome"], stopped.attributes["aquiline.reason"], stopped.error) == ("blocked", "halted", None)


async def test_without_tracing_there_are_no_spans_and_no_headers_of_our_own(bus: Bus) -> None:
    async with collecting() as collector:
        way = Way(bus, TracesSettings(endpoint=collector.url), RunMode.DEMO, "group")
        async with way.running():
            await way.candle(HISTORY)
            await way.decided()
        assert collector.spans == []
        for topic in (Topic.MARKET_FEATURES, Topic.VISION_FEATURES, Topic.STRATEGY_SIGNALS, Topic.SIGNAL_AUDIT):
            assert {tuple(record.headers) for record in await way.read(topic)} == {()}
        assert way.engine.requests[0].trace_headers == {}


async def test_without_tracing_a_trace_that_comes_in_is_handed_on_as_it_is(bus: Bus, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format="json"), service="fusion")
    given = f"00-{GIVEN_TRACE}-{GIVEN_SPAN}-01".encode()
    way = Way(bus, TracesSettings(), RunMode.DEMO, "group")
    async with way.running():
        await way.candle(HISTORY, [("traceparent", given)])
        await way.decided()
    (record,) = await way.read(Topic.STRATEGY_SIGNALS)
    assert dict(record.headers) == {"traceparent": given}
    assert way.engine.requests[0].trace_headers == {"traceparent": given.decode()}
    lines = [orjson.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert [line["trace_id"] for line in lines if line["event"] == "trigger"] == [GIVEN_TRACE]


@pytest.mark.parametrize("enabled", [False, True])
async def test_a_malformed_trace_is_ignored(bus: Bus, enabled: bool) -> None:  # noqa: FBT001 - a parameter
    async with collecting() as collector:
        way = Way(bus, TracesSettings(enabled=enabled, endpoint=collector.url), RunMode.DEMO, "group")
        async with way.running():
            await way.candle(HISTORY, [("traceparent", b"\xff\xfe\r\nx-evil: 1"), ("tracestate", b"\xff" * 9_000)])
            await way.decided()
        assert way.worker.accounts.outcomes == {"published": 1}
        assert len(collector.of("aquiline-fusion", "trigger")) == enabled


async def test_a_collector_that_is_away_costs_spans_and_nothing_else(bus: Bus) -> None:
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    structlog.reset_defaults()
    way = Way(bus, TracesSettings(enabled=True, endpoint="http://127.0.0.1:9/v1/traces"), RunMode.DEMO, "group")
    async with way.running():
        await way.candle(HISTORY)
        await way.decided()
    assert way.worker.accounts.outcomes == {"published": 1}
