"""A stand-in for a schema registry: the part of Confluent's API that is asked, over HTTP on loopback, and producers' bytes to match."""

from __future__ import annotations

import asyncio
import io
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import fastavro
import orjson
from aiohttp import web

from schemas import Message

BARS: dict[str, Any] = {
    "type": "record",
    "name": "MarketFeatures",
    "fields": [
        {"name": "schema_version", "type": "int"},
        {"name": "run_mode", "type": {"type": "enum", "name": "RunMode", "symbols": ["live", "shadow", "replay", "demo"]}},
        {"name": "symbol", "type": "string"},
        {"name": "interval", "type": "string"},
        {"name": "ts_open_ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "ts_close_ms", "type": "long"},
        *({"name": name, "type": "double"} for name in ("open", "high", "low", "close", "volume")),
        {"name": "closed", "type": "boolean"},
        {"name": "revision", "type": ["null", "int"], "default": None},
        {"name": "features", "type": {"type": "map", "values": "double"}},
    ],
}
NOTES: dict[str, Any] = {
    "type": "record",
    "name": "Note",
    "fields": [
        {"name": "schema_version", "type": "int"},
        *({"name": name, "type": "string"} for name in ("run_mode", "symbol", "source", "text")),
        {"name": "ts_ms", "type": "long"},
        {"name": "importance", "type": ["null", "int"], "default": None},
        {"name": "note_id", "type": ["null", "string"], "default": None},
    ],
}


@dataclass
class Registry:
    """Schemas by id. While `down`, it answers 503."""

    answers: dict[int, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    down: bool = False
    authorization: str | None = None
    """What clients must send; anything when None."""
    url: str = ""
    held: asyncio.Event = field(default_factory=asyncio.Event)
    """While it is clear, answers wait."""

    def __post_init__(self) -> None:
        self.held.set()

    def add(self, schema_id: int, schema: dict[str, Any], **more: Any) -> None:
        self.answers[schema_id] = {"schema": orjson.dumps(schema).decode(), **more}

    async def _schema(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        await self.held.wait()
        if self.down:
            return web.Response(status=503)
        if self.authorization is not None and request.headers.get("Authorization") != self.authorization:
            return web.json_response({"error_code": 40101, "message": "Unauthorized"}, status=401)
        found = self.answers.get(int(request.match_info["id"]))
        if found is None:
            return web.json_response({"error_code": 40403, "message": "Schema not found"}, status=404)
        return web.Response(body=orjson.dumps(found), content_type="application/vnd.schemaregistry.v1+json")

    async def _subjects(self, request: web.Request) -> web.Response:
        del request
        return web.json_response([], status=503 if self.down else 200)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Registry]:
        app = web.Application()
        app.add_routes([web.get("/schemas/ids/{id}", self._schema), web.get("/subjects", self._subjects)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert runner.addresses
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


def header(schema_id: int) -> bytes:
    """Return the header of Confluent's wire format: a zero byte, and the id in four bytes, the highest first."""
    return b"\0" + struct.pack(">I", schema_id)


def avro(schema: dict[str, Any], schema_id: int, message: Message | dict[str, Any]) -> bytes:
    """Return what a producer with an Avro serializer writes."""
    out = io.BytesIO()
    fields = message.model_dump(mode="json") if isinstance(message, Message) else message
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), fields)
    return header(schema_id) + out.getvalue()


def json_schema(schema_id: int, message: Message) -> bytes:
    """Return what a producer with a JSON Schema serializer writes."""
    return header(schema_id) + message.encode()
