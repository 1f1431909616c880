"""Trace context in headers, and the tracer that is not there."""

from __future__ import annotations

import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.core.settings import Settings, SettingsError, TracesSettings
from services.core.tracing import Tracer, extract, inject, inject_text, trace_id

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01".encode()


def test_what_is_extracted_is_injected_as_it_was() -> None:
    headers = [("traceparent", PARENT), ("tracestate", b"a=1,b=2"), ("other", b"x")]
    context = extract(headers)
    assert list(inject(context)) == headers[:2]
    assert inject_text(context) == {"traceparent": PARENT.decode(), "tracestate": "a=1,b=2"}
    assert trace_id(context) == TRACE


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"00",
        PARENT.upper(),
        PARENT.replace(b"00-", b"ff-", 1),
        PARENT + b"-more",
        f"00-{'0' * 32}-{SPAN}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        PARENT + b" " * 600,
        b"\xff" * 55,
        b"00-\n" + PARENT[4:],
    ],
)
def test_what_is_no_trace_context_is_ignored(bad: bytes) -> None:
    assert extract([("traceparent", bad)]) is None
    assert inject(None) == ()
    assert trace_id(None) is None


@given(st.lists(st.tuples(st.sampled_from(["traceparent", "tracestate", "x"]), st.binary(max_size=80) | st.just(PARENT)), max_size=5))
@example([("traceparent", PARENT), ("tracestate", b"=,=\xff")])
def test_no_headers_at_all_break_it_and_what_is_handed_on_is_plain(headers: list[tuple[str, bytes]]) -> None:
    handed_on = inject(extract(headers))
    assert all(value.isascii() and b"\n" not in value and b"\r" not in value for _, value in handed_on)
    assert extract(handed_on) == extract(headers)


def test_without_traces_there_is_no_tracer() -> None:
    assert Tracer.of(Settings(), "fusion") is None


def test_traces_without_their_packages_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "services.core.tracing_sdk", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match=r"traces.enabled is true.*aquiline\[traces\]"):
        Tracer.of(Settings(traces=TracesSettings(enabled=True)), "fusion")


def test_the_same_record_starts_the_same_trace_in_every_process_and_is_sampled_alike() -> None:
    half = Settings(traces=TracesSettings(enabled=True, endpoint="http://127.0.0.1:9/v1/traces", sample_ratio=0.5))
    one, two = Tracer.of(half, "market"), Tracer.of(half, "vision")
    assert one is not None
    assert two is not None
    seeds = [f"demo.candles/0/{offset}/1" for offset in range(200)]
    roots = [one.root(seed) for seed in seeds]
    assert roots == [two.root(seed) for seed in seeds]
    assert len({root.trace_id for root in roots}) == len(seeds)
    assert 50 < sum(root.trace_flags.sampled for root in roots) < 150
    assert one.child(roots[0]).trace_flags == roots[0].trace_flags
