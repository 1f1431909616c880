"""An OTLP collector on loopback: takes what is sent to `/v1/traces` as OpenTelemetry's protocol has it, and keeps the spans."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}


@dataclass(frozen=True)
class Seen:
    """One span, with the name of the service that sent it. Ids are hexadecimal, times in ms."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ms: float
    end_ms: float
    attributes: dict[str, Any]
    events: list[str]
    links: list[tuple[str, str]]
    error: str | None


@dataclass
class Collector:
    """What has been received."""

    url: str = ""
    spans: list[Seen] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)

    def of(self, service: str, name: str) -> list[Seen]:
        """Return the spans of a service that have this name."""
        return [span for span in self.spans if (span.service, span.name) == (service, name)]

    def only(self, service: str, name: str) -> Seen:
        """Return the one that there is."""
        (span,) = self.of(service, name)
        return span

    def children(self, span: Seen) -> dict[str, Seen]:
        """Return the spans right under `span`, by name."""
        return {one.name: one for one in self.spans if one.parent_id == span.span_id and one.trace_id == span.trace_id}

    async def take(self, request: web.Request) -> web.Response:
        """Answer an export."""
        message = ExportTraceServiceRequest.FromString(await request.read())
        for batch in message.resource_spans:
            resource = {one.key: one.value.string_value for one in batch.resource.attributes}
            self.resources.append(resource)
            self.spans += [_seen(resource["service.name"], span) for scope in batch.scope_spans for span in scope.spans]
        return web.Response(body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf")


def _seen(service: str, span: Any) -> Seen:
    return Seen(
        service,
        span.name,
        KINDS[span.kind],
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano / 1e6,
        span.end_time_unix_nano / 1e6,
        {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes},
        [event.name for event in span.events],
        [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        span.status.message if span.status.code == 2 else None,
    )


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Run a collector."""
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    collector.url = f"http://127.0.0.1:{port}/v1/traces"
    try:
        yield collector
    finally:
        await runner.cleanup()
