"""A client of a schema registry that speaks Confluent's API: it fetches schemas by id, once each."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from http import HTTPStatus
from typing import Final

import aiohttp
import orjson
import structlog

from services.core.bus.port import BusError
from services.core.bus.wire_format import WireFormatError, WriterSchema
from services.core.topic_settings import TopicSettings

_TIMEOUT_S: Final = 5.0
_GIVE_UP_S: Final = 30.0
_RETRY_S: Final = 0.5
_UNKNOWN_FOR_S: Final = 60.0
"""A schema that the registry does not have is not asked for again for so long, however many records name it."""
_MOST_UNKNOWN: Final = 1_000

_log = structlog.get_logger()


class SchemaRegistry:
    """Fetches writer schemas. Ids are never given anew, so a schema is kept for ever."""

    def __init__(self, settings: TopicSettings) -> None:
        """Ask the registry that `settings` name; raise BusError when its certificate authority cannot be read."""
        self._url = (settings.registry_url or "").rstrip("/")
        password = settings.registry_password
        self._headers = {"Accept": "application/vnd.schemaregistry.v1+json"}
        if settings.registry_username is not None:
            login = f"{settings.registry_username}:{'' if password is None else password.get_secret_value()}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        try:
            self._tls = ssl.create_default_context(cafile=settings.registry_ca_file) if self._url.startswith("https:") else True
        except OSError as error:
            raise BusError(f"topics.registry_ca_file {str(settings.registry_ca_file)!r} cannot be used: {error}") from error
        self._known: dict[int, WriterSchema] = {}
        self._unusable: dict[int, tuple[float, str]] = {}

    async def schema(self, schema_id: int) -> WriterSchema:
        """Return a schema; raise WireFormatError when the registry has none that can be used, and BusError when it does not answer.

        It is asked again for up to 30 s.
        """
        if (known := self._known.get(schema_id)) is not None:
            return known
        since_s, why = self._unusable.get(schema_id, (float("-inf"), ""))
        if time.monotonic() - since_s < _UNKNOWN_FOR_S:
            raise WireFormatError(why)
        try:
            found = self._known[schema_id] = await self._fetch(schema_id)
        except WireFormatError as error:
            if len(self._unusable) >= _MOST_UNKNOWN:
                self._unusable.clear()
            self._unusable[schema_id] = time.monotonic(), str(error)
            raise
        return found

    async def check(self) -> None:
        """Raise BusError unless the registry answers."""
        await self._get("/subjects")

    async def _fetch(self, schema_id: int) -> WriterSchema:
        until_s = time.monotonic() + _GIVE_UP_S
        while True:
            try:
                status, body = await self._get(f"/schemas/ids/{schema_id}")
                break
            except BusError as error:
                if time.monotonic() > until_s:
                    raise
                _log.warning("schema_registry_unreachable", schema_id=schema_id, error=str(error))
                await asyncio.sleep(_RETRY_S)
        if status == HTTPStatus.NOT_FOUND:
            raise WireFormatError(f"the schema registry at {self._url} has no schema {schema_id}")
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise WireFormatError(f"the schema registry at {self._url} answered about schema {schema_id} with no JSON") from error
        if not isinstance(answer, dict):
            raise WireFormatError(f"the schema registry at {self._url} answered about schema {schema_id} with no JSON object")
        return WriterSchema.of(schema_id, answer)

    async def _get(self, path: str) -> tuple[int, bytes]:
        try:
            async with (
                aiohttp.ClientSession(headers=self._headers, timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session,
                session.get(f"{self._url}{path}", ssl=self._tls) as response,
            ):
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise BusError(f"the schema registry at {self._url} does not answer ({error or type(error).__name__})") from error
        if response.status not in {HTTPStatus.OK, HTTPStatus.NOT_FOUND}:
            raise BusError(f"the schema registry at {self._url} answered {response.status} to {path}; check topics.registry_*")
        return response.status, body
