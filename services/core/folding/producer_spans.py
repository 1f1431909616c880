"""The producer span of a folding service for each record, and the headers that propagate its trace."""

from __future__ import annotations

from opentelemetry.trace import SpanKind

from services.core.bus import Headers, Record
from services.core.clock import Clock
from services.core.tracing import Tracer, extract, inject


class ProducerSpans:
    """Spans of one service, from a record's append to the moment at which what it made is handed to the producer."""

    def __init__(self, tracer: Tracer | None, clock: Clock, name: str, *, first: bool) -> None:
        """Call spans `name`. The one service that is `first` makes the first span of a record that comes without a trace."""
        self._tracer = tracer
        self._clock = clock
        self._name = name
        self._first = first

    def made(self, record: Record, target: str) -> Headers:
        """Record the span of what `record` made, and return the headers for it; without a tracer, those that came with it."""
        if self._tracer is None:
            return inject(extract(record.headers)) if record.headers else ()
        parent = extract(record.headers)
        if parent is None:
            # Named after the record, so that all services that read it meet in one trace, sampled alike.
            context = self._tracer.root(f"{record.topic}/{record.partition}/{record.offset}/{record.timestamp_ms}")
            if not self._first:
                parent, context = context, self._tracer.child(context)
        else:
            context = self._tracer.child(parent)
        if not context.trace_flags.sampled:
            return inject(context)
        self._tracer.record(
            self._name,
            context,
            parent,
            record.timestamp_ms,
            self._clock.now_ms(),
            kind=SpanKind.PRODUCER,
            attributes={
                "messaging.system": "kafka",
                "messaging.destination.name": target,
                "aquiline.symbol": (record.key or b"").decode(errors="replace"),
                "aquiline.source": f"{record.topic}/{record.partition}/{record.offset}",
            },
        )
        return inject(context)
