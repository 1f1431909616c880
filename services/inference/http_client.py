"""HTTP to one engine: a pool of kept-alive connections, the bearer key, and failures as EngineError.

Every client of an engine sends through it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import Any

import aiohttp
import orjson
from yarl import URL

from services.core.clock import Clock
from services.inference.engine import EngineError
from services.inference.sse import EventParser

# SGLang's server closes idle connections after 5 s (SGLANG_TIMEOUT_KEEP_ALIVE): give them up first, or a request is now and then
# written into a connection that is just being closed.
_KEEP_ALIVE_S = 4.0
_DETAIL_CHARS = 500
_CONTROL_S = 5.0
_OVERLOADED = frozenset({429, 503})


class Deadline:
    """The deadline of a call, converted from the caller's clock to the event loop's."""

    def __init__(self, deadline_ms: int, clock: Clock) -> None:
        """Hold `deadline_ms`, milliseconds on `clock`."""
        self.total_ms = deadline_ms - clock.now_ms()
        self.at = asyncio.get_running_loop().time() + self.total_ms / 1000
        """The same moment on the event loop's clock, in seconds."""

    def left_s(self) -> float:
        """Return the seconds left, negative once it has passed."""
        return self.at - asyncio.get_running_loop().time()


class HttpClient:
    """One engine's address. `where` is its host and port, for messages: no credentials."""

    def __init__(self, url: str, *, api_key: str | None, connect_timeout_ms: int, keep_alive: bool = True) -> None:
        """Prepare for `url`; nothing is opened before the first call. Raise ValueError when it is no http(s) address."""
        self._url = URL(url.rstrip("/"))
        if self._url.scheme not in {"http", "https"} or not self._url.host:
            shown = self._url.with_user(None) if self._url.host else url
            raise ValueError(f"engine.urls has {str(shown)!r}; expected an address such as http://127.0.0.1:30000")
        self._urls: dict[str, URL] = {}
        """By path and query, of which there are few."""
        self.where = f"{self._url.host}:{self._url.port}"
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        self._connect_s = connect_timeout_ms / 1000
        self._keep_alive = keep_alive
        self._session: aiohttp.ClientSession | None = None
        self._waits: set[asyncio.Timeout] = set()
        self.opened = 0
        """Connections opened so far."""
        self._closing = False

    @property
    def path(self) -> str:
        """Return the path of the address, without a slash at its end."""
        return self._url.path.rstrip("/")

    async def get(self, path: str) -> Any:
        """Return the JSON that `path` serves, within 5 s; raise EngineError."""
        with self._translated("answered"):
            async with self._waiting(_soon(_CONTROL_S)), self._open().get(self._at(path), headers=self._headers) as response:
                await self._raise_for(response)
                return _loads(await response.read(), self.where)

    async def post(self, path: str, body: bytes, timeout_s: float) -> bytes:
        """Send `body` and return the answer's bytes; raise EngineError."""
        with self._translated(f"answered {path} within {timeout_s:.1f} s"):
            async with (
                self._waiting(_soon(timeout_s)),
                self._open().post(self._at(path), data=body, headers=self._headers) as response,
            ):
                await self._raise_for(response)
                return await response.read()

    async def events(self, path: str, body: bytes, deadline: Deadline, headers: Mapping[str, str]) -> AsyncGenerator[list[bytes]]:
        """Send `body` and yield what comes as lists of event payloads, as many as came at once; raise EngineError.

        The first list is empty and comes with the answer's headers, before any token.
        Ends where the server ends the stream; closing it early closes the connection.
        """
        if self._closing:
            raise EngineError("engine_unreachable", f"the connection to {self.where} has been closed here")
        if deadline.left_s() <= 0:
            raise EngineError("engine_timeout", f"the deadline had passed {-deadline.left_s() * 1000:.0f} ms before {self.where} was asked")
        parser = EventParser()
        waited = f"given a whole answer by the deadline, {deadline.total_ms} ms after it was asked"
        response: aiohttp.ClientResponse | None = None
        try:
            with self._translated(waited):
                async with self._waiting(deadline.at):
                    response = await self._open().post(self._at(path), data=body, headers=self._headers | dict(headers))
                    await self._raise_for(response)
            yield []
            while True:
                with self._translated(waited):
                    async with self._waiting(deadline.at):
                        data = await response.content.readany()
                if not data:
                    return
                if payloads := parser.feed(data):
                    yield payloads
        except ValueError as error:
            raise EngineError("engine_broke", f"{self.where} sent {error}") from error
        finally:
            if response is not None:
                if response.content.at_eof():
                    response.release()
                else:
                    response.close()

    def end_waits(self) -> None:
        """End every wait with EngineError now; a post may still be sent until `close`."""
        self._closing = True
        for wait in tuple(self._waits):
            wait.reschedule(_soon(0))

    async def close(self) -> None:
        """Close every connection; calls in flight and later ones raise EngineError."""
        self.end_waits()
        if self._session is not None:
            await self._session.close()

    def _at(self, path: str) -> URL:
        found = self._urls.get(path)
        if found is None:
            bare, _, query = path.partition("?")
            found = self._urls[path] = self._url.with_path(f"{self._url.path.rstrip('/')}{bare}").with_query(query)
        return found

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            trace = aiohttp.TraceConfig()
            trace.on_connection_create_end.append(self._count)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S)
                if self._keep_alive
                else aiohttp.TCPConnector(limit=0, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_s),
                read_bufsize=1 << 20,
                trace_configs=[trace],
            )
        return self._session

    async def _count(self, *_: object) -> None:
        self.opened += 1

    @contextlib.asynccontextmanager
    async def _waiting(self, until: float) -> AsyncIterator[None]:
        # Around an await, never around a yield: it would cancel whatever the caller then does. aiohttp does not wake the readers of
        # connections that it closes, so that `end_waits` has to reach them here.
        async with asyncio.timeout_at(until) as wait:
            self._waits.add(wait)
            try:
                yield
            finally:
                self._waits.discard(wait)

    @contextlib.contextmanager
    def _translated(self, waited_for: str) -> Iterator[None]:
        try:
            yield
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise EngineError("engine_unreachable", f"cannot connect to {self.where}: {_words(error)}") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise EngineError("engine_broke", f"the connection to {self.where} broke: {_words(error)}") from error
        except TimeoutError as error:
            if self._closing:
                raise EngineError("engine_broke", f"the connection to {self.where} was closed here") from error
            raise EngineError("engine_timeout", f"{self.where} had not {waited_for}") from error

    async def _raise_for(self, response: aiohttp.ClientResponse) -> None:
        if response.status >= 400:  # noqa: PLR2004 - HTTP
            raise refusal(response.status, error_words(await response.read()), self.where)


def refusal(status: int, words: str, where: str) -> EngineError:
    """Return the error for an HTTP status (or the status that an engine put into its answer) and the engine's own words."""
    hint = "; check engine.api_key" if status in {401, 403} else ""
    detail = f"{where} answered {status}: {words[:_DETAIL_CHARS] or 'with an empty body'}{hint}"
    if status in _OVERLOADED:
        return EngineError("engine_overloaded", detail)
    return EngineError("engine_refused" if status < 500 else "engine_broke", detail)  # noqa: PLR2004 - HTTP


def error_words(body: bytes) -> str:
    """Return the message in an error's body: `error.message`, `error`, `message` or `detail` of its JSON, else the text."""
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode(errors="replace").strip()[:_DETAIL_CHARS]
    for key in ("error", "message", "detail"):
        if isinstance(reply, dict) and key in reply:
            reply = reply[key]
    return reply if isinstance(reply, str) else orjson.dumps(reply).decode()[:_DETAIL_CHARS]


def _loads(body: bytes, where: str) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise EngineError("engine_broke", f"{where} sent what is not JSON: {body[:80]!r}") from error


def _soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def _words(error: BaseException) -> str:
    return str(error)[:_DETAIL_CHARS] or type(error).__name__
