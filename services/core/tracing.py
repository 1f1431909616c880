"""Traces: W3C trace context in record headers, and spans made afterwards from times that were measured anyway.

A record's headers are data: what is no trace context is ignored. Without a tracer nothing is recorded, and what came is handed on.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.core.bus import Headers
from services.core.settings import Settings, SettingsError

if TYPE_CHECKING:
    from services.core.tracing_sdk import Spans

Attributes = Mapping[str, str | int | float | bool]

_W3C: Final = TraceContextTextMapPropagator()
_NAMES: Final = frozenset({"traceparent", "tracestate"})
_MAX_BYTES: Final = 512
_CLOSE_S: Final = 3.0
"""How long ending a service waits for a collector that does not answer."""

# It would write a line for each record whose tracestate is malformed: a sender could flood the log.
logging.getLogger("opentelemetry.trace.span").setLevel(logging.ERROR)


def extract(headers: Headers) -> SpanContext | None:
    """Return the trace context in a record's headers, None when there is none or it is malformed."""
    carrier: dict[str, str] = {}
    for name, value in headers:
        if name in _NAMES and name not in carrier and value and len(value) <= _MAX_BYTES:
            # Bytes that are not ASCII become characters that no field of trace context holds.
            carrier[name] = value.decode("ascii", "replace")
    if "traceparent" not in carrier:
        return None
    context = get_current_span(_W3C.extract(carrier, Context())).get_span_context()
    return context if context.is_valid else None


def inject(context: SpanContext | None) -> Headers:
    """Return the headers that hand `context` on, none when there is none."""
    return tuple([(name, value.encode()) for name, value in inject_text(context).items()])


def inject_text(context: SpanContext | None) -> dict[str, str]:
    """Return the same for HTTP."""
    if context is None:
        return {}
    carrier = {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"}
    if context.trace_state:
        carrier["tracestate"] = context.trace_state.to_header()
    return carrier


def trace_id(context: SpanContext | None) -> str | None:
    """Return a trace's id as logs and tracing backends show it."""
    return None if context is None else f"{context.trace_id:032x}"


class Tracer:
    """Records one service's spans and sends them to the collector, in the background."""

    def __init__(self, spans: Spans) -> None:
        """Record through `spans`."""
        self._spans = spans

    @classmethod
    def of(cls, settings: Settings, service: str) -> Tracer | None:
        """Return a tracer, None while `traces.enabled` is false; raise SettingsError when the SDK is not installed."""
        if not settings.traces.enabled:
            return None
        try:
            from services.core.tracing_sdk import Spans  # noqa: PLC0415 - what is an extra must not be needed without it
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"traces.enabled is true, and {error.name} is not installed: install `aquiline[traces]`, or set traces.enabled = false"
            ) from error
        return cls(Spans(settings, service))

    def child(self, parent: SpanContext) -> SpanContext:
        """Return a new span's context under `parent`, sampled as that is."""
        return SpanContext(parent.trace_id, self._spans.new_span_id(), False, parent.trace_flags, parent.trace_state)

    def root(self, seed: str | None = None) -> SpanContext:
        """Return a first span's context, sampled by `traces.sample_ratio`.

        The same `seed` gives the same one, in every process: services that read one record can so meet in one trace.
        """
        if seed is None:
            found, span = self._spans.new_trace_id(), self._spans.new_span_id()
        else:
            digest = hashlib.blake2b(seed.encode(), digest_size=24).digest()
            found, span = int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:]) or 1
        flags = TraceFlags(TraceFlags.SAMPLED if self._spans.samples(found) else TraceFlags.DEFAULT)
        return SpanContext(found, span, False, flags)

    def record(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        start_ms: float,
        end_ms: float,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes | None = None,
        events: Sequence[tuple[str, float]] = (),
        links: Sequence[SpanContext] = (),
        error: str | None = None,
    ) -> None:
        """Record a span that is over, unless its trace is not sampled. Times are Unix milliseconds; `error` says what failed."""
        if not context.trace_flags.sampled:
            return
        span = self._spans.start(
            name,
            context,
            Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context()),
            kind=kind,
            attributes=attributes,
            links=[Link(link) for link in links],
            start_ns=_ns(start_ms),
        )
        for what, at_ms in events:
            span.add_event(what, timestamp=_ns(at_ms))
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, error))
        # Both ends may be of different clocks, the broker's and ours.
        span.end(_ns(max(start_ms, end_ms)))

    async def close(self) -> None:
        """Send what is left, for at most three seconds."""
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def close() -> None:
            self._spans.close()
            with suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(closed.set)

        threading.Thread(target=close, name="traces-close", daemon=True).start()
        with suppress(TimeoutError):
            await asyncio.wait_for(closed.wait(), _CLOSE_S)


def _ns(at_ms: float) -> int:
    return int(at_ms * 1000) * 1000
