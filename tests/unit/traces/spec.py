"""What is promised of a candle's trace on any bus; each bus' tests inherit it."""

from __future__ import annotations

import pytest

from schemas import RunMode, Topic, decode_signal_message, topic_name
from services.core.bus import Bus
from services.core.settings import TracesSettings
from tests.collector import Collector, collecting
from tests.unit.traces.way import HISTORY, SYMBOL, Way

GIVEN_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
GIVEN_SPAN = "00f067aa0ba902b7"
PARTS = ["fold", "wait", "prompt", "engine", "publish"]


class TraceSpec:
    """Inherited by one class for each bus, which gives the fixtures `bus`, `run_mode` and `unique`."""

    async def test_candle_to_signal_is_one_trace_with_its_parents_in_order(self, bus: Bus, run_mode: RunMode, unique: str) -> None:
        async with collecting() as collector:
            way = Way(bus, TracesSettings(enabled=True, endpoint=collector.url), run_mode, unique)
            async with way.running():
                given = f"00-{GIVEN_TRACE}-{GIVEN_SPAN}-01".encode()
                await way.candle(HISTORY, [("traceparent", given), ("tracestate", b"desk=7"), ("from", b"\x00")])
                await way.decided()
            found = Collector(spans=[span for span in collector.spans if span.trace_id == GIVEN_TRACE])
            market, vision = found.only("aquiline-market", "market"), found.only("aquiline-vision", "vision")
            trigger = found.only("aquiline-fusion", "trigger")
            assert [market.parent_id, vision.parent_id, trigger.parent_id] == [GIVEN_SPAN, GIVEN_SPAN, market.span_id]
            parts = found.children(trigger)
            assert sorted(parts) == sorted(PARTS)
            assert len(found.spans) == 3 + len(PARTS)
            assert trigger.links == [(GIVEN_TRACE, vision.span_id)], "the other input that the decision rests on"
            # Each part begins where the one before it ended, but for the rationale that follows a signal.
            assert parts["fold"].start_ms == trigger.start_ms
            assert parts["fold"].end_ms == parts["wait"].start_ms
            assert parts["wait"].end_ms == pytest.approx(parts["prompt"].start_ms, abs=0.01)
            assert parts["prompt"].end_ms == pytest.approx(parts["engine"].start_ms, abs=0.01)
            assert parts["engine"].events == ["first_token", "decision"]
            assert [market.kind, trigger.kind, parts["engine"].kind, parts["publish"].kind] == [
                "producer",
                "consumer",
                "client",
                "producer",
            ]
            (record,) = await way.read(Topic.STRATEGY_SIGNALS)
            signal = decode_signal_message(record.value or b"")
            assert (
                trigger.attributes.items()
                >= {
                    "aquiline.symbol": SYMBOL,
                    "aquiline.outcome": "published",
                    "aquiline.action": "buy",
                    "aquiline.vision": "fresh",
                    "messaging.destination.name": topic_name(Topic.MARKET_FEATURES, run_mode),
                }.items()
            )
            assert parts["publish"].attributes["aquiline.signal_id"] == str(signal.signal_id)
            assert parts["engine"].attributes["gen_ai.response.model"] == "script"
            # What leaves carries the trace on: the signal, its audit record and the engine's call.
            for topic in (Topic.STRATEGY_SIGNALS, Topic.SIGNAL_AUDIT):
                (record,) = await way.read(topic)
                assert dict(record.headers) == {
                    "traceparent": f"00-{GIVEN_TRACE}-{trigger.span_id}-01".encode(),
                    "tracestate": b"desk=7",
                }
            (request,) = way.engine.requests
            assert request.trace_headers["traceparent"] == f"00-{GIVEN_TRACE}-{parts['engine'].span_id}-01"
            assert {resource["deployment.environment.name"] for resource in collector.resources} == {run_mode.value}
