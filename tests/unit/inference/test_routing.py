"""Who serves which symbol, events cut out of a stream, and settings made into engines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncGenerator

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.breaker import Breaker
from services.core.clock import VirtualClock
from services.core.settings import EngineSettings
from services.inference.connect import connect
from services.inference.engine import Chunk, EngineError, EngineRequest, Sampling, Usage
from services.inference.pool import ranked
from services.inference.rules import RulesEngine
from services.inference.sglang_client import generate_body
from services.inference.sse import EventParser
from services.inference.with_breaker import EngineWithBreaker

ADDRESSES = [f"http://gpu-{number}:30000" for number in range(4)]


def request() -> EngineRequest:
    ids = np.arange(20, dtype=np.int32)[::2]
    return EngineRequest("0" * 32, "A", "fast", ids, Sampling(10, 0.5, '{"type":"object"}'), 10_000, lambda: ("", ""), {})


def test_symbols_spread_over_addresses_and_only_those_of_a_lost_one_move() -> None:
    symbols = [f"S{number}.XNAS" for number in range(2_000)]
    before = {symbol: ADDRESSES[ranked(symbol, ADDRESSES)[0]] for symbol in symbols}
    counts = Counter(before.values())
    assert all(abs(count - 500) < 4 * math.sqrt(500) for count in counts.values())
    left = ADDRESSES[1:]
    after = {symbol: left[ranked(symbol, left)[0]] for symbol in symbols}
    assert all(after[symbol] == address for symbol, address in before.items() if address != ADDRESSES[0])
    for symbol in symbols:
        order = [ADDRESSES[position] for position in ranked(symbol, ADDRESSES)]
        assert after[symbol] == next(address for address in order if address != ADDRESSES[0])


@given(st.lists(st.binary(max_size=20).filter(lambda data: b"\n" not in data and b"\r" not in data), max_size=10), st.data())
def test_events_are_the_same_wherever_the_stream_is_cut(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(b": comment\ndata: " + payload + b"\n\n" for payload in payloads)
    parser, found, at = EventParser(), [], 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream)))
        found += parser.feed(stream[at : at + step])
        at += step
    assert [payload.strip() for payload in payloads] == found


def test_the_body_holds_the_ids_as_they_are_even_of_a_strided_array() -> None:
    body = orjson.loads(generate_body(request()))
    assert body == {
        "rid": "0" * 32,
        "input_ids": list(range(0, 20, 2)),
        "sampling_params": {"max_new_tokens": 10, "temperature": 0.5, "top_p": 1.0, "json_schema": '{"type":"object"}'},
        "stream": True,
    }


@pytest.mark.parametrize("url", ["gpu:30000", "ftp://gpu", "http://"])
def test_an_address_that_is_none_is_refused_by_its_setting(url: str) -> None:
    with pytest.raises(ValueError, match=r"engine\.urls"):
        connect(EngineSettings(urls=[url]), VirtualClock())


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (EngineSettings(kind="rules"), "rules"),
        (EngineSettings(urls=["http://u:secret@gpu:1/"]), "sglang@gpu:1"),
        (EngineSettings(kind="openai", urls=["http://gpu:1/v1"]), "openai@gpu:1"),
        (EngineSettings(urls=ADDRESSES[:2]), "pool of 2, sglang@gpu-0:30000"),
    ],
)
def test_an_engine_is_named_without_credentials(settings: EngineSettings, name: str) -> None:
    assert name == connect(settings, VirtualClock()).name


class Scripted(RulesEngine):
    """An engine that fails in a given way after a given number of chunks, having taken its time."""

    def __init__(self, clock: VirtualClock, reason: str, *, chunks: int = 0, takes_ms: int = 0) -> None:
        super().__init__(clock)
        self.virtual = clock
        self.reason, self.chunks, self.takes_ms, self.calls = reason, chunks, takes_ms, 0

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        del request
        self.calls += 1
        for _ in range(self.chunks):
            yield Chunk("x")
        self.virtual.advance_to(self.virtual.now_ms() + self.takes_ms)
        if self.reason:
            raise EngineError(self.reason, "scripted")
        yield Chunk("", None, Usage(1, 1))


@pytest.mark.parametrize(
    ("reason", "chunks", "takes_ms", "opens"),
    [
        ("engine_unreachable", 0, 1, True),
        ("engine_broke", 3, 1, True),
        ("engine_overloaded", 0, 1, True),
        ("engine_timeout", 0, 1_000, True),
        ("engine_timeout", 0, 999, False),
        ("engine_timeout", 1, 2_000, False),
        ("engine_refused", 0, 1, False),
        ("", 1, 1, False),
    ],
)
async def test_only_what_speaks_against_the_address_opens_its_breaker(reason: str, chunks: int, takes_ms: int, opens: bool) -> None:  # noqa: FBT001
    clock = VirtualClock()
    engine = Scripted(clock, reason, chunks=chunks, takes_ms=takes_ms)
    guarded = EngineWithBreaker(engine, Breaker(2, 10_000), clock, patience_ms=1_000, probe_idle_ms=10_000, probe_timeout_ms=10_000)
    reasons = []
    for _ in range(3):
        try:
            _ = [chunk async for chunk in guarded.stream(request())]
        except EngineError as error:
            reasons.append(error.reason)
    assert engine.calls == (2 if opens else 3)
    assert reasons[2:] == (["engine_open"] if opens else [reason] if reason else [])
    assert guarded.available != opens
