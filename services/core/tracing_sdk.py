"""OpenTelemetry's SDK as `services.core.tracing` uses it: spans with given ids, in batches over OTLP. Needs the extra `traces`."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanContext, SpanKind
from opentelemetry.util.types import Attributes

from services.core.settings import Settings

_EXPORT_S: Final = 2.0
"""How long one batch may take, repeats included; a collector that is away loses spans and costs nothing else."""


class _GivenIds(RandomIdGenerator):
    """Gives the ids of the context that was set last: it went out in headers before its span was recorded."""

    given: SpanContext | None = None

    def generate_trace_id(self) -> int:
        return super().generate_trace_id() if self.given is None else self.given.trace_id

    def generate_span_id(self) -> int:
        return super().generate_span_id() if self.given is None else self.given.span_id

    def is_trace_id_random(self) -> bool:
        return False


class Spans:
    """One service's spans."""

    def __init__(self, settings: Settings, service: str) -> None:
        """Send to `traces.endpoint`; nothing is sent yet."""
        self._ids = _GivenIds()
        self._sampler = ParentBased(TraceIdRatioBased(settings.traces.sample_ratio))
        resource = Resource.create(
            {
                "service.namespace": "aquiline",
                "service.name": f"aquiline-{service}",
                "service.version": version("aquiline"),
                "service.instance.id": settings.bus.instance_id or f"{socket.gethostname()}-{os.getpid()}",
                "deployment.environment.name": settings.run_mode.value,
            }
        )
        self._provider = TracerProvider(self._sampler, resource, shutdown_on_exit=False, id_generator=self._ids)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(settings.traces.endpoint, timeout=_EXPORT_S)))
        self._tracer = self._provider.get_tracer("aquiline", version("aquiline"))

    def new_trace_id(self) -> int:
        """Return a random trace id."""
        return RandomIdGenerator.generate_trace_id(self._ids)

    def new_span_id(self) -> int:
        """Return a random span id."""
        return RandomIdGenerator.generate_span_id(self._ids)

    def samples(self, trace_id: int) -> bool:
        """Return whether a trace that starts here is recorded: the same answer for the same id, everywhere."""
        return self._sampler.should_sample(Context(), trace_id, "").decision is Decision.RECORD_AND_SAMPLE

    def start(
        self,
        name: str,
        own: SpanContext,
        parent: Context,
        *,
        kind: SpanKind,
        attributes: Attributes,
        links: Sequence[Link],
        start_ns: int,
    ) -> Span:
        """Start a span with the ids of `own`."""
        self._ids.given = own
        return self._tracer.start_span(name, parent, kind, attributes, links, start_ns)

    def close(self) -> None:
        """Send what is left; this may take as long as the collector does."""
        self._provider.shutdown()
